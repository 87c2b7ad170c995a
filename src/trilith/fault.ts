// Settings that contradict each other or cannot be meant, told before anything is built.
import { TrilithError } from "../base/error.ts";
import type { Settings } from "../contracts/settings.ts";

/** `known`: the names of all protocols. @throws TrilithError `invalid` with what is wrong and what would be right */
export function checkSettings(settings: Settings, known: readonly string[]): void {
  if (!settings.dev && settings.storage !== "memory" && settings.dataDir === undefined)
    wrong("a data folder is needed (dataDir, --data-dir), or dev (--dev) to keep nothing");
  if (settings.storage === "etcd" && (settings.etcd?.endpoints.length ?? 0) === 0)
    wrong("storage etcd needs the members' URLs (etcd.endpoints, --etcd)");
  if (settings.join !== undefined && settings.storage === "etcd")
    wrong("a host either joins others (join, --join) or has a store of its own (storage etcd, --etcd), not both");
  if (settings.peers !== undefined && (settings.join !== undefined || settings.storage === "etcd"))
    wrong(
      "peers (peers, --peers) are agents without a server; with one (join, --join) or a shared store (storage etcd, --etcd) all have one directory already: choose one of them",
    );
  if (settings.join !== undefined && settings.join.servers.length === 0)
    wrong("join needs the URL of at least one agent (join.servers, --join http://host:8500)");
  checkNames(settings);
  const strange = Object.keys(settings.protocols).find((name) => !known.includes(name));
  if (strange !== undefined) wrong(`protocol "${strange}": there are ${known.join(", ")}`);
}

/** @throws TrilithError `invalid` for a name that cannot be one */
export function checkNames({ node = "x", datacenter = "x", domain = "x" }: Partial<Settings>): void {
  for (const [what, text] of [
    ["node", node],
    ["datacenter", datacenter],
  ] as const)
    if (text === "" || /[\u0000-\u0020/]/.test(text))
      wrong(`${what} "${text}": expected a name without blanks, slashes and control characters`);
  if (!/^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$/.test(domain))
    wrong(`domain "${domain}": expected a DNS name such as "consul"`);
}

function wrong(what: string): never {
  throw new TrilithError("invalid", what);
}
