// The network: the only door to sockets, addresses and the system's own resolver.
import { createSocket, type Socket as DatagramSocket } from "node:dgram";
import { lookup as systemLookup } from "node:dns/promises";
import { type AddressInfo, connect, createServer, isIP, type Server, type Socket } from "node:net";
import { networkInterfaces } from "node:os";
import { connect as connectTls } from "node:tls";
import { TrilithError, wrap } from "./error.ts";
import { type TlsClient, tlsOptions } from "./tls.ts";
import { unlessAborted } from "./unless-aborted.ts";

export type { DatagramSocket, Server, Socket };

export interface Interface {
  readonly name: string;
  readonly address: string;
  readonly family: 4 | 6;
  readonly cidr: string;
  readonly internal: boolean;
}

/** Something that listens; `port` is the real one where 0 was asked for. */
export interface Listening {
  readonly host: string;
  readonly port: number;
  /** Resolves when the port is free and every connection is closed. */
  close(): Promise<void>;
}

/** A bound datagram socket. */
export interface Datagrams {
  readonly host: string;
  readonly port: number;
  send(bytes: Uint8Array, port: number, host: string): void;
  close(): Promise<void>;
}

/** Where to hear and speak to a multicast group. */
export interface MulticastOn {
  /** The interface's name: "eth0". */
  readonly interface: string;
  /** One of the interface's own addresses, of the group's family: IPv4 is joined and sent by it. */
  readonly address: string;
  /** "224.0.0.251", "ff02::fb" */
  readonly group: string;
  readonly port: number;
  /** The time to live (hop limit) of everything sent. */
  readonly hops: number;
  /** True hears what is sent to `address` itself, too: other sockets on this port then no longer hear that. */
  readonly direct?: boolean;
}

/** A multicast group on one interface. */
export interface Multicast {
  /** Sends to the group, or to one host from the group's port. What cannot be sent is lost, as datagrams are. */
  send(bytes: Uint8Array, to?: { readonly address: string; readonly port: number }): void;
  /** Resolves when what was sent is out of this process and the sockets are closed. */
  close(): Promise<void>;
}

/** A datagram's sender, IPv6 link-local with its zone (`fe80::1%eth0`), and whether it was sent to this host alone. */
export interface MulticastFrom {
  readonly address: string;
  readonly port: number;
  readonly direct: boolean;
}

/** Sockets and names. Errors are TrilithErrors that name the address. */
export interface Net {
  /** Connects by TCP (with `tls`: up to the end of the handshake) or to a unix socket path. The caller owns (and destroys) the socket. */
  connect(
    to: { readonly host: string; readonly port: number; readonly tls?: TlsClient } | { readonly path: string },
    signal?: AbortSignal,
  ): Promise<Socket>;
  listen(
    on: { readonly host: string; readonly port: number },
    connection: (socket: Socket) => void,
  ): Promise<Listening>;
  datagrams(
    on: { readonly host: string; readonly port: number; readonly receiveBufferBytes?: number },
    message: (bytes: Uint8Array, from: { readonly address: string; readonly port: number }) => void,
  ): Promise<Datagrams>;
  /**
   * Joins a multicast group on one interface; the port is shared with whoever else shares it on this host (SO_REUSEADDR), all of whom hear everything.
   * An IPv4 group on Linux may bring what came in on another interface, and always what this host itself sent.
   */
  multicast(on: MulticastOn, message: (bytes: Uint8Array, from: MulticastFrom) => void): Promise<Multicast>;
  /** True where nobody on this host uses a UDP port; tried out by taking it for a moment. */
  isUdpPortFree(port: number): Promise<boolean>;
  /**
   * Sends one datagram from a connected socket of its own and resolves with the first reply (with `accept`: the first one it says true of;
   * others may be forged). Waits until the signal, then rejects with its reason; rejects where the port is refused (ICMP), with the asking socket's address in the cause as `localAddress` and `localPort`.
   */
  exchange(
    to: { readonly host: string; readonly port: number },
    bytes: Uint8Array,
    signal?: AbortSignal,
    accept?: (reply: Uint8Array) => boolean,
  ): Promise<Uint8Array>;
  interfaces(): readonly Interface[];
  /** The system's own name resolution (hosts file, resolver): all addresses. */
  resolve(hostname: string): Promise<readonly string[]>;
}

/** 4 or 6 for an IP address in text, 0 for anything else. */
export function ipFamily(text: string): 0 | 4 | 6 {
  return isIP(text) as 0 | 4 | 6;
}

/** `host:port` with brackets around IPv6 addresses. */
export function hostPort(host: string, port: number): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/** A socket that shares its port, bound. */
function multicastSocket(
  on: MulticastOn,
  address: string,
  message: (bytes: Uint8Array, from: { readonly address: string; readonly port: number }) => void,
): Promise<DatagramSocket> {
  return new Promise((resolve, reject) => {
    const socket = createSocket({ type: ipFamily(on.group) === 6 ? "udp6" : "udp4", reuseAddr: true });
    socket.once("error", (error) => {
      socket.close();
      reject(wrap(error, `listening on UDP ${hostPort(address, on.port)} on ${on.interface}`));
    });
    socket.bind({ port: on.port, address, exclusive: true }, () => {
      socket.removeAllListeners("error");
      // ICMP errors and interfaces that go surface here; who is gone is found out otherwise.
      socket.on("error", () => {});
      socket.on("message", message);
      resolve(socket);
    });
  });
}

/**
 * A host's interfaces, as `read` tells them. Asking takes a descriptor: where there is none left, the last answer counts, for its addresses
 * are what hosts lose least. @throws TrilithError where there never was an answer
 */
export function interfacesOf(read: typeof networkInterfaces): Net["interfaces"] {
  let last: readonly Interface[] | undefined;
  return () => {
    try {
      last = Object.entries(read()).flatMap(([name, addresses]) =>
        (addresses ?? []).map(({ address, family, cidr, internal }) => ({
          name,
          address,
          family: family === "IPv6" ? (6 as const) : (4 as const),
          cidr: cidr ?? address,
          internal,
        })),
      );
    } catch (error) {
      if (last === undefined) throw wrap(error, "reading this host's interfaces");
    }
    return last;
  };
}

/** The system's network. */
export const systemNet: Net = {
  connect(to, signal) {
    return new Promise((resolve, reject) => {
      const where = "path" in to ? to.path : hostPort(to.host, to.port);
      if (signal?.aborted) return reject(signal.reason);
      const secure = "path" in to ? undefined : to.tls;
      const socket =
        "path" in to
          ? connect({ path: to.path })
          : secure === undefined
            ? connect({ host: to.host, port: to.port, noDelay: true })
            : connectTls({ host: to.host, port: to.port, ...tlsOptions(secure) });
      const onAbort = (): void => {
        socket.destroy();
        reject(signal?.reason);
      };
      const onError = (error: Error): void => {
        signal?.removeEventListener("abort", onAbort);
        reject(wrap(error, `connecting to ${where}`));
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      socket.once("error", onError);
      socket.once(secure === undefined ? "connect" : "secureConnect", () => {
        socket.off("error", onError);
        signal?.removeEventListener("abort", onAbort);
        resolve(socket);
      });
    });
  },
  listen(on, connection) {
    return new Promise((resolve, reject) => {
      const sockets = new Set<Socket>();
      const server: Server = createServer({ noDelay: true }, (socket) => {
        sockets.add(socket);
        socket.once("close", () => sockets.delete(socket));
        connection(socket);
      });
      server.once("error", (error) => reject(wrap(error, `listening on TCP ${hostPort(on.host, on.port)}`)));
      server.listen(on.port, on.host, () => {
        const { address, port } = server.address() as AddressInfo;
        resolve({
          host: address,
          port,
          close: () =>
            new Promise((closed) => {
              server.close(() => closed());
              for (const socket of sockets) socket.destroy();
            }),
        });
      });
    });
  },
  datagrams(on, message) {
    return new Promise((resolve, reject) => {
      const family = ipFamily(on.host);
      if (family === 0) return reject(new TrilithError("invalid", `"${on.host}" is not an IP address to listen on`));
      const socket = createSocket({
        type: family === 6 ? "udp6" : "udp4",
        ...(on.receiveBufferBytes === undefined ? {} : { recvBufferSize: on.receiveBufferBytes }),
      });
      const onError = (error: Error): void => reject(wrap(error, `listening on UDP ${hostPort(on.host, on.port)}`));
      socket.once("error", onError);
      socket.bind(on.port, on.host, () => {
        socket.off("error", onError);
        // ICMP errors for earlier replies surface here; they say nothing about this socket.
        socket.on("error", () => {});
        socket.on("message", message);
        const { address, port } = socket.address();
        let closed: Promise<void> | undefined;
        resolve({
          host: address,
          port,
          send: (bytes, toPort, toHost) => socket.send(bytes, toPort, toHost, () => {}),
          close: () => {
            closed ??= new Promise((done) => socket.close(() => done()));
            return closed;
          },
        });
      });
    });
  },
  async multicast(on, message) {
    const ipv6 = ipFamily(on.group) === 6;
    const zoned = (address: string): string =>
      ipv6 && /^f[ef][89ab012]/i.test(address) && !address.includes("%") ? `${address}%${on.interface}` : address;
    const group = zoned(on.group);
    // Bound to the group, a socket hears nothing that is sent to this host alone, which other stacks may wait for.
    const heard = await multicastSocket(on, group, (bytes, from) => message(bytes, { ...from, direct: false }));
    let direct: DatagramSocket | undefined;
    try {
      if (ipv6) {
        heard.setMulticastInterface(`::%${on.interface}`);
        heard.addMembership(on.group, `::%${on.interface}`);
      } else {
        heard.setMulticastInterface(on.address);
        heard.addMembership(on.group, on.address);
      }
      heard.setMulticastTTL(on.hops);
      heard.setMulticastLoopback(true);
      heard.setTTL(on.hops);
      if (on.direct === true)
        direct = await multicastSocket(on, zoned(on.address), (bytes, from) =>
          message(bytes, { ...from, direct: true }),
        );
    } catch (error) {
      heard.close();
      throw wrap(error, `joining ${on.group} on ${on.interface}`);
    }
    const sockets = direct === undefined ? [heard] : [heard, direct];
    let sending = 0;
    let sent: (() => void) | undefined;
    let closed: Promise<void> | undefined;
    return {
      send(bytes, to) {
        if (closed !== undefined) return;
        sending++;
        heard.send(bytes, to?.port ?? on.port, to?.address ?? group, () => {
          if (--sending === 0) sent?.();
        });
      },
      close() {
        closed ??= (async () => {
          if (sending > 0)
            await new Promise<void>((resolve) => {
              sent = resolve;
            });
          await Promise.all(sockets.map((socket) => new Promise<void>((done) => socket.close(() => done()))));
        })();
        return closed;
      },
    };
  },
  isUdpPortFree(port) {
    return new Promise((resolve) => {
      const socket = createSocket("udp4");
      socket.once("error", () => {
        socket.close();
        resolve(false);
      });
      socket.bind({ port, address: "0.0.0.0", exclusive: true }, () => socket.close(() => resolve(true)));
    });
  },
  async exchange(to, bytes, signal, accept) {
    const where = hostPort(to.host, to.port);
    const known = ipFamily(to.host);
    // IPv4 first, as for connections.
    const { address, family } =
      known === 0
        ? await unlessAborted(
            systemLookup(to.host, { order: "ipv4first" }).catch((error: unknown) => {
              throw wrap(error, `asking UDP ${where}`);
            }),
            signal,
          )
        : { address: to.host, family: known };
    signal?.throwIfAborted();
    const socket = createSocket(family === 6 ? "udp6" : "udp4");
    let onAbort: (() => void) | undefined;
    try {
      return await new Promise((resolve, reject) => {
        const fail = (error: Error): void => {
          let from: { localAddress?: string; localPort?: number } = {};
          try {
            const { address: localAddress, port: localPort } = socket.address();
            from = { localAddress, localPort };
          } catch {
            // It was never bound: the error says why.
          }
          reject(wrap(Object.assign(error, from), `asking UDP ${where}`));
        };
        onAbort = () => reject(signal?.reason);
        signal?.addEventListener("abort", onAbort, { once: true });
        socket.once("error", fail);
        socket.on("message", (reply) => {
          if (accept?.(reply) !== false) resolve(reply);
        });
        socket.connect(to.port, address, () => {
          socket.send(bytes, (error) => {
            if (error !== null) fail(error);
          });
        });
      });
    } finally {
      if (onAbort !== undefined) signal?.removeEventListener("abort", onAbort);
      // What comes in late is nobody's any more.
      socket.removeAllListeners();
      socket.on("error", () => {});
      socket.close();
    }
  },
  interfaces: interfacesOf(networkInterfaces),
  resolve: async (hostname) => (await systemLookup(hostname, { all: true })).map(({ address }) => address),
};
