// The names under which programs find a service in the hook's table, and which of its tags get names of their own.
import type { Subject } from "../../contracts/magic.ts";

/** Of one service at most so many tags get names. */
export const MOST_TAGS = 64;
/** A label as Consul and host names have it; others cannot stand in a name that programs look up. */
const LABEL = /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$/;
const TAG = /^[a-z0-9_]([a-z0-9_.-]{0,61}[a-z0-9_])?$/;
const LONGEST_NAME = 253;

/** Where names lie: lower case, without dots at their ends. */
export interface Zone {
  readonly domain: string;
  /** A second one that means the same. */
  readonly altDomain?: string;
  readonly datacenter: string;
}

/** True where a service's name can be looked up by programs at all. */
export function isNameable(service: string): boolean {
  return LABEL.test(service.toLowerCase());
}

/**
 * A subject's names: `web.service.consul` with and without the datacenter, `web.connect.consul`, `_web._tcp.service.consul`; with a tag
 * `primary.db.service.consul` and `_db._primary.service.consul`. Empty where the subject has no name that programs could look up.
 */
export function namesOf(subject: Subject, zone: Zone): readonly string[] {
  const { domain, altDomain } = zone;
  const names = namesIn(subject, zone);
  return altDomain === undefined || altDomain === domain
    ? names
    : [...names, ...namesIn(subject, { ...zone, domain: altDomain })];
}

function namesIn({ service, tag }: Subject, { domain, datacenter }: Zone): readonly string[] {
  if (!LABEL.test(service)) return [];
  const zones = [`service.${domain}`, ...(LABEL.test(datacenter) ? [`service.${datacenter}.${domain}`] : [])];
  const names =
    tag === undefined
      ? [
          ...zones.map((zone) => `${service}.${zone}`),
          `${service}.connect.${domain}`,
          `_${service}._tcp.service.${domain}`,
          `_${service}._udp.service.${domain}`,
        ]
      : !TAG.test(tag) || tag.includes("..")
        ? []
        : [
            ...zones.map((zone) => `${tag}.${service}.${zone}`),
            // By the transport the whole service is meant [RFC2782].
            ...(tag.includes(".") || tag === "tcp" || tag === "udp" ? [] : [`_${service}._${tag}.service.${domain}`]),
          ];
  return names.filter((name) => name.length <= LONGEST_NAME);
}

/** The tags that get names, in lower case and in order: those of the most instances, by name where that is equal. */
export function namedTags(instances: Iterable<{ readonly tags: readonly string[] }>): {
  readonly tags: readonly string[];
  /** How many more there are. */
  readonly left: number;
} {
  const counts = new Map<string, number>();
  for (const { tags } of instances)
    for (const tag of new Set(tags.map((each) => each.toLowerCase())))
      if (TAG.test(tag) && !tag.includes("..")) counts.set(tag, (counts.get(tag) ?? 0) + 1);
  const all = [...counts].sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1)).map(([tag]) => tag);
  return { tags: all.slice(0, MOST_TAGS).sort(), left: Math.max(0, all.length - MOST_TAGS) };
}
