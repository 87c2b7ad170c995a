// A UDP port that stands for a service: each client's datagrams go to one backend, and its answers come back, until the client is silent for a while.
import type { Timer } from "../../base/clock.ts";
import { messageOf } from "../../base/error.ts";
import { hostPort } from "../../base/net.ts";
import type { DatagramSocket, Udp, UdpConnected, UdpListening } from "../../base/udp.ts";
import type { Backend, ProxyListener, ProxyOptions, ProxyStatus } from "../../contracts/connect.ts";
import type { Target } from "../balance/balancer.ts";
import { subjectOfQuery } from "./subject.ts";
import type { BackendTally } from "./tally.ts";
import type { ProxyParts } from "./tcp-proxy.ts";
import { errnoOf, usableOf } from "./tries.ts";

const IDLE_MS = 60_000;
const CLIENTS = 4_096;
/** Clients are put in the order of their last datagram at most so often each. */
const ORDER_MS = 1_000;
/** A backend that is listed no more and said nothing for so long is left. */
const SILENT_MS = 2_000;
/** What a client sends while its backend is being found waits, at most so many. */
const WAITING = 16;
/** At stop, who got no answer for so long gets none. */
const LAST_ANSWER_MS = 2_000;

/** @throws TrilithError `address-in-use`, `not-allowed`, `invalid` */
export async function listenUdp(
  on: { readonly host: string; readonly port: number } | DatagramSocket,
  parts: ProxyParts & { readonly udp: Udp },
): Promise<ProxyListener> {
  const proxy = new UdpProxy(parts);
  proxy.listening = await parts.udp.listen(on, (bytes, from) => proxy.datagram(bytes, from));
  return proxy;
}

class UdpProxy implements ProxyListener {
  listening!: UdpListening;
  readonly #parts: ProxyParts & { readonly udp: Udp };
  /** By address and port; the one that was silent longest comes first. */
  readonly #clients = new Map<string, Client>();
  #sweep: Timer | undefined;
  #stopping: Promise<void> | undefined;
  #cut: AbortController | undefined;

  constructor(parts: ProxyParts & { readonly udp: Udp }) {
    this.#parts = parts;
  }

  get host(): string {
    return this.listening.host;
  }

  get port(): number {
    return this.listening.port;
  }

  datagram(bytes: Uint8Array, from: { readonly address: string; readonly port: number }): void {
    const key = `${from.address} ${from.port}`;
    const nowMs = this.#parts.reach.clock.monotonic();
    let client = this.#clients.get(key);
    if (client === undefined) {
      if (this.#stopping !== undefined) return;
      const { tally, enter, short } = this.#parts;
      if (this.#clients.size >= (this.#parts.options.clients ?? CLIENTS)) this.#forget(this.#oldest());
      if (!enter()) {
        tally.refuse();
        short();
        return;
      }
      tally.opened();
      const made = new Client(from, this.#parts, this.listening, () => this.#forget([key, made]));
      client = made;
    }
    if (nowMs - client.orderedMs >= ORDER_MS) {
      client.orderedMs = nowMs;
      this.#clients.delete(key);
      this.#clients.set(key, client);
      this.#sweepLater();
    }
    client.send(bytes, nowMs);
  }

  #oldest(): [string, Client] | undefined {
    return this.#clients.entries().next().value;
  }

  #forget(entry: [string, Client] | undefined): void {
    if (entry === undefined || this.#clients.get(entry[0]) !== entry[1]) return;
    this.#clients.delete(entry[0]);
    entry[1].close();
    this.#parts.tally.closed();
    this.#parts.left();
    if (this.#clients.size === 0) {
      this.#sweep?.cancel();
      this.#sweep = undefined;
    }
  }

  /** Whoever was silent for too long goes. */
  #sweepLater(): void {
    if (this.#sweep !== undefined) return;
    const idleMs = this.#parts.options.idleMs ?? IDLE_MS;
    const oldest = this.#oldest();
    if (oldest === undefined) return;
    const { clock } = this.#parts.reach;
    const leftMs = Math.max(oldest[1].activeMs + idleMs - clock.monotonic(), Math.min(ORDER_MS, idleMs / 4));
    this.#sweep = clock.after(leftMs, () => {
      this.#sweep = undefined;
      const nowMs = clock.monotonic();
      for (const entry of this.#clients) {
        // Those behind it sent something at most `ORDER_MS` earlier than their place says.
        if (nowMs - entry[1].orderedMs < idleMs - ORDER_MS) break;
        if (nowMs - entry[1].activeMs >= idleMs) this.#forget(entry);
      }
      this.#sweepLater();
    });
  }

  status(): ProxyStatus {
    const { name, query, tally } = this.#parts;
    const listening = hostPort(this.host, this.port);
    return tally.status({ name, protocol: "udp", listening, query, draining: this.#stopping !== undefined });
  }

  retell(options: ProxyOptions): void {
    this.#parts.options = options;
  }

  /** Datagrams of new clients are dropped at once; others may wait for the answer to what they asked. */
  stop(drainMs: number = this.#parts.options.drainMs ?? LAST_ANSWER_MS): Promise<void> {
    this.#cut ??= new AbortController();
    const cut = this.#cut;
    if (drainMs <= 0) cut.abort();
    this.#stopping ??= this.#stop(Math.min(drainMs, LAST_ANSWER_MS), cut.signal);
    return this.#stopping;
  }

  async #stop(ms: number, cut: AbortSignal): Promise<void> {
    const { clock } = this.#parts.reach;
    const untilMs = clock.monotonic() + ms;
    while (!cut.aborted && clock.monotonic() < untilMs && [...this.#clients.values()].some(({ waits }) => waits))
      await clock.sleep(20, cut).catch(() => {});
    for (const entry of [...this.#clients]) this.#forget(entry);
    this.#sweep?.cancel();
    await this.listening.close();
    this.#parts.ended();
  }
}

/** One client's way to its backend. */
class Client {
  /** When its place in the order was taken. */
  orderedMs = Number.NEGATIVE_INFINITY;
  /** When it last sent or got something. */
  activeMs = 0;
  readonly #from: { readonly address: string; readonly port: number };
  readonly #parts: ProxyParts & { readonly udp: Udp };
  readonly #listening: UdpListening;
  readonly #forget: () => void;
  #target: Target<Backend> | undefined;
  #row: BackendTally | undefined;
  #socket: UdpConnected | undefined;
  #finding = false;
  #closed = false;
  #waiting: Uint8Array[] = [];
  /** The last datagram that has no answer yet: it is sent again where a backend says that it does not listen. */
  #unanswered: Uint8Array | undefined;
  #askedMs = 0;
  #answeredMs = 0;
  #checkedMs = 0;
  /** Backends in a row that do not listen. */
  #tries = 0;

  constructor(
    from: { readonly address: string; readonly port: number },
    parts: ProxyParts & { readonly udp: Udp },
    listening: UdpListening,
    forget: () => void,
  ) {
    this.#from = from;
    this.#parts = parts;
    this.#listening = listening;
    this.#forget = forget;
  }

  get waits(): boolean {
    return this.#unanswered !== undefined || this.#waiting.length > 0;
  }

  send(bytes: Uint8Array, nowMs: number): void {
    this.activeMs = nowMs;
    if (this.#socket !== undefined && nowMs - Math.max(this.#checkedMs, this.#answeredMs) >= SILENT_MS) {
      this.#checkedMs = nowMs;
      void this.#leaveWhatIsGone();
    }
    if (this.#socket === undefined) {
      if (this.#waiting.length < WAITING) this.#waiting.push(bytes);
      if (!this.#finding) void this.#find();
      return;
    }
    this.#pass(bytes);
  }

  #pass(bytes: Uint8Array): void {
    if (this.#unanswered === undefined) this.#askedMs = this.activeMs;
    this.#unanswered = bytes;
    if (this.#row !== undefined) this.#parts.tally.passedOn(this.#row, "toBackend", bytes.length);
    this.#socket?.send(bytes);
  }

  /** Chooses a backend and sends what waits. Never rejects. */
  async #find(): Promise<void> {
    const { reach, query, options, tally, udp, short, log, name } = this.#parts;
    this.#finding = true;
    try {
      const found = await reach.find(query);
      const usable = usableOf(found, reach, query, "udp", options.port ?? this.#listening.port);
      const policy = options.policy ?? found.policy;
      const [target] = reach.balancer.order(`${subjectOfQuery(query)} udp`, usable, {
        ...(policy === undefined ? {} : { policy }),
        caller: options.caller ?? this.#from.address,
      });
      if (target === undefined || this.#closed) return;
      const { address, port } = target.backend;
      let failed = false;
      const socket = await udp.connect(
        { host: address, port },
        (bytes) => this.#answer(bytes, target),
        (error) => {
          if (failed || this.#target !== target) return;
          failed = true;
          this.#failed(target, error, usable.length);
        },
      );
      if (this.#closed) return socket.close();
      this.#target = target;
      this.#socket = socket;
      this.#row = tally.reached(target.backend);
      this.#checkedMs = reach.clock.monotonic();
      this.#answeredMs = this.#checkedMs;
      reach.balancer.opened(target);
      for (const bytes of this.#waiting.splice(0)) this.#pass(bytes);
    } catch (error) {
      if (/^E[MN]FILE$/.test(errnoOf(error))) short();
      tally.fail(messageOf(error));
      log.debug(`proxy ${name}: ${messageOf(error)}`);
      this.#forget();
    } finally {
      this.#finding = false;
    }
  }

  #answer(bytes: Uint8Array, target: Target<Backend>): void {
    const { reach, tally } = this.#parts;
    const nowMs = reach.clock.monotonic();
    if (this.#unanswered !== undefined) {
      this.#unanswered = undefined;
      this.#tries = 0;
      reach.balancer.report(target, { ok: true, tookMs: nowMs - this.#askedMs });
    }
    this.#answeredMs = nowMs;
    this.activeMs = nowMs;
    if (this.#row !== undefined) tally.passedOn(this.#row, "toClient", bytes.length);
    this.#listening.send(bytes, this.#from);
  }

  /** The network says that the backend is not reached: what it was sent last goes to another one. */
  #failed(target: Target<Backend>, error: Error, backends: number): void {
    const { reach, tally, query } = this.#parts;
    const code = errnoOf(error);
    reach.balancer.report(target, { ok: false, code });
    tally.missed(target.backend);
    if (code === "ECONNREFUSED") reach.refused?.(query.service, target.backend.address, target.backend.port);
    this.#letGo();
    const again = this.#unanswered;
    this.#unanswered = undefined;
    if (again !== undefined) this.#waiting.unshift(again);
    if (++this.#tries > backends) {
      this.#tries = 0;
      tally.fail(`no instance of "${subjectOfQuery(query)}" takes datagrams: ${messageOf(error)}`);
      this.#forget();
    } else if (this.#waiting.length > 0 && !this.#finding) void this.#find();
  }

  /** A backend that is listed no more and has fallen silent is changed for another. */
  async #leaveWhatIsGone(): Promise<void> {
    const { reach, query, options } = this.#parts;
    const target = this.#target;
    if (target === undefined) return;
    try {
      const usable = usableOf(await reach.find(query), reach, query, "udp", options.port ?? this.#listening.port);
      const { address, port } = target.backend;
      if (usable.some((each) => each.address === address && each.port === port)) return;
    } catch {
      // Nobody else is known: it stays.
      return;
    }
    if (this.#target === target) this.#letGo();
  }

  #letGo(): void {
    this.#socket?.close();
    this.#socket = undefined;
    if (this.#row !== undefined) this.#row.open--;
    this.#row = undefined;
    if (this.#target !== undefined) this.#parts.reach.balancer.closed(this.#target);
    this.#target = undefined;
  }

  close(): void {
    this.#closed = true;
    this.#letGo();
  }
}
