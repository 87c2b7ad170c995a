// What a starting agent prints: where everything is, what was found, and the next thing to try; one screenful.
import type { Trilith } from "../index.ts";
import { table } from "./io.ts";

/** The start screen of a running agent. */
export function startScreen(trilith: Trilith): string {
  const { self, settings } = trilith;
  const where = (name: string, otherwise: string): string => self.listening.get(name) ?? otherwise;
  const http = where("http", "off");
  const dns = where("dns", "off");
  const data = self.dev ? "in memory only (-dev)" : `${settings.dataDir ?? ""} (${settings.storage})`;
  const rows: (readonly string[])[] = [
    ["  HTTP", http === "off" || http.startsWith("unix:") ? http : `http://${http}`, "Consul's API and Trilith's own"],
    ["  DNS", dns, dns === "off" ? "" : `UDP and TCP, names below .${self.domain}`],
    ["  data", data, settings.storage === "etcd" ? `shared: ${settings.etcd?.endpoints.join(", ") ?? ""}` : ""],
  ];
  const sources = trilith.sources().map(({ name, ok, text }) => [`  ${ok ? "·" : "!"} ${name}`, text]);
  const port = dns.slice(dns.lastIndexOf(":") + 1);
  const host = dns.slice(0, dns.lastIndexOf(":"));
  const address = self.listening.get("http");
  const flag = address === undefined || address === "127.0.0.1:8500" ? "" : ` --http-addr ${address}`;
  const tries = [
    `  trilith run${flag} --name web -- python3 -m http.server 0`,
    `  trilith find${flag} web`,
    ...(dns === "off" ? [] : [`  dig @${host} -p ${port} web.service.${self.domain} SRV`]),
    ...(http === "off" ? [] : [`  curl http://${http}/v1/health/service/web?passing`]),
  ];
  const warnings = trilith.warnings.map((text) => `  ! ${text}\n`).join("");
  return `Trilith ${self.version} · node ${self.node} · datacenter ${self.datacenter}

${table(rows)}
Sources
${table(sources)}${warnings === "" ? "" : `\nWarnings\n${warnings}`}
Try, in another terminal (from a clone: "npx trilith …")
${tries.join("\n")}

Ctrl-C stops the agent.
`;
}
