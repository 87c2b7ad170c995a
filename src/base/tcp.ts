// TCP for those who pass bytes on: connections that are read into buffers of the reader's own, so that nothing is allocated for what passes.
import { readFileSync } from "node:fs";
import {
  type AddressInfo,
  createServer,
  type OnReadOpts,
  type Server,
  Socket,
  type SocketConstructorOpts,
} from "node:net";
import { wrap } from "./error.ts";
import { hostPort } from "./net.ts";

export type { Server, Socket };

/** Takes the bytes of one connection. */
export interface Intake {
  /** Where the next bytes are put: asked before the first and after each `read`. */
  buffer(): Uint8Array;
  /** So many bytes lie at the start of the buffer. False: no more is read until `socket.resume()`. Must not throw. */
  read(bytes: number, buffer: Uint8Array): boolean;
}

/** A connection that was accepted; what its client sends waits in the kernel. One of the two is called, once. */
export interface Accepted {
  /** Its number among this process's open files, of which the lowest free one is taken; -1 where the system has none. */
  readonly fd: number;
  /** The socket, from now on the caller's; nothing is read until it is resumed. */
  take(intake: Intake): Socket;
  /** Ends it with a reset. */
  reset(): void;
}

export interface TcpListening {
  readonly host: string;
  readonly port: number;
  /** Resolves when the port is free; accepted connections go on. */
  close(): Promise<void>;
}

export interface Tcp {
  /**
   * @param dropped told of each connection that could not be accepted, since this process or host has too many files open; its client was told by the kernel
   * @throws TrilithError `address-in-use`, `not-allowed`, `invalid`
   */
  listen(
    on: { readonly host: string; readonly port: number } | Server,
    accepted: (connection: Accepted) => void,
    dropped?: () => void,
  ): Promise<TcpListening>;
  /**
   * Connects; nothing is read until the socket is resumed. Without an intake it is an ordinary socket with keep-alive; with one that is left to
   * the caller (`keepAlive`), as most connections are over before it could say anything, and it costs four calls of the kernel.
   * @throws TrilithError with the system's error as its cause, or the signal's reason
   */
  connect(
    to: { readonly host: string; readonly port: number },
    options?: {
      readonly intake?: Intake;
      readonly signal?: AbortSignal;
      /**
       * Handed, at once, what makes this call fail with an error; what it gives back is called when the call is over. Cheaper than a signal
       * where there is one for each call.
       */
      readonly started?: (abandon: (reason: unknown) => void) => () => void;
    },
  ): Promise<Socket>;
}

/** Without anything to send for so long, it is asked whether the other side is still there. */
const KEEP_ALIVE_MS = 60_000;
const BACKLOG = 4096;

/**
 * A stream that takes nothing into its own buffer but what the kernel did not take: `write` says false for all that is under way, and
 * "drain" that it went out.
 */
const EAGER = { allowHalfOpen: true, writableHighWaterMark: 1 } as const;

const ORDINARY: RawSocket = {
  allowHalfOpen: true,
  noDelay: true,
  keepAlive: true,
  keepAliveInitialDelay: KEEP_ALIVE_MS,
};

const onread = (intake: Intake): OnReadOpts => ({
  buffer: () => intake.buffer(),
  callback: (bytes, buffer) => intake.read(bytes, buffer),
});

/** What node:net's documentation leaves out: the handle inside sockets and servers, and how a socket is made around one. */
interface Handle {
  readonly fd: number;
  setNoDelay(on: boolean): number;
  setKeepAlive(on: boolean, seconds: number): number;
}
interface ServerInside {
  _handle: Handle & { onconnection: (error: number, handle?: Handle) => void };
}
interface SocketInside {
  _handle: Handle | null;
}
type RawSocket = SocketConstructorOpts & {
  readonly writableHighWaterMark?: number;
  readonly onread?: OnReadOpts;
  readonly handle?: Handle;
  readonly noDelay?: boolean;
  readonly keepAlive?: boolean;
  readonly keepAliveInitialDelay?: number;
  /** Reading does not begin with the socket. */
  readonly manualStart?: true;
};

/** What comes in is passed on at once, and a client that is gone is found out. */
function dress(handle: Handle): void {
  handle.setNoDelay(true);
  handle.setKeepAlive(true, KEEP_ALIVE_MS / 1000);
}

/** A server's own sockets cannot read into a buffer that is used again; one made around the handle can. */
class Around implements Accepted {
  readonly #handle: Handle;

  constructor(handle: Handle) {
    this.#handle = handle;
  }

  get fd(): number {
    return this.#handle.fd;
  }

  take(intake: Intake): Socket {
    const options: RawSocket = { ...EAGER, onread: onread(intake), handle: this.#handle, manualStart: true };
    return new Socket(options as SocketConstructorOpts);
  }

  reset(): void {
    const options: RawSocket = { handle: this.#handle, manualStart: true };
    const socket = new Socket(options as SocketConstructorOpts);
    socket.on("error", () => {});
    socket.resetAndDestroy();
  }
}

/** Who connected before the listener was dressed is accepted within this time. */
const UNDRESSED_MS = 1_000;
/** libuv's numbers: too many open files in this process, or on this host. */
const TOO_MANY: ReadonlySet<number> = new Set([-24, -23]);

/** From now on it is asked, when nothing was sent for a while, whether the other side is still there. */
export function keepAlive(socket: Socket): void {
  socket.setKeepAlive(true, KEEP_ALIVE_MS);
}

/** How many files and sockets this process may have open at once, as Linux tells it; elsewhere infinite. */
export function openFilesLimit(): number {
  try {
    const line = /^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"));
    return line?.[1] === undefined ? Number.POSITIVE_INFINITY : Number(line[1]);
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}

/** The system's TCP. */
export const systemTcp: Tcp = {
  listen(on, accepted, dropped) {
    return new Promise((resolve, reject) => {
      const server = "host" in on ? createServer() : on;
      const where = "host" in on ? hostPort(on.host, on.port) : "a socket that was handed over";
      const onError = (error: Error): void => reject(wrap(error, `listening on TCP ${where}`));
      const ready = (): void => {
        server.off("error", onError);
        // Errors of a server that listens are those of one accept, and come to the handle.
        server.on("error", () => {});
        // Connections that were accepted before this began to listen (a socket that was handed over) come as events.
        server.on("connection", (early) => {
          const inside = early as unknown as SocketInside;
          const handle = inside._handle;
          if (handle === null) return;
          inside._handle = null;
          early.destroy();
          dress(handle);
          accepted(new Around(handle));
        });
        // Connections have the listener's options from their beginning; not those that the kernel took before.
        const listener = (server as unknown as ServerInside)._handle;
        dress(listener);
        let undressed = true;
        const dressing = setTimeout(() => {
          undressed = false;
        }, UNDRESSED_MS).unref();
        // All others come as handles, before a socket that nobody needs is made around them.
        listener.onconnection = (error, handle) => {
          if (error === 0 && handle !== undefined) {
            if (undressed) dress(handle);
            accepted(new Around(handle));
          } else if (TOO_MANY.has(error)) dropped?.();
        };
        const { address, port } = server.address() as AddressInfo;
        let closed: Promise<void> | undefined;
        resolve({
          host: address,
          port,
          close() {
            clearTimeout(dressing);
            closed ??= new Promise((done) => server.close(() => done()));
            return closed;
          },
        });
      };
      server.once("error", onError);
      if (!("host" in on)) ready();
      else server.listen({ host: on.host, port: on.port, backlog: BACKLOG }, ready);
    });
  },
  connect({ host, port }, { intake, signal, started } = {}) {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      // Socket.connect passes over these options, whatever its documentation says: they are the constructor's.
      const socket = new Socket(intake === undefined ? ORDINARY : { ...EAGER, noDelay: true, onread: onread(intake) });
      const fail = (error: unknown): void => {
        over?.();
        signal?.removeEventListener("abort", onAbort);
        reject(error);
      };
      const onAbort = (): void => {
        socket.destroy();
        fail(signal?.reason);
      };
      const over = started?.((reason) => {
        socket.destroy();
        fail(reason);
      });
      const onError = (error: Error): void => fail(wrap(error, `connecting to ${hostPort(host, port)}`));
      signal?.addEventListener("abort", onAbort, { once: true });
      socket.on("error", onError);
      socket.pause();
      socket.connect({ host, port }, () => {
        socket.off("error", onError);
        over?.();
        signal?.removeEventListener("abort", onAbort);
        resolve(socket);
      });
    });
  },
};
