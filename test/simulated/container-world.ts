// Containers and their network namespaces as a kernel would keep them, for what listens in them: who lives where, who holds which port, what may be entered.
import { type Code, TrilithError } from "../../src/base/error.ts";
import type { NamespaceSocket, NamespaceSockets, OpenedSocket } from "../../src/base/namespace-socket.ts";
import type { Connector, ProxyListener } from "../../src/contracts/connect.ts";
import { type Container, readContainer } from "../../src/protocols/docker/inspect.ts";
import type { FakeClock } from "./clock.ts";

/** A socket of ours somewhere in the world. */
interface Held {
  readonly namespace: string;
  readonly on: NamespaceSocket;
}

export interface WorldContainer {
  readonly name: string;
  readonly id: string;
  readonly labels: Readonly<Record<string, string>>;
  pid: number;
  namespace: string;
  startedAt: string;
  ipv6: string;
}

/** One host. Sockets, proxies and processes are those that `Forwarding` is given. */
export class ContainerWorld {
  readonly clock: FakeClock;
  readonly running = new Map<string, WorldContainer>();
  /** Ports that processes of the containers hold: "net:[1] 80". */
  readonly own = new Set<string>();
  readonly withIpv6 = new Set<string>();
  readonly held = new Set<Held>();
  /** Ports that stand for services: "net:[1] 127.0.0.1 80" → "redis". */
  readonly proxied = new Map<string, string>();
  /** How connections were given time when a proxy stopped: "net:[1] 127.0.0.1 80" → ms. */
  readonly drained = new Map<string, number | undefined>();
  /** Where the agent lives. */
  ownNamespace = "net:[0]";
  /** Proxies that were told that they listen where the agent lives: "net:[1] 127.0.0.1 80". */
  readonly here = new Set<string>();
  /** For whom they connect: "net:[1] 127.0.0.1 80" → container. */
  readonly callers = new Map<string, string | undefined>();
  /** How long a child takes. */
  openMs = 50;
  /** How long a proxy takes to stand. */
  proxyMs = 2;
  /** What entering a namespace fails with, while set. */
  refuse: TrilithError | undefined;
  /** How often a namespace was entered. */
  entered = 0;
  /** How many children there were at a time at most. */
  mostOpening = 0;
  #opening = 0;
  #next = 1;

  constructor(clock: FakeClock) {
    this.clock = clock;
  }

  /** Starts a container, in a namespace of its own or in another one's. */
  start(name: string, labels: Readonly<Record<string, string>>, shares?: string): WorldContainer {
    const number = this.#next++;
    const before = this.running.get(name);
    if (before !== undefined) this.die(name);
    const container: WorldContainer = {
      name,
      id: `${name}-`.padEnd(12, "0") + String(number).padStart(6, "0"),
      labels,
      pid: 1000 + number,
      namespace: (shares === undefined ? undefined : this.running.get(shares)?.namespace) ?? `net:[${number}]`,
      startedAt: `2026-01-01T00:00:${String(number).padStart(8, "0")}Z`,
      ipv6: "",
    };
    this.running.set(name, container);
    return container;
  }

  /** The same container again, in a new life. */
  restart(name: string): void {
    const container = this.running.get(name);
    if (container === undefined) return;
    this.die(name);
    const number = this.#next++;
    const startedAt = `2026-01-01T00:00:${String(number).padStart(8, "0")}Z`;
    this.running.set(name, { ...container, pid: 1000 + number, namespace: `net:[${number}]`, startedAt, ipv6: "" });
  }

  die(name: string): void {
    const container = this.running.get(name);
    this.running.delete(name);
    if (container === undefined || this.alive(container.namespace)) return;
    for (const port of this.own) if (port.startsWith(`${container.namespace} `)) this.own.delete(port);
  }

  alive(namespace: string): boolean {
    return [...this.running.values()].some((one) => one.namespace === namespace);
  }

  /** What the engine says of them, in no order. */
  seen(): { readonly container: Container; readonly far: boolean }[] {
    return [...this.running.values()].reverse().map((one) => ({ container: asContainer(one), far: false }));
  }

  /** A process of the container takes a port, unless it is held. */
  take(name: string, port: number): void {
    const namespace = this.running.get(name)?.namespace;
    if (namespace === undefined) return;
    if ([...this.held].some((one) => one.namespace === namespace && one.on.port === port)) return;
    this.own.add(`${namespace} ${port}`);
  }

  free(name: string, port: number): void {
    this.own.delete(`${this.running.get(name)?.namespace} ${port}`);
  }

  readonly processes = {
    proc: async (path: string): Promise<string | undefined> => {
      const [pid, ...rest] = path.split("/");
      const container = [...this.running.values()].find((one) => String(one.pid) === pid);
      if (container === undefined) return undefined;
      const file = rest.join("/");
      if (file === "cgroup") return `0::/docker/${container.id}`;
      if (file !== "net/tcp") return "";
      const lines = [...this.own]
        .filter((one) => one.startsWith(`${container.namespace} `))
        .map((one) => Number(one.split(" ")[1]).toString(16).toUpperCase().padStart(4, "0"));
      return ["  sl  local_address", ...lines.map((port) => `   0: 00000000:${port} 00000000:0000 0A 0 0`)].join("\n");
    },
  };

  readonly sockets: NamespaceSockets = {
    namespaceOf: async (pid) => {
      const container = [...this.running.values()].find((one) => one.pid === pid);
      if (container === undefined) throw new TrilithError("not-found", `no process ${pid}`);
      return container.namespace;
    },
    ownNamespace: async () => this.ownNamespace,
    open: async ({ pid, namespace }, wanted, signal) => {
      this.entered++;
      this.mostOpening = Math.max(this.mostOpening, ++this.#opening);
      await this.clock.sleep(this.openMs, signal).finally(() => this.#opening--);
      if (this.refuse !== undefined) throw this.refuse;
      const container = [...this.running.values()].find((one) => one.pid === pid);
      if (container?.namespace !== namespace)
        throw new TrilithError("not-found", `process ${pid} is not in ${namespace}`);
      return wanted.map((on) => this.#open(namespace, on));
    },
  };

  #open(namespace: string, on: NamespaceSocket): OpenedSocket | TrilithError {
    const refuse = (code: Code): TrilithError => new TrilithError(code, `${on.host} ${on.port}: ${code}`);
    if (on.host === "::1" && !this.withIpv6.has(namespace)) return refuse("unsupported");
    if (this.own.has(`${namespace} ${on.port}`)) return refuse("address-in-use");
    for (const one of this.held)
      if (
        one.namespace === namespace &&
        one.on.host === on.host &&
        one.on.port === on.port &&
        one.on.protocol === on.protocol
      )
        return refuse("address-in-use");
    const held: Held = { namespace, on };
    this.held.add(held);
    const socket = { held, close: () => this.held.delete(held) };
    return (on.protocol === "tcp"
      ? { protocol: "tcp", server: socket }
      : { protocol: "udp", socket }) as unknown as OpenedSocket;
  }

  readonly connector: Pick<Connector, "proxy"> = {
    proxy: async (on, query, options) => {
      const { held, close } = ("server" in on
        ? on.server
        : "datagrams" in on
          ? on.datagrams
          : undefined) as unknown as {
        held: Held;
        close(): void;
      };
      await this.clock.sleep(this.proxyMs);
      const key = `${held.namespace} ${held.on.host} ${held.on.port}`;
      if (!("host" in on) && on.here === true) this.here.add(key);
      this.callers.set(key, options?.caller);
      this.proxied.set(key, [...(query.tags ?? []), query.service].join("."));
      return {
        host: held.on.host,
        port: held.on.port,
        stop: async (drainMs?: number) => {
          close();
          this.proxied.delete(key);
          this.drained.set(key, drainMs);
        },
      } as ProxyListener;
    },
  };
}

function asContainer(one: WorldContainer): Container {
  return readContainer({
    Id: one.id,
    Name: `/${one.name}`,
    Config: { Labels: one.labels },
    HostConfig: {},
    State: { Running: true, Pid: one.pid, StartedAt: one.startedAt },
    NetworkSettings: { Networks: { net: { GlobalIPv6Address: one.ipv6 } } },
  });
}
