// A place that moves through a text: what the parsers of configuration languages share.
import { quoteCharacter, SyntaxFault } from "./tree.ts";

/** Parsers extend it. */
export class Cursor {
  protected readonly text: string;
  protected at = 0;
  constructor(text: string) {
    this.text = text;
  }

  /** @throws SyntaxFault "expected …, found …" */
  protected unexpected(wanted: string): never {
    throw new SyntaxFault(this.at, `expected ${wanted}, found ${quoteCharacter(this.text, this.at)}`);
  }

  /** Goes past what a sticky pattern finds here; undefined where it finds nothing. */
  protected match(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text)?.[0];
    if (found !== undefined) this.at += found.length;
    return found;
  }
}
