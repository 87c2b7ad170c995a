// Every key of a configuration file, changed while the agent runs: a reload takes it, or says by name that it waits for a restart; never neither.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { callbackLog } from "../../src/base/log.ts";
import { systemNet } from "../../src/base/net.ts";
import type { Settings } from "../../src/contracts/settings.ts";
import { isReloaded } from "../../src/protocols/consul/settings/reloaded-keys.ts";
import { KNOWN, settingsFrom } from "../../src/protocols/consul/settings.ts";
import { createTrilith, type Trilith } from "../../src/trilith.ts";
import { decodeMessage } from "../../src/wire/dns/index.ts";
import { queryPacket } from "../support/dns.ts";
import { freePort } from "../support/peers.ts";

/** Another value for each key, as a file has it. */
const OTHERS: Readonly<Record<string, unknown>> = {
  join: ["http://127.0.0.1:1"],
  join_token: "secret",
  join_liveness: "7s",
  peers: "lan",
  peers_key: "0123456789abcdef",
  peers_port: 8599,
  peers_bind: "127.0.0.1",
  peers_tailscaled: "/run/x.sock",
  datacenters: { dc2: ["http://127.0.0.1:1"] },
  "dns_config.recursion_from": ["10.0.0.0/8"],
  "dns_config.bridge": ["docker9"],
  "magic.v4": "127.200.0.0/16",
  "magic.v6": "fd00:1:2::/48",
  "guard.drop_percent": 70,
  "guard.min_instances": 4,
  "guard.window": "2m",
  "guard.hold": "1m",
  "guard.panic_percent": 20,
  "guard.services": { sick: { panic_percent: 50 } },
  "hook.enabled": false,
  "hook.table": "/nowhere/table",
  "hook.balance": "random",
  "hook.prefetch": 3,
  "hook.prefetch_idle": "3s",
  "hook.try": "2s",
  "hook.locality": false,
  protocols: { docker: { internal: true } },
  "process.environ": true,
  retry_join: ["10.0.0.1"],
  start_join: ["10.0.0.1"],
  server: true,
  node_name: "beta",
  node_id: "40e4a748-2192-161a-0510-9bf59fe950b5",
  datacenter: "dc9",
  domain: "sd.internal",
  alt_domain: "alt.example",
  client_addr: "127.0.0.1 ::1",
  bind_addr: "127.0.0.9",
  advertise_addr: "192.0.2.7",
  "addresses.http": "127.0.0.8",
  "addresses.dns": "127.0.0.8",
  data_dir: "/nowhere",
  log_level: "debug",
  log_json: true,
  enable_script_checks: true,
  enable_local_script_checks: true,
  session_ttl_min: "1s",
  disable_coordinates: true,
  disable_remote_exec: false,
  enable_agent_tls_for_checks: true,
  ca_file: "/nowhere.pem",
  cert_file: "/nowhere.pem",
  key_file: "/nowhere.pem",
  server_name: "x",
  "tls.defaults.ca_file": "/nowhere.pem",
  "tls.defaults.cert_file": "/nowhere.pem",
  "tls.defaults.key_file": "/nowhere.pem",
  node_meta: { rack: "r9" },
  check_update_interval: "1s",
  check_output_max_size: 5,
  leave_on_terminate: true,
  "ports.http": 18599,
  "ports.dns": 18699,
  "ports.server": 18300,
  "ports.serf_lan": 18301,
  "dns_config.node_ttl": "11s",
  "dns_config.service_ttl": { web: "12s" },
  "dns_config.only_passing": true,
  "dns_config.enable_truncate": false,
  "dns_config.udp_answer_limit": 1,
  "dns_config.a_record_limit": 1,
  "dns_config.disable_compression": true,
  "dns_config.enable_additional_node_meta_txt": false,
  recursors: ["127.0.0.1:1"],
  "dns_config.recursor_strategy": "random",
  "dns_config.recursor_timeout": "1s",
  "dns_config.soa.refresh": 1,
  "dns_config.soa.retry": 2,
  "dns_config.soa.expire": 3,
  "dns_config.soa.min_ttl": 4,
  "limits.kv_max_value_size": 3,
  "limits.txn_max_req_len": 3,
  max_query_time: "10ms",
  default_query_time: "10ms",
  "http_config.use_cache": false,
  "http_config.response_headers": { "X-Site": "lab" },
  "http_config.block_endpoints": ["/v1/event/"],
  "http_config.allow_write_http_from": ["10.0.0.0/8"],
  "acl.enabled": false,
  acl_datacenter: "",
  ui: false,
  "ui_config.enabled": false,
  "telemetry.prometheus_retention_time": "60s",
};

/** How the protocols' own words begin for what they tell themselves. */
const TOLD_AS: Readonly<Record<string, string>> = {
  "hook.table": "hook.table",
  // Only hosts that have no server anyway take more of it.
  ...Object.fromEntries(
    ["peers", "peers_key", "peers_port", "peers_bind", "peers_tailscaled"].map((key) => [key, "peers"]),
  ),
  "ports.dns": "dns.port (ports.dns)",
  "addresses.dns": "dns.host (client_addr, addresses.dns)",
  "dns_config.bridge": "dns.bridge (dns_config.bridge)",
};

/** What a key is of no use without. */
const WITH: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  ...Object.fromEntries(["key", "port", "bind", "tailscaled"].map((each) => [`peers_${each}`, { peers: "lan" }])),
  ...Object.fromEntries(
    ["ca_file", "cert_file", "key_file", "server_name"].map((each) => [each, { enable_agent_tls_for_checks: true }]),
  ),
  ...Object.fromEntries(
    ["ca_file", "cert_file", "key_file"].map((each) => [`tls.defaults.${each}`, { enable_agent_tls_for_checks: true }]),
  ),
};

const BASE = { process: { environ: false } };

function fileWith(key: string | undefined): Readonly<Record<string, unknown>> {
  if (key === undefined) return BASE;
  const file: Record<string, unknown> = { ...BASE, ...WITH[key] };
  const path = key.split(".");
  let level = file;
  for (const part of path.slice(0, -1)) {
    level[part] = { ...((level[part] as object | undefined) ?? {}) };
    level = level[part] as Record<string, unknown>;
  }
  level[path.at(-1) ?? ""] = OTHERS[key];
  return file;
}

describe("a reload", () => {
  let trilith: Trilith;
  let file = fileWith(undefined);
  let ports: { readonly http: number; readonly dns: number };
  const said: string[] = [];
  /** What the command line says stays what it is; no source looks at this machine. */
  const settings = (): Partial<Settings> => {
    const { protocols = {}, ...told } = settingsFrom(
      [{ value: file, at: (path) => path.join("."), path: "agent.json" }],
      { dev: true, dockerHost: "off" },
      [],
    );
    const { dns } = protocols as { readonly dns?: object };
    return {
      untilRestart: {},
      ...told,
      ...("httpPort" in told ? {} : { httpPort: ports.http }),
      ...("node" in told ? {} : { node: "alpha" }),
      protocols: { ...protocols, dns: { port: ports.dns, ...dns } },
    };
  };
  const url = (path: string): string => `http://127.0.0.1:${ports.http}${path}`;
  const become = async (key: string | undefined): Promise<readonly string[]> => {
    file = fileWith(key);
    await trilith.reload();
    return said.splice(0).filter((text) => text.startsWith("warn"));
  };

  beforeAll(async () => {
    ports = { http: await freePort(), dns: await freePort() };
    trilith = createTrilith(settings(), {
      log: callbackLog((level, _part, text) => void said.push(`${level} ${text}`)),
      reread: async () => settings(),
    });
    await trilith.start();
    await trilith.agent.register("api", {
      ...{ id: "w1", name: "web", tags: [], labels: {}, address: "192.0.2.1", port: 80, checks: [] },
    });
    await trilith.agent.register("api", {
      ...{ id: "w2", name: "web", tags: [], labels: {}, address: "192.0.2.2", port: 80, checks: [] },
    });
    const ill = JSON.stringify({ Name: "sick", Port: 80, Check: { TTL: "1h", Status: "critical" } });
    await fetch(url("/v1/agent/service/register"), { method: "PUT", body: ill });
  });
  afterAll(() => trilith.stop());

  it("is tried with every key that there is, and documented so", () => {
    expect(Object.keys(OTHERS).sort()).toEqual([...KNOWN.keys].sort());
    const document = readFileSync(join(import.meta.dirname, "../../docs/compatibility.md"), "utf8");
    const [paragraph = ""] = /\*\*A reload takes\*\*.*?Every other key/s.exec(document) ?? [];
    const written = [...paragraph.matchAll(/`([\w.]+)`/g)].map(([, key = ""]) => key);
    const taken = Object.keys(OTHERS).filter((key) => isReloaded(key) && !key.startsWith("acl") && !(key in TOLD_AS));
    const meant = [...KNOWN.definitions, ...taken, "peers", "peers_key", "reload"];
    expect(written.filter((key) => !meant.includes(key))).toEqual([]);
    expect(taken.filter((key) => !written.includes(key))).toEqual([]);
  });

  /** Without an effect on an agent that keeps nothing, which is told instead. */
  const IDLE = ["retry_join", "start_join"];
  /** --dev decides, whatever files say. */
  const DECIDED = ["data_dir"];
  const WAITING = Object.keys(OTHERS).filter(
    (key) => ![...IDLE, ...DECIDED].includes(key) && (key in TOLD_AS || !isReloaded(key)),
  );

  /** What was said of each key when it came, which the agent does not say again to a second try of the test. */
  const first = new Map<string, readonly string[]>();
  it.each(IDLE)("says once that %s has no effect", async (key) => {
    const said = first.get(key) ?? (await become(key));
    first.set(key, said);
    expect(said).toEqual([`warn ${key} is accepted and has no effect here`]);
    expect(await become(key)).toEqual([]);
    expect(await become(undefined)).toEqual([]);
  });

  it.each(DECIDED)("says nothing of %s, of which a flag decides", async (key) => {
    expect(await become(key)).toEqual([]);
    expect(await become(undefined)).toEqual([]);
  });

  it.each(WAITING)("says that %s waits for a restart, and no longer when it is as it was", async (key) => {
    expect(await become(key)).toContainEqual(
      expect.stringContaining(`warn ${TOLD_AS[key] ?? key} is another one now: it counts after a restart`),
    );
    // What is taken out again is as good as another value.
    expect(await become(undefined)).toEqual([]);
  });

  const http = async (path: string, init?: RequestInit): Promise<string> => {
    const answer = await fetch(url(path), { redirect: "manual", ...init });
    const site = answer.headers.get("x-site") ?? "";
    return `${answer.status} ${site} ${await answer.text()}`;
  };
  const put = (path: string, body: string): Promise<string> => http(path, { method: "PUT", body });
  const dns = async (name: string): Promise<string> => {
    let heard = (_packet: Uint8Array): void => {};
    const answer = new Promise<Uint8Array>((resolve) => (heard = resolve));
    const socket = await systemNet.datagrams({ host: "127.0.0.1", port: 0 }, (packet) =>
      heard(Uint8Array.from(packet)),
    );
    try {
      socket.send(queryPacket(name), ports.dns, "127.0.0.1");
      const packet = await answer;
      const message = decodeMessage(packet);
      const answers = message.answers.map((record) => JSON.stringify(record)).sort();
      return `${packet.length} ${JSON.stringify({ ...message, answers })}`;
    } finally {
      await socket.close();
    }
  };
  const web = (): Promise<string> => dns("web.service.consul");
  const sick = (): Promise<string> => dns("sick.service.consul");
  const none = (): Promise<string> => dns("none.service.consul");

  /** What is another one for users; the same before and after a key that is not taken. */
  const SEEN: Readonly<Record<string, () => Promise<string>>> = {
    session_ttl_min: () => put("/v1/session/create", '{"TTL":"2s"}').then((text) => text.slice(0, 3)),
    disable_coordinates: () => http("/v1/coordinate/nodes"),
    check_output_max_size: async () => {
      await put("/v1/agent/check/register", '{"Name":"c","TTL":"1h"}');
      await put("/v1/agent/check/update/c", '{"Status":"passing","Output":"0123456789"}');
      return JSON.stringify(JSON.parse((await http("/v1/agent/checks")).slice(5))["c"].Output);
    },
    node_meta: async () => JSON.stringify(JSON.parse((await http("/v1/catalog/node/alpha")).slice(5)).Node.Meta),
    "ports.server": () => http("/v1/status/leader"),
    "limits.kv_max_value_size": () => put("/v1/kv/a", "12345"),
    "http_config.response_headers": () => http("/v1/status/peers"),
    "http_config.block_endpoints": () => http("/v1/event/list"),
    "http_config.allow_write_http_from": () => put("/v1/kv/c", "1"),
    ui: () => http("/"),
    "ui_config.enabled": () => http("/"),
    "telemetry.prometheus_retention_time": () =>
      http("/v1/agent/metrics?format=prometheus").then((text) => text.slice(0, 40)),
    alt_domain: () => dns("web.service.alt.example"),
    recursors: async () => String((await none()).includes('"recursionAvailable":true')),
    "dns_config.node_ttl": () => dns("alpha.node.consul"),
    "dns_config.service_ttl": web,
    "guard.panic_percent": sick,
    "guard.services": sick,
    "dns_config.a_record_limit": async () => String((await web()).length),
    "dns_config.udp_answer_limit": async () => String((await web()).length),
    "dns_config.soa.refresh": none,
    "dns_config.soa.retry": none,
    "dns_config.soa.expire": none,
    "dns_config.soa.min_ttl": none,
    "dns_config.disable_compression": web,
  };

  it.each(Object.keys(SEEN))("takes %s, and what it was again", async (key) => {
    const see = SEEN[key] as () => Promise<string>;
    const before = await see();
    expect(await become(key)).toEqual([]);
    expect(await see()).not.toBe(before);
    expect(await become(undefined)).toEqual([]);
    expect(await see()).toBe(before);
  });

  /** Effects that are told: files are read anew, remote execution wants more than its own key. */
  const EFFECTS: readonly (readonly [RegExp, readonly unknown[]])[] = [
    [/(ca|cert|key)_file$/, [expect.stringContaining("/nowhere.pem")]],
    [
      /^disable_remote_exec$/,
      [expect.stringMatching(/^warn remote execution stays off: .* needs enable_script_checks/)],
    ],
  ];

  it("says nothing of what else it takes", async () => {
    const rest = Object.keys(OTHERS).filter((key) => !WAITING.includes(key) && !(key in SEEN));
    for (const key of rest) {
      const said = await become(key).catch((error: Error) => [error.message]);
      expect([key, said]).toEqual([key, (EFFECTS.find(([pattern]) => pattern.test(key)) ?? [])[1] ?? []]);
    }
    expect(await become(undefined)).toEqual([]);
  });

  it("does not begin anew what goes on as it was", async () => {
    expect(await become("disable_remote_exec")).toHaveLength(1);
    expect(await become("disable_remote_exec")).toEqual([]);
    expect(await become(undefined)).toEqual([]);
  });
});
