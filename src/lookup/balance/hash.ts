// Hashes of texts for sticky choices: fractions that are spread evenly, the same in every process.

/** A 32-bit hash of a text (FNV-1a over UTF-16 units). */
export function hashOf(text: string, seed = 0x811c9dc5): number {
  let hash = seed;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}

/** A fraction in (0, 1) of two hashes and a purpose. */
export function fractionOf(a: number, b: number, purpose: number): number {
  const high = mix(a ^ mix(b ^ purpose));
  const low = mix(high ^ a ^ 0x9e3779b9);
  return (high * 0x10_0000 + (low >>> 12) + 0.5) / 2 ** 52;
}

/** MurmurHash3's finalizer. */
function mix(value: number): number {
  let x = value | 0;
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return (x ^ (x >>> 16)) >>> 0;
}
