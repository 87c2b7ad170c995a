// Go templates (text/template): parsed once, run on any data, with the functions and the fields that whoever parses them offers.
import { type Dialect, finish, type Pipe, Reader, readPipe, type Scope, type Variables } from "./action.ts";
import { fail, print, TemplateFault, truthy, type Value } from "./values.ts";

/** A parsed template: data in, text out. @throws what its dialect's `fault` makes where it does not fit the data */
export type Template = (data: Value) => string;

type Block = "if" | "with" | "range" | "define";
interface Opened {
  readonly kind: Block;
  readonly at: number;
  readonly pipe: Pipe;
  readonly body: Node[];
  readonly otherwise: Node[];
}
type Node =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "print"; readonly at: number; readonly pipe: Pipe }
  | { readonly kind: "break" }
  | { readonly kind: "continue" }
  | { readonly kind: "template"; readonly at: number; readonly name: string; readonly pipe: Pipe }
  | (Opened & { readonly kind: Exclude<Block, "define"> });

const NOTHING: Pipe = { names: [], assigns: false, value: () => undefined };
/** Templates that use each other without end are ended. */
const MOST_DEEP = 100;
/** Whoever ranges over a larger number has mistaken something for a count. */
const MOST_TIMES = 1_000_000;
const ACTION =
  /\{\{(-[ \t\r\n])?((?:"(?:[^"\\\n]|\\.)*"|`[^`]*`|\/\*(?:(?!\*\/)[\s\S])*\*\/|(?!\}\}|\/\*)[^"`])*?)([ \t\r\n]-)?\}\}/y;

/** Cuts `text {{action}} text …` into pieces; `{{-` and `-}}` take the blanks beside them away. `at` is where an action begins. */
function* cut(source: string): Generator<{ readonly text: string; readonly action?: string; readonly at: number }> {
  let from = 0;
  let trim = false;
  for (;;) {
    const open = source.indexOf("{{", from);
    let text = source.slice(from, open < 0 ? undefined : open);
    if (trim) text = text.replace(/^[ \t\r\n]+/, "");
    if (open < 0) {
      yield { text, at: from };
      return;
    }
    ACTION.lastIndex = open;
    const action = ACTION.exec(source);
    if (action === null) {
      yield { text, action: UNCLOSED, at: open };
      return;
    }
    from = ACTION.lastIndex;
    // Not by an expression: it would look at every run of blanks to its end.
    if (action[1] !== undefined) text = trimEnd(text);
    trim = action[3] !== undefined;
    const inside = action[2] ?? "";
    const at = open + 2 + (action[1]?.length ?? 0);
    yield /^\s*\/\*[\s\S]*\*\/\s*$/.test(inside) ? { text, at } : { text, action: inside, at };
  }
}

/** Stands for an action that has no end. */
const UNCLOSED = "\u0000";

function trimEnd(text: string): string {
  let end = text.length;
  while (end > 0 && " \t\r\n".includes(text[end - 1] as string)) end--;
  return text.slice(0, end);
}

/** Reads a template's pieces into nodes. */
class Parser {
  readonly top: Node[] = [];
  readonly defined: Map<string, Node[]> = new Map();
  readonly #used: { readonly name: string; readonly at: number }[] = [];
  readonly #open: {
    readonly node: Opened;
    readonly into: Node[];
    readonly outer: ReadonlySet<string>;
    readonly chained: boolean;
  }[] = [];
  #into = this.top;
  #declared: ReadonlySet<string> = new Set();
  readonly #dialect: Dialect;
  /** Where what is being read stands. */
  at = 0;

  constructor(dialect: Dialect) {
    this.#dialect = dialect;
  }

  text(text: string): void {
    if (text !== "") this.#into.push({ kind: "text", text });
  }

  action(inside: string, at: number): void {
    this.at = at;
    if (inside === UNCLOSED) fail("unclosed action");
    const reader = new Reader(inside, (offset) => {
      this.at = at + offset;
    });
    reader.blanks();
    const word = reader.peek();
    if (word === "if" || word === "with" || word === "range") {
      reader.next();
      this.#begin(word, reader, at, false);
    } else if (word === "define") this.#define(reader, at);
    else if (word === "else") this.#else(reader, at);
    else if (word === "end") {
      reader.next();
      finish(reader);
      this.at = at;
      this.#close();
    } else if (word === "break" || word === "continue") {
      reader.next();
      finish(reader);
      this.at = at;
      if (!this.#open.some(({ node }, i) => node.kind === "range" && this.#listIn(i) !== node.otherwise))
        fail(`{{${word}}} outside {{range}}`);
      this.#into.push({ kind: word });
    } else if (word === "template") {
      reader.next();
      const name = reader.name("template");
      reader.blanks();
      const pipe = reader.peek() === undefined ? NOTHING : readPipe(reader, this.#declared, this.#dialect);
      finish(reader);
      this.#used.push({ name, at });
      this.#into.push({ kind: "template", at, name, pipe });
    } else {
      const pipe = readPipe(reader, this.#declared, this.#dialect);
      finish(reader);
      this.#into.push({ kind: "print", at, pipe });
      this.#declared = new Set([...this.#declared, ...pipe.names]);
    }
  }

  end(): void {
    const open = this.#open.at(-1);
    if (open !== undefined) {
      this.at = open.node.at;
      fail("unexpected EOF: an {{end}} is missing");
    }
    for (const { name, at } of this.#used)
      if (!this.defined.has(name)) {
        this.at = at;
        fail(`template ${JSON.stringify(name)} not defined`);
      }
  }

  /** The list that a block's nodes go to at present. */
  #listIn(block: number): Node[] {
    return this.#open[block + 1]?.into ?? this.#into;
  }

  #begin(kind: "if" | "with" | "range", reader: Reader, at: number, chained: boolean): void {
    const outer = this.#declared;
    const pipe = readPipe(reader, outer, this.#dialect);
    if (pipe.names.length > (kind === "range" ? 2 : 1))
      fail(kind === "range" ? "range gives at most two variables" : `${kind} gives at most one variable`);
    const node = { kind, at, pipe, body: [], otherwise: [] };
    this.#into.push(node);
    this.#enter(node, outer, chained);
    this.#declared = new Set([...outer, ...pipe.names]);
    finish(reader);
  }

  #define(reader: Reader, at: number): void {
    if (this.#open.length > 0) fail("unexpected {{define}} within another block");
    reader.next();
    const name = reader.name("define");
    finish(reader);
    const node: Opened = { kind: "define", at, pipe: NOTHING, body: [], otherwise: [] };
    this.defined.set(name, node.body);
    const outer = this.#declared;
    this.#enter(node, outer, false);
    this.#declared = new Set();
  }

  #enter(node: Opened, outer: ReadonlySet<string>, chained: boolean): void {
    this.#open.push({ node, into: this.#into, outer, chained });
    this.#into = node.body;
  }

  #else(reader: Reader, at: number): void {
    const block = this.#open.at(-1);
    if (block === undefined || block.node.kind === "define" || this.#into === block.node.otherwise)
      fail("unexpected {{else}}");
    this.#into = block.node.otherwise;
    reader.next();
    for (const kind of ["if", "with"] as const)
      if (block.node.kind === kind && reader.take(kind)) {
        this.#begin(kind, reader, at, true);
        return;
      }
    if (block.node.kind === "with" && reader.take("if")) this.#begin("if", reader, at, true);
    else finish(reader);
  }

  #close(): void {
    const block = this.#open.pop() ?? fail("unexpected {{end}}");
    this.#into = block.into;
    this.#declared = block.outer;
    if (block.chained) this.#close();
  }
}

/**
 * Parses a template: fields, methods, pipes, variables, if, with, range, define and template, and the functions of its dialect.
 * @throws what the dialect's `fault` makes
 */
export function parseGoTemplate(source: string, dialect: Dialect): Template {
  const told = (error: unknown, at: number): unknown => {
    if (!(error instanceof TemplateFault)) return error;
    const before = source.slice(0, at);
    const lineStart = before.lastIndexOf("\n") + 1;
    return dialect.fault(error.message, before.split("\n").length, at - lineStart + 1);
  };
  const parser = new Parser(dialect);
  try {
    for (const { text, action, at } of cut(source)) {
      parser.text(text);
      if (action !== undefined) parser.action(action, at);
    }
    parser.end();
  } catch (error) {
    throw told(error, parser.at);
  }
  return (data) => {
    const running: Running = { defined: parser.defined, text: "", at: 0, depth: 0 };
    try {
      run(parser.top, { dot: data, root: data, variables: new Map() }, running);
      return running.text;
    } catch (error) {
      throw told(error, running.at);
    }
  };
}

interface Running {
  readonly defined: ReadonlyMap<string, readonly Node[]>;
  text: string;
  /** Where the action stands that is being run. */
  at: number;
  depth: number;
}

function bind(variables: Variables, names: readonly string[], values: readonly Value[]): Variables {
  const bound = new Map(variables);
  names.forEach((name, i) => {
    bound.set(name, { value: values[i] });
  });
  return bound;
}

/** Changes variables where they stand. */
function assign(variables: Variables, names: readonly string[], values: readonly Value[]): Variables {
  names.forEach((name, i) => {
    (variables.get(name) as { value: Value }).value = values[i];
  });
  return variables;
}

/** What is gone through by `range`, with keys. */
function itemsOf(value: Value): readonly (readonly [Value, Value])[] {
  if (Array.isArray(value)) return value.map((item, i) => [i, item]);
  if (typeof value === "number") {
    if (!(value <= MOST_TIMES)) fail(`range can't go to ${value}: at most ${MOST_TIMES}`);
    return Array.from({ length: Math.max(0, Math.ceil(value)) }, (_, i) => [i, i]);
  }
  if (typeof value === "string" || typeof value === "boolean") return fail(`range can't iterate over ${print(value)}`);
  return Object.entries((value ?? {}) as object).sort(([a], [b]) => (a < b ? -1 : 1));
}

/** @returns what ends the loop around it, or this turn of it */
function run(nodes: readonly Node[], outer: Scope, running: Running): "break" | "continue" | undefined {
  let scope = outer;
  for (const node of nodes) {
    if (node.kind === "text") {
      running.text += node.text;
      continue;
    }
    if (node.kind === "break" || node.kind === "continue") return node.kind;
    running.at = node.at;
    const { names, assigns } = node.pipe;
    const value = node.pipe.value(scope);
    if (node.kind === "print") {
      if (names.length === 0) running.text += print(value);
      else if (assigns) assign(scope.variables, names, [value]);
      else scope = { ...scope, variables: bind(scope.variables, names, [value]) };
      continue;
    }
    if (node.kind === "template") {
      if (++running.depth > MOST_DEEP) fail(`template ${JSON.stringify(node.name)} uses itself without end`);
      run(running.defined.get(node.name) ?? [], { dot: value, root: value, variables: new Map() }, running);
      running.depth--;
      continue;
    }
    let ended: "break" | "continue" | undefined;
    const give = assigns ? assign : bind;
    if (node.kind === "range") {
      const items = itemsOf(value);
      for (const [key, item] of items) {
        const variables = give(scope.variables, names, names.length === 2 ? [key, item] : [item]);
        if (run(node.body, { ...scope, dot: item, variables }, running) === "break") break;
      }
      if (items.length === 0) ended = run(node.otherwise, scope, running);
    } else {
      const inner = { ...scope, variables: give(scope.variables, names, [value]) };
      if (!truthy(value)) ended = run(node.otherwise, inner, running);
      else ended = run(node.body, node.kind === "with" ? { ...inner, dot: value } : inner, running);
    }
    if (ended !== undefined) return ended;
  }
  return undefined;
}
