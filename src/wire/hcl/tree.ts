// What both parsers of configuration text make: a tree that still knows where everything stood.

/** A parsed value; `at` is its offset in the text in UTF-16 units. */
export type Tree =
  | { readonly kind: "scalar"; readonly value: string | number | boolean | null; readonly at: number }
  | { readonly kind: "list"; readonly items: readonly Tree[]; readonly at: number }
  | { readonly kind: "object"; readonly entries: readonly TreeEntry[]; readonly at: number };

export interface TreeEntry {
  readonly key: string;
  /** Offset of the key. */
  readonly at: number;
  readonly value: Tree;
}

/** Deeper nesting than this is refused: no configuration needs it, and recursion has an end. */
export const MAX_DEPTH = 100;

/** Raised by the parsers; turned into an InputError with file, line and column by `parseConfigText`. */
export class SyntaxFault extends Error {
  readonly at: number;
  constructor(at: number, message: string) {
    super(message);
    this.at = at;
  }
}

/** A character for error messages. */
export function quoteCharacter(text: string, at: number): string {
  const code = text.codePointAt(at);
  if (code === undefined) return "the end of the file";
  if (code === 0x0a || code === 0x0d) return "the end of the line";
  if (code < 0x20 || code === 0x7f || (code >= 0x80 && code < 0xa0)) return `U+${code.toString(16).padStart(4, "0")}`;
  return `"${String.fromCodePoint(code)}"`;
}
