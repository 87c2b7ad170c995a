// Two connections joined: what comes in at one goes out at the other, as fast as the slower side takes it; ends and resets are passed on as they came.
import type { Clock, Timer } from "../../base/clock.ts";
import { type Intake, keepAlive, type Socket } from "../../base/tcp.ts";
import { type BufferPool, ReadBuffer } from "./buffers.ts";

/** Whose two connections are joined. */
export interface RelayOwner {
  readonly clock: Pick<Clock, "after">;
  readonly pool: BufferPool;
  /** What went through, told as it goes. */
  passed(to: "toBackend" | "toClient", bytes: number): void;
  /**
   * The backend cut or ended the connection before anything went through in either direction, as one does that is killed: true takes it over
   * (and calls `meet` again, or `cut`), false has the client told.
   */
  lost(error: Error | "ended"): boolean;
  /** Both connections are closed. */
  over(): void;
}

/** A reset waits so long for what was sent before it: the kernel would throw away what is still on its way. */
const RESET_AFTER_MS = 50;
/** A side that takes nothing any more does not hold up the other one's reset for longer. */
const FLUSH_MS = 5_000;

const NOTHING = Buffer.alloc(0);

/** Ending what has ended costs an error that nobody sees. */
function end(socket: Socket): void {
  if (!socket.writableEnded && !socket.destroyed) socket.end();
}

/** One direction. */
class Way implements Intake {
  readonly #owner: RelayOwner;
  readonly #way: "toBackend" | "toClient";
  readonly #read: ReadBuffer;
  to: Socket | undefined;
  from: Socket | undefined;
  /** True while the last bytes are not written: nothing is read. */
  #held = false;
  passed = false;

  constructor(owner: RelayOwner, way: "toBackend" | "toClient") {
    this.#owner = owner;
    this.#way = way;
    this.#read = new ReadBuffer(owner.pool);
  }

  buffer(): Uint8Array {
    return this.#read.next;
  }

  read(bytes: number, buffer: Uint8Array): boolean {
    const { to } = this;
    if (to === undefined || to.destroyed) return false;
    this.passed = true;
    this.#owner.passed(this.#way, bytes);
    to.write(this.#read.hold(bytes, buffer));
    if (to.writableLength === 0) {
      this.#read.done(bytes);
      return true;
    }
    this.#held = true;
    return false;
  }

  drained(): void {
    if (!this.#held) return;
    this.#held = false;
    this.#read.settle();
    this.from?.resume();
  }

  release(): void {
    this.#read.release();
  }
}

/** See the first line. The client's socket is made with `up`, the backend's with `down` as its intake. */
export class Relay {
  readonly up: Intake;
  readonly down: Intake;
  readonly #up: Way;
  readonly #down: Way;
  readonly #owner: RelayOwner;
  #client: Socket | undefined;
  #backend: Socket | undefined;
  #open = 0;
  #timer: Timer | undefined;

  constructor(owner: RelayOwner) {
    this.#owner = owner;
    this.#up = new Way(owner, "toBackend");
    this.#down = new Way(owner, "toClient");
    this.up = this.#up;
    this.down = this.#down;
  }

  /** Takes the client's side, which waits until a backend is met. */
  begin(client: Socket): void {
    this.#client = client;
    this.#up.from = client;
    this.#down.to = client;
    this.#open++;
    client.on("error", () => this.#reset(this.#backend));
    client.on("end", () => this.#passEnd(client, this.#backend));
    client.on("drain", () => this.#down.drained());
    client.on("close", () => this.#closed());
  }

  /** Joins both and begins to read. `first` goes to the backend in front of everything. Called again with another backend after `lost`. */
  meet(backend: Socket, first?: Uint8Array): void {
    this.#backend = backend;
    this.#up.to = backend;
    this.#down.from = backend;
    this.#open++;
    backend.on("error", (error) => this.#backendFailed(backend, error));
    backend.on("end", () => {
      if (!this.#isLost(backend, "ended")) this.#passEnd(backend, this.#client);
    });
    backend.on("drain", () => this.#up.drained());
    backend.on("close", () => this.#closed());
    if (first !== undefined) backend.write(first);
    backend.resume();
    this.#client?.resume();
  }

  /**
   * One side ended what it says: so does the other. Where data and a reset come in together, libuv tells them as data and an ordinary end; writing
   * nothing brings the reset to light.
   */
  #passEnd(from: Socket, to: Socket | undefined): void {
    if (to === undefined || to.destroyed) return;
    if (to.readableEnded && to.writableLength === 0) {
      // Both have said everything: closing says so, too.
      to.destroy();
      end(from);
    } else if (from.writableEnded || from.writableLength > 0) end(to);
    else
      from.write(NOTHING, (error) => {
        // An error has its own event.
        if (error === null || error === undefined) end(to);
      });
  }

  /** Cuts both connections by resets. */
  cut(): void {
    for (const socket of [this.#client, this.#backend]) if (socket?.destroyed === false) socket.resetAndDestroy();
  }

  #backendFailed(backend: Socket, error: Error): void {
    if (!this.#isLost(backend, error)) this.#reset(this.#client);
  }

  /** True where somebody else takes over from here. */
  #isLost(backend: Socket, how: Error | "ended"): boolean {
    const client = this.#client;
    const untouched = !this.#up.passed && !this.#down.passed && client?.readableEnded === false && !client.destroyed;
    if (!untouched || backend !== this.#backend) return false;
    client.pause();
    if (!this.#owner.lost(how)) {
      client.resume();
      return false;
    }
    this.#backend = undefined;
    this.#up.to = undefined;
    backend.destroy();
    return true;
  }

  /** The other side was reset: so is this one, after what was sent to it before. */
  #reset(socket: Socket | undefined): void {
    if (socket === undefined || socket.destroyed || this.#timer !== undefined) return;
    const way = socket === this.#client ? this.#down : this.#up;
    socket.pause();
    if (!way.passed) {
      socket.resetAndDestroy();
      return;
    }
    const later = (ms: number): void => {
      this.#timer?.cancel();
      this.#timer = this.#owner.clock.after(ms, () => {
        if (!socket.destroyed) socket.resetAndDestroy();
      });
    };
    if (socket.writableLength > 0) socket.once("drain", () => later(RESET_AFTER_MS));
    later(socket.writableLength > 0 ? FLUSH_MS : RESET_AFTER_MS);
  }

  #closed(): void {
    if (--this.#open > 0) return;
    this.end();
    this.#owner.over();
  }

  /** For connections that last: a backend that is gone without a word is found out, as the client is. */
  lasts(): void {
    if (this.#backend?.destroyed === false) keepAlive(this.#backend);
  }

  /** Gives back what it was lent; for a relay whose sides never met. */
  end(): void {
    this.#timer?.cancel();
    this.#up.release();
    this.#down.release();
  }
}
