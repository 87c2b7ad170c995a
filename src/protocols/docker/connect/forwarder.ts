// One port of a container's loopback: opened, refused, or taken by somebody else; the sockets of IPv4 and IPv6 behind it.
import { codeOf, messageOf, TrilithError } from "../../../base/error.ts";
import type { NamespaceSocket, OpenedSocket } from "../../../base/namespace-socket.ts";
import type { Connector, ProxyListener } from "../../../contracts/connect.ts";
import { describe } from "../inspect.ts";
import { portText } from "./labels.ts";
import type { Wanted } from "./wanted.ts";

const HOSTS = ["127.0.0.1", "::1"] as const;
const RETRY_MIN_MS = 1_000;
const RETRY_MAX_MS = 60_000;

/** Why nobody listens at a port. */
interface Trouble {
  readonly text: string;
  /** True where somebody else listens there: the port is looked at and taken when it is free. */
  readonly taken: boolean;
  readonly retryAtMs: number;
}

/** A wanted port with what stands for it now. */
export class Forwarder {
  /** As asked for last; who asks may change, the port and its service may not. */
  wanted: Wanted;
  readonly #listeners = new Map<string, ProxyListener>();
  #trouble: Trouble | undefined;
  #attempts = 0;
  /** The networks of its containers when an address was missing: with another one it may be there. */
  #networks = "";
  #closed = false;

  constructor(wanted: Wanted) {
    this.wanted = wanted;
  }

  /** "localhost:6379 in container web (3f2a41c09b7e)" */
  get where(): string {
    return `localhost:${portText(this.wanted)} in container ${describe(this.wanted.holders[0])}`;
  }

  /** Undefined where it stands. */
  get trouble(): Pick<Trouble, "text" | "taken"> | undefined {
    return this.#trouble;
  }

  get listeners(): readonly ProxyListener[] {
    return [...this.#listeners.values()];
  }

  /** What is to be opened now; empty where all stands, or a retry is not due. */
  missing(nowMs: number): readonly NamespaceSocket[] {
    if (this.#closed) return [];
    const { protocol, port } = this.wanted;
    const open = this.#listeners.size > 0;
    if (open ? this.#networks === networksOf(this.wanted) : nowMs < (this.#trouble?.retryAtMs ?? 0)) return [];
    return HOSTS.filter((host) => !this.#listeners.has(host)).map((host) => ({ protocol, host, port }));
  }

  /** The port is free, or nothing is as it was: no waiting. */
  retryNow(): void {
    if (this.#trouble !== undefined) this.#trouble = { ...this.#trouble, retryAtMs: 0 };
  }

  /** Nothing could be opened for this reason. */
  fail(error: unknown, nowMs: number): void {
    const taken = codeOf(error) === "address-in-use";
    const waitMs = Math.min(RETRY_MAX_MS, RETRY_MIN_MS * 2 ** this.#attempts++);
    const text = taken
      ? "a process of the container listens there itself; taken as soon as it is free"
      : `cannot listen: ${messageOf(error)}`;
    this.#trouble = { text, taken, retryAtMs: taken ? Number.POSITIVE_INFINITY : nowMs + waitMs };
  }

  /**
   * Puts the service behind sockets that were opened as `missing` asked. They are this forwarder's from here on, also where it was closed meanwhile.
   * `here`: they are in the agent's own namespace.
   */
  async stand(
    asked: readonly NamespaceSocket[],
    answers: readonly (OpenedSocket | TrilithError)[],
    connector: Pick<Connector, "proxy">,
    { nowMs, here }: { readonly nowMs: number; readonly here: boolean },
  ): Promise<void> {
    const refused = answers.filter((one): one is TrilithError => one instanceof TrilithError);
    // Where the container itself listens on one of them, the name "localhost" must not mean two things.
    const serious = refused.find(({ code }) => code !== "unsupported");
    const wrong = serious ?? (refused.length === answers.length && this.#listeners.size === 0 ? refused[0] : undefined);
    if (wrong !== undefined) {
      for (const one of answers) discard(one);
      if (this.#listeners.size === 0) this.fail(wrong, nowMs);
      else this.#networks = networksOf(this.wanted);
      return;
    }
    this.#networks = networksOf(this.wanted);
    const { query, service, holders } = this.wanted;
    // Without the container's name: metrics keep every name for ever, and containers come and go.
    const options = { name: `containers:${portText(this.wanted)}=${service}`, caller: holders[0].name };
    try {
      for (const [i, one] of answers.entries()) {
        if (one instanceof TrilithError) continue;
        const on = one.protocol === "tcp" ? { server: one.server, here } : { datagrams: one.socket, here };
        this.#listeners.set(asked[i]?.host ?? "", await connector.proxy(on, query, options));
      }
      this.#trouble = undefined;
      this.#attempts = 0;
    } catch (error) {
      for (const one of answers) discard(one);
      await this.#stop(0);
      this.fail(error, nowMs);
    }
    if (this.#closed) await this.#stop(0);
  }

  /** Listens no more at once; open connections have `drainMs` left. */
  async close(drainMs: number): Promise<void> {
    this.#closed = true;
    await this.#stop(drainMs);
  }

  async #stop(drainMs: number): Promise<void> {
    const listeners = [...this.#listeners.values()];
    this.#listeners.clear();
    await Promise.all(listeners.map((listener) => listener.stop(drainMs)));
  }
}

/** Changes when a container is put on another network, which is when IPv6 may begin. */
function networksOf({ holders }: Wanted): string {
  return holders.map(({ networks }) => networks.map(({ name, ipv6 }) => `${name} ${ipv6}`).join()).join(";");
}

/** Closes a socket that nobody uses. */
function discard(opened: OpenedSocket | TrilithError): void {
  if (opened instanceof TrilithError) return;
  try {
    if (opened.protocol === "tcp") opened.server.close();
    else opened.socket.close();
  } catch {
    // Somebody closed it already: that is what was wanted.
  }
}
