// The list of backends as text, in the form that its reader includes: JSON, plain lines, Apache's balancer members, nginx's upstream servers.
import { hostPort } from "../../base/net.ts";
import type { Endpoint } from "../../model/query.ts";

/** One backend of the list. */
export interface Backend {
  /** What it called itself. */
  readonly id: string;
  readonly address: string;
  /** 0 = none was told. */
  readonly port: number;
  readonly weight: number;
}

/** How lists look, by the suffix of the path; the first is the one for those who do not say. */
export const FORMATS = ["json", "txt", "apache", "nginx"] as const;
export type Format = (typeof FORMATS)[number];

export const TYPES: Readonly<Record<Format, string>> = {
  json: "application/json; charset=utf-8",
  txt: "text/plain; charset=utf-8",
  apache: "text/plain; charset=utf-8",
  nginx: "text/plain; charset=utf-8",
};

/** By id, so that a reader sees no change where there is none. */
export function backendsOf(endpoints: readonly Endpoint[], idOf: (instanceId: string) => string): readonly Backend[] {
  return endpoints
    .map(({ address, port, weight, resident }) => ({ id: idOf(resident.instance.id), address, port, weight }))
    .sort((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0));
}

const at = ({ address, port }: Backend): string => (port === 0 ? bracketed(address) : hostPort(address, port));
const bracketed = (address: string): string => (address.includes(":") ? `[${address}]` : address);

/** Apache allows routes of letters, digits and a few signs; anything else would end the word [mod_proxy, "route"]. */
const route = (id: string): string => id.replace(/[^A-Za-z0-9_-]/g, "-");

/** The list in a format; an empty one is empty (JSON: `[]`), never an error of its reader's. */
export function listText(backends: readonly Backend[], format: Format, scheme: string): string {
  switch (format) {
    case "json":
      return `${JSON.stringify(backends)}\n`;
    case "txt":
      return backends.map((each) => `${at(each)}\n`).join("");
    case "apache":
      return backends
        .map((each) => `BalancerMember ${scheme}://${at(each)} route=${route(each.id)}${factor(each)}\n`)
        .join("");
    case "nginx":
      return backends.map((each) => `server ${at(each)}${weight(each)};\n`).join("");
  }
}

/** Both count 1 without a word. Apache's factor is at most 100 [mod_proxy, "loadfactor"]. */
const factor = ({ weight: given }: Backend): string => (given <= 1 ? "" : ` loadfactor=${Math.min(given, 100)}`);
const weight = ({ weight: given }: Backend): string => (given <= 1 ? "" : ` weight=${given}`);
