// Requests of undici to one service: each goes to an instance of the balancer's choice, and to the next one where no connection comes about.
import { buildConnector, Dispatcher, Pool } from "undici";
import type { Clock } from "../../base/clock.ts";
import { messageOf, TrilithError } from "../../base/error.ts";
import type { Tcp } from "../../base/tcp.ts";
import type { Backend, ConnectPolicy } from "../../contracts/connect.ts";
import type { Balancer, Target } from "../balance/balancer.ts";
import { lookAround } from "../connect/look.ts";
import { errnoOf } from "../connect/tries.ts";
import type { Names } from "../grpc/names.ts";
import { backendsOf } from "./backends.ts";
import type { Followed } from "./followed.ts";
import type { ServiceOrigin } from "./origin.ts";

export interface ServiceDispatcherParts extends ServiceOrigin {
  readonly followed: Followed;
  readonly balancer: Balancer;
  readonly clock: Pick<Clock, "monotonic" | "after">;
  readonly tcp: Pick<Tcp, "connect">;
  readonly policy?: ConnectPolicy;
  readonly caller?: string;
  /** Of each instance's pool. */
  readonly options: Pool.Options;
}

const TRY_MS = 1_000;

interface Reachable {
  readonly pool: Pool;
  target: Target<Backend>;
}

type Connector = buildConnector.connector;
const keyOf = ({ address, port }: Backend): string => `${address} ${port}`;

/** One pool for each instance. What is no longer an instance gets no request and is closed when those under way have ended. */
export class ServiceDispatcher extends Dispatcher {
  readonly #parts: ServiceDispatcherParts;
  readonly #name: string;
  readonly #pools = new Map<string, Reachable>();
  readonly #closing = new Set<Promise<unknown>>();
  readonly #waiting = new Set<Promise<unknown>>();
  readonly #changes: { stop(): void };
  readonly #over = new AbortController();
  #names: Names | undefined;
  /** How many instances there are. */
  #count = 0;
  closed = false;
  destroyed = false;

  constructor(parts: ServiceDispatcherParts) {
    super();
    this.#parts = parts;
    this.#name = `${parts.origin} ${JSON.stringify(parts.sought)}`;
    this.#changes = parts.followed.changed(parts.sought, (names) => this.#take(names));
  }

  override dispatch(options: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): boolean {
    const { sought, followed, origin } = this.#parts;
    const tried = new Set<string>();
    const again = (error?: Error): void => {
      const left = error === undefined || codeOf(error) !== "ETIMEDOUT" ? [] : this.#untried(tried);
      if (left.length > 1) this.#lookFirst(left, tried, (answering) => handOver(error, answering));
      else handOver(error);
    };
    const handOver = (error?: Error, answering?: Target<Backend>): void => {
      const why = this.#handOver({ ...options, origin }, watched, tried, answering);
      if (why !== undefined) tellFailure(handler, error ?? why);
    };
    const watched = untilStarted(handler, again);
    if (this.closed) {
      tellFailure(handler, stopped());
      return false;
    }
    const known = followed.peek(sought);
    if (known !== undefined) {
      this.#take(known);
      again();
      return true;
    }
    const asking: Promise<unknown> = followed
      .now(sought)
      .then(
        (names) => {
          this.#take(names);
          again();
        },
        (error: Error) => tellFailure(handler, error),
      )
      .finally(() => this.#waiting.delete(asking));
    this.#waiting.add(asking);
    return true;
  }

  #order(): readonly Target<Backend>[] {
    const { balancer, caller } = this.#parts;
    if (this.#names === undefined) return [];
    const { endpoints, policy: asked } = backendsOf(this.#names);
    const policy = this.#parts.policy ?? asked;
    return balancer.order(this.#name, endpoints, {
      ...(policy === undefined ? {} : { policy }),
      ...(caller === undefined ? {} : { caller }),
    });
  }

  #untried(tried: ReadonlySet<string>): readonly Target<Backend>[] {
    return this.#order().filter(({ backend }) => !tried.has(keyOf(backend)));
  }

  /** Where one instance was silent others may be: those that do not answer are passed over at once. */
  #lookFirst(
    targets: readonly Target<Backend>[],
    tried: Set<string>,
    then: (answering?: Target<Backend>) => void,
  ): void {
    const { balancer, tcp, clock } = this.#parts;
    const looking: Promise<unknown> = lookAround({ tcp, balancer, clock, errnoOf }, targets, {
      ms: this.#tryMs(),
      signal: this.#over.signal,
      failed: (backend) => tried.add(keyOf(backend)),
    })
      .then(
        ([answering]) => then(answering),
        () => then(),
      )
      .finally(() => this.#waiting.delete(looking));
    this.#waiting.add(looking);
  }

  /** Gives a request to the next instance; otherwise the reason why it cannot. */
  #handOver(
    options: Dispatcher.DispatchOptions,
    handler: Dispatcher.DispatchHandler,
    tried: Set<string>,
    answering?: Target<Backend>,
  ): Error | undefined {
    const { sought } = this.#parts;
    if (this.destroyed || this.#names === undefined) return stopped();
    const { known } = this.#names;
    const [target] = answering === undefined ? this.#untried(tried) : [answering];
    if (target === undefined)
      return new TrilithError(
        "not-found",
        known
          ? `service "${sought.service}" has no instance that fits and is healthy`
          : `there is no service "${sought.service}"`,
      );
    const key = keyOf(target.backend);
    tried.add(key);
    let there = this.#pools.get(key);
    if (there === undefined) {
      there = this.#open(target);
      this.#pools.set(key, there);
    }
    there.target = target;
    there.pool.dispatch(options, handler);
    return undefined;
  }

  #open(target: Target<Backend>): Reachable {
    const { origin, options } = this.#parts;
    const { connect } = options;
    const own: Connector | undefined = typeof connect === "function" ? connect : undefined;
    const inside = {
      ...(typeof connect === "object" ? connect : {}),
      ...(options.allowH2 === undefined ? {} : { allowH2: options.allowH2 }),
      ...(options.maxCachedSessions === undefined ? {} : { maxCachedSessions: options.maxCachedSessions }),
    };
    const { connectTimeout: timeout } = options;
    const patient = own ?? buildConnector({ ...(timeout === undefined ? {} : { timeout }), ...inside });
    const quick = own ?? buildConnector({ ...inside, timeout: this.#tryMs() });
    const reachable: Reachable = {
      target,
      pool: new Pool(origin, {
        ...options,
        connect: (to, callback) => this.#connect(this.#count > 1 ? quick : patient, reachable, to, callback),
      }),
    };
    return reachable;
  }

  #tryMs(): number {
    return (this.#names === undefined ? undefined : backendsOf(this.#names).tryMs) ?? TRY_MS;
  }

  #connect(
    connector: Connector,
    reachable: Reachable,
    to: buildConnector.Options,
    callback: buildConnector.Callback,
  ): void {
    const { balancer, clock } = this.#parts;
    const { target } = reachable;
    const { address, port } = target.backend;
    const began = clock.monotonic();
    connector({ ...to, hostname: address, port: String(port) }, (...result) => {
      const [error, socket] = result;
      if (error === null) {
        balancer.report(target, { ok: true, tookMs: clock.monotonic() - began });
        balancer.opened(target);
        socket.once("close", () => balancer.closed(target));
      } else balancer.report(target, { ok: false, code: codeOf(error) });
      callback(...result);
    });
  }

  #take(names: Names): void {
    if (names === this.#names) return;
    this.#names = names;
    const { endpoints } = backendsOf(names);
    this.#count = endpoints.length;
    const there = new Set(endpoints.map(keyOf));
    for (const [key, { pool }] of this.#pools) {
      if (there.has(key)) continue;
      this.#pools.delete(key);
      this.#end(pool.close());
    }
  }

  #end(closing: Promise<unknown>): void {
    const ended: Promise<unknown> = closing.catch(() => {}).finally(() => this.#closing.delete(ended));
    this.#closing.add(ended);
  }

  override close(): Promise<void>;
  override close(callback: () => void): void;
  override close(callback?: () => void): Promise<void> | void {
    this.closed = true;
    this.#changes.stop();
    const done = (async () => {
      await Promise.all(this.#waiting);
      for (const { pool } of this.#pools.values()) this.#end(pool.close());
      this.#pools.clear();
      await Promise.all(this.#closing);
    })();
    if (callback === undefined) return done;
    void done.then(callback);
    return undefined;
  }

  override destroy(error?: Error | null): Promise<void>;
  override destroy(error: Error | null, callback: () => void): void;
  override destroy(callback: () => void): void;
  override destroy(first?: Error | null | (() => void), second?: () => void): Promise<void> | void {
    const error = typeof first === "function" ? null : (first ?? null);
    const callback = typeof first === "function" ? first : second;
    this.closed = true;
    this.destroyed = true;
    this.#changes.stop();
    this.#over.abort(stopped());
    const done = Promise.all([...this.#pools.values()].map(({ pool }) => pool.destroy(error))).then(() => {});
    this.#pools.clear();
    if (callback === undefined) return done;
    void done.then(callback);
    return undefined;
  }
}

/** The system's code of an error; undici's own time limit is a timeout. */
function codeOf(error: Error): string {
  const { code } = error as { code?: unknown };
  return code === "UND_ERR_CONNECT_TIMEOUT" ? "ETIMEDOUT" : typeof code === "string" ? code : messageOf(error);
}

const stopped = (): TrilithError => new TrilithError("stopped", "the dispatcher is closed");

/** Tells a handler of either kind (undici 7's, and those before, which Node's own fetch has). */
function tellFailure(handler: Dispatcher.DispatchHandler, error: Error): void {
  if (handler.onRequestStart === undefined) handler.onError?.(error);
  // As undici itself before a request has begun: there is no controller yet.
  else handler.onResponseError?.(undefined as unknown as Dispatcher.DispatchController, error);
}

const BEGINS = new Set<PropertyKey>(["onConnect", "onRequestStart"]);
const FAILS = new Set<PropertyKey>(["onError", "onResponseError"]);

/** The handler itself, but for failures before anything was sent: `again` hears of those. */
function untilStarted(handler: Dispatcher.DispatchHandler, again: (error: Error) => void): Dispatcher.DispatchHandler {
  let started = false;
  return new Proxy(handler, {
    get(target, key) {
      const value: unknown = Reflect.get(target, key, target);
      if (typeof value !== "function") return value;
      return (...args: unknown[]): unknown => {
        if (BEGINS.has(key)) started = true;
        else if (FAILS.has(key) && !started) return again(args.at(-1) as Error);
        return Reflect.apply(value, target, args);
      };
    },
  });
}
