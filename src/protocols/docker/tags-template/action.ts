// What stands between {{ and }} in a -tags template: tokens, operands and pipes, read into something that can be evaluated.
import { FUNCTIONS, NOT_OFFERED } from "./functions.ts";
import { fail, field, type Value } from "./values.ts";

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
  if (args.length > 0) fail("can't give arguments to something that is not a function");
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

/** Reads a pipe, as far as it goes; `declared` are the variables that exist. @throws InputError */
export function readPipe(reader: Reader, declared: ReadonlySet<string>): Pipe {
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

/** Nothing but blanks may be left. @throws InputError */
export function finish(reader: Reader): void {
  reader.blanks();
  if (reader.peek() !== undefined) fail(`unexpected ${JSON.stringify(reader.peek())}`);
}
