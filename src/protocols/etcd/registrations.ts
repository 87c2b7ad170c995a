// Entries of etcd as registrations on external nodes, the same whoever reads them. Pure.
import type { View } from "../../contracts/directory.ts";
import type { Prioritised } from "../../contracts/priorities.ts";
import { firstHandPlaces, nodeAt, placeOf } from "../../contracts/second-hand.ts";
import type { Registration } from "../../model/instance.ts";
import type { EtcdConfig } from "./config.ts";
import type { Entry } from "./entries.ts";

/** The source's name in the directory. */
export const SOURCE = "etcd";
/** SkyDNS shares weights out of 100; who tells none counts so much [CoreDNS etcd]. */
const USUAL_WEIGHT = 100;
const PRIORITY = "skydns-priority";

/** True where an agent of this directory has it: what it wrote into etcd does not come back. */
export function isOwn(view: View, { service, id, host, port }: Entry): boolean {
  if (firstHandPlaces(view, service).has(placeOf(host, port))) return true;
  return view.residents(service).some(({ instance, node }) => instance.id === id && node.external !== true);
}

/** The entries of one service. */
export function registrationsOf(
  entries: readonly Entry[],
  { tags, labels }: Pick<EtcdConfig, "tags" | "labels">,
  view: View,
): readonly Prioritised[] {
  const weighed = entries.some(({ weight }) => weight !== undefined);
  return entries.map((entry) => {
    const { key, service, id, host, port, priority, weight = USUAL_WEIGHT } = entry;
    const all: Record<string, string> = Object.assign(Object.create(null), labels, entry.labels);
    if (priority !== 0) all[PRIORITY] = String(priority);
    const registration: Registration = {
      ...{ id, name: service, tags, labels: all, address: host, port, checks: [] },
      ...(weighed ? { weights: { passing: weight, warning: weight } } : {}),
      foreignId: key,
      text: `${placeOf(host, port)}, from etcd's key ${key}`,
      external: { node: { ...nodeAt(entry.node, SOURCE, view), address: host } },
    };
    return { registration, priority };
  });
}

/** The priority that a registration was made with. */
export function priorityOf({ labels }: Registration): number {
  return Number(labels[PRIORITY] ?? 0);
}
