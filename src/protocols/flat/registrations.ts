// What flat files list as registrations on external nodes, the same on every host that has the same list. Pure.
import { hostPort } from "../../base/net.ts";
import type { View } from "../../contracts/directory.ts";
import { firstHandPlaces, nodeAt, placeOf } from "../../contracts/second-hand.ts";
import { goneKeyOf, type Registration } from "../../model/instance.ts";
import type { FlatFile } from "./files.ts";
import type { Listed } from "./parse.ts";

/** The source's name in the directory. */
export const SOURCE = "flat";

export interface Composed {
  /** By `goneKeyOf`. */
  readonly list: ReadonlyMap<string, Registration>;
  readonly complaints: readonly { readonly about: string; readonly text: string }[];
  /** What is listed and known at first hand besides. */
  readonly replaced: ReadonlySet<string>;
}

/** Between an endpoint and the file that lists it, in the text of its registration. */
const FROM = ", from ";

/** The file that listed a registration, in this life or an earlier one; "" where that is not told. */
export function fileOf({ text = "" }: Registration): string {
  const at = text.indexOf(FROM);
  return at < 0 ? "" : text.slice(at + FROM.length);
}

/** Whether a file is, or lies in, what a path names. */
export const isAt = (file: string, path: string): boolean => file === path || file.startsWith(`${path}/`);

/** The service of entries that do not tell one. */
function serviceOf({ path, rule }: Pick<FlatFile, "path" | "rule">): string {
  if (rule.service !== undefined) return rule.service;
  const name = path.slice(path.lastIndexOf("/") + 1);
  return name.replace(/(.)\.[^.]*$/, "$1");
}

/** What is wrong with a file, and what follows from it. */
export function faultText({ fault, lists }: Pick<FlatFile, "fault" | "lists">): string {
  return `${fault}${lists === undefined ? "" : " (its last good version stays in force)"}`;
}

/** What all files list together; of one place that is listed twice the first counts. */
export function registrationsOf(files: readonly FlatFile[], view: View): Composed {
  const list = new Map<string, Registration>();
  const from = new Map<string, string>();
  const complaints: { about: string; text: string }[] = [];
  const replaced = new Set<string>();
  const known = new Map<string, ReadonlySet<string>>();
  for (const file of files) {
    const { path, rule, lists, fault } = file;
    if (fault !== undefined)
      complaints.push({
        about: path,
        text: faultText(file),
      });
    for (const text of lists?.faults ?? []) complaints.push({ about: path, text: `an entry is left out: ${text}` });
    for (const [name, entries] of lists?.services ?? []) {
      const service = name === "" ? serviceOf(file) : name;
      for (const entry of entries) {
        const r = registrationOf(service, entry, rule.tags, path, view);
        const key = goneKeyOf(r);
        const places = known.get(service) ?? firstHandPlaces(view, service);
        known.set(service, places);
        if (places.has(placeOf(entry.host, entry.port))) replaced.add(key);
        else if (!list.has(key)) {
          list.set(key, r);
          from.set(key, path);
        } else if (from.get(key) === path)
          complaints.push({
            about: path,
            text: `${hostPort(entry.host, entry.port)} is listed twice: the first one counts`,
          });
      }
    }
  }
  return { list, complaints, replaced };
}

function registrationOf(
  service: string,
  entry: Listed,
  tags: readonly string[],
  path: string,
  view: View,
): Registration {
  const { host, port, weight, labels } = entry;
  return {
    id: `${SOURCE}:${service}:${port}`,
    name: service,
    tags: [...new Set([...tags, ...entry.tags])],
    labels,
    address: "",
    port,
    ...(weight === undefined ? {} : { weights: { passing: weight, warning: 1 } }),
    checks: [],
    foreignId: `${service} ${hostPort(host.toLowerCase(), port)}`,
    text: `${port === 0 ? host : hostPort(host, port)}${FROM}${path}`,
    external: { node: nodeAt(host, SOURCE, view) },
  };
}
