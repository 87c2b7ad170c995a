// Consul's configuration and flags as settings: what is taken over, what is ignored by name, what is refused and how.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { InputError } from "../../base/error.ts";
import { defaultSettings } from "../../contracts/settings.ts";
import { pathText } from "../../wire/hcl/config.ts";
import { readConfig } from "../dns/config.ts";
import { protocols } from "../index.ts";
import { configure } from "./config.ts";
import type { ConsulFile } from "./settings/file.ts";
import { settingsFrom } from "./settings.ts";

const file = (value: unknown, path = "agent.json"): ConsulFile => ({
  value: value as Record<string, unknown>,
  path,
  at: (keys) => `${path}: ${pathText(keys)}`,
});
const from = (value: unknown, flags = {}): ReturnType<typeof settingsFrom> => settingsFrom([file(value)], flags);

describe("files", () => {
  it("takes over what it knows", () => {
    expect(
      from({
        node_name: "alpha",
        node_id: "40E4A748-2192-161A-0510-9BF59FE950B5",
        datacenter: "DC7",
        domain: "sd.internal.",
        alt_domain: "alt.example",
        client_addr: "127.0.0.1 ::1",
        bind_addr: "192.0.2.1",
        advertise_addr: "192.0.2.2",
        data_dir: "/var/lib/consul",
        log_level: "err",
        log_json: true,
        enable_local_script_checks: true,
        node_meta: { rack: "r1", count: 3 },
        check_update_interval: "0s",
        session_ttl_min: "2s",
        disable_coordinates: true,
        check_output_max_size: 20,
        leave_on_terminate: true,
        ports: { http: 18500, dns: -1, server: 18300 },
        dns_config: {
          node_ttl: "11s",
          service_ttl: { "*": "5s", web: "30s" },
          only_passing: true,
          udp_answer_limit: 2,
          enable_truncate: true,
          a_record_limit: 1,
          disable_compression: true,
          enable_additional_node_meta_txt: false,
          soa: { refresh: 1800, retry: 300, expire: 43_200, min_ttl: 9 },
        },
        limits: { kv_max_value_size: 1000 },
        http_config: { response_headers: { "X-Site": "lab" }, block_endpoints: ["/v1/event/"] },
        ui_config: { enabled: false },
        telemetry: { prometheus_retention_time: "60s" },
      }),
    ).toEqual({
      node: "alpha",
      nodeId: "40e4a748-2192-161a-0510-9bf59fe950b5",
      datacenter: "dc7",
      domain: "sd.internal",
      clientAddress: "127.0.0.1 ::1",
      bindAddress: "192.0.2.1",
      advertiseAddress: "192.0.2.2",
      dataDir: "/var/lib/consul",
      log: { level: "error", format: "json" },
      scripts: { fromApi: false, fromFiles: true },
      nodeLabels: { rack: "r1", count: "3" },
      checkUpdateMs: 0,
      leaveOnTerm: true,
      httpPort: 18_500,
      protocols: {
        file: { paths: [], consulPaths: ["agent.json"] },
        dns: {
          host: ["127.0.0.1", "::1"],
          port: -1,
          altDomain: "alt.example",
          nodeTtlMs: 11_000,
          serviceTtlMs: { "*": 5000, web: 30_000 },
          onlyPassing: true,
          udpAnswerLimit: 2,
          enableTruncate: true,
          aRecordLimit: 1,
          disableCompression: true,
          enableAdditionalNodeMetaTxt: false,
          soa: { refreshS: 1800, retryS: 300, expireS: 43_200, minTtlS: 9 },
        },
        consul: {
          serverPort: 18_300,
          checkOutputMaxBytes: 20,
          kvMaxValueBytes: 1000,
          sessionTtlMinMs: 2000,
          coordinates: false,
          responseHeaders: { "X-Site": "lab" },
          blockEndpoints: ["/v1/event/"],
          ui: false,
          prometheus: true,
        },
      },
      untilRestart: {
        ...{ node_name: '"alpha"', node_id: '"40E4A748-2192-161A-0510-9BF59FE950B5"', datacenter: '"DC7"' },
        ...{ domain: '"sd.internal."', client_addr: '"127.0.0.1 ::1"', bind_addr: '"192.0.2.1"' },
        ...{ advertise_addr: '"192.0.2.2"', data_dir: '"/var/lib/consul"', log_json: "true" },
        ...{ enable_local_script_checks: "true", check_update_interval: '"0s"', leave_on_terminate: "true" },
        "ports.http": "18500",
      },
    });
  });

  it("makes configurations that the protocols take", () => {
    const { protocols } = from({
      client_addr: "127.0.0.1",
      ports: { dns: 8600, server: 8300, serf_lan: 8301 },
      dns_config: {
        ...{ service_ttl: { "db-*": "77s" }, soa: { min_ttl: 1 }, node_ttl: "1500ms" },
        ...{ recursor_strategy: "random", recursor_timeout: "3s" },
      },
      recursors: ["192.0.2.53", "[2001:db8::53]:5353"],
      limits: { kv_max_value_size: 1000 },
      http_config: { response_headers: { A: "b" } },
    });
    expect(readConfig(protocols?.["dns"])).toMatchObject({ port: 8600, hosts: ["127.0.0.1"], nodeTtlMs: 1500 });
    expect(readConfig(protocols?.["dns"])).toMatchObject({
      recursors: [
        { host: "192.0.2.53", port: 53 },
        { host: "2001:db8::53", port: 5353 },
      ],
      recursorStrategy: "random",
      recursorTimeoutMs: 3000,
    });
    expect(configure(protocols?.["consul"])).toMatchObject({ serverPort: 8300, kvMaxValueBytes: 1000 });
  });

  it("the guard's thresholds and the panic threshold, for all services and for one, as JSON and as HCL's blocks", () => {
    const keys = { drop_percent: 70, min_instances: "5", window: "2m", hold: "90s", panic_percent: 20 };
    const settings = { dropShare: 0.7, minInstances: 5, windowMs: 120_000, holdMs: 90_000, panicPercent: 20 };
    const web = { panicPercent: 50, dropShare: 0.25 };
    expect(from({ guard: { ...keys, services: { web: { panic_percent: 50, drop_percent: 25 } } } }).guard).toEqual({
      ...settings,
      perService: { web },
    });
    expect(from({ guard: [{ services: [{ web: [{ panic_percent: 50, drop_percent: 25 }] }] }] }).guard).toEqual({
      ...defaultSettings.guard,
      perService: { web },
    });
    expect(from({ node_name: "a" }).guard).toBeUndefined();
    const several = settingsFrom(
      [
        file({ guard: { hold: "1m", services: { web: { drop_percent: 25 } } } }),
        file({ guard: { services: { web: { panic_percent: 50 }, db: { hold: "1s" } } } }),
      ],
      {},
    );
    expect(several.guard).toEqual({
      ...defaultSettings.guard,
      holdMs: 60_000,
      perService: { web, db: { holdMs: 1000 } },
    });
    for (const [wrong, text] of [
      [{ drop_percent: 0.5 }, "agent.json: guard.drop_percent: 0.5: expected a whole number from 0 to 100"],
      [{ hold: "0s" }, 'agent.json: guard.hold: "0s": expected a time from 1ms to 24h, such as "10m"'],
      [
        { services: { web: { panic: 3 } } },
        "agent.json: guard.services.web.panic: 3: expected one of the keys drop_percent, ",
      ],
      [
        { services: { web: { panic_percent: 101 } } },
        "agent.json: guard.services.web.panic_percent: 101: expected a whole number",
      ],
      [{ services: { web: 3 } }, 'expected an object for "web", such as {"panic_percent": 50}'],
      [{ services: "web" }, 'expected an object such as {"web": {"panic_percent": 50}}'],
      [{ panic: 3 }, 'unknown key "guard.panic"'],
    ] as const)
      expect(() => from({ guard: wrong })).toThrow(text);
  });

  it("protocols without keys of their own are configured by name, as objects and as blocks", () => {
    expect(from({ protocols: { mdns: { publish: "all" }, backends: true } }).protocols).toMatchObject({
      mdns: { publish: "all" },
      backends: true,
    });
    // As HCL brings blocks; a flag leaves alone what a file says more of it.
    const block = { protocols: [{ backends: [{ port: 80 }], mdns: [{ discover: false }] }] };
    expect(from(block, { mdns: true }).protocols).toMatchObject({ backends: { port: 80 }, mdns: { discover: false } });
    expect(from({}, { mdns: true }).protocols).toMatchObject({ mdns: true });
    expect(from(block, { mdns: false }).protocols).toMatchObject({ mdns: false });
    expect(from({ protocols: { api: { token: "secret" } } }).protocols).toMatchObject({ api: { token: "secret" } });
    expect(() => from({ api: { token: "secret" } })).toThrow(/protocols stand below "protocols"/);
    expect(() => from({ protocols: { dns: { port: 53 } } })).toThrow(/"dns" has some/);
    expect(() => from({ protocols: ["mdns"] })).toThrow(/expected an object such as/);
  });

  it("the agent's TLS files are for its checks, where these take part in it", () => {
    const files = {
      ca_file: "/etc/ca.pem",
      tls: { defaults: { cert_file: "c.pem", key_file: "k.pem" } },
      server_name: "s",
    };
    const taken = from({ ...files, enable_agent_tls_for_checks: true });
    expect(taken.checkTls).toEqual({ caFile: "/etc/ca.pem", certFile: "c.pem", keyFile: "k.pem", serverName: "s" });
    expect(taken.ignored ?? []).toEqual([]);
    const without = from(files);
    expect(without.checkTls).toBeUndefined();
    expect([...(without.ignored ?? [])].sort()).toEqual([
      "ca_file",
      "server_name",
      "tls.defaults.cert_file",
      "tls.defaults.key_file",
    ]);
    expect(from({ tls: { https: { ca_file: "x" } } }).ignored).toEqual(["tls.https"]);
  });

  it("says by dotted name what has no effect", () => {
    expect(
      from({
        server: true,
        bootstrap_expect: 3,
        performance: { raft_multiplier: 1 },
        retry_join: ["a"],
        ports: { grpc: 8502, http: 1 },
        acl: { enabled: false, tokens: { agent: "x" } },
        connect: { enabled: true },
        dns_config: { allow_stale: true },
        tls_min_version: "tls12",
      }).ignored,
    ).toEqual([
      "server",
      "bootstrap_expect",
      "performance.raft_multiplier",
      "retry_join",
      "ports.grpc",
      "acl.tokens",
      "connect.enabled",
      "dns_config.allow_stale",
      "tls_min_version",
    ]);
  });

  it("refuses access control lists, which an operator must not believe in here", () => {
    expect(() => from({ acl: { enabled: true } })).toThrow(/agent.json: acl.enabled: true: .*no access control lists/);
    expect(() => from({ acl_datacenter: "dc1" })).toThrow(InputError);
    expect(from({ acl: { enabled: false } })).toEqual({
      protocols: { file: { paths: [], consulPaths: ["agent.json"] } },
    });
  });

  it("takes networks that may write, and refuses what is no network", () => {
    const { protocols } = from({ http_config: { allow_write_http_from: ["127.0.0.0/8", "fd00::/8"] } });
    expect(configure(protocols?.["consul"]).allowWriteFrom).toEqual(["127.0.0.0/8", "fd00::/8"]);
    for (const wrong of ["127.0.0.1", "10.0.0.0/33", "x/8"])
      expect(() => from({ http_config: { allow_write_http_from: [wrong] } })).toThrow(/CIDR/);
  });

  it("leaves services and checks to the file protocol", () => {
    expect(from({ service: { name: "x" }, services: [], check: {}, checks: [] })).toEqual({
      protocols: { file: { paths: [], consulPaths: ["agent.json"] } },
    });
  });

  it("tells of every protocol without keys of its own where it stands", () => {
    for (const { name } of protocols) {
      if (["file", "process", "peers", "shim", "api", "consul", "dns"].includes(name)) continue;
      expect(() => from({ [name]: {} })).toThrow(`{"protocols": {"${name}": …}}`);
      expect(from({ protocols: { [name]: { a: 1 } } })).toMatchObject({ protocols: { [name]: { a: 1 } } });
    }
  });

  it("takes blocks as HCL gives them, and keys in any case", () => {
    expect(
      from({ Ports: [{ HTTP: 7 }], node_meta: [{ a: "b" }], dns_config: [{ soa: [{ min_ttl: 3 }] }] }),
    ).toMatchObject({
      httpPort: 7,
      nodeLabels: { a: "b" },
      protocols: { dns: { soa: { minTtlS: 3 } } },
    });
  });

  it("lets later files win and gathers node metadata", () => {
    const settings = settingsFrom([
      file({ node_name: "a", datacenter: "one", node_meta: { x: "1", y: "1" } }, "a.json"),
      file({ node_name: "b", node_meta: { y: "2" } }, "b.json"),
    ]);
    expect(settings).toMatchObject({ node: "b", datacenter: "one", nodeLabels: { x: "1", y: "2" } });
    expect(settings.protocols?.["file"]).toEqual({ paths: [], consulPaths: ["a.json", "b.json"] });
  });

  it.each([
    [{ node_nmae: "x" }, 'agent.json: node_nmae: unknown key "node_nmae": did you mean "node_name"?'],
    [{ ports: { htp: 1 } }, 'agent.json: ports.htp: unknown key "ports.htp": did you mean "ports.http"?'],
    [
      { dns_config: { onlypassing: true } },
      'unknown key "dns_config.onlypassing": did you mean "dns_config.only_passing"?',
    ],
    [{ zzzzzzzz: 1 }, 'agent.json: zzzzzzzz: unknown key "zzzzzzzz"'],
    [{ flat: { files: "/a" } }, 'unknown key "flat": protocols stand below "protocols": {"protocols": {"flat": …}}'],
    [{ protocols: { shim: {} } }, 'expected protocols without keys of their own; "shim" has "hook"'],
    [{ hook: { try: 5 } }, 'agent.json: hook.try: 5: expected a time from 10ms to 1m, such as "1s"'],
    [{ hook: { prefetch_idle: "2h" } }, 'hook.prefetch_idle: "2h": expected a time from 100ms to 1h, such as "10s"'],
    [{ ports: { http: "many" } }, 'agent.json: ports.http: "many": expected a whole number from -1 to 65535'],
    [{ ports: 3 }, "agent.json: ports: 3: expected an object"],
    [{ node_name: 7 }, "agent.json: node_name: 7: expected a text"],
    [{ node_id: "x" }, "expected a UUID"],
    [{ log_level: "loud" }, "expected one of trace, debug, info, warn, err"],
    [{ log_level: "constructor" }, "expected one of trace, debug, info, warn, err"],
    [{ client_addr: "{{ GetPrivateIP }}" }, "go-sockaddr templates are not understood"],
    [{ client_addr: "127.0.0.1 nowhere" }, '"nowhere" is none'],
    [{ bind_addr: "host.example" }, "expected an IP address"],
    [{ check_update_interval: "soon" }, "agent.json: check_update_interval"],
    [{ check_update_interval: "-1s" }, "expected a duration that is not negative"],
    [{ node_meta: { a: {} } }, "expected an object of texts"],
    [{ domain: "." }, "expected a DNS name"],
    [{ enable_script_checks: "perhaps" }, "expected true or false"],
  ])("refuses %j", (value, message) => {
    expect(() => from(value)).toThrow(InputError);
    expect(() => from(value)).toThrow(message);
  });

  it("raises nothing but InputError", () => {
    const keys = fc.constantFrom(
      "ports",
      "http",
      "dns_config",
      "soa",
      "service_ttl",
      "node_meta",
      "client_addr",
      "acl",
      "telemetry",
      "__proto__",
      "services",
    );
    fc.assert(
      fc.property(fc.object({ key: fc.oneof(keys, fc.string()), maxDepth: 3 }), (value) => {
        try {
          from(value);
        } catch (error) {
          expect(error).toBeInstanceOf(InputError);
        }
      }),
    );
  });
});

describe("flags", () => {
  it("are taken over and win", () => {
    expect(
      settingsFrom([file({ node_name: "a", ports: { http: 1 } })], {
        dev: true,
        node: "b",
        httpPort: "18500",
        dnsPort: "18600",
        nodeMeta: ["rack:r1", "url:http://x"],
        client: "0.0.0.0",
        compat: "consul",
        services: ["/srv/services"],
        dockerHost: "off",
        environ: "off",
        enableScriptChecks: true,
        server: true,
        bootstrapExpect: "1",
        quiet: undefined,
      }),
    ).toEqual({
      dev: true,
      node: "b",
      httpPort: 18_500,
      nodeLabels: { rack: "r1", url: "http://x" },
      clientAddress: "0.0.0.0",
      compat: "consul",
      scripts: { fromApi: true, fromFiles: true },
      protocols: {
        dns: { port: 18_600, host: ["0.0.0.0"] },
        docker: { enabled: false },
        process: { environ: false },
        file: { paths: ["/srv/services"], consulPaths: ["agent.json"] },
      },
      ignored: ["-server", "-bootstrap-expect"],
    });
  });
  it.each([
    [{ node: "b" }, { node_name: "a" }],
    [{ server: true }, { server: false }],
    [{ dev: true }, { data_dir: "/nowhere" }],
    [{ enableScriptChecks: true }, { enable_script_checks: false, enable_local_script_checks: true }],
    [{ join: ["http://10.0.0.1:8500"], joinToken: "t" }, { join_token: "s" }],
  ])("%j leave nothing of %j to wait for a restart", (flags, keys) => {
    expect(settingsFrom([file(keys)], flags).untilRestart).toBeUndefined();
    const alone = Object.keys(flags)[0] === "join" ? { ...keys, join: ["http://10.0.0.2:8500"] } : keys;
    expect(Object.keys(settingsFrom([file(alone)]).untilRestart ?? {})).toEqual(
      expect.arrayContaining(Object.keys(keys)),
    );
  });
  it.each([
    [{ dev: false }, { data_dir: "/nowhere" }],
    [{ enableScriptChecks: false }, { enable_local_script_checks: true }],
    [{ enableScriptChecks: "false" }, { enable_local_script_checks: true }],
    [{ join: ["http://10.0.0.1:8500"] }, { join: ["http://10.0.0.2:8500"] }],
    [{ client: "0.0.0.0" }, { addresses: { http: "127.0.0.1" } }],
  ])("%j leave %j what it says", (flags, keys) => {
    expect(settingsFrom([file(keys)], flags).untilRestart).toEqual(settingsFrom([file(keys)]).untilRestart);
    expect(settingsFrom([file(keys)], flags).untilRestart).toBeDefined();
  });
  it("mean etcd", () => {
    expect(settingsFrom([], { etcd: "http://a:2379, http://b:2379", etcdPrefix: "/x/" })).toEqual({
      storage: "etcd",
      etcd: { endpoints: ["http://a:2379", "http://b:2379"], prefix: "/x/", livenessMs: 15_000 },
    });
    expect(settingsFrom([], { etcdPrefix: "/x/", etcd: "http://a:2379" }).etcd?.prefix).toBe("/x/");
  });
  it.each([
    [{ nonsense: 1 }, "-nonsense: unknown flag"],
    [{ httpPort: "x" }, '-http-port: "x": expected a whole number'],
    [{ compat: "zookeeper" }, "expected none or consul"],
    [{ storage: "disk" }, "expected memory, lmdb or etcd"],
    [{ etcd: "a:2379" }, "expected URLs"],
    [{ etcdPrefix: "/x/" }, "needs the members' URLs"],
    [{ nodeMeta: ["x"] }, "expected key:value"],
  ])("refuse %j", (flags, message) => expect(() => settingsFrom([], flags)).toThrow(message));
});

describe("client hosts and datacenters", () => {
  it("joins what it is told to, in any spelling of an agent's address", () => {
    expect(
      settingsFrom([], { join: ["http://10.0.0.1:8500/", "10.0.0.2", "[2001:db8::1]:9000", "host.example:8301"] }).join,
    ).toEqual({
      servers: [
        "http://10.0.0.1:8500",
        "http://10.0.0.2:8500",
        "http://[2001:db8::1]:9000",
        "http://host.example:8500",
      ],
      livenessMs: 15_000,
    });
    expect(settingsFrom([file({ join: "10.0.0.1", join_token: "t", join_liveness: "5s" })]).join).toEqual({
      servers: ["http://10.0.0.1:8500"],
      livenessMs: 5000,
      token: "t",
    });
  });

  it("a Consul client's retry_join is a join, a server's is not", () => {
    expect(settingsFrom([file({ retry_join: ["10.0.0.1", "10.0.0.2:8301"] })])).toEqual({
      join: { servers: ["http://10.0.0.1:8500", "http://10.0.0.2:8500"], livenessMs: 15_000 },
      protocols: { file: { paths: [], consulPaths: ["agent.json"] } },
      untilRestart: { retry_join: '["10.0.0.1","10.0.0.2:8301"]' },
    });
    const server = settingsFrom([file({ server: true, retry_join: ["provider=aws tag_key=x"] })]);
    expect([server.join, server.ignored]).toEqual([undefined, ["server", "retry_join"]]);
    expect(settingsFrom([file({ retry_join: ["10.0.0.1"] })], { etcd: "http://127.0.0.1:2379" }).join).toBeUndefined();
  });

  it("names datacenters with their agents", () => {
    expect(settingsFrom([file({ datacenters: { DC2: ["10.0.0.1", "http://b:80"] } })]).datacenters).toEqual({
      dc2: ["http://10.0.0.1:8500", "http://b:80"],
    });
  });

  it.each([
    [{ join: ["ftp://x"] }, /join/],
    [{ join: ["http://x/path"] }, /join/],
    [{ join: ["a b"] }, /join/],
    [{ retry_join: ["provider=aws tag_key=x"] }, /cloud auto-join/],
    [{ datacenters: { "d c": ["x"] } }, /datacenters/],
    [{ datacenters: { dc2: [] } }, /at least one URL/],
    [{ datacenters: "dc2" }, /an object such as/],
    [{ join_liveness: "10ms" }, /at least/],
  ])("refuses %j", (value, text) => {
    expect(() => settingsFrom([file(value)])).toThrow(text);
  });
});
