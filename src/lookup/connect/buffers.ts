// Buffers that connections read into, used again and again: small ones for talk, large ones while much comes at once.

/** One direction's buffer. Small until a read fills it, large until reads stay small for a while. */
export class ReadBuffer {
  readonly #pool: BufferPool;
  #buffer: Buffer;
  #smallReads = 0;

  constructor(pool: BufferPool) {
    this.#pool = pool;
    this.#buffer = pool.take(SMALL_BYTES);
  }

  get current(): Buffer {
    return this.#buffer;
  }

  /** After a read of so many bytes that are dealt with: the next one may want another size. */
  adapt(bytes: number): void {
    const { length } = this.#buffer;
    if (length === SMALL_BYTES) {
      if (bytes === SMALL_BYTES) this.#swap(LARGE_BYTES);
    } else if (bytes > SMALL_BYTES) this.#smallReads = 0;
    else if (++this.#smallReads >= SMALL_READS) this.#swap(SMALL_BYTES);
  }

  #swap(bytes: number): void {
    this.#smallReads = 0;
    this.#pool.give(this.#buffer);
    this.#buffer = this.#pool.take(bytes);
  }

  /** The end. `busy`: somebody may still look at its bytes, so that nobody else gets it. */
  release(busy: boolean): void {
    if (!busy) this.#pool.give(this.#buffer);
  }
}

const SMALL_BYTES = 16_384;
const LARGE_BYTES = 262_144;
const SMALL_READS = 32;
/** So many bytes lie in wait at most. */
const KEPT_BYTES = 16 * 1_048_576;

/** Buffers that nobody uses. */
export class BufferPool {
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
