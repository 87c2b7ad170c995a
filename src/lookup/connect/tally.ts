// What a proxy counts: for its status, and for the agent's metrics.
import type { Counter, Metrics } from "../../base/metrics.ts";
import { hostPort } from "../../base/net.ts";
import type { Backend, BackendStatus, ProxyStatus } from "../../contracts/connect.ts";

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] };

/** One backend's figures; a connection writes into it as it goes. */
export type BackendTally = Mutable<BackendStatus>;

/** A backend's figures with its counters in the agent's metrics. */
interface Kept {
  readonly row: BackendTally;
  readonly connections: Counter;
  readonly failures: Counter;
}

const BACKENDS = 1_024;
/** Metrics are never taken back: further proxies and backends share one row. */
const METRIC_ROWS = 256;
const named = new WeakMap<Metrics, { readonly proxies: Set<string>; readonly backends: Set<string> }>();

/** The figures of one proxy. */
export class Tally {
  open = 0;
  total = 0;
  failed = 0;
  retries = 0;
  refused = 0;
  toBackend = 0;
  toClient = 0;
  lastFailure: string | undefined;
  readonly #backends = new Map<string, Kept>();
  readonly #metrics: Metrics;
  readonly #proxy: string;
  readonly #rows: Set<string>;
  readonly #counters: Readonly<Record<"total" | "failed" | "retries" | "refused" | "toBackend" | "toClient", Counter>>;

  constructor(metrics: Metrics, proxy: string) {
    this.#metrics = metrics;
    const rows = named.get(metrics) ?? { proxies: new Set(), backends: new Set() };
    named.set(metrics, rows);
    this.#rows = rows.backends;
    this.#proxy = rowOf(rows.proxies, proxy);
    const counter = (name: string, help: string, more: Readonly<Record<string, string>> = {}): Counter =>
      metrics.counter(`proxy_${name}_total`, help, { proxy: this.#proxy, ...more });
    this.#counters = {
      total: counter("connections", "Connections (UDP: clients) that were taken"),
      failed: counter("failed_connections", "Connections for which no backend could be reached"),
      retries: counter("retries", "Backends tried in vain before another one took the connection"),
      refused: counter("refused_connections", "Connections closed at once because too many files were open"),
      toBackend: counter("bytes", "Bytes passed on", { to: "backend" }),
      toClient: counter("bytes", "Bytes passed on", { to: "client" }),
    };
  }

  /** The proxy's status, with what it is itself. */
  status(own: Pick<ProxyStatus, "name" | "protocol" | "listening" | "query" | "draining">): ProxyStatus {
    const { open, total, failed, retries, refused, toBackend, toClient, lastFailure } = this;
    const { draining, ...what } = own;
    return {
      ...what,
      ...{ open, total, failed, retries, refused, toBackend, toClient },
      draining,
      backends: this.rows(),
      ...(lastFailure === undefined ? {} : { lastFailure }),
    };
  }

  opened(): void {
    this.open++;
    this.total++;
    this.#counters.total.add();
  }

  closed(): void {
    this.open--;
  }

  fail(why: string): void {
    this.failed++;
    this.lastFailure = why;
    this.#counters.failed.add();
  }

  refuse(): void {
    this.refused++;
    this.#counters.refused.add();
  }

  /** A backend that was tried in vain. */
  missed(backend: Backend): void {
    this.retries++;
    this.#counters.retries.add();
    const { row, failures } = this.#of(backend);
    row.failures++;
    failures.add();
  }

  /** A backend that took a connection. */
  reached(backend: Backend): BackendTally {
    const { row, connections } = this.#of(backend);
    row.open++;
    row.total++;
    connections.add();
    return row;
  }

  passedOn(row: BackendTally, to: "toBackend" | "toClient", bytes: number): void {
    this[to] += bytes;
    row[to] += bytes;
    this.#counters[to].add(bytes);
  }

  #of({ address, port }: Backend): Kept {
    const key = hostPort(address, port);
    let kept = this.#backends.get(key);
    if (kept === undefined) {
      kept = {
        row: { address, port, open: 0, total: 0, failures: 0, toBackend: 0, toClient: 0 },
        connections: this.#backendCounter("connections", "Connections to a backend", key),
        failures: this.#backendCounter("failures", "Tries to connect to a backend in vain", key),
      };
      if (this.#backends.size >= BACKENDS) this.#forgetOne();
      this.#backends.set(key, kept);
    }
    return kept;
  }

  rows(): readonly BackendStatus[] {
    return [...this.#backends.values()].map(({ row }) => ({ ...row }));
  }

  #forgetOne(): void {
    for (const [key, { row }] of this.#backends)
      if (row.open === 0) {
        this.#backends.delete(key);
        return;
      }
  }

  #backendCounter(name: string, help: string, backend: string): Counter {
    const row = rowOf(this.#rows, `${this.#proxy} ${backend}`);
    return this.#metrics.counter(`proxy_backend_${name}_total`, help, {
      proxy: this.#proxy,
      backend: row === OTHERS ? OTHERS : backend,
    });
  }
}

const OTHERS = "others";

/** The name itself as long as there is room for another row. */
function rowOf(rows: Set<string>, name: string): string {
  if (rows.has(name)) return name;
  if (rows.size >= METRIC_ROWS) return OTHERS;
  rows.add(name);
  return name;
}
