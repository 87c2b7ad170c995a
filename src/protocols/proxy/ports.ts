// Keeps listeners as they are wanted: opens what is missing, closes what is wanted no more, tries again what could not be had.
import { isDeepStrictEqual } from "node:util";
import type { Clock } from "../../base/clock.ts";
import { type Code, codeOf, messageOf } from "../../base/error.ts";
import type { Log } from "../../base/log.ts";
import { hostPort } from "../../base/net.ts";
import type { Connector, ProxyListener, ProxyOptions } from "../../contracts/connect.ts";
import type { Query } from "../../model/query.ts";

/** A port that should be open. */
export interface WantedPort {
  readonly host: string;
  readonly port: number;
  readonly protocol: "tcp" | "udp";
  readonly query: Query;
  readonly options: ProxyOptions;
  /** False: where somebody else has it, it is his for good. */
  readonly insist: boolean;
}

/** A port that could not be had. */
export interface MissingPort extends WantedPort {
  readonly code: Code;
  readonly text: string;
  readonly retryAtMs: number;
}

const RETRY_MS = 5_000;

/** "127.0.0.1:53/udp" */
export function portKey({ host, port, protocol }: Pick<WantedPort, "host" | "port" | "protocol">): string {
  return `${hostPort(host, port)}${protocol === "udp" ? "/udp" : ""}`;
}

export class Ports {
  readonly #connector: Pick<Connector, "proxy">;
  readonly #clock: Pick<Clock, "monotonic">;
  readonly #log: Log;
  readonly #open = new Map<string, { wanted: WantedPort; readonly listener: ProxyListener }>();
  readonly #missing = new Map<string, MissingPort>();
  /** Listeners whose last connections are still open. */
  readonly #ending = new Map<ProxyListener, Promise<void>>();

  constructor(parts: { connector: Pick<Connector, "proxy">; clock: Pick<Clock, "monotonic">; log: Log }) {
    this.#connector = parts.connector;
    this.#clock = parts.clock;
    this.#log = parts.log;
  }

  /** Makes it so. Never rejects. Not to be called again before it resolves. */
  async want(all: readonly WantedPort[]): Promise<void> {
    const byKey = new Map(all.map((wanted) => [portKey(wanted), wanted]));
    const turned: Promise<void>[] = [];
    for (const [key, open] of this.#open) {
      const now = byKey.get(key);
      if (now === undefined || !isDeepStrictEqual(now.query, open.wanted.query)) {
        this.#open.delete(key);
        // Who is connected stays so: a port that new clients should not use says nothing about those there are.
        // Of UDP one socket does everything, and a port that is to be another service's does not wait for answers.
        const atOnce = now?.protocol === "udp";
        const ended = this.#end(open.listener, atOnce ? 0 : Number.POSITIVE_INFINITY);
        if (atOnce) turned.push(ended);
        continue;
      }
      if (!isDeepStrictEqual(now.options, open.wanted.options)) open.listener.retell(now.options);
      open.wanted = now;
    }
    await Promise.all(turned);
    for (const [key, { query }] of this.#missing)
      if (!isDeepStrictEqual(byKey.get(key)?.query, query)) this.#missing.delete(key);
    const nowMs = this.#clock.monotonic();
    for (const [key, wanted] of byKey) {
      if (this.#open.has(key) || (this.#missing.get(key)?.retryAtMs ?? 0) > nowMs) continue;
      await this.#try(key, wanted, nowMs);
    }
  }

  async #try(key: string, wanted: WantedPort, nowMs: number): Promise<void> {
    const { host, port, protocol, query, options, insist } = wanted;
    try {
      const listener = await this.#connector.proxy({ host, port, protocol }, query, options);
      this.#open.set(key, { wanted, listener });
      if (this.#missing.delete(key)) this.#log.info(`${key} stands for ${query.service} now`);
    } catch (error) {
      if (!this.#missing.has(key) && insist)
        this.#log.warn(`${key} cannot stand for ${query.service}: ${messageOf(error)}`);
      this.#missing.set(key, {
        ...wanted,
        code: codeOf(error),
        text: messageOf(error),
        retryAtMs: insist ? nowMs + RETRY_MS : Number.POSITIVE_INFINITY,
      });
    }
  }

  #end(listener: ProxyListener, drainMs?: number): Promise<void> {
    const ended = listener.stop(drainMs).finally(() => this.#ending.delete(listener));
    this.#ending.set(listener, ended);
    return ended;
  }

  /** When something should be tried again; undefined = never. */
  get retryAtMs(): number | undefined {
    const times = [...this.#missing.values()].map(({ retryAtMs }) => retryAtMs).filter(Number.isFinite);
    return times.length === 0 ? undefined : Math.min(...times);
  }

  /** Everything that could not be had is tried the next time. */
  retry(): void {
    this.#missing.clear();
  }

  listeners(): readonly { readonly wanted: WantedPort; readonly listener: ProxyListener }[] {
    return [...this.#open.values()];
  }

  missing(): readonly MissingPort[] {
    return [...this.#missing.values()];
  }

  /** Closes all; open connections may end first. */
  async stop(): Promise<void> {
    for (const { listener } of this.#open.values()) void this.#end(listener);
    for (const listener of [...this.#ending.keys()]) void listener.stop();
    this.#open.clear();
    this.#missing.clear();
    await Promise.all(this.#ending.values());
  }
}
