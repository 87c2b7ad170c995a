// From the docker source's registrations to what backends write, with what only the container itself tells.
import type { SourceList } from "../../../contracts/source.ts";
import type { Registration } from "../../../model/instance.ts";
import { serviceMetadata } from "../../../wire/service-env.ts";
import type { Entry } from "../backends/backend.ts";
import type { Container } from "../inspect.ts";

/** Remembers containers as they are translated, and makes entries of the registrations that came of them. */
export interface Entries {
  /** To be told of each container before its registrations are listed. */
  seen(container: Container): void;
  /** States which containers are listed though they ended with a failure. @returns true where they are others than before */
  failed(containerIds: ReadonlySet<string>): boolean;
  of(list: SourceList): Entry[];
}

/** Containers that have no registration are forgotten when there are many of them. */
const FORGOTTEN_KEPT = 1_000;
/** "<container>:80/tcp", perhaps with more behind it. */
const IDENTITY = /^([^:]+):(\d+)\//;
const CONSUMED: ReadonlySet<string> = new Set(["name", "id", "tags"]);

export function createEntries(): Entries {
  const containers = new Map<string, Container>();
  let ended: ReadonlySet<string> = new Set();

  const entryOf = (registration: Registration): Entry | undefined => {
    const [, id = "", exposed = ""] = IDENTITY.exec(registration.foreignId ?? "") ?? [];
    const container = containers.get(id);
    if (container === undefined) return undefined;
    const { values } = serviceMetadata(container.env, container.labels, exposed);
    const attributes: Record<string, string> = Object.create(null);
    for (const key of [...values.keys()].sort()) if (!CONSUMED.has(key)) attributes[key] = values.get(key) ?? "";
    const config = (container.raw as { readonly Config?: { readonly Hostname?: unknown } }).Config;
    return {
      id: registration.id,
      name: registration.name,
      ip: registration.address,
      port: registration.port,
      tags: registration.tags,
      labels: registration.labels,
      attributes,
      checks: registration.checks,
      containerId: id,
      containerHostname: typeof config?.Hostname === "string" ? config.Hostname : "",
      exposedPort: Number(exposed),
      ...(ended.has(id) ? { ended: true } : {}),
    };
  };

  return {
    seen: (container) => void containers.set(container.id, container),
    failed(containerIds) {
      const same = containerIds.size === ended.size && [...containerIds].every((id) => ended.has(id));
      ended = containerIds;
      return !same;
    },
    of({ list }) {
      const entries = list.map(entryOf).filter((entry) => entry !== undefined);
      if (containers.size > 2 * list.length + FORGOTTEN_KEPT) {
        const listed = new Set(entries.map(({ containerId }) => containerId));
        for (const id of containers.keys()) {
          if (containers.size <= list.length + FORGOTTEN_KEPT) break;
          if (!listed.has(id)) containers.delete(id);
        }
      }
      return entries;
    },
  };
}
