// Rewrites where this program's own connections, names and datagrams go, below node:net, node:dns and node:dgram: what is not ours stays as Node made it.
import dns from "node:dns";
import { syncBuiltinESMExports } from "node:module";
import { fileURLToPath } from "node:url";
import { errorNumber, hookConnections, replaceMethod, symbolIn } from "./node-connecting.ts";

/** How one try went: connected after so many milliseconds, or the system's error code ("ECONNREFUSED"). */
export type TryOutcome = { readonly ok: true; readonly tookMs: number } | { readonly ok: false; readonly code: string };

/** One backend to try. */
export interface Try {
  /** An IP address as text, of the socket's family (IPv4 on an IPv6 socket: IPv4-mapped). */
  readonly address: string;
  readonly port: number;
  /** Without an answer for so long it has failed; absent = there is no other. Others are tried beside it long before. */
  readonly limitMs?: number;
  /** Told once, unless the program itself gave up; a second time where it answers after all. */
  ended(outcome: TryOutcome): void;
}

/** The backends of one connection, in the order in which they are tried; undefined = no more at present. */
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
  /** True for an IP address that a service has. */
  isOwn(address: string): boolean;
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

// What Node.js has inside, as far as it is touched here (lib/dgram.js; the same from 20 to 26).
interface UdpHandle {
  send: (this: UdpHandle, ...args: unknown[]) => number;
  send6: (this: UdpHandle, ...args: unknown[]) => number;
  connect: (this: UdpHandle, address: string, port: number) => number;
  connect6: (this: UdpHandle, address: string, port: number) => number;
}
/**
 * Begins to rewrite; `undo` ends it (open connections go on). Per thread, as Node's own modules are. What Node does not let be found (another version
 * of its insides) is left alone. Nothing here keeps the program running.
 */
export function hookNode(rewrite: Rewrite): { undo(): void } {
  const undo = hookConnections(rewrite);
  // A name must not become an address that leads nowhere.
  if (undo.length > 0) {
    let datagrams = false;
    // Who sends a datagram asks for its address first, also for one that is an address already. Until one of ours is asked for, node:dgram is not needed.
    undo.push(
      ...hookNames(rewrite, () => {
        if (!datagrams) undo.push(...hookDatagrams(rewrite));
        datagrams = true;
      }),
    );
  }
  // `import { lookup } from "node:dns"` sees what `require` sees.
  syncBuiltinESMExports();
  return {
    undo() {
      for (const each of undo) each();
      syncBuiltinESMExports();
    },
  };
}

function hookDatagrams(rewrite: Rewrite): (() => void)[] {
  // As above: only a socket has a handle. It is bound to nothing and has no descriptor.
  const probe = process.getBuiltinModule("node:dgram").createSocket("udp4");
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

/** `ours` is called before an address of a service is told. */
function hookNames(rewrite: Rewrite, ours: () => void): (() => void)[] {
  const asked = (host: unknown): ReturnType<Rewrite["name"]> => {
    if (typeof host !== "string") return undefined;
    const own = rewrite.name(host);
    if (own !== undefined || rewrite.isOwn(host)) ours();
    return own;
  };
  const byCallback = dns.lookup as Lookup;
  const lookup: Lookup = function (...args) {
    const [host, options] = args;
    const own = asked(host);
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
    const own = asked(host);
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
