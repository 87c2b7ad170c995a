// The shared key: proofs that somebody has it, made from both sides' nonces, and the seal on every line. The key itself is never sent.
import { createHmac, timingSafeEqual } from "node:crypto";

/** A caller's proof for one request: whoever hears it can use it for nothing else. */
export function proofOf(key: string, nonce: string, target: string): string {
  return createHmac("sha256", key).update(`trilith peers 1 caller\n${nonce}\n${target}`).digest("base64url");
}

/** Compares in constant time. */
export function isProof(key: string, nonce: string, target: string, given: string): boolean {
  return equal(proofOf(key, nonce, target), given);
}

function equal(right: string, given: string): boolean {
  const a = Buffer.from(right);
  const b = Buffer.from(given);
  return a.length === b.length && timingSafeEqual(a, b);
}

/** Seals the lines of one stream, or opens them: each has its place, so that none can be left out, changed, repeated or be of another stream. */
export interface Seal {
  /** The line to be sent, without its end. */
  close(text: string): string;
  /** The text of a sealed line; undefined where the seal is wrong. */
  open(line: string): string | undefined;
}

/** `nonces`: the listener's and the caller's. Without a key lines are plain. */
export function createSeal(key: string | undefined, nonces: readonly [listener: string, caller: string]): Seal {
  if (key === undefined) return { close: (text) => text, open: (line) => line };
  const own = createHmac("sha256", key)
    .update(`trilith peers 1 stream\n${nonces.join("\n")}`)
    .digest();
  let count = 0;
  const seal = (text: string): string => createHmac("sha256", own).update(`${count++}\n${text}`).digest("base64url");
  return {
    close: (text) => `${seal(text)} ${text}`,
    open(line) {
      const at = line.indexOf(" ");
      const text = line.slice(at + 1);
      return at > 0 && equal(seal(text), line.slice(0, at)) ? text : undefined;
    },
  };
}
