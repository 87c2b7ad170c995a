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
  /** @throws TrilithError `address-in-use`, `not-allowed`, `invalid` */
  listen(
    on: { readonly host: string; readonly port: number } | Server,
    accepted: (connection: Accepted) => void,
  ): Promise<TcpListening>;
  /**
   * Connects; nothing is read until the socket is resumed. Without an intake it is an ordinary socket.
   * @throws TrilithError with the system's error as its cause, or the signal's reason
   */
  connect(
    to: { readonly host: string; readonly port: number },
    options?: {
      readonly intake?: Intake;
      readonly signal?: AbortSignal;
      /** Handed, at once, what makes this call fail with an error: cheaper than a signal where there is one for each call. */
      readonly started?: (abandon: (reason: unknown) => void) => void;
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

const onread = (intake: Intake): OnReadOpts => ({
  buffer: () => intake.buffer(),
  callback: (bytes, buffer) => intake.read(bytes, buffer),
});

/** What node:net's documentation leaves out: the handle inside sockets and servers, and how a socket is made around one. */
interface Handle {
  setNoDelay(on: boolean): number;
  setKeepAlive(on: boolean, seconds: number): number;
}
interface ServerInside {
  _handle: { onconnection: (error: number, handle?: Handle) => void };
}
interface SocketInside {
  _handle: Handle | null;
}
type RawSocket = SocketConstructorOpts & {
  readonly writableHighWaterMark?: number;
  readonly onread?: OnReadOpts;
  readonly handle?: Handle;
  /** Reading does not begin with the socket. */
  readonly manualStart?: true;
};

/** A server's own sockets cannot read into a buffer that is used again; one made around the handle can. */
function around(handle: Handle): Accepted {
  handle.setNoDelay(true);
  handle.setKeepAlive(true, KEEP_ALIVE_MS / 1000);
  const make = (options: RawSocket): Socket => new Socket({ ...options, handle, manualStart: true } as RawSocket);
  return {
    take: (intake) => make({ ...EAGER, onread: onread(intake) }),
    reset() {
      const socket = make({});
      socket.on("error", () => {});
      socket.resetAndDestroy();
    },
  };
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
  listen(on, accepted) {
    return new Promise((resolve, reject) => {
      const server = "host" in on ? createServer() : on;
      const where = "host" in on ? hostPort(on.host, on.port) : "a socket that was handed over";
      const onError = (error: Error): void => reject(wrap(error, `listening on TCP ${where}`));
      const ready = (): void => {
        server.off("error", onError);
        // Errors of a server that listens are those of one accept; that client is told by the kernel.
        server.on("error", () => {});
        // Connections that were accepted before this began to listen (a socket that was handed over) come as events.
        server.on("connection", (early) => {
          const inside = early as unknown as SocketInside;
          const handle = inside._handle;
          if (handle === null) return;
          inside._handle = null;
          early.destroy();
          accepted(around(handle));
        });
        // All others come as handles, before a socket that nobody needs is made around them.
        (server as unknown as ServerInside)._handle.onconnection = (error, handle) => {
          // Too many open files, or the client is gone already: the kernel tells it.
          if (error === 0 && handle !== undefined) accepted(around(handle));
        };
        const { address, port } = server.address() as AddressInfo;
        let closed: Promise<void> | undefined;
        resolve({
          host: address,
          port,
          close() {
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
      const options: SocketConstructorOpts | RawSocket =
        intake === undefined ? { allowHalfOpen: true } : { ...EAGER, onread: onread(intake) };
      const socket = new Socket(options);
      const onAbort = (): void => {
        socket.destroy();
        reject(signal?.reason);
      };
      started?.((reason) => {
        socket.destroy();
        reject(reason);
      });
      const onError = (error: Error): void => {
        signal?.removeEventListener("abort", onAbort);
        reject(wrap(error, `connecting to ${hostPort(host, port)}`));
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      socket.once("error", onError);
      socket.pause();
      socket.connect({ host, port, noDelay: true, keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_MS }, () => {
        socket.off("error", onError);
        signal?.removeEventListener("abort", onAbort);
        resolve(socket);
      });
    });
  },
};
