// The file of `md advertise`: YAML with services[].{name,address,labels}, read as Minidisc's Go program reads it, every mistake told with its line.
import { ipFamily } from "../../../base/net.ts";
import { withinNetworks } from "../../../base/networks.ts";
import type { Offer } from "../peer.ts";

/** What a file says, or what is wrong with it: one sentence a mistake, beginning with the file and the line. */
export type ServicesFile =
  | { readonly offers: readonly Offer[] }
  | {
      readonly mistakes: readonly [string, ...(readonly string[])];
      /** True where it is not YAML, or something in it is of another kind than it has to be: md takes that for a wrong command line. */
      readonly unread: boolean;
    };

/** Nothing, as YAML spells it. */
const NULL = /^(?:~|null|Null|NULL|)$/;

/** Remote services are taken from here only, as Minidisc does. */
const REMOTE = "100.0.0.0/8";
const EXPECTED = `expected ":port" for this host, or "ip:port" within ${REMOTE}`;

/**
 * Reads such a file. Every scalar is a text as it is written (a label `1.0` stays "1.0"), and `~` and null are the empty one; keys that nobody knows are passed over.
 * @param shown what the file is called in messages
 */
export async function readServicesFile(text: string, shown: string): Promise<ServicesFile> {
  const { isMap, isScalar, isSeq, LineCounter, parseDocument } = await import("yaml");
  const lines = new LineCounter();
  const document = parseDocument(text, { schema: "failsafe", merge: true, lineCounter: lines, prettyErrors: false });
  const mistakes: string[] = [];
  let unread = false;
  const wrong = (at: number | undefined, sentence: string): void => {
    mistakes.push(`${shown}${at === undefined ? "" : `:${lines.linePos(at).line}`}: ${sentence}`);
  };
  const unlike = (at: number | undefined, sentence: string): void => {
    unread = true;
    wrong(at, sentence);
  };
  const done = (offers: readonly Offer[]): ServicesFile => {
    const [first, ...more] = mistakes;
    return first === undefined ? { offers } : { mistakes: [first, ...more], unread };
  };
  for (const error of document.errors) unlike(error.pos[0], error.message);
  if (mistakes.length > 0) return done([]);

  type Place = { readonly range?: readonly [number, number, number] | null } | null | undefined;
  const at = (node: unknown): number | undefined => (node as Place)?.range?.[0];
  /** A node as what it stands for: an alias is followed. */
  const real = (node: unknown): unknown => {
    const aliased = node as { resolve?: (of: typeof document) => unknown } | null;
    return typeof aliased?.resolve === "function" ? aliased.resolve(document) : node;
  };
  const isNull = (node: unknown): boolean => {
    const one = real(node);
    return one === null || (isScalar(one) && one.type === "PLAIN" && NULL.test(String(one.value ?? "")));
  };
  const textOf = (node: unknown): string | undefined => {
    const one = real(node);
    if (one === undefined || one === null) return "";
    if (!isScalar(one)) return undefined;
    const text = String(one.value ?? "");
    return isNull(one) ? "" : text;
  };

  const top = document.contents;
  const services = isMap(top) ? real(top.get("services", true)) : undefined;
  if (!isSeq(services)) {
    // What is not there is no mistake of md's: it advertises nothing.
    const absent = top === null || (isMap(top) && textOf(services) === "");
    (absent ? wrong : unlike)(
      at(services) ?? at(top),
      'services: expected a list of {name, address, labels}, such as "- name: web"',
    );
    return done([]);
  }
  if (services.items.length === 0) wrong(at(services), "services: the list is empty, so there is nothing to advertise");

  const offers: Offer[] = [];
  const seen = new Map<string, number>();
  for (const [i, item] of services.items.entries()) {
    const service = real(item);
    const key = `services[${i}]`;
    if (!isMap(service)) {
      unlike(at(item), `${key}: expected name, address and labels`);
      continue;
    }
    const before = mistakes.length;
    const name = textOf(service.get("name", true));
    if (name === undefined || name === "") (name === "" ? wrong : unlike)(at(service), `${key}.name: expected a name`);
    const address = textOf(service.get("address", true));
    const addressAt = at(service.get("address", true)) ?? at(service);
    const place = placeOf(address ?? "");
    if (typeof place === "string") (address === undefined ? unlike : wrong)(addressAt, `${key}.address: ${place}`);
    else {
      const first = seen.get(`${place.host}:${place.port}`);
      if (first === undefined) seen.set(`${place.host}:${place.port}`, i);
      else
        wrong(
          addressAt,
          `${key}.address: "${address}" stands at services[${first}] already; an address can be one service only`,
        );
    }
    const labels: Record<string, string> = Object.create(null) as Record<string, string>;
    const given = real(service.get("labels", true));
    if (isMap(given))
      for (const { key: label, value } of given.items) {
        const [left, right] = [textOf(label), textOf(value)];
        if (left === undefined || right === undefined)
          unlike(at(label), `${key}.labels: expected a text for "${left ?? "?"}"`);
        else if (left !== "" || !isNull(label)) labels[left] = right;
      }
    else if (given !== undefined && given !== null && textOf(given) !== "")
      unlike(at(given), `${key}.labels: expected key: value pairs`);
    if (mistakes.length === before && name !== undefined && typeof place !== "string")
      offers.push({ name, port: place.port, address: place.host, labels });
  }
  return done(offers);
}

const isRemote = withinNetworks([REMOTE]);

/** The host ("" = this one) and port of an address, or what is wrong with it. */
function placeOf(address: string): { readonly host: string; readonly port: number } | string {
  const [, host = "", portText = ""] = /^(.*):(\d{1,5})$/.exec(address) ?? [];
  const port = Number(portText);
  if (portText === "" || port < 1 || port > 65_535)
    return `"${address}": ${portText === "" ? EXPECTED : "expected a port from 1 to 65535"}`;
  if (host === "") return { host, port };
  const family = ipFamily(host.replace(/^\[(.*)\]$/, "$1"));
  if (family === 6) return `"${address}": IPv6 is not known to Minidisc; ${EXPECTED}`;
  if (family === 0) return `"${address}": a host name says nothing to others; ${EXPECTED}`;
  return isRemote(host) ? { host, port } : `"${address}": ${host} is not within ${REMOTE}; ${EXPECTED}`;
}

/** The first two services that are one and the same once this host's address is known: `:80` and `100.64.0.1:80`. */
export function sameAddress(offers: readonly Offer[], own: string): string | undefined {
  const seen = new Set<string>();
  for (const { address = "", port } of offers) {
    const at = `${address === "" ? own : address}:${port}`;
    if (seen.has(at)) return at;
    seen.add(at);
  }
  return undefined;
}
