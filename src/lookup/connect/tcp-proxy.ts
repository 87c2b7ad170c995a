// A TCP port that stands for a service: each connection goes to a backend that takes it, and is passed on until it ends.
import { setMaxListeners } from "node:events";
import type { Clock, Timer } from "../../base/clock.ts";
import { messageOf } from "../../base/error.ts";
import type { Log } from "../../base/log.ts";
import { hostPort } from "../../base/net.ts";
import type { Accepted, Server, Socket, TcpListening } from "../../base/tcp.ts";
import type { ProxyListener, ProxyOptions, ProxyStatus } from "../../contracts/connect.ts";
import type { Query } from "../../model/query.ts";
import { proxyHeader } from "../../wire/proxy-protocol.ts";
import type { BufferPool } from "./buffers.ts";
import { Relay, type RelayOwner } from "./relay.ts";
import type { BackendTally, Tally } from "./tally.ts";
import { Cancel, errnoOf, type Reach, type Reached, reachService } from "./tries.ts";

/** What all proxies of one connector share. */
export interface ProxyShare {
  readonly reach: Reach;
  readonly log: Log;
  readonly pool: BufferPool;
  /** Takes one of the places for connections; false = all are taken, or the client's number says that files are. */
  enter(fd?: number): boolean;
  left(): void;
  /** Says at most now and then that places or files are short. */
  short(): void;
}

export interface ProxyParts extends ProxyShare {
  readonly name: string;
  readonly query: Query;
  /** As told last. */
  options: ProxyOptions;
  readonly tally: Tally;
  /** Told once, when nothing is open any more. */
  readonly ended: () => void;
}

const DRAIN_MS = 10_000;
const TOO_MANY = /^E[MN]FILE$/;
/** A connection that is older than this, and at most twice as old, lasts. */
const LASTS_MS = 30_000;
/** So often a connection that was taken and left without a word is tried again. */
const LOSSES = 3;

/** @throws TrilithError `address-in-use`, `not-allowed`, `invalid` */
export async function listenTcp(
  on: { readonly host: string; readonly port: number } | Server,
  parts: ProxyParts,
): Promise<ProxyListener> {
  const proxy = new TcpProxy(parts);
  proxy.listening = await parts.reach.tcp.listen(
    on,
    (accepted) => proxy.serve(accepted),
    () => proxy.dropped(),
  );
  return proxy;
}

class TcpProxy implements ProxyListener {
  listening!: TcpListening;
  readonly #parts: ProxyParts;
  readonly #links = new Set<Link>();
  readonly #over = new AbortController();
  #stopping: Promise<void> | undefined;
  #allGone: (() => void) | undefined;
  #watch: Timer | undefined;
  /** One for all connections. */
  readonly #gone = (link: Link): void => {
    this.#links.delete(link);
    this.#parts.tally.closed();
    this.#parts.left();
    if (this.#links.size === 0) this.#allGone?.();
  };
  #cut: { readonly timer: Timer; readonly atMs: number } | undefined;

  constructor(parts: ProxyParts) {
    this.#parts = parts;
    // Every connection that waits for its service listens; so many are no leak.
    setMaxListeners(0, this.#over.signal);
  }

  get host(): string {
    return this.listening.host;
  }

  get port(): number {
    return this.listening.port;
  }

  serve(accepted: Accepted): void {
    const { tally, enter, short } = this.#parts;
    if (!enter(accepted.fd)) {
      tally.refuse();
      short();
      accepted.reset();
      return;
    }
    tally.opened();
    const link = new Link(accepted, this.port, this.#over.signal, this.#parts, this.#gone);
    this.#links.add(link);
    this.#watch ??= this.#watchLater();
    void link.run();
  }

  /** Who was there the last time as well has come to stay. */
  #watchLater(): Timer {
    return this.#parts.reach.clock.after(LASTS_MS, () => {
      for (const link of this.#links) link.look();
      this.#watch = this.#links.size > 0 ? this.#watchLater() : undefined;
    });
  }

  /** The kernel had no file left for a client. */
  dropped(): void {
    this.#parts.tally.refuse();
    this.#parts.short();
  }

  status(): ProxyStatus {
    const { name, query, tally } = this.#parts;
    const listening = hostPort(this.host, this.port);
    return tally.status({ name, protocol: "tcp", listening, query, draining: this.#stopping !== undefined });
  }

  retell(options: ProxyOptions): void {
    this.#parts.options = options;
  }

  stop(drainMs: number = this.#parts.options.drainMs ?? DRAIN_MS): Promise<void> {
    this.#stopping ??= this.#stop();
    const { clock } = this.#parts.reach;
    const atMs = clock.monotonic() + drainMs;
    if (
      this.#links.size > 0 &&
      drainMs < Number.POSITIVE_INFINITY &&
      (this.#cut === undefined || atMs < this.#cut.atMs)
    ) {
      this.#cut?.timer.cancel();
      this.#cut = { atMs, timer: clock.after(drainMs, () => this.#cutAll(), true) };
    }
    return this.#stopping;
  }

  async #stop(): Promise<void> {
    const gone = new Promise<void>((resolve) => {
      this.#allGone = resolve;
    });
    // What was accepted in this same turn is there by then.
    await this.listening.close();
    if (this.#links.size > 0) await gone;
    this.#cut?.timer.cancel();
    this.#watch?.cancel();
    this.#parts.ended();
  }

  #cutAll(): void {
    const { log, name } = this.#parts;
    log.info(`proxy ${name}: ${this.#links.size} connections are cut, their time to end is over`);
    for (const link of [...this.#links]) link.cut();
    this.#over.abort(new Error("the proxy stops"));
  }
}

/** One connection of a client. */
class Link implements RelayOwner {
  readonly clock: Clock;
  readonly pool: BufferPool;
  readonly #client: Socket;
  readonly #parts: ProxyParts;
  /** Where the client connected to. */
  readonly #port: number;
  readonly #relay: Relay;
  readonly #cancel = new Cancel();
  readonly #signal: AbortSignal;
  readonly #gone: (link: Link) => void;
  #target: Reached["target"] | undefined;
  #row: BackendTally | undefined;
  #others = 0;
  #losses = 0;
  #looks = 0;

  /** `signal`: of all connections together. */
  constructor(accepted: Accepted, port: number, signal: AbortSignal, parts: ProxyParts, gone: (link: Link) => void) {
    this.#parts = parts;
    this.#signal = signal;
    this.#port = port;
    this.#gone = gone;
    this.clock = parts.reach.clock;
    this.pool = parts.pool;
    this.#relay = new Relay(this);
    this.#client = accepted.take(this.#relay.up);
    this.#relay.begin(this.#client);
  }

  passed(to: "toBackend" | "toClient", bytes: number): void {
    if (this.#row !== undefined) this.#parts.tally.passedOn(this.#row, to, bytes);
  }

  over(): void {
    this.#gone(this);
  }

  /** Called now and then. */
  look(): void {
    if (++this.#looks >= 2) this.#relay.lasts();
  }

  /** Never rejects. */
  async run(): Promise<void> {
    const { query, options, tally, reach, log, name, short } = this.#parts;
    const cancel = this.#cancel;
    let reached: Reached;
    try {
      reached = await reachService(reach, query, {
        ...options,
        port: options.port ?? this.#port,
        caller: options.caller ?? (() => this.#client.remoteAddress ?? ""),
        intake: this.#relay.down,
        signal: this.#signal,
        cancel,
        patient: true,
        failed: (backend) => tally.missed(backend),
        trouble: (code) => {
          if (TOO_MANY.test(code)) short();
        },
      });
    } catch (error) {
      if (cancel.reason === undefined) {
        tally.fail(messageOf(error));
        log.debug(`proxy ${name}: ${messageOf(error)}`);
      }
      this.#relay.cut();
      return;
    }
    if (cancel.reason !== undefined || this.#client.destroyed) {
      reach.balancer.closed(reached.target);
      reached.socket.on("error", () => {}).destroy();
      this.#relay.cut();
    } else this.#meet(reached);
  }

  #meet({ socket, target, others }: Reached): void {
    const { tally, reach, options } = this.#parts;
    const row = tally.reached(target.backend);
    socket.once("close", () => {
      row.open--;
      reach.balancer.closed(target);
    });
    this.#row = row;
    this.#target = target;
    this.#others = others;
    this.#relay.meet(socket, options.proxyProtocol === undefined ? undefined : this.#header(options.proxyProtocol));
  }

  #header(version: 1 | 2): Uint8Array {
    const { remoteAddress = "", remotePort = 0, localAddress = "", localPort = 0 } = this.#client;
    return proxyHeader(
      version,
      { address: remoteAddress, port: remotePort },
      { address: localAddress, port: localPort },
    );
  }

  /** The backend took the connection and left it before a byte went through: another one may do better. */
  lost(how: Error | "ended"): boolean {
    const { tally, reach } = this.#parts;
    const target = this.#target;
    if (this.#cancel.reason !== undefined || target === undefined || this.#losses >= LOSSES) return false;
    // Who ends politely may mean it, unless somebody else says more.
    if (how === "ended" && this.#others === 0) return false;
    this.#losses++;
    tally.missed(target.backend);
    reach.balancer.report(target, { ok: false, code: how === "ended" ? "ECONNRESET" : errnoOf(how) });
    void this.run();
    return true;
  }

  cut(): void {
    this.#cancel.cancel(new Error("the proxy stops"));
    this.#relay.cut();
  }
}
