// Buffers that connections read into, used again and again: one for all while they talk, large ones of their own while much comes at once.

const SMALL_BYTES = 16_384;
const LARGE_BYTES = 262_144;
const SMALL_READS = 32;
/** So many bytes lie in wait at most. */
const KEPT_BYTES = 16 * 1_048_576;

/** Buffers that nobody uses, and the one that everybody reads into. */
export class BufferPool {
  /**
   * Where connections are read into that say little: a read and what becomes of it are one turn, so that thousands of silent connections share one. What
   * was read is moved out of it before anything else is done.
   */
  readonly shared: Buffer = Buffer.allocUnsafeSlow(SMALL_BYTES);
  readonly #small: Buffer[] = [];
  readonly #large: Buffer[] = [];
  #keptBytes = 0;

  take(bytes: number): Buffer {
    const kept = (bytes === SMALL_BYTES ? this.#small : this.#large).pop();
    if (kept === undefined) return Buffer.allocUnsafeSlow(bytes);
    this.#keptBytes -= bytes;
    return kept;
  }

  give(buffer: Buffer): void {
    if (this.#keptBytes + buffer.length > KEPT_BYTES) return;
    this.#keptBytes += buffer.length;
    (buffer.length === SMALL_BYTES ? this.#small : this.#large).push(buffer);
  }
}

/**
 * One direction's buffers: the shared one until a read fills it, a large one until reads stay small for a while. The socket is told where the next
 * bytes are to be put only right after a read: until then `next` must not change.
 */
export class ReadBuffer {
  readonly #pool: BufferPool;
  #large: Buffer | undefined;
  /** What the bytes of the last read lie in, while somebody looks at them. */
  #holding: Buffer | undefined;
  #smallReads = 0;

  constructor(pool: BufferPool) {
    this.#pool = pool;
  }

  /** Where the next bytes are to be put. */
  get next(): Buffer {
    return this.#large ?? this.#pool.shared;
  }

  /** The bytes that were just read into `buffer`, in memory that stays theirs until `done` or `settle`. */
  hold(bytes: number, buffer: Uint8Array): Uint8Array {
    let own = buffer as Buffer;
    if (own === this.#pool.shared) {
      own = this.#pool.take(SMALL_BYTES);
      this.#pool.shared.copy(own, 0, 0, bytes);
    }
    this.#holding = own;
    return bytes === own.length ? own : own.subarray(0, bytes);
  }

  /** In the turn of their reading the bytes were dealt with: the next read may want another size. */
  done(bytes: number): void {
    this.settle();
    if (this.#large === undefined) {
      if (bytes === SMALL_BYTES) this.#large = this.#pool.take(LARGE_BYTES);
    } else if (bytes > SMALL_BYTES) this.#smallReads = 0;
    else if (++this.#smallReads >= SMALL_READS) {
      this.#smallReads = 0;
      this.#pool.give(this.#large);
      this.#large = undefined;
    }
  }

  /** The bytes were dealt with later. */
  settle(): void {
    if (this.#holding !== undefined && this.#holding !== this.#large) this.#pool.give(this.#holding);
    this.#holding = undefined;
  }

  /** The end. Bytes that somebody may still look at are left to the collector. */
  release(): void {
    if (this.#large !== undefined && this.#large !== this.#holding) this.#pool.give(this.#large);
    this.#large = undefined;
    this.#holding = undefined;
  }
}
