// A service as people write it in labels and on command lines: "redis", "primary.db", "db?env=prod", "db.service.consul"; as a query.
import { InputError } from "../base/error.ts";
import type { Labels } from "./node.ts";
import type { Query } from "./query.ts";

/** What such a text can say: everything else of a query is the asker's. */
export type NamedQuery = Pick<Query, "service" | "tags" | "labels" | "datacenter">;

/** The words of the zone that are about something else than services. */
const OTHER_KINDS = /^(node|addr|query|virtual|ingress)$/;
const ADDRESS = /^(\d{1,3}(\.\d{1,3}){3}|[0-9a-f.]*:[0-9a-f:.]*:[0-9a-f:.]*|\[.*)$/i;
const RIGHT = 'expected a service: "redis", "primary.db", "db?env=prod"';

/** The labels behind the question mark, percent-encoded or not; all of them are needed. */
function readLabels(given: string, fault: (text: string) => InputError): Labels {
  const labels: Record<string, string> = Object.create(null) as Record<string, string>;
  for (const [key, value] of new URLSearchParams(given)) {
    if (key === "") throw fault("a label without a name");
    if (key in labels && labels[key] !== value) throw fault(`the label "${key}" cannot have two values`);
    labels[key] = value;
  }
  return labels;
}

/**
 * Reads `NAME`, `TAG.NAME`, `_NAME._TAG` [RFC 2782], each also with `.service`, an optional datacenter and the domain behind it, and `?LABEL=VALUE&…`. Everything
 * before the service's name is one tag, dots included, as Consul reads it.
 * @param domain without dots at its ends: "consul"
 * @throws InputError naming `where`, with what would be right
 */
export function queryFromText(text: string, domain: string, where = ""): NamedQuery {
  const fault = (said: string): InputError => new InputError(where, `${JSON.stringify(text)}: ${said}`);
  const mark = text.indexOf("?");
  const labels = mark < 0 ? undefined : readLabels(text.slice(mark + 1), fault);
  const name = (mark < 0 ? text : text.slice(0, mark)).trim().replace(/\.$/, "");
  if (name === "") throw fault(`the service's name is missing; ${RIGHT}`);
  if (ADDRESS.test(name)) throw fault(`an address is not a service; ${RIGHT}`);
  const port = /:(\d*)$/.exec(name);
  if (port !== null) throw fault(`a service tells its own ports, leave out "${port[0]}"`);
  const odd = /[\s/@:,]/.exec(name);
  if (odd !== null) throw fault(`${JSON.stringify(odd[0])} in a name; ${RIGHT}`);
  let words = name.split(".");
  if (words.includes("")) throw fault(`two dots in a row; ${RIGHT}`);
  let datacenter: string | undefined;
  const zone = domain.toLowerCase().split(".");
  const lower = words.map((word) => word.toLowerCase());
  const inZone = words.length > zone.length && zone.every((word, i) => lower[words.length - zone.length + i] === word);
  const at = lower.lastIndexOf("service");
  if (inZone) {
    const end = words.length - zone.length;
    const kind = lower.findLastIndex(
      (word, i) => i < end && (word === "service" || word === "connect" || OTHER_KINDS.test(word)),
    );
    const found = kind < 0 ? undefined : (lower[kind] as string);
    if (found === undefined || OTHER_KINDS.test(found))
      throw fault(`a name below "${domain}" that is not a service's; expected "NAME.service.${domain}"`);
    const behind = words.slice(kind + 1, end);
    if (behind.length > 2 || (behind.length === 2 && behind[1]?.toLowerCase() !== "dc"))
      throw fault(`"${behind.join(".")}" is not a datacenter; expected "NAME.service.DATACENTER.${domain}"`);
    datacenter = behind[0];
    words = words.slice(0, kind);
    if (words.length === 0) throw fault(`the service's name is missing; expected "NAME.service.${domain}"`);
  } else if (at > 0 && at < words.length - 1)
    throw fault(`it ends in "${words.slice(at + 1).join(".")}", and this agent's domain is "${domain}"`);
  let tag = words.slice(0, -1).join(".");
  let service = words.at(-1) as string;
  const [first = "", second = ""] = words;
  if (words.length === 2 && first.startsWith("_") && second.startsWith("_")) {
    service = first.slice(1);
    tag = /^_(tcp|udp)$/i.test(second) ? "" : second.slice(1);
    if (service === "") throw fault(`the service's name is missing; ${RIGHT}`);
  }
  return {
    service,
    ...(tag === "" ? {} : { tags: [tag] }),
    ...(labels === undefined || Object.keys(labels).length === 0 ? {} : { labels }),
    ...(datacenter === undefined ? {} : { datacenter }),
  };
}

/** The shortest text that `queryFromText` reads as this query. */
export function textOfQuery({ service, tags = [], labels = {}, datacenter }: NamedQuery, domain: string): string {
  const name = [...tags, service].join(".");
  const pairs = new URLSearchParams(Object.entries(labels)).toString();
  return `${name}${datacenter === undefined ? "" : `.service.${datacenter}.${domain}`}${pairs === "" ? "" : `?${pairs}`}`;
}
