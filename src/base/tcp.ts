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

/** A connection that was accepted and not touched: what its client sends waits in the kernel. */
export interface Accepted {
  readonly from: { readonly address: string; readonly port: number };
  /** The address and port that the client connected to. */
  readonly to: { readonly address: string; readonly port: number };
  /** The socket, from now on the caller's; nothing is read until it is resumed. Undefined where it was closed meanwhile. */
  take(intake: Intake): Socket | undefined;
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
    options?: { readonly intake?: Intake; readonly signal?: AbortSignal },
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

/** What node:net's documentation leaves out: the handle inside a socket, and how another socket is made around it. */
interface Inside {
  _handle: object | null;
}
type RawSocket = SocketConstructorOpts & {
  readonly writableHighWaterMark: number;
  readonly onread: OnReadOpts;
  readonly handle?: object;
  /** Reading does not begin with the socket. */
  readonly manualStart?: true;
};

function accept(socket: Socket): Accepted {
  const { remoteAddress = "", remotePort = 0, localAddress = "", localPort = 0 } = socket;
  return {
    from: { address: remoteAddress, port: remotePort },
    to: { address: localAddress, port: localPort },
    take(intake) {
      // A server's own sockets cannot read into a buffer that is used again; one around the same handle can.
      const inside = socket as unknown as Inside;
      const handle = inside._handle;
      if (handle === null) return undefined;
      inside._handle = null;
      socket.destroy();
      const options: RawSocket = { ...EAGER, handle, manualStart: true, onread: onread(intake) };
      return new Socket(options);
    },
    reset() {
      socket.on("error", () => {});
      if (!socket.destroyed) socket.resetAndDestroy();
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
      // As properties, since a server that came from another process was made without.
      Object.assign(server, {
        allowHalfOpen: true,
        pauseOnConnect: true,
        noDelay: true,
        keepAlive: true,
        keepAliveInitialDelay: KEEP_ALIVE_MS / 1000,
      });
      const onError = (error: Error): void => reject(wrap(error, `listening on TCP ${where}`));
      const ready = (): void => {
        server.off("error", onError);
        // Errors of a server that listens are those of one accept; that client is told by the kernel.
        server.on("error", () => {});
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
      server.on("connection", (socket) => accepted(accept(socket)));
      if (!("host" in on)) ready();
      else server.listen({ host: on.host, port: on.port, backlog: BACKLOG }, ready);
    });
  },
  connect({ host, port }, { intake, signal } = {}) {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const options: SocketConstructorOpts | RawSocket =
        intake === undefined ? { allowHalfOpen: true } : { ...EAGER, onread: onread(intake) };
      const socket = new Socket(options);
      const onAbort = (): void => {
        socket.destroy();
        reject(signal?.reason);
      };
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
