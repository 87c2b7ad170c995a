// What stands between {{ and }} in a Go template: tokens, operands and pipes, read into something that can be evaluated.
import { fail, kindOf, type Value } from "./values.ts";

/** A function that templates may call: how many arguments it takes, and what it gives. */
export interface TemplateFunction {
  readonly least: number;
  readonly most: number;
  /** @throws TemplateFault */
  call(args: readonly Value[]): Value;
  /** In place of `call` where not every argument is worked out: each is, when it is asked for. */
  lazily?(args: readonly (() => Value)[]): Value;
}

/** What the templates of one kind may use, and how their faults are told. */
export interface Dialect {
  /** Without prototype. */
  readonly functions: Readonly<Record<string, TemplateFunction>>;
  /** Why a function that people know from elsewhere is not there, as a sentence; undefined = nothing is known about the name. */
  readonly notOffered?: (name: string) => string | undefined;
  /** A field of a value by its name; a function is a method. @throws TemplateFault where there is none */
  readonly field: (value: Value, name: string) => Value;
  /** The error for a fault; line and column count from 1. */
  readonly fault: (text: string, line: number, column: number) => Error;
}

/** The variables that stand at a place of the template; each in a box, so that `=` in an inner block is seen outside. */
export type Variables = ReadonlyMap<string, { value: Value }>;
/** What an expression is evaluated in: `.`, `$` and the variables. */
export interface Scope {
  readonly dot: Value;
  readonly root: Value;
  readonly variables: Variables;
}
type Expression = (scope: Scope) => Value;
/** `a | b | c`, with the variables that its value is given to. */
export interface Pipe {
  readonly names: readonly string[];
  /** True for `=`, which changes a variable that exists. */
  readonly assigns: boolean;
  readonly value: Expression;
}

const TOKEN =
  /\s+|"(?:[^"\\\n]|\\.)*"|`[^`]*`|[+-]?(?:0[xX][0-9a-fA-F]+|\d+(?:\.\d+)?)|\$?[A-Za-z_][A-Za-z0-9_]*|\$|\.[A-Za-z_][A-Za-z0-9_]*|\.|:=|[=|(),]/y;

/** One action's tokens, read from left to right. */
export class Reader {
  readonly #tokens: readonly string[];
  readonly #offsets: readonly number[];
  readonly #reached: (offset: number) => void;
  #at = 0;
  /** `reached` is told where in the source each token stands that is read. */
  constructor(source: string, reached: (offset: number) => void) {
    const tokens: string[] = [];
    const offsets: number[] = [];
    TOKEN.lastIndex = 0;
    for (let at = 0; at < source.length; at = TOKEN.lastIndex) {
      reached(at);
      offsets.push(at);
      const token = TOKEN.exec(source)?.[0];
      if (token === undefined) fail(`unexpected ${JSON.stringify(source.slice(at, at + 12))} in {{${source}}}`);
      tokens.push(/^\s/.test(token) ? " " : token);
    }
    this.#tokens = tokens;
    this.#offsets = offsets;
    this.#reached = reached;
  }
  /** The quoted name that stands next, for `what`. */
  name(what: string): string {
    this.blanks();
    const found = literal(this.next() ?? "");
    return typeof found?.value === "string" ? found.value : fail(`expected a quoted name in {{${what}}}`);
  }
  peek(): string | undefined {
    return this.#tokens[this.#at];
  }
  next(): string | undefined {
    const offset = this.#offsets[this.#at];
    if (offset !== undefined) this.#reached(offset);
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
  /** Says again where a token stands that was read before. */
  point(mark: number): void {
    this.#reached(this.#offsets[mark] ?? 0);
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
      fail(`${token} is not a string`);
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
  dialect: Dialect,
): { readonly value?: Expression; readonly name?: string; readonly isField?: boolean } | undefined {
  const token = reader.peek();
  if (token === undefined || token === "|" || token === ")") return undefined;
  reader.next();
  let value: Expression;
  let isField = token.startsWith(".") && token !== ".";
  if (token === "(") {
    const pipe = readPipe(reader, declared, dialect);
    if (!reader.take(")")) fail("unclosed left paren");
    value = pipe.value;
  } else if (token === ".") value = ({ dot }) => dot;
  else if (token.startsWith(".")) value = ({ dot }) => dialect.field(dot, token.slice(1));
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
    isField = true;
    value = (scope) => dialect.field(from(scope), name);
  }
  return { value, isField };
}

/** One command: an operand alone, or a function or method with its operands; `piped` is its last argument where it stands behind a `|`. */
function readCommand(
  reader: Reader,
  declared: ReadonlySet<string>,
  dialect: Dialect,
  piped: Expression | undefined,
): Expression {
  reader.blanks();
  const mark = reader.mark();
  const first = readOperand(reader, declared, dialect) ?? fail("missing value for command");
  const args: Expression[] = [];
  while (reader.blanks() || reader.peek() === "(") {
    const operand = readOperand(reader, declared, dialect);
    if (operand === undefined) break;
    args.push(operand.value ?? callOf(operand.name ?? "", [], dialect));
  }
  if (piped !== undefined) args.push(piped);
  if (first.name !== undefined) {
    reader.point(mark);
    return callOf(first.name, args, dialect);
  }
  const { value = fail("missing value for command") } = first;
  if (args.length > 0 && first.isField !== true) fail("can't give arguments to something that is not a function");
  if (first.isField !== true) return value;
  return (scope) => {
    const found = value(scope);
    if (typeof found === "function") return found(...args.map((arg) => arg(scope)));
    return args.length === 0 ? found : fail(`can't give arguments to a ${kindOf(found)}, which is not a method`);
  };
}

function callOf(name: string, args: readonly Expression[], { functions, notOffered }: Dialect): Expression {
  const called = functions[name];
  if (called === undefined) {
    const why = notOffered?.(name);
    return fail(why === undefined ? `function "${name}" not defined` : `function "${name}" is not offered: ${why}`);
  }
  if (args.length < called.least || args.length > called.most)
    fail(
      `wrong number of args for ${name}: want ${called.least === called.most ? called.least : `at least ${called.least}`} got ${args.length}`,
    );
  return (scope) =>
    called.lazily === undefined
      ? called.call(args.map((arg) => arg(scope)))
      : called.lazily(args.map((arg) => () => arg(scope)));
}

/** Reads a pipe, as far as it goes; `declared` are the variables that exist. @throws TemplateFault */
export function readPipe(reader: Reader, declared: ReadonlySet<string>, dialect: Dialect): Pipe {
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
  let value = readCommand(reader, declared, dialect, undefined);
  while (reader.take("|")) value = readCommand(reader, declared, dialect, value);
  return { names, assigns, value };
}

/** Nothing but blanks may be left. @throws TemplateFault */
export function finish(reader: Reader): void {
  reader.blanks();
  if (reader.peek() !== undefined) fail(`unexpected ${JSON.stringify(reader.peek())}`);
}
