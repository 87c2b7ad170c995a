// Stone 3, reach: a connection to a service, and a port that stands for one.
import type { DatagramSocket, Server, Socket } from "../base/net.ts";
import type { Query } from "../model/query.ts";

/** How one of several backends is chosen (docs/balancing.md). */
export type ConnectPolicy = "p2c" | "round-robin" | "random" | "least" | "first" | "sticky";

/** One backend as a connector chooses it; port 0 = the port that the caller meant. */
export interface Backend {
  readonly address: string;
  readonly port: number;
  /** Its share of what is sent, beside the others' weights; none where it is 0 and another's is not. */
  readonly weight: number;
  /** 0 this host, 1 its zone, 2 elsewhere; 2 unless told. */
  readonly tier?: 0 | 1 | 2;
  /** Only reached so; absent = by both. */
  readonly transport?: "tcp" | "udp";
}

/** What stands behind a query at one moment. */
export interface Backends {
  readonly endpoints: readonly Backend[];
  /** False: nothing of that name is known. */
  readonly known: boolean;
  /** False: the last known good. */
  readonly fresh: boolean;
  /** What the service's instances ask for (`trilith.balance`, `trilith.try`), where the caller says nothing else. */
  readonly policy?: ConnectPolicy;
  /** How long one try may take, milliseconds. */
  readonly tryMs?: number;
}

/** How a backend is chosen and tried; times in milliseconds. */
export interface ConnectOptions {
  /** What the service's instances ask for unless told, else "p2c". */
  readonly policy?: ConnectPolicy;
  /** Who connects, for policy `sticky`: the same text, the same backend. */
  readonly caller?: string;
  /** How long one try may take while other backends remain; default 1000. */
  readonly tryMs?: number;
  /** How long all tries together may take; default 5000. */
  readonly limitMs?: number;
  /** The port of backends that tell none. */
  readonly port?: number;
}

/** An open connection. */
export interface Connected {
  /** Paused, TCP_NODELAY and keep-alive set; whoever gets it ends it. */
  readonly socket: Socket;
  readonly backend: { readonly address: string; readonly port: number };
  /** How many backends were tried in vain before. */
  readonly retries: number;
}

/**
 * Where a proxy listens: an address of its own, or a socket that listens already, which belongs to the proxy from then on.
 * It may have been made in another network namespace; nobody else listens to its events. `here`: it was made in this process's own, so that an
 * instance at the same address would be the proxy itself.
 */
export type ProxyOn =
  | { readonly host: string; readonly port: number; readonly protocol?: "tcp" | "udp" }
  | { readonly server: Server; readonly here?: boolean }
  | { readonly datagrams: DatagramSocket; readonly here?: boolean };

/** `caller`: each client's address unless told. */
export interface ProxyOptions extends ConnectOptions {
  /** How it is called in metrics, status and log; "6379=redis" unless told. */
  readonly name?: string;
  /** Tells backends who connects, in front of everything else [haproxy proxy-protocol.txt]; TCP only. */
  readonly proxyProtocol?: 1 | 2;
  /** UDP: a client that sent and got nothing for so long is forgotten; default 60 000. */
  readonly idleMs?: number;
  /** UDP: at most so many clients at once, the longest silent one makes room; default 4096. */
  readonly clients?: number;
  /** How long open connections may go on after `stop`; default 10 000. */
  readonly drainMs?: number;
}

/** What one backend of a proxy got so far; connections (UDP: clients). */
export interface BackendStatus {
  readonly address: string;
  readonly port: number;
  /** Open now, and all that there were. */
  readonly open: number;
  readonly total: number;
  /** Tries in vain. */
  readonly failures: number;
  /** Bytes each way. */
  readonly toBackend: number;
  readonly toClient: number;
}

/** What a proxy did so far; bytes and connections (UDP: clients). */
export interface ProxyStatus {
  readonly name: string;
  readonly protocol: "tcp" | "udp";
  /** "127.0.0.1:6379" */
  readonly listening: string;
  readonly query: Query;
  /** Open now, and all that there were. */
  readonly open: number;
  readonly total: number;
  /** Connections for which no backend could be reached. */
  readonly failed: number;
  /** Backends tried in vain although the connection came about with another. */
  readonly retries: number;
  /** Connections closed at once because too many files were open. */
  readonly refused: number;
  /** Bytes each way. */
  readonly toBackend: number;
  readonly toClient: number;
  readonly draining: boolean;
  readonly backends: readonly BackendStatus[];
  /** Why the last connection failed; absent where none ever did. */
  readonly lastFailure?: string;
}

/** A port that stands for a service. */
export interface ProxyListener {
  readonly host: string;
  readonly port: number;
  /** What it did so far. */
  status(): ProxyStatus;
  /** Chooses and tries by other options from now on; who is connected stays so, and its name stays. */
  retell(options: ProxyOptions): void;
  /** Listens no more at once; open connections go on until they end or for `drainMs` (0 = cut now, Infinity = never; UDP's clients get their last answers). Resolves when all are gone; twice = once, the shorter time counts. */
  stop(drainMs?: number): Promise<void>;
}

/** Reaches services. One balancer stands behind all of its connections, so that each learns from the others. */
export interface Connector {
  /**
   * A TCP connection to one instance of the service: the balancer's choice, or the next one where that refuses or is silent.
   * @throws TrilithError `not-found` (no such service, or no instance to use), `unavailable`, `timeout` (every one was tried; why), or the signal's reason
   */
  dial(query: Query, options?: ConnectOptions & { readonly signal?: AbortSignal }): Promise<Connected>;
  /**
   * Listens in the service's place. Each connection is tried with one backend after the other before anything is read from the client.
   * @throws TrilithError `address-in-use`, `not-allowed`, `invalid`
   */
  proxy(on: ProxyOn, query: Query, options?: ProxyOptions): Promise<ProxyListener>;
  /** All that listen at present. */
  proxies(): readonly ProxyListener[];
}
