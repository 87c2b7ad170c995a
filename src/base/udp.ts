// UDP for those who pass datagrams on: one socket that many clients send to, and one for each client towards its backend.
import { createSocket, type Socket as DatagramSocket } from "node:dgram";
import { lookup as systemLookup } from "node:dns/promises";
import { isIP } from "node:net";
import { wrap } from "./error.ts";
import { hostPort } from "./net.ts";

export type { DatagramSocket };

export interface UdpListening {
  readonly host: string;
  readonly port: number;
  send(bytes: Uint8Array, to: { readonly address: string; readonly port: number }): void;
  /** Resolves when the port is free. Twice = once. */
  close(): Promise<void>;
}

/** A socket that speaks with one address only. */
export interface UdpConnected {
  send(bytes: Uint8Array): void;
  close(): void;
}

export interface Udp {
  /** @throws TrilithError `address-in-use`, `not-allowed`, `invalid` */
  listen(
    on: { readonly host: string; readonly port: number } | DatagramSocket,
    message: (bytes: Uint8Array, from: { readonly address: string; readonly port: number }) => void,
  ): Promise<UdpListening>;
  /** `failed` hears of every error the network tells, ECONNREFUSED for one. @throws TrilithError where there is no such host or no socket */
  connect(
    to: { readonly host: string; readonly port: number },
    message: (bytes: Uint8Array) => void,
    failed: (error: Error) => void,
  ): Promise<UdpConnected>;
}

/** Bursts of many clients wait here while this process does something else. */
const RECEIVE_BYTES = 1_048_576;

/** The system's UDP. */
export const systemUdp: Udp = {
  listen(on, message) {
    return new Promise((resolve, reject) => {
      const own = "host" in on;
      const socket = own ? createSocket({ type: isIP(on.host) === 6 ? "udp6" : "udp4" }) : on;
      const onError = (error: Error): void => {
        reject(wrap(error, own ? `listening on UDP ${hostPort(on.host, on.port)}` : "a socket that was handed over"));
      };
      const ready = (): void => {
        socket.off("error", onError);
        // ICMP errors for earlier answers say nothing about this socket.
        socket.on("error", () => {});
        try {
          socket.setRecvBufferSize(RECEIVE_BYTES);
        } catch {
          // The system's own size then.
        }
        const { address, port } = socket.address();
        let closed: Promise<void> | undefined;
        resolve({
          host: address,
          port,
          send(bytes, to) {
            if (closed === undefined) socket.send(bytes, to.port, to.address, () => {});
          },
          close() {
            closed ??= new Promise((done) => socket.close(() => done()));
            return closed;
          },
        });
      };
      socket.once("error", onError);
      socket.on("message", message);
      if (!own) ready();
      else socket.bind({ port: on.port, address: on.host }, ready);
    });
  },
  async connect({ host, port }, message, failed) {
    const doing = `speaking to UDP ${hostPort(host, port)}`;
    try {
      const family = isIP(host);
      const found = family === 0 ? await systemLookup(host, { order: "ipv4first" }) : { address: host, family };
      const socket = createSocket(found.family === 6 ? "udp6" : "udp4");
      let open = true;
      await new Promise<void>((resolve, reject) => {
        const done = (error?: Error): void => {
          if (error === undefined) resolve();
          else {
            socket.close();
            reject(error);
          }
        };
        socket.once("error", done);
        socket.connect(port, found.address, done as () => void);
      });
      socket.removeAllListeners("error");
      socket.on("error", failed);
      socket.on("message", message);
      return {
        send(bytes) {
          if (!open) return;
          socket.send(bytes, (error) => {
            if (open && error !== null) failed(error);
          });
        },
        close() {
          if (!open) return;
          open = false;
          socket.removeAllListeners("message");
          socket.close();
        },
      };
    } catch (error) {
      throw wrap(error, doing);
    }
  },
};
