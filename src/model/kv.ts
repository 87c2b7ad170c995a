// A key and its value, as every dialect with a key-value store sees it.

/** A key-value pair. */
export interface KvPair {
  /** Any text; ordered and compared by its UTF-8 bytes. */
  readonly key: string;
  readonly value: Uint8Array;
  /** An unsigned 64-bit number that belongs to the user. */
  readonly flags: bigint;
  /** How often the key was locked. */
  readonly lockIndex: number;
  /** The session that holds it. */
  readonly session?: string;
}
