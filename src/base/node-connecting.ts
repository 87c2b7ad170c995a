// This program's own TCP connections below node:net: led from backend to backend, several at once where one is silent, until one of them is there.
import { Socket } from "node:net";
import { getSystemErrorMap, getSystemErrorName } from "node:util";
import { systemClock, type Timer } from "./clock.ts";
import type { Dial, Rewrite, Try } from "./node-hook.ts";

// What Node.js has inside, as far as it is touched here (lib/net.js; the same from 20 to 26).
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
  close(): void;
  readonly constructor: new (type: number) => TcpHandle;
}
type OwningSocket = Socket & {
  _handle: TcpHandle | null;
  readonly blockList?: { check(address: string, family: "ipv4" | "ipv6"): boolean };
};

/** TCPConstants.SOCKET of Node's tcp_wrap. */
const CLIENT_SOCKET = 0;

/** A backend that is silent for so long is not waited for alone: another one is tried beside it, and then twice as many every PACE_MS. */
const SILENT_MS = 250;
const PACE_MS = 100;
/** Who was silent so many times as long before another one began as that took to answer has failed. */
const MUCH_LONGER = 4;

/** libuv's number of a system error, which is negative. @throws TypeError for a code that this system has not */
export function errorNumber(code: string): number {
  for (const [number, [name]] of getSystemErrorMap()) if (name === code) return number;
  throw new TypeError(`this system has no error ${code}`);
}

/** An object's own symbol by its description, as Node's internals are found; undefined where it has none. */
export function symbolIn(object: object, description: string): symbol | undefined {
  return Object.getOwnPropertySymbols(object).find((each) => each.description === description);
}

/** Gives an object another method for a while, which looks like the first one. */
export function replaceMethod(object: object, key: string, method: (...args: never[]) => unknown): () => void {
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

/** Begins to rewrite connections: what ends it, or nothing where this Node does not let its handles be found. */
export function hookConnections(rewrite: Pick<Rewrite, "connection">): (() => void)[] {
  // Bun and Deno show something of the kind, through which their connections do not go.
  if (process.versions["bun"] !== undefined || process.versions["deno"] !== undefined) return [];
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

/** One backend that is being tried. */
interface Attempt {
  readonly handle: TcpHandle;
  readonly trying: Try;
  readonly beganMs: number;
  limit: Timer | undefined;
  /** Its failure was told. */
  failed: boolean;
}

/** One connection of the program, on its way to one of the backends. While anything is under way, the socket has a handle that is. */
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
  readonly #underWay = new Set<Attempt>();
  /** The socket's handle. */
  #attached: TcpHandle;
  #wave: Timer | undefined;
  #waveSize = 1;
  /** Connected, or given up: what ends now means nothing. */
  #over = false;

  constructor(
    handle: TcpHandle,
    request: ConnectRequest,
    native: NativeConnect,
    family: 4 | 6,
    dial: Dial,
    inside: Inside,
  ) {
    this.#first = handle;
    this.#attached = handle;
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
      const attempt: Attempt = { handle, trying, beganMs: systemClock.monotonic(), limit: undefined, failed: false };
      this.#name(trying);
      request.oncomplete = (status, _handle, _request, readable, writable) =>
        this.#ended(attempt, status, readable, writable);
      if (request === this.#request) this.#mine = request.oncomplete;
      const status = this.#native.call(handle, request, trying.address, trying.port);
      if (status === 0) {
        this.#underWay.add(attempt);
        if (this.#canGoOn) this.#watch(attempt);
        return 0;
      }
      trying.ended({ ok: false, code: getSystemErrorName(status) });
      next = this.#next();
      if (next === undefined) return status;
    }
  }

  /** The error that the program sees names what failed last. */
  #name({ address, port }: Try): void {
    this.#request.address = address;
    this.#request.port = port;
  }

  get #canGoOn(): boolean {
    return this.#inside.owner !== undefined && this.#inside.reinitialize !== undefined;
  }

  /** True where the program, or Node's own choice between IPv4 and IPv6, has given up. */
  get #isGivenUp(): boolean {
    const socket = this.#socket;
    return (
      this.#request.oncomplete !== this.#mine || socket === undefined || socket.destroyed || socket._handle === null
    );
  }

  /** One timer, as long as all goes well: that of the first silence. */
  #watch(attempt: Attempt): void {
    if (this.#wave !== undefined) {
      this.#limit(attempt);
      return;
    }
    this.#wave = this.#later(Math.min(SILENT_MS, attempt.trying.limitMs ?? SILENT_MS), () => {
      for (const each of this.#underWay) this.#limit(each);
      this.#tryBeside();
    });
  }

  #limit(attempt: Attempt): void {
    const { limitMs } = attempt.trying;
    if (limitMs === undefined || attempt.limit !== undefined) return;
    attempt.limit = this.#later(attempt.beganMs + limitMs - systemClock.monotonic(), () => {
      if (!this.#underWay.has(attempt)) return;
      attempt.failed = true;
      attempt.trying.ended({ ok: false, code: "ETIMEDOUT" });
    });
  }

  /** After so long, and after what arrived meanwhile: a program that was busy must not take its own silence for a backend's. */
  #later(ms: number, then: () => void): Timer {
    return systemClock.after(ms, () => setImmediate(() => (this.#isDone() ? undefined : then())));
  }

  /** Ends everything where nobody waits any more. */
  #isDone(): boolean {
    if (!this.#over && this.#isGivenUp) this.#end();
    return this.#over;
  }

  /** Those under way are silent: more of them. */
  #tryBeside(): void {
    let paceMs = PACE_MS;
    for (let i = 0; i < this.#waveSize; i++) {
      const next = this.#next();
      if (next === undefined) {
        // Nobody else at present; somebody may come.
        paceMs = SILENT_MS;
        break;
      }
      this.#another(next);
    }
    this.#waveSize *= 2;
    this.#wave = this.#later(paceMs, () => this.#tryBeside());
  }

  /** Tries one on a handle of its own: 0, or an error number. */
  #another(next: Try): number {
    const handle = new this.#first.constructor(CLIENT_SOCKET);
    const { localAddress, localPort } = this.#request;
    let status = 0;
    if (localAddress !== undefined || localPort !== undefined)
      status =
        this.#family === 4
          ? handle.bind(localAddress ?? "0.0.0.0", localPort ?? 0)
          : handle.bind6(localAddress ?? "::", localPort ?? 0, 0);
    if (status === 0) status = this.#try(handle, new this.#request.constructor(), next);
    if (status !== 0) handle.close();
    return status;
  }

  #ended(attempt: Attempt, status: number, readable: boolean, writable: boolean): void {
    this.#underWay.delete(attempt);
    attempt.limit?.cancel();
    if (this.#over) return;
    if (status === 0) this.#connected(attempt, readable, writable);
    else this.#failed(attempt, status);
  }

  #connected(attempt: Attempt, readable: boolean, writable: boolean): void {
    const tookMs = systemClock.monotonic() - attempt.beganMs;
    attempt.trying.ended({ ok: true, tookMs });
    if (!this.#isGivenUp) {
      // What began long before and is still silent will not answer, or is far slower.
      for (const { trying, beganMs, failed } of this.#underWay)
        if (!failed && attempt.beganMs - beganMs >= Math.max(PACE_MS / 2, MUCH_LONGER * tookMs))
          trying.ended({ ok: false, code: "ETIMEDOUT" });
      if (attempt.handle !== this.#attached) this.#attach(attempt.handle);
      this.#name(attempt.trying);
    } else this.#drop(attempt);
    this.#end();
    this.#finish(0, readable, writable);
  }

  #failed(attempt: Attempt, status: number): void {
    if (!this.#isGivenUp) {
      if (!attempt.failed) attempt.trying.ended({ ok: false, code: getSystemErrorName(status) });
      const next = this.#canGoOn ? this.#next() : undefined;
      const lost = next === undefined ? status : this.#another(next) || status;
      const [other] = this.#underWay;
      if (other !== undefined) {
        if (attempt.handle === this.#attached) this.#attach(other.handle);
        else this.#drop(attempt);
        return;
      }
      if (next === undefined) this.#name(attempt.trying);
      this.#end();
      this.#finish(lost, false, false);
      return;
    }
    this.#drop(attempt);
    this.#end();
    this.#finish(status, false, false);
  }

  /** The socket's own handle is the program's to close. */
  #drop({ handle }: Attempt): void {
    if (handle !== this.#attached) handle.close();
  }

  /** Gives the socket another handle, as Node does between a host's addresses; the one before is closed. */
  #attach(handle: TcpHandle): void {
    const socket = this.#socket as OwningSocket;
    // Of a TLS socket the handle is another one, around this.
    const keepsRunning = this.#attached.hasRef();
    (socket as unknown as Record<symbol, (handle: TcpHandle) => void>)[this.#inside.reinitialize as symbol]?.(handle);
    if (!keepsRunning) handle.unref();
    this.#attached = handle;
  }

  #end(): void {
    this.#over = true;
    this.#wave?.cancel();
    for (const { handle, limit } of this.#underWay) {
      limit?.cancel();
      if (handle !== this.#attached) handle.close();
    }
    this.#underWay.clear();
  }

  /** Tells Node, unless that has given up. */
  #finish(status: number, readable: boolean, writable: boolean): void {
    if (this.#complete === undefined || this.#request.oncomplete !== this.#mine) return;
    const handle = this.#socket?._handle ?? this.#first;
    Reflect.apply(this.#complete, this.#request, [status, handle, this.#request, readable, writable]);
  }
}
