// What a starting agent prints: where everything is, what was found, and the next thing to try; one screenful.
import type { Trilith } from "../index.ts";
import { table } from "./io.ts";

/** The first of several addresses, and loopback for "all of this host's". */
function askable(address: string): string {
  const [first = ""] = address.split(", ");
  return first.replace(/^0\.0\.0\.0:/, "127.0.0.1:").replace(/^\[::\]:/, "[::1]:");
}

/** What to do about it stands at the end of a line more often than not. */
const WHOLE = { whole: true };

/** Listeners with a line of their own. */
const KNOWN: ReadonlySet<string> = new Set(["http", "http-more", "dns", "dns-containers"]);

/** Where the others listen: those of dialects that were given a port of their own. */
const otherPlaces = (listening: ReadonlyMap<string, string>): (readonly [string, string])[] =>
  [...listening].filter(([name]) => !KNOWN.has(name));

/** A running agent in one line, for the service manager. */
export function statusLine({ self }: Pick<Trilith, "self">): string {
  const { listening } = self;
  const named = (["http", "dns"] as const).flatMap((name) => {
    const where = listening.get(name);
    return where === undefined ? [] : [`${name.toUpperCase()} ${where}`];
  });
  const places = [...named, ...otherPlaces(listening).map(([name, where]) => `${name} ${where}`)].join(", ");
  return `node ${self.node}, datacenter ${self.datacenter}${places === "" ? "" : `: ${places}`}`;
}

/** The start screen of a running agent. */
export function startScreen(trilith: Trilith): string {
  const { self, settings } = trilith;
  const where = (name: string, otherwise: string): string => self.listening.get(name) ?? otherwise;
  const http = where("http", "off");
  const dns = where("dns", "off");
  const data = self.dev ? "in memory only (-dev)" : `${settings.dataDir ?? ""} (${settings.storage})`;
  const web = http.startsWith("unix:") ? undefined : askable(http);
  const rows: (readonly string[])[] = [
    [
      "  HTTP",
      http === "off" || web === undefined ? http : `http://${http}`,
      http === "off" ? "" : "Consul's API and Trilith's own",
    ],
    ...where("http-more", "")
      .split(", ")
      .filter((place) => place !== "")
      .map((place) => ["", place.startsWith("unix:") ? place : `http://${place}`]),
    ["  DNS", dns, dns === "off" ? "" : `UDP and TCP, names below .${self.domain}`],
    ...(self.listening.has("dns-containers") ? [["", where("dns-containers", ""), "for containers"]] : []),
    ...otherPlaces(self.listening).map(([name, place]) => [`  ${name}`, place]),
    ["  data", data, settings.storage === "etcd" ? `shared: ${settings.etcd?.endpoints.join(", ") ?? ""}` : ""],
  ];
  const states = trilith.sources();
  const sources = states.map(({ name, ok, text }) => [`  ${ok ? "·" : "!"} ${name}`, text]);
  const [, host = "", port = ""] = /^\[?(.*?)\]?:(\d+)$/.exec(askable(dns)) ?? [];
  const flag = web === "127.0.0.1:8500" ? "" : ` --http-addr ${web ?? http}`;
  const path = "/v1/health/service/web?passing";
  const tries = [
    ...(http === "off"
      ? []
      : [
          `  npx trilith run${flag} --name web -- python3 -m http.server 0`,
          `  npx trilith find${flag} web`,
          web === undefined
            ? `  curl --unix-socket ${http.slice("unix://".length)} 'http://agent${path}'`
            : `  curl 'http://${web}${path}'`,
        ]),
    // Programs under the hook need the table alone, which is there where its protocol runs.
    ...(http === "off" || !states.some(({ name }) => name === "hook")
      ? []
      : [`  npx trilith hook${flag} -- curl http://web.service.${self.domain}/`]),
    ...(dns === "off" ? [] : [`  dig @${host} -p ${port} web.service.${self.domain} SRV`]),
  ];
  const away =
    settings.storage === "etcd" && !trilith.directory.view().fresh
      ? ["the etcd does not answer yet: this host's own services are found, and told to the others once it does"]
      : [];
  const warnings = [...away, ...trilith.warnings].map((text) => `  ! ${text}\n`).join("");
  return `Trilith ${self.version} · node ${self.node} · datacenter ${self.datacenter}

${table(rows)}
Sources
${table(sources, WHOLE)}${warnings === "" ? "" : `\nWarnings\n${warnings}`}
${tries.length === 0 ? "" : `Try, in another terminal in this folder\n${tries.join("\n")}\n\n`}Ctrl-C stops the agent.
`;
}
