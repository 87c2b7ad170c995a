// Consul's filter expressions (`?filter=`): parsed, checked against the fields there are, evaluated on encoded records.
import { InputError, messageOf, TrilithError } from "../../base/error.ts";
import { GO_ESCAPES } from "../../wire/go-escapes.ts";
import { compile, type Pattern } from "../../wire/regexp.ts";
import { parseBool } from "./query.ts";

/** What a field holds, and so which operators it has. `list` and `map` hold records; `texts` and `labels` hold texts. */
export type Shape =
  | "text"
  | "number"
  | "flag"
  | "texts"
  | "labels"
  | { readonly record: Readonly<Record<string, Shape>> }
  | { readonly list: Shape }
  | { readonly map: Shape };

/** Decides about one encoded record. */
export type Filter = (row: unknown) => boolean;

type Operator = "Equal" | "Not Equal" | "In" | "Not In" | "Is Empty" | "Is Not Empty" | "Matches" | "Not Matches";
const OPERATORS: Readonly<Record<string, readonly Operator[]>> = {
  text: ["Equal", "Not Equal", "In", "Not In", "Matches", "Not Matches"],
  number: ["Equal", "Not Equal"],
  flag: ["Equal", "Not Equal"],
  texts: ["In", "Not In", "Is Empty", "Is Not Empty"],
  labels: ["In", "Not In", "Is Empty", "Is Not Empty"],
  map: ["In", "Not In", "Is Empty", "Is Not Empty"],
  list: ["Is Empty", "Is Not Empty"],
  record: [],
};

/** Expressions nest no deeper and are no longer than this. */
const MAX_DEPTH = 100;
const MAX_CHARACTERS = 64 << 10;

/** `gap`: blanks stand before it. */
type Token = { readonly at: number; readonly gap: boolean } & (
  | { readonly kind: "(" | ")" | "==" | "!=" | "end" }
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "word"; readonly path: readonly string[] }
  | { readonly kind: "number"; readonly text: string }
);

function syntax(at: number): never {
  throw new InputError("", `1:${at + 1} (${at}): no match found`);
}

const WORD = /[a-zA-Z][a-zA-Z0-9_/]*(?:\.(?:[a-zA-Z][a-zA-Z0-9_/]*|[0-9]+)|\[\s*(?:"(?:[^"\\]|\\.)*"|`[^`]*`)\s*\])*/y;
const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?=[\s)]|$)/y;
const TEXT = /"(?:[^"\\\n]|\\.)*"|`[^`]*`/y;

/** The content of a quoted text: raw between backticks, with Go's escapes between double quotes. */
function unquote(quoted: string, at: number): string {
  const inner = quoted.slice(1, -1);
  if (quoted.startsWith("`")) return inner;
  return inner.replace(/\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}|.)/g, (_, escaped: string) => {
    const simple = GO_ESCAPES.get(escaped);
    if (simple !== undefined) return simple;
    const code = /^[xuU]/.test(escaped) ? Number.parseInt(escaped.slice(1), 16) : Number.parseInt(escaped, 8);
    return Number.isNaN(code) || code > 0x10ffff ? syntax(at) : String.fromCodePoint(code);
  });
}

function tokens(text: string): readonly Token[] {
  if (text.length > MAX_CHARACTERS)
    throw new InputError("", `the expression is longer than ${MAX_CHARACTERS} characters`);
  const found: Token[] = [];
  let at = 0;
  let gap = false;
  const match = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = at;
    return pattern.exec(text)?.[0];
  };
  while (at < text.length) {
    const char = text[at] as string;
    if (/[ \t\r\n]/.test(char)) {
      at++;
      gap = true;
      continue;
    }
    const place = { at, gap };
    gap = false;
    const pair = text.slice(at, at + 2);
    if (char === "(" || char === ")") {
      found.push({ kind: char, ...place });
      at++;
    } else if (pair === "==" || pair === "!=") {
      found.push({ kind: pair, ...place });
      at += 2;
    } else {
      const quoted = match(TEXT);
      const word = match(WORD);
      const number = match(NUMBER);
      if (quoted !== undefined) found.push({ kind: "text", text: unquote(quoted, at), ...place });
      else if (word !== undefined) found.push({ kind: "word", path: pathOf(word, at), ...place });
      else if (number !== undefined) found.push({ kind: "number", text: number, ...place });
      else syntax(at);
      at += (quoted ?? word ?? number ?? "").length;
    }
  }
  found.push({ kind: "end", at, gap });
  return found;
}

function pathOf(word: string, at: number): readonly string[] {
  return Array.from(word.matchAll(/\[\s*("(?:[^"\\]|\\.)*"|`[^`]*`)\s*\]|[^.[\]]+/g), ([part, quoted]) =>
    quoted === undefined ? part : unquote(quoted, at),
  );
}

class Parser {
  readonly #tokens: readonly Token[];
  readonly #shape: Shape;
  /** What is to be looked at when the whole text has been read: a fault in its form is told first. */
  readonly #checks: (() => void)[] = [];
  #next = 0;
  #depth = 0;

  constructor(text: string, shape: Shape) {
    this.#tokens = tokens(text);
    this.#shape = shape;
  }

  parse(): Filter {
    const filter = this.#or();
    if (this.#peek().kind !== "end") syntax(this.#peek().at);
    for (const check of this.#checks) check();
    return filter;
  }

  #peek(ahead = 0): Token {
    return this.#tokens[Math.min(this.#next + ahead, this.#tokens.length - 1)] as Token;
  }

  #keyword(word: string, ahead = 0): boolean {
    const token = this.#peek(ahead);
    return token.kind === "word" && token.path.length === 1 && token.path[0] === word;
  }

  /** Goes past words that need blanks before and behind them. */
  #pass(words: number): void {
    for (let i = 0; i < words; i++) {
      const token = this.#peek();
      if (!token.gap) syntax(token.at);
      this.#next++;
    }
    const after = this.#peek();
    if (!after.gap) syntax(after.at);
  }

  #or(): Filter {
    const parts = [this.#and()];
    while (this.#keyword("or")) {
      this.#pass(1);
      parts.push(this.#and());
    }
    return parts.length === 1 ? (parts[0] as Filter) : (row) => parts.some((part) => part(row));
  }

  #and(): Filter {
    const parts = [this.#not()];
    while (this.#keyword("and")) {
      this.#pass(1);
      parts.push(this.#not());
    }
    return parts.length === 1 ? (parts[0] as Filter) : (row) => parts.every((part) => part(row));
  }

  #not(): Filter {
    if (++this.#depth > MAX_DEPTH) throw new InputError("", `the expression nests deeper than ${MAX_DEPTH}`);
    try {
      // "not" may be a value, too: "not in Tags".
      if (this.#keyword("not") && !this.#keyword("in", 1) && this.#peek(1).gap) {
        this.#next++;
        const part = this.#not();
        return (row) => !part(row);
      }
      if (this.#peek().kind !== "(") return this.#match();
      this.#next++;
      const inner = this.#or();
      if (this.#peek().kind !== ")") syntax(this.#peek().at);
      this.#next++;
      return inner;
    } finally {
      this.#depth--;
    }
  }

  #match(): Filter {
    // value in selector
    const negatedIn = this.#keyword("not", 1) && this.#keyword("in", 2);
    if (negatedIn || this.#keyword("in", 1)) {
      const value = this.#value();
      this.#pass(negatedIn ? 2 : 1);
      return this.#decide(this.#selector(), negatedIn ? "Not In" : "In", value);
    }
    const selector = this.#selector();
    const token = this.#peek();
    if (token.kind === "==" || token.kind === "!=") {
      this.#next++;
      return this.#decide(selector, token.kind === "==" ? "Equal" : "Not Equal", this.#value());
    }
    if (this.#keyword("is")) {
      const negated = this.#keyword("not", 1);
      this.#pass(negated ? 2 : 1);
      if (!this.#keyword("empty")) return syntax(this.#peek().at);
      this.#next++;
      return this.#decide(selector, negated ? "Is Not Empty" : "Is Empty", "");
    }
    const negated = this.#keyword("not");
    const operator = (["contains", "matches"] as const).find((word) => this.#keyword(word, negated ? 1 : 0));
    if (operator === undefined) return syntax(token.at);
    this.#pass(negated ? 2 : 1);
    const [plain, not] = operator === "contains" ? (["In", "Not In"] as const) : (["Matches", "Not Matches"] as const);
    return this.#decide(selector, negated ? not : plain, this.#value());
  }

  #selector(): readonly string[] {
    const token = this.#peek();
    this.#next++;
    return token.kind === "word" ? token.path : syntax(token.at);
  }

  #value(): string {
    const token = this.#peek();
    this.#next++;
    if (token.kind === "word") return token.path.join(".");
    return token.kind === "text" || token.kind === "number" ? token.text : syntax(token.at);
  }

  #decide(path: readonly string[], operator: Operator, value: string): Filter {
    let filter: Filter = () => false;
    this.#checks.push(() => {
      const shape = shapeAt(this.#shape, path);
      const kind = typeof shape === "string" ? shape : (Object.keys(shape)[0] as string);
      const selector = path.join(".");
      if (!OPERATORS[kind]?.includes(operator))
        throw new InputError("", `Invalid match operator "${operator}" for selector "${selector}"`);
      filter = reach(this.#shape, path, operator, test(kind, selector, operator, value));
    });
    return (row) => filter(row);
  }
}

/** The shape of a field. @throws InputError for a field that is not there */
function shapeAt(root: Shape, path: readonly string[]): Shape {
  let shape = root;
  for (const [i, name] of path.entries()) {
    while (typeof shape === "object" && "list" in shape) shape = shape.list;
    let inner: Shape | undefined;
    if (shape === "labels") inner = "text";
    else if (typeof shape === "object" && "map" in shape) inner = shape.map;
    else if (typeof shape === "object" && "record" in shape && Object.hasOwn(shape.record, name))
      inner = shape.record[name];
    if (inner === undefined) throw new InputError("", `Selector "${path.slice(0, i + 1).join(".")}" is not valid`);
    shape = inner;
  }
  return shape;
}

/** Walks to a field and tests it; of lists on the way, one record that passes is enough. */
function reach(root: Shape, path: readonly string[], operator: Operator, passes: (value: unknown) => boolean): Filter {
  // What is not in a map equals nothing and holds nothing; patterns are not asked at all [FACTS 9].
  const absent = operator !== "Equal" && operator !== "In";
  const walk = (shape: Shape, value: unknown, at: number): boolean => {
    if (typeof shape === "object" && "list" in shape && at < path.length)
      return Array.isArray(value) && value.some((item) => walk(shape.list, item, at));
    if (at === path.length) return passes(value);
    const name = path[at] as string;
    const held = typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
    if (typeof shape === "object" && "record" in shape) return walk(shape.record[name] as Shape, held[name], at + 1);
    if (!Object.hasOwn(held, name)) return absent;
    return walk(typeof shape === "object" && "map" in shape ? shape.map : "text", held[name], at + 1);
  };
  return (row) => walk(root, row, 0);
}

/** The test of a value at the end of a path. Fields that are not sent count as their zero value. */
function test(kind: string, selector: string, operator: Operator, value: string): (found: unknown) => boolean {
  const positive = !operator.includes("Not");
  const bare = operator.replace("Not ", "");
  if (bare === "Is Empty") return (found) => (sizeOf(found) === 0) === positive;
  if (bare === "Matches") {
    const pattern = patternOf(value);
    return (found) => pattern.found(textOf(found)) === positive;
  }
  if (bare === "In") {
    if (kind === "text") return (found) => textOf(found).includes(value) === positive;
    if (kind === "texts") return (found) => (Array.isArray(found) && found.includes(value)) === positive;
    return (found) => (typeof found === "object" && found !== null && Object.hasOwn(found, value)) === positive;
  }
  if (kind === "text") return (found) => (textOf(found) === value) === positive;
  const fail = (how: string): never => {
    throw new InputError(
      "",
      `Failed to coerce value ${JSON.stringify(value)} for selector "${selector}": strconv.${how}: parsing ${JSON.stringify(value)}: invalid syntax`,
    );
  };
  if (kind === "flag") {
    const wanted = parseBool(value) ?? fail("ParseBool");
    return (found) => ((found === true) === wanted) === positive;
  }
  const wanted = wholeNumber(value) ?? fail("ParseInt");
  return (found) => ((typeof found === "number" ? found : 0) === wanted) === positive;
}

function patternOf(value: string): Pattern {
  try {
    return compile(value);
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    throw new InputError("", `Failed to compile regular expression ${JSON.stringify(value)}: ${error.message}`);
  }
}

/** Go's strconv.ParseInt with base 0: decimal, 0x, 0b, 0o or 0 before octal digits, single underscores between digits. */
function wholeNumber(text: string): number | undefined {
  const parts = /^([+-]?)(0[xX]_?[0-9a-fA-F]+|0[bB]_?[01]+|0[oO]_?[0-7]+|0_?[0-7]*|[1-9][0-9]*)$/.exec(
    text.replace(/(?<=[0-9a-fA-F])_(?=[0-9a-fA-F])/g, ""),
  );
  if (parts === null) return undefined;
  const digits = (parts[2] as string).replace("_", "").replace(/^0(?=[0-7])/, "0o");
  return parts[1] === "-" ? -Number(digits) : Number(digits);
}

const textOf = (found: unknown): string => (typeof found === "string" ? found : "");

function sizeOf(found: unknown): number {
  if (Array.isArray(found)) return found.length;
  return typeof found === "object" && found !== null ? Object.keys(found).length : 0;
}

/**
 * Compiles an expression over records of a shape; undefined for an empty one.
 * @throws TrilithError `invalid` for what cannot be parsed, fields that are not there, operators a field does not have, and values of the wrong kind
 */
export function parseFilter(expression: string, shape: Shape): Filter | undefined {
  if (expression === "") return undefined;
  try {
    return new Parser(expression, shape).parse();
  } catch (error) {
    if (error instanceof InputError) throw new TrilithError("invalid", messageOf(error), error);
    throw error;
  }
}
