// JSON [RFC 8259] into a tree with positions, because semantic errors found later want a line number, too.
import { Cursor } from "./cursor.ts";
import { MAX_DEPTH, quoteCharacter, SyntaxFault, type Tree, type TreeEntry } from "./tree.ts";

const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?/y;
const PLAIN = /[^"\\\u0000-\u001f]*/y;
const WORDS: readonly (readonly [string, boolean | null])[] = [
  ["true", true],
  ["false", false],
  ["null", null],
];
const ESCAPES: Readonly<Record<string, string>> = {
  '"': '"',
  "\\": "\\",
  "/": "/",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
};

class JsonParser extends Cursor {
  document(): Tree {
    const value = this.value(0);
    this.blanks();
    if (this.at < this.text.length) this.unexpected("the end of the file");
    return value;
  }

  private blanks(): void {
    for (;;) {
      const c = this.text.charCodeAt(this.at);
      if (c !== 0x20 && c !== 0x0a && c !== 0x0d && c !== 0x09) return;
      this.at++;
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
    for (const [word, value] of WORDS)
      if (this.text.startsWith(word, at)) {
        this.at += word.length;
        return { kind: "scalar", value, at };
      }
    const number = this.match(NUMBER);
    if (number === undefined) return this.unexpected("a value");
    return { kind: "scalar", value: Number(number), at };
  }

  private object(depth: number): Tree {
    const at = this.at++;
    const entries: TreeEntry[] = [];
    this.blanks();
    if (this.text[this.at] === "}") {
      this.at++;
      return { kind: "object", entries, at };
    }
    for (;;) {
      this.blanks();
      const keyAt = this.at;
      if (this.text[keyAt] !== '"') this.unexpected("a key in double quotes");
      const key = this.string();
      this.blanks();
      if (this.text[this.at] !== ":") this.unexpected(`":" after the key "${key}"`);
      this.at++;
      entries.push({ key, at: keyAt, value: this.value(depth + 1) });
      this.blanks();
      const c = this.text[this.at];
      if (c !== "," && c !== "}") this.unexpected('"," or "}"');
      this.at++;
      if (c === "}") return { kind: "object", entries, at };
    }
  }

  private list(depth: number): Tree {
    const at = this.at++;
    const items: Tree[] = [];
    this.blanks();
    if (this.text[this.at] === "]") {
      this.at++;
      return { kind: "list", items, at };
    }
    for (;;) {
      items.push(this.value(depth + 1));
      this.blanks();
      const c = this.text[this.at];
      if (c !== "," && c !== "]") this.unexpected('"," or "]"');
      this.at++;
      if (c === "]") return { kind: "list", items, at };
    }
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
      if (c !== "\\")
        throw c === undefined
          ? new SyntaxFault(start, 'a text that begins here has no closing "')
          : new SyntaxFault(
              this.at,
              `a text may not hold ${quoteCharacter(this.text, this.at)} as it is: write it as an escape`,
            );
      const letter = this.text[this.at + 1] ?? "";
      if (letter === "u") {
        const hex = this.text.slice(this.at + 2, this.at + 6);
        if (!/^[0-9a-fA-F]{4}$/.test(hex)) throw new SyntaxFault(this.at, "expected four hexadecimal digits after \\u");
        result += String.fromCharCode(Number.parseInt(hex, 16));
        this.at += 6;
      } else {
        const meant = ESCAPES[letter];
        if (meant === undefined) throw new SyntaxFault(this.at, `there is no escape \\${letter} in JSON`);
        result += meant;
        this.at += 2;
      }
    }
  }
}

/** @throws SyntaxFault */
export function parseJson(text: string): Tree {
  return new JsonParser(text).document();
}
