// The order of text by its UTF-8 bytes, which is the order of keys in every store.

/** Negative, zero or positive like the comparison of the UTF-8 bytes of `a` and `b`. */
export function compareUtf8(a: string, b: string): number {
  if (a === b) return 0;
  const shorter = Math.min(a.length, b.length);
  for (let i = 0; i < shorter; i++) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x !== y) return rank(x) - rank(y);
  }
  return a.length - b.length;
}

/** UTF-16 puts the surrogates of characters beyond U+FFFF before U+E000; UTF-8 puts such characters last. */
function rank(unit: number): number {
  if (unit < 0xd800) return unit;
  return unit < 0xe000 ? unit + 0x2000 : unit - 0x800;
}
