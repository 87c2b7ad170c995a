// Lists of endpoints as people and programs keep them in files: JSON, YAML, lines and the hosts format. Pure.
import { parseDocument } from "yaml";
import { InputError } from "../../base/error.ts";
import { isObject } from "../../base/is-object.ts";
import { ipFamily } from "../../base/net.ts";
import type { Labels } from "../../model/node.ts";

export type Format = "json" | "yaml" | "lines" | "hosts";

/** One endpoint of a list. */
export interface Listed {
  /** IP address or host name, as it stands there. */
  readonly host: string;
  /** 0 = none. */
  readonly port: number;
  readonly weight?: number;
  readonly labels: Labels;
  readonly tags: readonly string[];
}

/** What a file says. */
export interface Lists {
  /** By the service's name; "" = the one that the file is about. */
  readonly services: ReadonlyMap<string, readonly Listed[]>;
  /** Entries that are left out, with their place. */
  readonly faults: readonly string[];
}

export interface ParseOptions {
  /** The port of entries that tell none; undefined: those are faults (in the hosts format they have none). */
  readonly port: number | undefined;
  /** In the hosts format: every address is of the file's service, whatever its names. */
  readonly oneService?: boolean;
}

const MOST_WEIGHT = 65_535;
const HOST = /^(?!-)[A-Za-z0-9_.-]{1,253}$/;

/** The format that a file's name tells. */
export function formatOf(path: string): Format {
  const name = path.slice(path.lastIndexOf("/") + 1).toLowerCase();
  if (name.endsWith(".json")) return "json";
  if (/\.ya?ml$/.test(name)) return "yaml";
  return name === "hosts" || name.endsWith(".hosts") ? "hosts" : "lines";
}

/** @throws InputError where the whole text is not of the format: with lines and columns where they are known */
export function parseLists(text: string, format: Format, options: ParseOptions): Lists {
  const plain = text.replace(/^\uFEFF/, "");
  if (plain.includes("\0")) throw new InputError("", "it is not text: there are NUL characters in it");
  switch (format) {
    case "json":
      return fromData(readJson(plain), options);
    case "yaml":
      return fromData(readYaml(plain), options);
    case "lines":
      return fromLines(plain, options);
    case "hosts":
      return fromHosts(plain, options);
  }
}

function readJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new InputError("", (error as Error).message);
  }
}

function readYaml(text: string): unknown {
  const document = parseDocument(text, { logLevel: "silent" });
  const [error] = document.errors;
  if (error !== undefined) throw new InputError("", error.message.split("\n")[0] ?? "it is not YAML");
  try {
    return document.toJS() as unknown;
  } catch (fault) {
    throw new InputError("", (fault as Error).message);
  }
}

/** A list of endpoints, or lists by service. */
function fromData(data: unknown, options: ParseOptions): Lists {
  const services = new Map<string, Listed[]>();
  const faults: string[] = [];
  const add = (service: string, list: readonly unknown[], place: string): void => {
    const found = services.get(service) ?? [];
    services.set(service, found);
    for (const [i, one] of list.entries())
      try {
        found.push(...entriesOf(one, options));
      } catch (error) {
        faults.push(`${place}[${i}]: ${(error as Error).message}`);
      }
  };
  if (Array.isArray(data)) add("", data, "");
  else if (isObject(data))
    for (const [service, list] of Object.entries(data)) {
      if (!Array.isArray(list))
        throw new InputError(service, `expected a list of endpoints, but got ${JSON.stringify(list)?.slice(0, 60)}`);
      if (service === "" || /[\s/\0]/.test(service))
        throw new InputError(JSON.stringify(service), "expected a service's name, without blanks and slashes");
      add(service, list, service);
    }
  else throw new InputError("", 'expected a list of endpoints, or an object such as {"web": ["10.0.0.1:80"]}');
  return { services, faults };
}

/** "host:port", an object of one, or a group of Prometheus' file_sd. */
function entriesOf(value: unknown, options: ParseOptions): readonly Listed[] {
  if (typeof value === "string") return [{ ...placeOf(value, options), labels: Object.create(null), tags: [] }];
  if (!isObject(value)) throw new InputError("", `expected "host:port" or an object, but got ${JSON.stringify(value)}`);
  const known = ["host", "address", "ip", "port", "weight", "labels", "meta", "tags", "targets"];
  const strange = Object.keys(value).find((key) => !known.includes(key));
  if (strange !== undefined) throw new InputError(strange, `unknown key; known are ${known.join(", ")}`);
  const labels = labelsOf(value["labels"] ?? value["meta"]);
  const tags = tagsOf(value["tags"]);
  const weight = weightOf(value["weight"]);
  const rest = { labels, tags, ...(weight === undefined ? {} : { weight }) };
  const { targets, port } = value;
  if (targets !== undefined) {
    if (!Array.isArray(targets)) throw new InputError("targets", 'expected a list of "host:port"');
    return targets.map((one) => ({ ...placeOf(one, options), ...rest }));
  }
  const host = value["host"] ?? value["address"] ?? value["ip"];
  const told = typeof port === "string" && /^\d{1,5}$/.test(port) ? Number(port) : port;
  if (told === undefined) return [{ ...placeOf(host, options), ...rest }];
  return [{ host: hostOf(host), port: portOf(told), ...rest }];
}

function labelsOf(value: unknown): Labels {
  const labels: Record<string, string> = Object.create(null);
  if (value === undefined || value === null) return labels;
  if (!isObject(value)) throw new InputError("labels", 'expected an object of texts such as {"zone": "a"}');
  for (const [key, one] of Object.entries(value)) {
    if (!["string", "number", "boolean"].includes(typeof one))
      throw new InputError(`labels.${key}`, `expected a text, but got ${JSON.stringify(one)}`);
    labels[key] = String(one);
  }
  return labels;
}

function tagsOf(value: unknown): readonly string[] {
  if (value === undefined || value === null) return [];
  const list = Array.isArray(value) ? value : [value];
  for (const one of list)
    if (typeof one !== "string" || one === "") throw new InputError("tags", `${JSON.stringify(one)} is not a tag`);
  return list as string[];
}

function weightOf(value: unknown): number | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value !== "number" || !Number.isInteger(value) || value < 1 || value > MOST_WEIGHT)
    throw new InputError(
      "weight",
      `expected a whole number from 1 to ${MOST_WEIGHT}, but got ${JSON.stringify(value)}`,
    );
  return value;
}

function portOf(value: unknown): number {
  if (typeof value !== "number" || !Number.isInteger(value) || value < 1 || value > 65_535)
    throw new InputError("port", `expected a number from 1 to 65535, but got ${JSON.stringify(value)}`);
  return value;
}

function hostOf(value: unknown): string {
  const text = typeof value === "string" ? value.replace(/^\[(.*)\]$/, "$1") : "";
  const isNumeric = /^[\d.]+$/.test(text);
  if (ipFamily(text) === 0 && (isNumeric || !HOST.test(text)))
    throw new InputError("", `${JSON.stringify(value)}: expected an IP address or a host's name`);
  return text;
}

/** "10.0.0.1:80", "[::1]:80", "host:80"; without a port where one is configured. */
function placeOf(value: unknown, { port }: ParseOptions): Pick<Listed, "host" | "port"> {
  if (typeof value !== "string") throw new InputError("", `expected "host:port", but got ${JSON.stringify(value)}`);
  const [, bracketed, name, digits] = /^(?:\[([^\]]*)\]|([^:]*)):(\d{1,5})$/.exec(value) ?? [];
  if (digits !== undefined) return { host: hostOf(bracketed ?? name), port: portOf(Number(digits)) };
  const host = hostOf(value);
  if (port === undefined) throw new InputError("", `${JSON.stringify(value)} has no port: expected "host:port"`);
  return { host, port };
}

/** Lines without comments, with their numbers. */
function linesOf(text: string): readonly (readonly [number: number, words: readonly string[]])[] {
  return text.split(/\r\n|\n|\r/).flatMap((line, i) => {
    const words = line
      .replace(/(^|\s)#.*$/, "")
      .trim()
      .split(/\s+/)
      .filter((word) => word !== "");
    return words.length === 0 ? [] : [[i + 1, words] as const];
  });
}

/** `host:port [weight] [key=value]…`, a word without "=" is a tag. */
function fromLines(text: string, options: ParseOptions): Lists {
  const list: Listed[] = [];
  const faults: string[] = [];
  for (const [number, [place, ...words]] of linesOf(text))
    try {
      const labels: Record<string, string> = Object.create(null);
      const tags: string[] = [];
      const [first = ""] = words;
      const weight = /^\d+$/.test(first) ? weightOf(Number(words.shift())) : undefined;
      for (const word of words) {
        const at = word.indexOf("=");
        if (at > 0) labels[word.slice(0, at)] = word.slice(at + 1);
        else if (at === -1) tags.push(word);
        else throw new InputError("", `"${word}": expected key=value`);
      }
      list.push({ ...placeOf(place, options), labels, tags, ...(weight === undefined ? {} : { weight }) });
    } catch (error) {
      faults.push(`line ${number}: ${(error as Error).message}`);
    }
  return { services: new Map([["", list]]), faults };
}

/** What every hosts file says of its own host and of nobody [hosts(5)]. */
const OWN = /^(127\.|0\.0\.0\.0$|::1$|::$|fe00::|ff0[0-9a-f]::|255\.255\.255\.255$)/i;

/** What Trilith itself wrote into hosts files (`protocols/hosts`): from the directory, where it shall not come back to. */
const WRITTEN_HERE = /^# BEGIN (\S+) \(written by Trilith.*?^# END \1[ \t]*\r?$/gms;
const WRITTEN_WHOLE = /^# Written by Trilith\b/;

/** `address name…`: each name is a service, or all of them are the file's. */
function fromHosts(text: string, { port, oneService = false }: ParseOptions): Lists {
  const services = new Map<string, Listed[]>();
  const faults: string[] = [];
  // Its lines stay, so that the numbers of the others are theirs.
  const others = WRITTEN_WHOLE.test(text) ? "" : text.replace(WRITTEN_HERE, (block) => block.replace(/[^\n]/g, ""));
  for (const [number, [address = "", ...names]] of linesOf(others)) {
    if (ipFamily(address.replace(/%.*$/, "")) === 0) {
      faults.push(`line ${number}: "${address}": expected an IP address and names`);
      continue;
    }
    if (OWN.test(address)) continue;
    if (names.length === 0) faults.push(`line ${number}: ${address} has no name`);
    for (const name of oneService ? [""] : names) {
      if (name !== "" && !HOST.test(name)) {
        faults.push(`line ${number}: "${name}" is not a host's name`);
        continue;
      }
      const list = services.get(name.toLowerCase()) ?? [];
      services.set(name.toLowerCase(), list);
      const labels: Record<string, string> = Object.create(null);
      if (oneService && names[0] !== undefined) labels["host"] = names[0];
      list.push({ host: address, port: port ?? 0, labels, tags: [] });
    }
  }
  return { services, faults };
}

/** True where nothing is listed, although the text may have been meant to: an empty list that says so (`[]`) is not blank. */
export function isBlank(text: string, format: Format): boolean {
  return format === "json" ? text.trim() === "" : text.split(/\r\n|\n|\r/).every((line) => /^\s*(#.*)?$/.test(line));
}

/** True for a format whose texts have an end, so that one that can be read is whole. */
export const hasEnd = (format: Format): boolean => format === "json";
