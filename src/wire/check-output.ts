// What a check keeps of its target's words: heads and tails counted in bytes, with the texts that say what was cut.
import { formatGoDuration } from "./duration.ts";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Bytes as text; what is no UTF-8 (a character cut in half, too) becomes U+FFFD. */
export function textOf(bytes: Uint8Array): string {
  return decoder.decode(bytes);
}

/** The first `maxBytes` of a pushed output, with Consul's note about the rest: "0123456789 ... (captured 10 of 16 bytes)". */
export function head(text: string, maxBytes: number): string {
  // A character takes at least one byte and at most three per UTF-16 unit: most texts need no count.
  if (text.length * 3 <= maxBytes) return text;
  const bytes = encoder.encode(text);
  if (bytes.length <= maxBytes) return text;
  return `${textOf(bytes.subarray(0, maxBytes))} ... (captured ${maxBytes} of ${bytes.length} bytes)`;
}

/** Consul's note in front of the tail of a longer output: "Captured 4096 of 6600 bytes\n...\n…". */
export function tailNote(tail: Uint8Array, totalBytes: number): string {
  if (totalBytes <= tail.length) return textOf(tail);
  return `Captured ${tail.length} of ${totalBytes} bytes\n...\n${textOf(tail)}`;
}

/** Keeps the last bytes of what flows by, in a memory of its own that never grows past twice the limit. */
export class Tail {
  readonly #maxBytes: number;
  #kept: Uint8Array[] = [];
  #keptBytes = 0;
  totalBytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  add(chunk: Uint8Array): void {
    this.totalBytes += chunk.length;
    const piece = chunk.length > this.#maxBytes ? chunk.subarray(chunk.length - this.#maxBytes) : chunk;
    this.#kept.push(piece);
    this.#keptBytes += piece.length;
    if (this.#keptBytes > 2 * this.#maxBytes || this.#kept.length > 64) {
      const bytes = this.bytes();
      this.#kept = [bytes];
      this.#keptBytes = bytes.length;
    }
  }

  /** The last bytes, at most the limit. */
  bytes(): Uint8Array {
    const all = new Uint8Array(this.#keptBytes);
    let at = 0;
    for (const piece of this.#kept) {
      all.set(piece, at);
      at += piece.length;
    }
    return all.slice(Math.max(0, all.length - this.#maxBytes));
  }
}

/** What a command that took too long said so far, behind Consul's words for it: "Timed out (1s) running check\n\n…". */
export function timedOut(timeoutMs: number, said: Tail): string {
  const note = `Timed out (${formatGoDuration(timeoutMs)}) running check`;
  return said.totalBytes === 0 ? note : `${note}\n\n${tailNote(said.bytes(), said.totalBytes)}`;
}
