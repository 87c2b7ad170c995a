// Rewrites where this program's own connections, names and datagrams go, below node:net, node:dns and node:dgram: what is not ours stays as Node made it.
import { createSocket } from "node:dgram";
import dns from "node:dns";
import { syncBuiltinESMExports } from "node:module";
import { Socket } from "node:net";
import { fileURLToPath } from "node:url";
import { getSystemErrorMap, getSystemErrorName } from "node:util";
import { systemClock, type Timer } from "./clock.ts";

/** How one try went: connected after so many milliseconds, or the system's error code ("ECONNREFUSED"). */
export type TryOutcome = { readonly ok: true; readonly tookMs: number } | { readonly ok: false; readonly code: string };

/** One backend to try. */
export interface Try {
  /** An IP address as text, of the socket's family (IPv4 on an IPv6 socket: IPv4-mapped). */
  readonly address: string;
  readonly port: number;
  /** How long it may take before the next one is tried; absent = as long as the system lets it. */
  readonly limitMs?: number;
  /** Told once, unless the program itself gave up. */
  ended(outcome: TryOutcome): void;
}

/** The backends of one connection, in the order in which they are tried; undefined = no more. */
export type Dial = () => Try | undefined;

/** The addresses of a host name: one of each family at most. */
export interface OwnAddresses {
  /** For who asks for IPv4; for IPv6. */
  readonly v4: string;
  readonly v6: string;
  /** Those given to who asks for any, in this order. */
  readonly any: readonly (4 | 6)[];
}

/** What is rewritten. Every method is called for everything the program does, and has to be quick with what is not ours: undefined. */
export interface Rewrite {
  /** A host name as it was given. A promise where that is not known yet: this one question then waits for it. */
  name(host: string): OwnAddresses | undefined | Promise<OwnAddresses | undefined>;
  /** A connection to an IP address. */
  connection(address: string, port: number, family: 4 | 6): Dial | undefined;
  /** A datagram (or a connected datagram socket) to an IP address; `socket` is the same object for the same socket. "nobody" = refused. */
  datagram(
    address: string,
    port: number,
    family: 4 | 6,
    socket: object,
  ): { readonly address: string; readonly port: number } | "nobody" | undefined;
}

// What Node.js has inside, as far as it is touched here (lib/net.js, lib/dgram.js; the same from 20 to 26).
interface ConnectRequest {
  oncomplete:
    | ((status: number, handle: unknown, request: unknown, readable: boolean, writable: boolean) => void)
    | undefined;
  address: string;
  port: number;
  localAddress?: string;
  localPort?: number;
  readonly constructor: new () => ConnectRequest;
}
type NativeConnect = (this: TcpHandle, request: ConnectRequest, address: string, port: number) => number;
interface TcpHandle {
  connect: NativeConnect;
  connect6: NativeConnect;
  bind(address: string, port: number): number;
  bind6(address: string, port: number, flags: number): number;
  hasRef(): boolean;
  unref(): void;
  readonly constructor: new (type: number) => TcpHandle;
}
interface UdpHandle {
  send: (this: UdpHandle, ...args: unknown[]) => number;
  send6: (this: UdpHandle, ...args: unknown[]) => number;
  connect: (this: UdpHandle, address: string, port: number) => number;
  connect6: (this: UdpHandle, address: string, port: number) => number;
}
type OwningSocket = Socket & {
  _handle: TcpHandle | null;
  readonly blockList?: { check(address: string, family: "ipv4" | "ipv6"): boolean };
};

/** TCPConstants.SOCKET of Node's tcp_wrap. */
const CLIENT_SOCKET = 0;

function errorNumber(code: string): number {
  for (const [number, [name]] of getSystemErrorMap()) if (name === code) return number;
  throw new TypeError(`this system has no error ${code}`);
}

function symbolIn(object: object, description: string): symbol | undefined {
  return Object.getOwnPropertySymbols(object).find((each) => each.description === description);
}

/** Gives an object another method for a while, which looks like the first one. */
function replaceMethod(object: object, key: string, method: (...args: never[]) => unknown): () => void {
  const before = Object.getOwnPropertyDescriptor(object, key);
  if (before === undefined) return () => {};
  for (const name of Reflect.ownKeys(before.value)) {
    const own = Object.getOwnPropertyDescriptor(before.value, name);
    const mine = Object.getOwnPropertyDescriptor(method, name);
    if (own !== undefined && (mine === undefined || mine.configurable === true))
      Object.defineProperty(method, name, own);
  }
  Object.defineProperty(object, key, { ...before, value: method });
  return () => Object.defineProperty(object, key, before);
}

/**
 * Begins to rewrite; `undo` ends it (open connections go on). Per thread, as Node's own modules are. What Node does not let be found (another version
 * of its insides) is left alone. Nothing here keeps the program running.
 */
export function hookNode(rewrite: Rewrite): { undo(): void } {
  const connections = hookConnections(rewrite);
  // A name must not become an address that leads nowhere.
  const undo = connections.length === 0 ? [] : [...connections, ...hookDatagrams(rewrite), ...hookNames(rewrite)];
  // `import { lookup } from "node:dns"` sees what `require` sees.
  syncBuiltinESMExports();
  return {
    undo() {
      for (const each of undo) each();
      syncBuiltinESMExports();
    },
  };
}

function hookConnections(rewrite: Rewrite): (() => void)[] {
  // A handle can only be had from a socket that is about to connect. It is destroyed before it does (which is in the next tick).
  const probe = new Socket() as OwningSocket;
  probe.on("error", () => {});
  probe.connect({ host: "127.0.0.1", port: 1 });
  const handle = probe._handle;
  const prototype = handle === null ? undefined : (Object.getPrototypeOf(handle) as TcpHandle | undefined);
  const inside: Inside = {
    owner: handle === null ? undefined : symbolIn(handle, "owner_symbol"),
    reinitialize: symbolIn(Socket.prototype, "kReinitializeHandle"),
  };
  probe.destroy();
  if (prototype === undefined) return [];
  return (["connect", "connect6"] as const).map((key) => {
    const native = prototype[key];
    const family = key === "connect" ? 4 : 6;
    const hooked: NativeConnect = function (request, address, port) {
      const dial = rewrite.connection(address, port, family);
      if (dial === undefined) return native.call(this, request, address, port);
      return new Connecting(this, request, native, family, dial, inside).begin();
    };
    return replaceMethod(prototype, key, hooked);
  });
}

interface Inside {
  /** Leads from a handle to its socket; from a socket to the method that gives it another handle while it connects. */
  readonly owner: symbol | undefined;
  readonly reinitialize: symbol | undefined;
}

/** One connection of the program, on its way from backend to backend. */
class Connecting {
  readonly #first: TcpHandle;
  readonly #request: ConnectRequest;
  readonly #native: NativeConnect;
  readonly #family: 4 | 6;
  readonly #dial: Dial;
  readonly #inside: Inside;
  /** What Node waits for. */
  readonly #complete: ConnectRequest["oncomplete"];
  /** What Node's request has instead; when Node takes it away, it has given up. */
  #mine: ConnectRequest["oncomplete"];
  /** The request under way; the end of any other one means nothing. */
  #current: ConnectRequest | undefined;
  #limit: Timer | undefined;

  constructor(
    handle: TcpHandle,
    request: ConnectRequest,
    native: NativeConnect,
    family: 4 | 6,
    dial: Dial,
    inside: Inside,
  ) {
    this.#first = handle;
    this.#request = request;
    this.#native = native;
    this.#family = family;
    this.#dial = dial;
    this.#inside = inside;
    this.#complete = request.oncomplete;
  }

  /** As the native method: 0, or an error number. */
  begin(): number {
    const next = this.#next();
    return next === undefined ? errorNumber("ECONNREFUSED") : this.#try(this.#first, this.#request, next);
  }

  get #socket(): OwningSocket | undefined {
    const { owner } = this.#inside;
    return owner === undefined ? undefined : (this.#first as unknown as Record<symbol, OwningSocket>)[owner];
  }

  /** The next backend that the program has not forbidden. */
  #next(): Try | undefined {
    const blocked = this.#socket?.blockList;
    for (let next = this.#dial(); next !== undefined; next = this.#dial())
      if (blocked?.check(next.address, `ipv${this.#family}`) !== true) return next;
    return undefined;
  }

  /** Tries from `next` on until one is under way: 0, or the error of the last one, which failed at once. */
  #try(handle: TcpHandle, request: ConnectRequest, first: Try): number {
    let next: Try | undefined = first;
    for (;;) {
      const trying: Try = next;
      const began = systemClock.monotonic();
      // The error that the program sees names what was tried last.
      this.#request.address = trying.address;
      this.#request.port = trying.port;
      request.oncomplete = (status, _handle, _request, readable, writable) =>
        this.#ended(request, trying, systemClock.monotonic() - began, status, readable, writable);
      if (request === this.#request) this.#mine = request.oncomplete;
      this.#current = request;
      const status = this.#native.call(handle, request, trying.address, trying.port);
      if (status === 0) {
        if (trying.limitMs !== undefined && this.#canGoOn)
          this.#limit = systemClock.after(trying.limitMs, () => this.#tooSlow(trying));
        return 0;
      }
      trying.ended({ ok: false, code: getSystemErrorName(status) });
      next = this.#next();
      if (next === undefined) return status;
    }
  }

  get #canGoOn(): boolean {
    return this.#inside.owner !== undefined && this.#inside.reinitialize !== undefined;
  }

  /** True where the program, or Node's own choice between IPv4 and IPv6, has given up. */
  get #isOver(): boolean {
    const socket = this.#socket;
    return (
      this.#request.oncomplete !== this.#mine || socket === undefined || socket.destroyed || socket._handle === null
    );
  }

  #ended(
    request: ConnectRequest,
    trying: Try,
    tookMs: number,
    status: number,
    readable: boolean,
    writable: boolean,
  ): void {
    if (request !== this.#current) return;
    this.#limit?.cancel();
    const over = this.#isOver;
    if (status === 0) trying.ended({ ok: true, tookMs });
    else if (!over) {
      trying.ended({ ok: false, code: getSystemErrorName(status) });
      const next = this.#canGoOn ? this.#next() : undefined;
      if (next !== undefined) {
        this.#goOn(next);
        return;
      }
    }
    if (this.#request.oncomplete === this.#mine) this.#finish(status, readable, writable);
  }

  #tooSlow(trying: Try): void {
    if (this.#isOver) return;
    const next = this.#next();
    if (next === undefined) return;
    trying.ended({ ok: false, code: "ETIMEDOUT" });
    this.#goOn(next);
  }

  /** Tries the next one on a handle of its own, as Node does between a host's addresses. */
  #goOn(next: Try): void {
    const socket = this.#socket as OwningSocket;
    const keepsRunning = socket._handle?.hasRef() !== false;
    const handle = new this.#first.constructor(CLIENT_SOCKET);
    this.#current = undefined;
    // Closes the handle before.
    (socket as unknown as Record<symbol, (handle: TcpHandle) => void>)[this.#inside.reinitialize as symbol]?.(handle);
    if (!keepsRunning) socket._handle?.unref();
    const { localAddress, localPort } = this.#request;
    let status = 0;
    if (localAddress !== undefined || localPort !== undefined)
      status =
        this.#family === 4
          ? handle.bind(localAddress ?? "0.0.0.0", localPort ?? 0)
          : handle.bind6(localAddress ?? "::", localPort ?? 0, 0);
    if (status === 0) status = this.#try(handle, new this.#request.constructor(), next);
    if (status !== 0) this.#finish(status, false, false);
  }

  #finish(status: number, readable: boolean, writable: boolean): void {
    if (this.#complete === undefined) return;
    const handle = this.#socket?._handle ?? this.#first;
    Reflect.apply(this.#complete, this.#request, [status, handle, this.#request, readable, writable]);
  }
}

function hookDatagrams(rewrite: Rewrite): (() => void)[] {
  // As above: only a socket has a handle. It is bound to nothing and has no descriptor.
  const probe = createSocket("udp4");
  const state = symbolIn(probe, "state symbol");
  const inner = state === undefined ? undefined : (probe as unknown as Record<symbol, { handle?: UdpHandle }>)[state];
  const prototype = inner?.handle === undefined ? undefined : (Object.getPrototypeOf(inner.handle) as UdpHandle);
  probe.close();
  if (prototype === undefined) return [];
  const undo: (() => void)[] = [];
  for (const family of [4, 6] as const) {
    const nativeSend = prototype[family === 4 ? "send" : "send6"];
    const nativeConnect = prototype[family === 4 ? "connect" : "connect6"];
    const send: UdpHandle["send"] = function (...args) {
      // (request, list, count, port, address, hasCallback); a connected socket's are fewer.
      const [request, list, count, port, address, hasCallback] = args;
      const to = typeof address === "string" ? rewrite.datagram(address, port as number, family, this) : undefined;
      if (to === undefined) return Reflect.apply(nativeSend, this, args);
      if (to === "nobody") return errorNumber("ECONNREFUSED");
      return Reflect.apply(nativeSend, this, [request, list, count, to.port, to.address, hasCallback]);
    };
    const connect: UdpHandle["connect"] = function (address, port) {
      const to = rewrite.datagram(address, port, family, this);
      if (to === undefined) return Reflect.apply(nativeConnect, this, [address, port]);
      if (to === "nobody") return errorNumber("ECONNREFUSED");
      return Reflect.apply(nativeConnect, this, [to.address, to.port]);
    };
    undo.push(
      replaceMethod(prototype, family === 4 ? "send" : "send6", send),
      replaceMethod(prototype, family === 4 ? "connect" : "connect6", connect),
    );
  }
  return undo;
}

type Lookup = (this: unknown, ...args: unknown[]) => unknown;
type Found = { readonly address: string; readonly family: number };

/** Which family a caller of lookup asks for, and whether for all addresses. */
function wantOf(options: unknown): { readonly family: 0 | 4 | 6; readonly all: boolean } {
  if (options === 4 || options === 6) return { family: options, all: false };
  if (typeof options !== "object" || options === null) return { family: 0, all: false };
  const { family, all } = options as { family?: unknown; all?: unknown };
  return {
    family: family === 4 || family === "IPv4" ? 4 : family === 6 || family === "IPv6" ? 6 : 0,
    all: all === true,
  };
}

/** What stands for the name: Node answers an address with itself, and checks and calls back as ever. */
function literalsOf(own: OwnAddresses, options: unknown): { readonly first: string; readonly also?: Found } {
  const { family, all } = wantOf(options);
  if (family !== 0) return { first: family === 4 ? own.v4 : own.v6 };
  const [first = 4, second] = own.any;
  return {
    first: first === 4 ? own.v4 : own.v6,
    ...(all && second !== undefined ? { also: { address: second === 4 ? own.v4 : own.v6, family: second } } : {}),
  };
}

const HERE = [import.meta.url, fileURLToPath(import.meta.url)];

/** Without this file's frames: an error that Node throws at the caller's arguments comes from the caller's line. */
function asIfDirect<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    if (error instanceof Error && error.stack !== undefined)
      error.stack = error.stack
        .split("\n")
        .filter((line) => !HERE.some((here) => line.includes(here)))
        .join("\n");
    throw error;
  }
}

function hookNames(rewrite: Rewrite): (() => void)[] {
  const byCallback = dns.lookup as Lookup;
  const lookup: Lookup = function (...args) {
    const [host, options] = args;
    const own = typeof host === "string" ? rewrite.name(host) : undefined;
    if (own === undefined) return asIfDirect(() => Reflect.apply(byCallback, this, args));
    const callback = args.at(-1);
    if (own instanceof Promise) {
      if (typeof callback !== "function") return asIfDirect(() => Reflect.apply(byCallback, this, args));
      void own.then((known) => answer(this, args, known));
      return {};
    }
    return asIfDirect(() => answer(this, args, own));

    function answer(self: unknown, given: unknown[], known: OwnAddresses | undefined): unknown {
      if (known === undefined) return Reflect.apply(byCallback, self, given);
      const { first, also } = literalsOf(known, options);
      const told =
        also === undefined || typeof callback !== "function"
          ? given
          : given.with(-1, (error: unknown, found: readonly Found[]) =>
              callback(error, error === null ? [...found, also] : found),
            );
      return Reflect.apply(byCallback, self, told.with(0, first));
    }
  };
  const byPromise = dns.promises.lookup as Lookup;
  const lookupPromise: Lookup = function (...args) {
    const [host, options] = args;
    const own = typeof host === "string" ? rewrite.name(host) : undefined;
    if (own === undefined) return asIfDirect(() => Reflect.apply(byPromise, this, args));
    const answer = async (known: OwnAddresses | undefined): Promise<unknown> => {
      if (known === undefined) return Reflect.apply(byPromise, this, args);
      const { first, also } = literalsOf(known, options);
      const found = await Reflect.apply(byPromise, this, args.with(0, first));
      return also === undefined ? found : [...(found as readonly Found[]), also];
    };
    return own instanceof Promise ? own.then(answer) : answer(own);
  };
  return [replaceMethod(dns, "lookup", lookup), replaceMethod(dns.promises, "lookup", lookupPromise)];
}
