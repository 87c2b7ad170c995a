// What a regular expression in RE2's syntax says, as a tree: characters, places, groups and repetitions.
import { InputError } from "../base/error.ts";

/** Whether a character, by its code point, is one of those meant. */
export type Test = (code: number) => boolean;
/** A part of a pattern. */
export type Node =
  | { readonly kind: "empty" }
  | { readonly kind: "char"; readonly test: Test }
  | { readonly kind: "assert"; readonly holds: (before: number, after: number) => boolean }
  | { readonly kind: "seq" | "any"; readonly parts: readonly Node[] }
  | { readonly kind: "group"; readonly number: number; readonly part: Node }
  | {
      readonly kind: "repeat";
      readonly part: Node;
      readonly min: number;
      readonly max: number;
      readonly lazy: boolean;
    };

const MAX_REPEAT = 1000;
const MAX_DEPTH = 200;
/** Stands for the text's beginning and end. */
export const EDGE = -1;

const isWord: Test = (code) =>
  (code >= 0x30 && code <= 0x39) || (code >= 0x41 && code <= 0x5a) || code === 0x5f || (code >= 0x61 && code <= 0x7a);
const isDigit: Test = (code) => code >= 0x30 && code <= 0x39;
const isBlank: Test = (code) => code === 0x20 || (code >= 0x09 && code <= 0x0d && code !== 0x0b);
const not =
  (test: Test): Test =>
  (code) =>
    !test(code);
const range =
  (from: number, to: number): Test =>
  (code) =>
    code >= from && code <= to;
const one = (wanted: number): Test => range(wanted, wanted);
const either =
  (tests: readonly Test[]): Test =>
  (code) =>
    tests.some((test) => test(code));

/** Matches whatever the case of what is asked for. */
function folded(test: Test): Test {
  return (code) => {
    if (test(code)) return true;
    const char = String.fromCodePoint(code);
    const lower = char.toLowerCase();
    const upper = char.toUpperCase();
    return test(lower.codePointAt(0) as number) || test(upper.codePointAt(0) as number);
  };
}

const SHORT: Readonly<Record<string, Test>> = {
  d: isDigit,
  D: not(isDigit),
  w: isWord,
  W: not(isWord),
  s: isBlank,
  S: not(isBlank),
};
const POSIX: Readonly<Record<string, Test>> = {
  alnum: either([isDigit, range(0x41, 0x5a), range(0x61, 0x7a)]),
  alpha: either([range(0x41, 0x5a), range(0x61, 0x7a)]),
  ascii: range(0, 0x7f),
  blank: either([one(0x20), one(0x09)]),
  cntrl: either([range(0, 0x1f), one(0x7f)]),
  digit: isDigit,
  graph: range(0x21, 0x7e),
  lower: range(0x61, 0x7a),
  print: range(0x20, 0x7e),
  punct: either([range(0x21, 0x2f), range(0x3a, 0x40), range(0x5b, 0x60), range(0x7b, 0x7e)]),
  space: either([isBlank, one(0x0b)]),
  upper: range(0x41, 0x5a),
  word: isWord,
  xdigit: either([isDigit, range(0x41, 0x46), range(0x61, 0x66)]),
};
const CONTROL: Readonly<Record<string, number>> = { a: 7, f: 12, n: 10, r: 13, t: 9, v: 11 };

interface Flags {
  readonly i: boolean;
  readonly m: boolean;
  readonly s: boolean;
  /** Repetitions are lazy, and with `?` greedy. */
  readonly U: boolean;
}

/** Reads one pattern. */
class Parser {
  readonly #chars: readonly string[];
  #at = 0;
  #depth = 0;
  #flags: Flags = { i: false, m: false, s: false, U: false };
  /** How many groups there are. */
  groups = 0;

  constructor(pattern: string) {
    this.#chars = [...pattern];
  }

  parse(): Node {
    const node = this.#alternatives();
    if (this.#at < this.#chars.length) this.#fail("unexpected )", this.#chars.join(""));
    return node;
  }

  #fail(what: string, where: string): never {
    throw new InputError("", `error parsing regexp: ${what}: \`${where}\``);
  }

  #peek(): string | undefined {
    return this.#chars[this.#at];
  }

  #take(text: string): boolean {
    for (let i = 0; i < text.length; i++) if (this.#chars[this.#at + i] !== text[i]) return false;
    this.#at += text.length;
    return true;
  }

  #char(test: Test): Node {
    return { kind: "char", test: this.#flags.i ? folded(test) : test };
  }

  #alternatives(): Node {
    const parts: Node[] = [this.#sequence()];
    while (this.#take("|")) parts.push(this.#sequence());
    return parts.length === 1 ? (parts[0] as Node) : { kind: "any", parts };
  }

  #sequence(): Node {
    const parts: Node[] = [];
    for (let char = this.#peek(); char !== undefined && char !== "|" && char !== ")"; char = this.#peek()) {
      const start = this.#at;
      let part = this.#atom();
      for (let repeated = false; ; repeated = true) {
        const times = this.#times();
        if (times === undefined) break;
        if (repeated) this.#fail("invalid nested repetition operator", this.#chars.slice(start, this.#at).join(""));
        part = { kind: "repeat", part, ...times, lazy: this.#take("?") !== this.#flags.U };
      }
      parts.push(part);
    }
    return parts.length === 0 ? { kind: "empty" } : { kind: "seq", parts };
  }

  #times(): { readonly min: number; readonly max: number } | undefined {
    if (this.#take("*")) return { min: 0, max: Number.POSITIVE_INFINITY };
    if (this.#take("+")) return { min: 1, max: Number.POSITIVE_INFINITY };
    if (this.#take("?")) return { min: 0, max: 1 };
    const counted = /^\{(\d{1,9})(?:(,)(\d{0,9}))?\}/.exec(this.#chars.slice(this.#at, this.#at + 24).join(""));
    if (counted === null) return undefined;
    const min = Number(counted[1]);
    const max = counted[2] === undefined ? min : counted[3] === "" ? Number.POSITIVE_INFINITY : Number(counted[3]);
    if (min > MAX_REPEAT || (max !== Number.POSITIVE_INFINITY && (max > MAX_REPEAT || max < min)))
      this.#fail("invalid repeat count", counted[0]);
    this.#at += counted[0].length;
    return { min, max };
  }

  #atom(): Node {
    const char = this.#chars[this.#at++] as string;
    switch (char) {
      case ".":
        return { kind: "char", test: this.#flags.s ? () => true : (code) => code !== 10 };
      case "^":
        return this.#edge(this.#flags.m, "before");
      case "$":
        return this.#edge(this.#flags.m, "after");
      case "(":
        return this.#group();
      case "[":
        return this.#char(this.#class());
      case "*":
      case "+":
      case "?":
        return this.#fail("missing argument to repetition operator", char);
      case "\\":
        return this.#escape();
      default:
        return this.#char(one(char.codePointAt(0) as number));
    }
  }

  #edge(lines: boolean, side: "before" | "after"): Node {
    return {
      kind: "assert",
      holds: (before, after) => {
        const there = side === "before" ? before : after;
        return there === EDGE || (lines && there === 10);
      },
    };
  }

  #group(): Node {
    if (++this.#depth > MAX_DEPTH) this.#fail("expression nests too deeply", "(");
    const outer = this.#flags;
    let number: number | undefined;
    if (this.#take("?")) {
      if (this.#take("P<") || this.#take("<")) {
        const start = this.#at;
        while (this.#peek() !== undefined && this.#peek() !== ">") this.#at++;
        const name = this.#chars.slice(start, this.#at).join("");
        if (!this.#take(">") || !/^\w+$/.test(name)) this.#fail("invalid named capture", `(?P<${name}`);
        number = ++this.groups;
      } else if (!this.#switches()) {
        this.#depth--;
        return { kind: "empty" };
      }
    } else number = ++this.groups;
    const part = this.#alternatives();
    if (!this.#take(")")) this.#fail("missing closing )", this.#chars.join(""));
    this.#flags = outer;
    this.#depth--;
    return number === undefined ? part : { kind: "group", number, part };
  }

  /** `i`, `m`, `s`, `U` after `(?`. True where a group follows, false where they count for the rest of the group around. */
  #switches(): boolean {
    let on = true;
    for (;;) {
      const char = this.#chars[this.#at++];
      if (char === ":") return true;
      if (char === ")") return false;
      if (char === "-" && on) on = false;
      else if (char === "i" || char === "m" || char === "s" || char === "U")
        this.#flags = { ...this.#flags, [char]: on };
      else this.#fail("invalid or unsupported Perl syntax", `(?${char ?? ""}`);
    }
  }

  #escape(): Node {
    const char = this.#chars[this.#at++];
    if (char === undefined) return this.#fail("trailing backslash at end of expression", "");
    if (char === "A") return this.#edge(false, "before");
    if (char === "z") return this.#edge(false, "after");
    if (char === "b" || char === "B") {
      const border = (before: number, after: number): boolean =>
        (before !== EDGE && isWord(before)) !== (after !== EDGE && isWord(after));
      return { kind: "assert", holds: char === "b" ? border : (before, after) => !border(before, after) };
    }
    if (char === "Q") {
      const parts: Node[] = [];
      while (this.#peek() !== undefined && !this.#take("\\E"))
        parts.push(this.#char(one((this.#chars[this.#at++] as string).codePointAt(0) as number)));
      return { kind: "seq", parts };
    }
    return this.#char(this.#escaped(char));
  }

  /** What a backslash and `char` stand for, within and outside of brackets. */
  #escaped(char: string): Test {
    const short = SHORT[char];
    if (short !== undefined) return short;
    const control = CONTROL[char];
    if (control !== undefined) return one(control);
    if (char === "x" || char === "p" || char === "P") {
      const rest = this.#chars.slice(this.#at, this.#at + 40).join("");
      const match = (char === "x" ? /^(?:\{([0-9A-Fa-f]{1,6})\}|([0-9A-Fa-f]{2}))/ : /^(?:\{(\^?\w+)\}|(\w))/).exec(
        rest,
      );
      if (match === null) return this.#fail("invalid escape sequence", `\\${char}`);
      this.#at += [...match[0]].length;
      const text = match[1] ?? (match[2] as string);
      if (char === "x") {
        const code = Number.parseInt(text, 16);
        return code > 0x10ffff ? this.#fail("invalid escape sequence", `\\x${match[0]}`) : one(code);
      }
      const wanted = (char === "p") !== text.startsWith("^");
      const property = propertyOf(text.replace("^", ""));
      if (property === undefined) return this.#fail("invalid character class range", `\\${char}${match[0]}`);
      return (code) => property.test(String.fromCodePoint(code)) === wanted;
    }
    if (/^[0-9A-Za-z]$/.test(char)) return this.#fail("invalid escape sequence", `\\${char}`);
    return one(char.codePointAt(0) as number);
  }

  #class(): Test {
    const start = this.#at - 1;
    const negated = this.#take("^");
    const tests: Test[] = [];
    const whole = (): string => this.#chars.slice(start).join("");
    for (let first = true; first || this.#peek() !== "]"; first = false) {
      const char = this.#chars[this.#at++];
      if (char === undefined) return this.#fail("missing closing ]", whole());
      const posix = char === "[" ? /^:(\^?)(\w+):\]/.exec(this.#chars.slice(this.#at, this.#at + 12).join("")) : null;
      if (posix !== null) {
        const test = POSIX[posix[2] as string];
        if (test === undefined) return this.#fail("invalid character class range", `[${posix[0]}`);
        this.#at += posix[0].length;
        tests.push(posix[1] === "^" ? not(test) : test);
        continue;
      }
      const low = this.#member(char);
      if (typeof low !== "number") tests.push(low);
      else if (this.#peek() === "-" && this.#chars[this.#at + 1] !== "]" && this.#chars[this.#at + 1] !== undefined) {
        this.#at++;
        const high = this.#member(this.#chars[this.#at++] as string);
        if (typeof high !== "number" || high < low) return this.#fail("invalid character class range", whole());
        tests.push(range(low, high));
      } else tests.push(one(low));
    }
    this.#at++;
    // Case is folded before the negation.
    const test = this.#flags.i ? folded(either(tests)) : either(tests);
    return negated ? not(test) : test;
  }

  /** One character of a class as its code, or a class within it. */
  #member(char: string): number | Test {
    if (char !== "\\") return char.codePointAt(0) as number;
    const escaped = this.#chars[this.#at++];
    if (escaped === undefined) return this.#fail("trailing backslash at end of expression", "");
    if (SHORT[escaped] !== undefined || escaped === "p" || escaped === "P") return this.#escaped(escaped);
    if (CONTROL[escaped] !== undefined) return CONTROL[escaped];
    if (escaped === "x") {
      const rest = this.#chars.slice(this.#at, this.#at + 8).join("");
      const match = /^(?:\{([0-9A-Fa-f]{1,6})\}|([0-9A-Fa-f]{2}))/.exec(rest);
      if (match === null) return this.#fail("invalid escape sequence", "\\x");
      this.#at += match[0].length;
      return Number.parseInt(match[1] ?? (match[2] as string), 16);
    }
    if (/^[0-9A-Za-z]$/.test(escaped)) return this.#fail("invalid escape sequence", `\\${escaped}`);
    return escaped.codePointAt(0) as number;
  }
}

function propertyOf(name: string): RegExp | undefined {
  for (const spelled of [name, `Script=${name}`])
    try {
      return new RegExp(`^\\p{${spelled}}$`, "u");
    } catch {
      // The next spelling may be known.
    }
  return undefined;
}

/** A pattern's tree, and how many groups it has. @throws InputError in Go's words ("error parsing regexp: missing closing ]: `[`") */
export function parsePattern(pattern: string): { readonly tree: Node; readonly groups: number } {
  const parser = new Parser(pattern);
  const tree = parser.parse();
  return { tree, groups: parser.groups };
}
