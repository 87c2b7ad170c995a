// Interpolation in the syntax of HashiCorp's HIL ("web-${match(1)}"), as far as texts and numbers go: to a tree, and from there to text.
import { InputError } from "../base/error.ts";

/** What an expression comes to. */
export type HilValue = string | number;

/** What expressions may name. */
export interface HilScope {
  readonly variables: Readonly<Record<string, HilValue>>;
  /** Functions of one whole number. */
  readonly functions: Readonly<Record<string, (n: number) => HilValue>>;
}

/** Text with expressions in it. */
export interface HilText {
  /** @throws InputError for unknown names, texts that are no numbers, division by zero */
  evaluate(scope: HilScope): HilValue;
}

type Expression = (scope: HilScope) => HilValue;
type Operator = "+" | "-" | "*" | "/" | "%";

const MAX_DEPTH = 50;

/** Reads a text. `${…}` is an expression, `$${` stands for `${`. @throws InputError "parse error at 1:7: …" */
export function parseHil(text: string): HilText {
  const parser = new Parser(text);
  const evaluate = parser.template(false);
  return { evaluate };
}

class Parser {
  readonly #text: string;
  #at = 0;
  #depth = 0;

  constructor(text: string) {
    this.#text = text;
  }

  #fail(what: string, at = this.#at): never {
    const before = this.#text.slice(0, at).split("\n");
    throw new InputError("", `parse error at ${before.length}:${(before.at(-1) ?? "").length + 1}: ${what}`);
  }

  #deeper<T>(work: () => T): T {
    if (++this.#depth > MAX_DEPTH) this.#fail(`expressions nest deeper than ${MAX_DEPTH}`);
    const result = work();
    this.#depth--;
    return result;
  }

  /** Literal text and expressions; to the end of the text, or within quotes to the closing one. */
  template(quoted: boolean): Expression {
    const parts: Expression[] = [];
    let literal = "";
    const flush = (): void => {
      const held = literal;
      if (held !== "") parts.push(() => held);
      literal = "";
    };
    for (;;) {
      const char = this.#text[this.#at];
      if (char === undefined) {
        if (quoted) this.#fail('expected closing quote "');
        break;
      }
      if (quoted && char === '"') {
        this.#at++;
        break;
      }
      if (this.#text.startsWith("$${", this.#at)) {
        literal += "${";
        this.#at += 3;
      } else if (this.#text.startsWith("${", this.#at)) {
        flush();
        this.#at += 2;
        parts.push(this.#deeper(() => this.#sum()));
        this.#expect("}");
      } else if (quoted && char === "\\") {
        const escaped = this.#text[this.#at + 1] ?? "";
        const meant = { n: "\n", t: "\t", '"': '"', "\\": "\\" }[escaped];
        if (meant === undefined) this.#fail(`invalid escape sequence "\\${escaped}"`);
        literal += meant;
        this.#at += 2;
      } else {
        literal += char;
        this.#at++;
      }
    }
    flush();
    // One expression alone keeps its type.
    const [only] = parts;
    if (parts.length === 1 && only !== undefined) return only;
    return (scope) => parts.map((part) => String(part(scope))).join("");
  }

  #blanks(): void {
    while (/[ \t\r\n]/.test(this.#text[this.#at] ?? "")) this.#at++;
  }

  #ahead(text: string): boolean {
    this.#blanks();
    return this.#text.startsWith(text, this.#at);
  }

  #take(text: string): boolean {
    if (!this.#ahead(text)) return false;
    this.#at += text.length;
    return true;
  }

  #expect(text: string): void {
    if (this.#take(text)) return;
    const found = this.#text[this.#at];
    this.#fail(
      found === undefined ? `expected "${text}" but reached the end` : `expected "${text}" but found "${found}"`,
    );
  }

  #word(pattern: RegExp): string | undefined {
    this.#blanks();
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text)?.[0];
    this.#at += found?.length ?? 0;
    return found;
  }

  #sum(): Expression {
    let left = this.#product();
    for (;;) {
      const operator = this.#word(/[+-]/y) as Operator | undefined;
      if (operator === undefined) return left;
      left = arithmetic(operator, left, this.#product());
    }
  }

  #product(): Expression {
    let left = this.#term();
    for (;;) {
      const operator = this.#word(/[*/%]/y) as Operator | undefined;
      if (operator === undefined) return left;
      left = arithmetic(operator, left, this.#term());
    }
  }

  #term(): Expression {
    if (this.#take("(")) {
      const inner = this.#deeper(() => this.#sum());
      this.#expect(")");
      return inner;
    }
    if (this.#take('"')) return this.#deeper(() => this.template(true));
    if (this.#take("-")) {
      const term = this.#deeper(() => this.#term());
      return (scope) => -numberOf(term(scope));
    }
    const digits = this.#word(/[0-9]+(?:\.[0-9]+)?/y);
    if (digits !== undefined) {
      const value = Number(digits);
      return () => value;
    }
    const at = this.#at;
    const name = this.#word(/[A-Za-z_][\w.*-]*/y);
    if (name === undefined) {
      const found = this.#text[this.#at];
      return this.#fail(
        found === undefined ? "expected expression but reached the end" : `expected expression but found "${found}"`,
      );
    }
    if (!this.#take("("))
      return ({ variables }) =>
        (Object.hasOwn(variables, name) ? variables[name] : undefined) ?? unknown("variable accessed", name, at);
    const given: Expression[] = [];
    while (!this.#ahead(")")) {
      given.push(this.#deeper(() => this.#sum()));
      if (!this.#take(",")) break;
    }
    this.#expect(")");
    return (scope) => {
      const called = Object.hasOwn(scope.functions, name) ? scope.functions[name] : undefined;
      if (called === undefined) return unknown("function called", name, at);
      // HIL looks at the arguments that a function wants, and at no more.
      const [argument] = given;
      if (argument === undefined) throw new InputError("", `1:${at + 1}: ${name}: argument 1 is missing`);
      return called(numberOf(argument(scope)));
    };
  }
}

function unknown(what: string, name: string, at: number): never {
  throw new InputError("", `1:${at + 1}: unknown ${what}: ${name}`);
}

/** Texts that are numbers count as such. */
function numberOf(value: HilValue): number {
  const number = typeof value === "number" ? value : /^[+-]?\d+(\.\d+)?$/.test(value) ? Number(value) : Number.NaN;
  if (Number.isNaN(number)) throw new InputError("", `${JSON.stringify(value)} is not a number`);
  return number;
}

function arithmetic(operator: Operator, left: Expression, right: Expression): Expression {
  return (scope) => {
    const a = numberOf(left(scope));
    const b = numberOf(right(scope));
    if ((operator === "/" || operator === "%") && b === 0) throw new InputError("", "divide by zero");
    switch (operator) {
      case "+":
        return a + b;
      case "-":
        return a - b;
      case "*":
        return a * b;
      case "/":
        return Number.isInteger(a) && Number.isInteger(b) ? Math.trunc(a / b) : a / b;
      case "%":
        return a % b;
    }
  };
}
