// The Go templates of Registrator's -tags: parsed once, run on a container's inspect object.
import { InputError, messageOf } from "../../base/error.ts";

/** A parsed template. @throws Error with Go's "template: tags:…" text where it does not fit the data */
export type Template = (data: unknown) => string;

type Value = unknown;
type Variables = ReadonlyMap<string, { value: Value }>;
interface Scope {
  readonly dot: Value;
  readonly root: Value;
  readonly variables: Variables;
}
type Expression = (scope: Scope) => Value;
type Call = (args: readonly Value[]) => Value;
type Node =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "print"; readonly pipe: Pipe }
  | { readonly kind: "if" | "with" | "range"; readonly pipe: Pipe; readonly body: Node[]; readonly otherwise: Node[] };
interface Pipe {
  readonly names: readonly string[];
  /** True for `=`, which changes a variable that exists. */
  readonly assigns: boolean;
  readonly value: Expression;
}

const TOKEN =
  /\s+|"(?:[^"\\\n]|\\.)*"|`[^`]*`|[+-]?(?:0[xX][0-9a-fA-F]+|\d+(?:\.\d+)?)|\$?[A-Za-z_][A-Za-z0-9_]*|\$|\.[A-Za-z_][A-Za-z0-9_]*|\.|:=|[=|(),]/y;

/** Objects of the inspect answer that are maps in Go: a key that is not there gives the empty value instead of an error. */
const MAPS: ReadonlySet<string> = new Set([
  "Labels",
  "Ports",
  "Networks",
  "PortBindings",
  "ExposedPorts",
  "Volumes",
  "Options",
  "Sysctls",
]);
/** Fields that Docker leaves out of its answer while they are empty. */
const OPTIONAL: ReadonlySet<string> = new Set([
  "StopSignal",
  "StopTimeout",
  "Healthcheck",
  "Health",
  "Shell",
  "MacAddress",
  "Node",
  "Domainname",
  "OnBuild",
]);
const isMap = new WeakSet<object>();

function fail(text: string): never {
  throw new InputError("", `template: tags: ${text}`);
}

function kindOf(value: Value): string {
  if (value === null || value === undefined) return "nil";
  return Array.isArray(value) ? "list" : typeof value === "object" ? "map" : typeof value;
}

function field(value: Value, name: string): Value {
  if (value === null || value === undefined) return undefined;
  if (typeof value !== "object" || Array.isArray(value))
    return fail(`can't evaluate field ${name} in type ${kindOf(value)}`);
  const from = value as Record<string, unknown>;
  // The Go client spells Id as ID and the like.
  const key = Object.hasOwn(from, name)
    ? name
    : isMap.has(from)
      ? undefined
      : Object.keys(from).find((candidate) => candidate.toLowerCase() === name.toLowerCase());
  if (key === undefined) {
    if (isMap.has(from) || OPTIONAL.has(name)) return "";
    return fail(`can't evaluate field ${name}: the container has none`);
  }
  const found = from[key];
  if (MAPS.has(key) && typeof found === "object" && found !== null) isMap.add(found);
  return found;
}

/** What comes out of JSON are maps throughout: a key that is not there is no mistake. */
function everyKeyOptional(value: Value): Value {
  if (typeof value !== "object" || value === null) return value;
  if (!Array.isArray(value)) isMap.add(value);
  for (const item of Object.values(value)) everyKeyOptional(item);
  return value;
}

function asText(value: Value, what: string): string {
  return typeof value === "string" ? value : fail(`${what}: expected a string, found ${kindOf(value)}`);
}

function asInteger(value: Value, what: string): number {
  return typeof value === "number" && Number.isInteger(value)
    ? value
    : fail(`${what}: expected an integer, found ${kindOf(value)}`);
}

function asList(value: Value, what: string): readonly Value[] {
  if (value === null || value === undefined) return [];
  return Array.isArray(value) ? value : fail(`${what}: expected a list, found ${kindOf(value)}`);
}

/** An element counted from the start, or from the end for negative numbers, held within the list. */
function element(list: readonly Value[], index: number, what: string): string {
  if (list.length === 0) return fail(`${what}: the list is empty`);
  const at = index < 0 ? Math.max(0, list.length + index) : Math.min(index, list.length - 1);
  return asText(list[at], what);
}

function pattern(text: string): RegExp {
  try {
    return new RegExp(text);
  } catch (error) {
    return fail(`"${text}" is no regular expression: ${error instanceof Error ? error.message : error}`);
  }
}

function print(value: Value): string {
  if (value === null || value === undefined) return "<no value>";
  if (Array.isArray(value)) return `[${value.map(print).join(" ")}]`;
  if (typeof value !== "object") return String(value);
  return `map[${Object.entries(value)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, item]) => `${key}:${print(item)}`)
    .join(" ")}]`;
}

function truthy(value: Value): boolean {
  if (Array.isArray(value)) return value.length > 0;
  return typeof value === "object" && value !== null ? Object.keys(value).length > 0 : Boolean(value);
}

function compare(args: readonly Value[], what: string): number {
  const [a, b] = args;
  if (typeof a === "number" && typeof b === "number") return a - b;
  return typeof a === "string" && typeof b === "string"
    ? a < b
      ? -1
      : a > b
        ? 1
        : 0
    : fail(`${what}: incompatible types for comparison`);
}

function printf(args: readonly Value[]): string {
  let next = 1;
  return asText(args[0], "printf").replace(/%(%|[-+# 0]*\d*(?:\.\d+)?[vsdqtT])/g, (all, verb: string) => {
    if (verb === "%") return "%";
    const value = args[next++];
    const text = verb.endsWith("q") ? JSON.stringify(print(value)) : print(value);
    const width = Number(/\d+/.exec(all)?.[0] ?? 0);
    return all.includes("-") ? text.padEnd(width) : text.padStart(width, /%0/.test(all) ? "0" : " ");
  });
}

/** Arguments each function takes: at least, at most. */
const FUNCTIONS: Readonly<Record<string, { readonly least: number; readonly most: number; readonly call: Call }>> =
  Object.assign(Object.create(null), {
    // Registrator's own.
    strSlice: {
      least: 1,
      most: 3,
      call: ([text, from, to]) => {
        const whole = asText(text, "strSlice");
        if (from === undefined) return whole;
        const start = asInteger(from, "strSlice");
        const end = to === undefined ? whole.length : asInteger(to, "strSlice");
        if (start < 0 || end < 0 || start > whole.length || end > whole.length) return whole;
        return end < start ? whole.slice(start) : whole.slice(start, end);
      },
    },
    sIndex: {
      least: 2,
      most: 2,
      call: ([i, list]) => element(asList(list, "sIndex"), asInteger(i, "sIndex"), "sIndex"),
    },
    mIndex: {
      least: 2,
      most: 2,
      call: ([key, map]) => {
        const from = (map ?? {}) as Record<string, unknown>;
        if (kindOf(from) !== "map") return fail(`mIndex: expected a map, found ${kindOf(map)}`);
        const name = asText(key, "mIndex");
        return Object.hasOwn(from, name) ? from[name] : "";
      },
    },
    toUpper: { least: 1, most: 1, call: ([text]) => asText(text, "toUpper").toUpperCase() },
    toLower: { least: 1, most: 1, call: ([text]) => asText(text, "toLower").toLowerCase() },
    replace: {
      least: 4,
      most: 4,
      call: ([times, old, by, text]) => {
        let left = asInteger(times, "replace");
        const [find, put, whole] = [asText(old, "replace"), asText(by, "replace"), asText(text, "replace")];
        if (left < 0) return whole.replaceAll(find, () => put);
        let done = "";
        let rest = whole;
        for (let at = rest.indexOf(find); left > 0 && at >= 0 && find !== ""; left--, at = rest.indexOf(find)) {
          done += rest.slice(0, at) + put;
          rest = rest.slice(at + find.length);
        }
        return done + rest;
      },
    },
    join: { least: 2, most: 2, call: ([by, list]) => asList(list, "join").map(print).join(asText(by, "join")) },
    split: { least: 2, most: 2, call: ([by, text]) => asText(text, "split").split(asText(by, "split")) },
    splitIndex: {
      least: 3,
      most: 3,
      call: ([i, by, text]) =>
        element(asText(text, "splitIndex").split(asText(by, "splitIndex")), asInteger(i, "splitIndex"), "splitIndex"),
    },
    matchFirstElement: {
      least: 2,
      most: 2,
      call: ([text, list]) => {
        const matches = pattern(asText(text, "matchFirstElement"));
        return asList(list, "matchFirstElement").find((item) => matches.test(print(item))) ?? "";
      },
    },
    matchAllElements: {
      least: 2,
      most: 2,
      call: ([text, list]) => {
        const matches = pattern(asText(text, "matchAllElements"));
        return asList(list, "matchAllElements").filter((item) => matches.test(print(item)));
      },
    },
    jsonParse: {
      least: 1,
      most: 1,
      call: ([text]) => {
        try {
          return everyKeyOptional(JSON.parse(asText(text, "jsonParse")));
        } catch (error) {
          return fail(`jsonParse: ${messageOf(error)}`);
        }
      },
    },
    // Go's.
    and: { least: 1, most: 99, call: (args) => args.find((value) => !truthy(value)) ?? args.at(-1) },
    or: { least: 1, most: 99, call: (args) => args.find(truthy) ?? args.at(-1) },
    not: { least: 1, most: 1, call: ([value]) => !truthy(value) },
    eq: { least: 2, most: 99, call: ([first, ...rest]) => rest.some((value) => value === first) },
    ne: { least: 2, most: 2, call: ([a, b]) => a !== b },
    lt: { least: 2, most: 2, call: (args) => compare(args, "lt") < 0 },
    le: { least: 2, most: 2, call: (args) => compare(args, "le") <= 0 },
    gt: { least: 2, most: 2, call: (args) => compare(args, "gt") > 0 },
    ge: { least: 2, most: 2, call: (args) => compare(args, "ge") >= 0 },
    len: {
      least: 1,
      most: 1,
      call: ([value]) =>
        typeof value === "string"
          ? Buffer.byteLength(value)
          : Array.isArray(value)
            ? value.length
            : Object.keys(value ?? {}).length,
    },
    index: {
      least: 1,
      most: 99,
      call: ([value, ...keys]) =>
        keys.reduce((from: Value, key) => {
          if (typeof key === "number") {
            const list = asList(from, "index");
            return key >= 0 && key < list.length ? list[key] : fail(`index: ${key} is out of range`);
          }
          const name = asText(key, "index");
          return kindOf(from) === "map" && Object.hasOwn(from as object, name)
            ? (from as Record<string, unknown>)[name]
            : "";
        }, value),
    },
    print: { least: 0, most: 99, call: (args) => args.map(print).join("") },
    println: { least: 0, most: 99, call: (args) => `${args.map(print).join(" ")}\n` },
    printf: { least: 1, most: 99, call: printf },
  } satisfies Record<string, { least: number; most: number; call: Call }>);
/** Registrator has it; here a template may not reach the network. */
const NOT_OFFERED = "httpGet";

/** One action's tokens, read from left to right. */
class Reader {
  readonly #tokens: readonly string[];
  #at = 0;
  constructor(source: string) {
    const tokens: string[] = [];
    TOKEN.lastIndex = 0;
    for (let at = 0; at < source.length; at = TOKEN.lastIndex) {
      const token = TOKEN.exec(source)?.[0];
      if (token === undefined) fail(`unexpected ${JSON.stringify(source.slice(at, at + 12))} in {{${source}}}`);
      tokens.push(/^\s/.test(token) ? " " : token);
    }
    this.#tokens = tokens;
  }
  peek(): string | undefined {
    return this.#tokens[this.#at];
  }
  next(): string | undefined {
    return this.#tokens[this.#at++];
  }
  /** Passes blanks; true if there were any. */
  blanks(): boolean {
    const from = this.#at;
    while (this.peek() === " ") this.#at++;
    return this.#at > from;
  }
  /** Takes a token, after blanks, if it is this one. */
  take(token: string): boolean {
    const from = this.#at;
    this.blanks();
    if (this.peek() === token) return this.#at++ >= 0;
    this.#at = from;
    return false;
  }
  mark(): number {
    return this.#at;
  }
  reset(mark: number): void {
    this.#at = mark;
  }
}

function literal(token: string): { readonly value: Value } | undefined {
  if (token.startsWith("`")) return { value: token.slice(1, -1) };
  if (token.startsWith('"')) {
    try {
      return {
        value: JSON.parse(
          token
            .replace(/\\x([0-9a-fA-F]{2})/g, "\\u00$1")
            .replace(/\\a/g, "\\u0007")
            .replace(/\\v/g, "\\u000b"),
        ),
      };
    } catch {
      fail(`${token} is no string`);
    }
  }
  if (/^[+-]?\d/.test(token)) return { value: Number(token) };
  return token === "true"
    ? { value: true }
    : token === "false"
      ? { value: false }
      : token === "nil"
        ? { value: null }
        : undefined;
}

/** One operand with the fields behind it; undefined where none stands here. */
function readOperand(
  reader: Reader,
  declared: ReadonlySet<string>,
): { readonly value?: Expression; readonly name?: string } | undefined {
  const token = reader.peek();
  if (token === undefined || token === "|" || token === ")") return undefined;
  reader.next();
  let value: Expression;
  if (token === "(") {
    const pipe = readPipe(reader, declared);
    if (!reader.take(")")) fail("unclosed left paren");
    value = pipe.value;
  } else if (token === ".") value = ({ dot }) => dot;
  else if (token.startsWith(".")) value = ({ dot }) => field(dot, token.slice(1));
  else if (token === "$") value = ({ root }) => root;
  else if (token.startsWith("$")) {
    if (!declared.has(token)) fail(`undefined variable "${token}"`);
    value = ({ variables }) => variables.get(token)?.value;
  } else {
    const constant = literal(token);
    if (constant === undefined) return { name: token };
    value = () => constant.value;
  }
  while (reader.peek()?.startsWith(".") && reader.peek() !== ".") {
    const name = (reader.next() ?? "").slice(1);
    const from = value;
    value = (scope) => field(from(scope), name);
  }
  return { value };
}

/** One command: an operand alone, or a function with its operands; `piped` is its last argument where it stands behind a `|`. */
function readCommand(reader: Reader, declared: ReadonlySet<string>, piped: Expression | undefined): Expression {
  reader.blanks();
  const first = readOperand(reader, declared) ?? fail("missing value for command");
  const args: Expression[] = [];
  while (reader.blanks() || reader.peek() === "(") {
    const operand = readOperand(reader, declared);
    if (operand === undefined) break;
    args.push(operand.value ?? callOf(operand.name ?? "", []));
  }
  if (piped !== undefined) args.push(piped);
  if (first.name !== undefined) return callOf(first.name, args);
  if (args.length > 0) fail("can't give arguments to something that is no function");
  return first.value ?? fail("missing value for command");
}

function callOf(name: string, args: readonly Expression[]): Expression {
  if (name === NOT_OFFERED)
    fail(
      `function "${name}" is not offered: a template may not reach the network; put what it would fetch into a label`,
    );
  const called = FUNCTIONS[name] ?? fail(`function "${name}" not defined`);
  if (args.length < called.least || args.length > called.most)
    fail(
      `wrong number of args for ${name}: want ${called.least === called.most ? called.least : `at least ${called.least}`} got ${args.length}`,
    );
  return (scope) => called.call(args.map((arg) => arg(scope)));
}

function readPipe(reader: Reader, declared: ReadonlySet<string>): Pipe {
  const start = reader.mark();
  const names: string[] = [];
  let assigns = false;
  for (;;) {
    reader.blanks();
    const name = reader.peek();
    if (!name?.startsWith("$") || name === "$") break;
    reader.next();
    names.push(name);
    if (reader.take(",")) continue;
    assigns = reader.take("=");
    if (assigns || reader.take(":=")) break;
    names.length = 0;
    break;
  }
  if (names.length === 0) reader.reset(start);
  if (assigns && names.some((name) => !declared.has(name))) fail(`undefined variable "${names[0]}"`);
  let value = readCommand(reader, declared, undefined);
  while (reader.take("|")) value = readCommand(reader, declared, value);
  return { names, assigns, value };
}

/** Cuts `text {{action}} text …` into pieces; `{{-` and `-}}` take the blanks beside them away. */
function cut(source: string): { readonly text: string; readonly action?: string }[] {
  const pieces: { text: string; action?: string }[] = [];
  let rest = source;
  let trim = false;
  for (;;) {
    const open = rest.indexOf("{{");
    let text = open < 0 ? rest : rest.slice(0, open);
    if (trim) text = text.trimStart();
    if (open < 0) {
      pieces.push({ text });
      return pieces;
    }
    const action = /^\{\{(- )?((?:"(?:[^"\\\n]|\\.)*"|`[^`]*`|\/\*[\s\S]*?\*\/|(?!\}\})[^"`])*?)( -)?\}\}/.exec(
      rest.slice(open),
    );
    if (action === null) fail("unclosed action");
    if (action[1] !== undefined) text = text.trimEnd();
    trim = action[3] !== undefined;
    const inside = (action[2] ?? "").trim();
    pieces.push(/^\/\*[\s\S]*\*\/$/.test(inside) ? { text } : { text, action: inside });
    rest = rest.slice(open + action[0].length);
  }
}

/**
 * Parses a template: fields, pipes, variables, if, with, range and Registrator's functions.
 * @throws InputError in the words of Go's text/template
 */
export function parseTemplate(source: string): Template {
  const top: Node[] = [];
  const open: { node: Extract<Node, { body: Node[] }>; into: Node[]; outer: ReadonlySet<string>; chained: boolean }[] =
    [];
  let into = top;
  let declared: ReadonlySet<string> = new Set();
  const close = (): void => {
    const block = open.pop() ?? fail("unexpected {{end}}");
    into = block.into;
    declared = block.outer;
    if (block.chained) close();
  };
  const begin = (kind: "if" | "with" | "range", reader: Reader, chained: boolean): void => {
    const outer = declared;
    const pipe = readPipe(reader, declared);
    const node = { kind, pipe, body: [], otherwise: [] };
    into.push(node);
    open.push({ node, into, outer, chained });
    into = node.body;
    declared = new Set([...declared, ...pipe.names]);
    finish(reader);
  };
  for (const { text, action } of cut(source)) {
    if (text !== "") into.push({ kind: "text", text });
    if (action === undefined) continue;
    const reader = new Reader(action);
    const word = reader.peek();
    if (word === "if" || word === "with" || word === "range") {
      reader.next();
      begin(word, reader, false);
    } else if (word === "else") {
      const block = open.at(-1) ?? fail("unexpected {{else}}");
      if (into === block.node.otherwise) fail("unexpected {{else}}");
      into = block.node.otherwise;
      reader.next();
      if (reader.take("if")) begin("if", reader, true);
      else finish(reader);
    } else if (word === "end") {
      reader.next();
      finish(reader);
      close();
    } else {
      const pipe = readPipe(reader, declared);
      finish(reader);
      into.push({ kind: "print", pipe });
      declared = new Set([...declared, ...pipe.names]);
    }
  }
  if (open.length > 0) fail("unexpected EOF: an {{end}} is missing");
  return (data) => run(top, { dot: data, root: data, variables: new Map() });
}

function finish(reader: Reader): void {
  reader.blanks();
  if (reader.peek() !== undefined) fail(`unexpected ${JSON.stringify(reader.peek())}`);
}

function bind(variables: Variables, names: readonly string[], values: readonly Value[]): Variables {
  const bound = new Map(variables);
  names.forEach((name, i) => {
    bound.set(name, { value: values[i] });
  });
  return bound;
}

function run(nodes: readonly Node[], outer: Scope): string {
  let out = "";
  let scope = outer;
  for (const node of nodes) {
    if (node.kind === "text") {
      out += node.text;
      continue;
    }
    const { names, assigns } = node.pipe;
    const value = node.pipe.value(scope);
    if (node.kind === "print") {
      if (names.length === 0) out += print(value);
      else if (assigns) for (const name of names) (scope.variables.get(name) as { value: Value }).value = value;
      else scope = { ...scope, variables: bind(scope.variables, names, [value]) };
    } else if (node.kind === "range") {
      const items: [Value, Value][] = Array.isArray(value)
        ? value.map((item, i) => [i, item])
        : Object.entries((value ?? {}) as object).sort(([a], [b]) => (a < b ? -1 : 1));
      for (const [key, item] of items)
        out += run(node.body, {
          ...scope,
          dot: item,
          variables: bind(scope.variables, names, names.length === 2 ? [key, item] : [item]),
        });
      if (items.length === 0) out += run(node.otherwise, scope);
    } else {
      const inner = { ...scope, variables: bind(scope.variables, names, [value]) };
      if (!truthy(value)) out += run(node.otherwise, inner);
      else out += run(node.body, node.kind === "with" ? { ...inner, dot: value } : inner);
    }
  }
  return out;
}
