// HCL 1, the configuration language of Consul's files, into a tree with positions; follows the scanner and parser of the hashicorp/hcl library, version 1.

import { GO_ESCAPES } from "../go-escapes.ts";
import { Cursor } from "./cursor.ts";
import { MAX_DEPTH, SyntaxFault, type Tree, type TreeEntry } from "./tree.ts";

const BLANKS = /[ \t\r\n]+/y;
const IDENTIFIER = /[\p{L}_][\p{L}\p{Nd}_.-]*/uy;
const NUMBER = /-?(?:0[xX][0-9a-fA-F]+|\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?)/y;
const HEREDOC = /<<(-?)([\p{L}\p{Nd}_]+)\r?\n/uy;
const PLAIN = /[^"\\\n$]+/y;

class HclParser extends Cursor {
  document(): Tree {
    return { kind: "object", entries: this.entries(0, undefined), at: 0 };
  }

  /** Blanks, line ends and comments; HCL 1 needs no line ends between items. */
  private blanks(): void {
    for (;;) {
      this.match(BLANKS);
      if (this.text[this.at] === "#" || this.text.startsWith("//", this.at)) {
        const end = this.text.indexOf("\n", this.at);
        this.at = end === -1 ? this.text.length : end;
      } else if (this.text.startsWith("/*", this.at)) {
        const end = this.text.indexOf("*/", this.at + 2);
        if (end === -1) throw new SyntaxFault(this.at, "a comment that begins here has no closing */");
        this.at = end + 2;
      } else return;
    }
  }

  /** Items up to the closing brace of the object opened at `opened`, or to the end of the text. */
  private entries(depth: number, opened: number | undefined): TreeEntry[] {
    const entries: TreeEntry[] = [];
    for (;;) {
      this.blanks();
      const c = this.text[this.at];
      if (c === undefined) {
        if (opened !== undefined) throw new SyntaxFault(opened, 'a block that begins here has no closing "}"');
        return entries;
      }
      if (c === "}") {
        if (opened === undefined) this.unexpected("a key");
        this.at++;
        return entries;
      }
      entries.push(this.entry(depth));
      this.blanks();
      if (this.text[this.at] === ",") this.at++;
    }
  }

  /** `key = value`, `key { … }`, `key "label" … { … }`. */
  private entry(depth: number): TreeEntry {
    const keys: { readonly key: string; readonly at: number }[] = [];
    for (;;) {
      this.blanks();
      const at = this.at;
      const c = this.text[at];
      if (c === "=" && keys.length > 0) {
        if (keys.length > 1) this.unexpected('"{" after a block\'s labels');
        this.at++;
        const [first] = keys as [{ key: string; at: number }];
        return { ...first, value: this.value(depth + 1) };
      }
      if (c === "{" && keys.length > 0) {
        let value: Tree = this.object(depth + keys.length);
        for (let i = keys.length - 1; i > 0; i--) {
          const label = keys[i] as { key: string; at: number };
          value = { kind: "object", entries: [{ ...label, value }], at: label.at };
        }
        return { ...(keys[0] as { key: string; at: number }), value };
      }
      if (c === '"') keys.push({ key: this.string(), at });
      else {
        const word = this.match(IDENTIFIER);
        if (word === undefined)
          this.unexpected(keys.length === 0 ? "a key" : `"=" or "{" after the key "${keys[keys.length - 1]?.key}"`);
        keys.push({ key: word, at });
      }
      if (keys.length > MAX_DEPTH) throw new SyntaxFault(at, `more than ${MAX_DEPTH} labels`);
    }
  }

  private value(depth: number): Tree {
    this.blanks();
    const at = this.at;
    if (depth > MAX_DEPTH) throw new SyntaxFault(at, `nested deeper than ${MAX_DEPTH} levels`);
    const c = this.text[at];
    if (c === "{") return this.object(depth);
    if (c === "[") return this.list(depth);
    if (c === '"') return { kind: "scalar", value: this.string(), at };
    if (c === "<") return { kind: "scalar", value: this.heredoc(), at };
    const number = this.match(NUMBER);
    if (number !== undefined) {
      IDENTIFIER.lastIndex = this.at;
      if (IDENTIFIER.test(this.text))
        throw new SyntaxFault(at, `a number directly followed by letters: put a text such as "10s" in double quotes`);
      return { kind: "scalar", value: numberOf(number, at), at };
    }
    const word = this.match(IDENTIFIER);
    if (word === "true" || word === "false") return { kind: "scalar", value: word === "true", at };
    if (word !== undefined)
      throw new SyntaxFault(at, `expected a value, found the bare word ${word}: put text in double quotes`);
    return this.unexpected("a value");
  }

  private object(depth: number): Tree {
    const at = this.at++;
    if (depth > MAX_DEPTH) throw new SyntaxFault(at, `nested deeper than ${MAX_DEPTH} levels`);
    return { kind: "object", entries: this.entries(depth, at), at };
  }

  private list(depth: number): Tree {
    const at = this.at++;
    const items: Tree[] = [];
    for (;;) {
      this.blanks();
      if (this.text[this.at] === "]") break;
      if (this.at >= this.text.length) throw new SyntaxFault(at, 'a list that begins here has no closing "]"');
      items.push(this.value(depth + 1));
      this.blanks();
      if (this.text[this.at] === ",") this.at++;
      else if (this.text[this.at] !== "]" && this.at < this.text.length) this.unexpected('"," or "]" in a list');
    }
    this.at++;
    return { kind: "list", items, at };
  }

  private string(): string {
    const start = this.at++;
    let result = "";
    for (;;) {
      result += this.match(PLAIN) ?? "";
      const c = this.text[this.at];
      if (c === '"') {
        this.at++;
        return result;
      }
      if (c === undefined || c === "\n")
        throw new SyntaxFault(start, 'a text that begins here has no closing " on its line');
      if (c === "\\") result += this.escape();
      else if (this.text[this.at + 1] === "{") result += this.interpolation();
      else {
        result += c;
        this.at++;
      }
    }
  }

  /** `${…}` stays as it is, quotes and line ends included: it belongs to whoever reads the value. */
  private interpolation(): string {
    const start = this.at;
    let depth = 0;
    for (;;) {
      const c = this.text[this.at];
      if (c === undefined) throw new SyntaxFault(start, 'an interpolation that begins here has no closing "}"');
      this.at++;
      if (c === "{") depth++;
      else if (c === "}" && --depth === 0) return this.text.slice(start, this.at);
    }
  }

  private escape(): string {
    const at = this.at;
    const c = this.text[at + 1] ?? "";
    const digits = (from: number, count: number, base: 8 | 16): number => {
      const found = this.text.slice(from, from + count);
      const fits = base === 8 ? /^[0-7]+$/ : /^[0-9a-fA-F]+$/;
      if (found.length !== count || !fits.test(found))
        throw new SyntaxFault(at, `expected ${count} ${base === 8 ? "octal" : "hexadecimal"} digits in an escape`);
      this.at = from + count;
      return Number.parseInt(found, base);
    };
    if (c >= "0" && c <= "7") return String.fromCharCode(digits(at + 1, 3, 8));
    if (c === "x") return String.fromCharCode(digits(at + 2, 2, 16));
    if (c === "u" || c === "U") {
      const code = digits(at + 2, c === "u" ? 4 : 8, 16);
      if (code > 0x10_ffff) throw new SyntaxFault(at, "there is no character beyond U+10FFFF");
      return String.fromCodePoint(code);
    }
    const meant = GO_ESCAPES.get(c);
    if (meant === undefined)
      throw new SyntaxFault(at, `there is no escape \\${c === "\n" ? "at the end of a line" : c}`);
    this.at += 2;
    return meant;
  }

  /** `<<WORD` up to a line that holds only WORD; `<<-WORD` takes away the indentation of that last line. */
  private heredoc(): string {
    const start = this.at;
    HEREDOC.lastIndex = start;
    const opening = HEREDOC.exec(this.text);
    if (opening === null) throw new SyntaxFault(start, "expected <<WORD or <<-WORD and a new line");
    const [whole, dash, word] = opening as unknown as [string, string, string];
    this.at += whole.length;
    const lines: string[] = [];
    for (;;) {
      if (this.at >= this.text.length)
        throw new SyntaxFault(start, `a text that begins here has no closing line with ${word}`);
      const end = this.text.indexOf("\n", this.at);
      const line = this.text.slice(this.at, end === -1 ? this.text.length : end);
      const bare = line.replace(/\r+$/, "");
      if (bare.trimStart() === word) {
        // The end of the closing line stays: it separates what follows.
        this.at += line.length;
        const indent = bare.slice(0, bare.length - word.length);
        const cut = dash === "-" && lines.every((one) => one.startsWith(indent)) ? indent.length : 0;
        return lines.map((one) => `${one.slice(cut)}\n`).join("");
      }
      lines.push(line);
      this.at = end === -1 ? this.text.length : end + 1;
    }
  }
}

/** Go's strconv.ParseInt with base 0: 0x… is hexadecimal, a leading 0 octal. */
function numberOf(text: string, at: number): number {
  const negative = text.startsWith("-");
  const digits = negative ? text.slice(1) : text;
  let value: number;
  if (/^0[xX]/.test(digits)) value = Number(digits);
  else if (/^0\d+$/.test(digits)) {
    if (!/^[0-7]+$/.test(digits))
      throw new SyntaxFault(at, `${text} begins with 0 and is therefore octal, but holds an 8 or 9`);
    value = Number.parseInt(digits, 8);
  } else value = Number(digits);
  return negative ? -value : value;
}

/** @throws SyntaxFault */
export function parseHcl(text: string): Tree {
  return new HclParser(text).document();
}
