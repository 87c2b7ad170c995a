// Load balancers' files without a template: a service's instances for HAProxy, nginx and Apache, those that drain without new work.
import { ipFamily } from "../base/net.ts";
import type { Reading, ServiceInstance } from "./needs.ts";
import { serviceQuery } from "./query.ts";
import type { Content } from "./template.ts";
import { byNodeAndId, keyOf } from "./told.ts";

/** The load balancers that are known. */
export const TARGETS = ["haproxy", "nginx", "apache"] as const;
export type Target = (typeof TARGETS)[number];

/** One server of a load balancer's file. */
interface Server {
  /** Safe in each of the files, and no other's. */
  readonly name: string;
  readonly address: string;
  readonly weight: number;
  readonly draining: boolean;
}

/** Where nobody listens, for nginx, which takes no upstream without a server. */
const NOBODY = "127.0.0.1:1 down";
const HEAD = (name: string): string => `# ${name}: written by trilith render; changes in here are lost.\n`;

/** Weights keep their proportions within what a load balancer takes. */
function scaled(servers: readonly Server[], most: number): (weight: number) => number {
  const heaviest = Math.max(1, ...servers.map(({ weight }) => weight));
  return (weight) => Math.max(1, Math.round(heaviest > most ? (weight * most) / heaviest : weight));
}

const WRITERS: Readonly<Record<Target, (name: string, servers: readonly Server[]) => string>> = {
  haproxy(name, servers) {
    const weigh = scaled(servers, 256);
    const lines = servers.map(
      (one) => `    server ${one.name} ${one.address} weight ${one.draining ? 0 : weigh(one.weight)}\n`,
    );
    return `backend ${name}\n${lines.join("")}`;
  },
  nginx(name, servers) {
    const weigh = scaled(servers, 65_535);
    const lines = servers.map(
      (one) => `    server ${one.address} ${one.draining ? "down" : `weight=${weigh(one.weight)}`};\n`,
    );
    return `upstream ${name} {\n${lines.length === 0 ? `    server ${NOBODY};\n` : lines.join("")}}\n`;
  },
  apache(name, servers) {
    const weigh = scaled(servers, 100);
    const lines = servers.map(
      (one) =>
        `    BalancerMember "http://${one.address}" ${one.draining ? "status=+N" : `loadfactor=${weigh(one.weight)}`}\n`,
    );
    return `<Proxy "balancer://${name}">\n${lines.join("")}</Proxy>\n`;
  },
};

/** Letters that mean nothing in any of the files. */
const safe = (text: string): string => text.replace(/[^A-Za-z0-9_.-]/g, "_");

/** A host and port as the files take them; undefined where it is none, which must not stand in a configuration. */
function addressOf({ address, port }: ServiceInstance): string | undefined {
  if (!Number.isInteger(port) || port < 1 || port > 65_535) return undefined;
  const family = ipFamily(address);
  // A zone is an interface of another host.
  if (family === 6) return address.includes("%") ? undefined : `[${address}]:${port}`;
  return family === 4 || /^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$/.test(address)
    ? `${address}:${port}`
    : undefined;
}

/** Each with a name of its own: the ID, with the node where another one has that, too, numbered where even this is not enough. */
function serversOf(instances: readonly ServiceInstance[]): readonly Server[] {
  const counts = new Map<string, number>();
  for (const { id } of instances) counts.set(safe(id), (counts.get(safe(id)) ?? 0) + 1);
  const taken = new Set<string>();
  return instances.flatMap((one) => {
    const address = addressOf(one);
    if (address === undefined) return [];
    const plain = counts.get(safe(one.id)) === 1 ? safe(one.id) : safe(`${one.node}.${one.id}`);
    let name = plain;
    for (let i = 2; taken.has(name); i++) name = `${plain}-${i}`;
    taken.add(name);
    return [{ name, address, weight: one.weight, draining: one.draining }];
  });
}

/**
 * A load balancer's file of a service: its instances as the agent answers them (what the guard holds stays, what only warns has its own weight), and
 * those that drain or are in maintenance, which keep what they have and get nothing new. Instances without a port are left out.
 * @param text the service as in templates, without a filter: "web", "v1.web@dc2"
 * @throws TemplateFault for a service that is none
 */
export function targetContent(target: Target, text: string): Content {
  const { states: _, ...query } = serviceQuery(text);
  const name = safe(query.tag === undefined ? query.service : `${query.tag}.${query.service}`);
  // One that starts to drain keeps its place.
  const inOrder = (all: readonly ServiceInstance[]): readonly ServiceInstance[] =>
    query.near === undefined ? [...all].sort(byNodeAndId) : all;
  return (reading: Reading) => {
    const known = reading.get({ kind: "service", ...query, health: "routable" })?.value;
    const answered = known?.answer ?? [];
    const isAnswered = new Set(answered.map(keyOf));
    // Whoever listens where another one leaves is reached: nginx and Apache know servers by their addresses.
    const isTaken = new Set(answered.map(addressOf));
    const leaving = (known?.all ?? []).filter(
      (one) => one.draining && !isAnswered.has(keyOf(one)) && !isTaken.has(addressOf(one)),
    );
    const own = answered.map((one) => ({ ...one, draining: false }));
    return HEAD(text) + WRITERS[target](name, serversOf(inOrder([...own, ...leaving])));
  };
}
