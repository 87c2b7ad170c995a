// The ways in: each brings one service in by one dialect, makes it ill and well where the dialect knows health, and takes it out again.
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { advertise } from "../../../src/index.ts";
import { type Kind, startProcess } from "../minidisc.ts";
import type { startProgram } from "../peers.ts";
import { program } from "../program.ts";
import { joinSet } from "../serversets.ts";
import { AGENT, type Machine, OTHER, TAILNET } from "./machine.ts";
import type { Entry } from "./model.ts";

type Facts = Omit<Entry, "enter" | "leave" | "health" | "of" | "address" | "ipv6">;

/** Fails a TTL check and passes it again. */
const pushed = (machine: Machine, check: string, agent = AGENT): NonNullable<Entry["health"]> => ({
  sick: () => machine.put(`${agent}/v1/agent/check/fail/${check}`),
  well: () => machine.put(`${agent}/v1/agent/check/pass/${check}`),
});

/** Says it by a file that /health of the service's server looks for. */
const answered = (machine: Machine, service: string): NonNullable<Entry["health"]> => ({
  sick: () => writeFile(machine.at(`${service}.sick`), ""),
  well: () => rm(machine.at(`${service}.sick`), { force: true }),
});

const TTL = { TTL: "1h", Status: "passing" };
const both = { tags: ["blue"], labels: { zone: "a" } };
const none = { tags: [], labels: {} };

/** All of them. Those of others, and what has no server of its own, are served by the machine at these ports. */
export function entriesOf(machine: Machine): readonly Entry[] {
  return [
    ...byConsul(machine),
    ...byFile(machine),
    ...byDocker(machine),
    ...byProcess(machine),
    ...byStore(machine),
    ...byList(machine),
    ...byNeighbour(machine),
  ];
}

const own = (machine: Machine) => ({ of: "this host" as const, address: machine.here.ipv4 });
const others = (machine: Machine) => ({ of: "others" as const, address: machine.far.ipv4 });
const facts = (title: string, service: string, port: number, more: Partial<Facts> = both): Facts => ({
  ...{ title, service, port },
  ...both,
  ...more,
});
const body = ({ service, port, tags, labels }: Facts) => ({ Name: service, Port: port, Tags: tags, Meta: labels });

function byConsul(machine: Machine): Entry[] {
  const api = facts("Consul's API: `agent/service/register`", "apireg", 20001);
  const renamed = facts("`trilith override`: another name", "renamed", 20002);
  const external = facts("Consul's API: `catalog/register`, an external node", "external", 20003);
  const v6 = facts("Consul's API: `catalog/register`, at an IPv6 address", "sixth", 20004);
  const row = (entry: Facts, address: string, status: string) => ({
    ...{ Node: `node-${entry.service}`, Address: address },
    Service: { ID: entry.service, Service: entry.service, Port: entry.port, Tags: entry.tags, Meta: entry.labels },
    Check: { CheckID: `service:${entry.service}`, ServiceID: entry.service, Name: "outside", Status: status },
  });
  const catalog = (entry: Facts, address: string): Omit<Entry, keyof Facts> => {
    const write = (status: string) => () => machine.put("/v1/catalog/register", row(entry, address, status));
    return {
      ...{ of: "others", address },
      ...(address.includes(":") ? { ipv6: address } : {}),
      enter: write("passing"),
      health: { sick: write("critical"), well: write("passing") },
      leave: () => machine.put("/v1/catalog/deregister", { Node: `node-${entry.service}` }),
    };
  };
  return [
    {
      ...api,
      ...own(machine),
      enter: () => machine.put("/v1/agent/service/register", { ...body(api), Check: TTL }),
      health: pushed(machine, "service:apireg"),
      leave: () => machine.put("/v1/agent/service/deregister/apireg"),
    },
    {
      ...renamed,
      ...own(machine),
      async enter() {
        await machine.put("/v1/agent/service/register", { ...body(renamed), Name: "wasnamed", Check: TTL });
        await machine.trilith("override", "wasnamed", "name=renamed");
      },
      health: pushed(machine, "service:wasnamed"),
      async leave() {
        await machine.put("/v1/agent/service/deregister/wasnamed");
        await machine.trilith("override", "wasnamed", "--undo");
      },
    },
    { ...external, ...catalog(external, machine.far.ipv4) },
    { ...v6, ...catalog(v6, machine.far.ipv6) },
  ];
}

function byFile(machine: Machine): Entry[] {
  const [json, hcl] = [
    facts("Consul's definition file, JSON", "filejson", 20005),
    facts("Consul's definition file, HCL", "filehcl", 20006),
  ];
  const xml = facts("Avahi's service file", "avahixml", 20007);
  const drop = (folder: readonly string[], name: string, text: string) => ({
    enter: () => writeFile(machine.at(...folder, name), text),
    leave: () => rm(machine.at(...folder, name), { force: true }),
  });
  const definitions = ["alpha", "services.d"];
  return [
    {
      ...json,
      ...own(machine),
      ...drop(
        definitions,
        "a.json",
        JSON.stringify({ service: { ...body(json), check: { ttl: "1h", status: "passing" } } }),
      ),
      health: pushed(machine, "service:filejson"),
    },
    {
      ...hcl,
      ...own(machine),
      ...drop(
        definitions,
        "b.hcl",
        `service {
  name = "filehcl"
  port = 20006
  tags = ["blue"]
  meta { zone = "a" }
  check {
    ttl = "1h"
    status = "passing"
  }
}
`,
      ),
      health: pushed(machine, "service:filehcl"),
    },
    {
      ...xml,
      ...own(machine),
      ...drop(
        ["avahi"],
        "a.service",
        `<?xml version="1.0" standalone='no'?>
<!DOCTYPE service-group SYSTEM "avahi-service.dtd">
<service-group>
  <name>avahixml</name>
  <service>
    <type>_avahixml._tcp</type><port>20007</port>
    <txt-record>zone=a</txt-record><txt-record>tags=blue</txt-record>
  </service>
</service-group>
`,
      ),
    },
  ];
}

function byDocker(machine: Machine): Entry[] {
  const { docker } = machine.docker;
  const serve = (service: string): string[] => [
    ...["bbexp1", "/bin/sh", "-c", `echo ${service} > /www/index.html && exec /bin/httpd -f -p 80 -h /www`],
  ];
  const container = (one: Facts, words: readonly string[]) => {
    let address = "";
    return {
      async enter() {
        await docker("run", "-d", "--name", one.service, "-p", `${one.port}:80`, ...words, ...serve(one.service));
        address = await docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", one.service);
      },
      leave: () => docker("rm", "-f", one.service),
      container: () => address,
    };
  };
  const [env, label] = [
    facts("a container with `SERVICE_*` variables and a HEALTHCHECK", "dockerenv", 20008),
    facts("a container with `SERVICE_*` labels", "dockerlabel", 20009),
  ];
  const words = (service: string): string[] => [`SERVICE_NAME=${service}`, "SERVICE_TAGS=blue", "SERVICE_ZONE=a"];
  const check = ["--health-cmd", "test ! -e /tmp/sick", "--health-interval", "300ms", "--health-retries", "1"];
  return [
    {
      ...env,
      ...own(machine),
      ...container(env, [...words("dockerenv").flatMap((word) => ["-e", word]), ...check]),
      health: {
        sick: () => docker("exec", "dockerenv", "touch", "/tmp/sick"),
        well: () => docker("exec", "dockerenv", "rm", "-f", "/tmp/sick"),
      },
    },
    {
      ...label,
      ...own(machine),
      ...container(
        label,
        words("dockerlabel").flatMap((word) => ["-l", word]),
      ),
      health: { sick: () => docker("pause", "dockerlabel"), well: () => docker("unpause", "dockerlabel") },
    },
  ];
}

function byProcess(machine: Machine): Entry[] {
  const answers = join(import.meta.dirname, "answers.mjs");
  const server = (one: Facts): string[] => [process.execPath, answers, machine.folder, `${one.service}:${one.port}`];
  const running = (command: readonly string[], env?: Readonly<Record<string, string>>) => {
    let started: Awaited<ReturnType<typeof startProgram>> | undefined;
    return {
      enter: async () => {
        started = await machine.start(command, env);
      },
      leave: async () => await started?.stop(),
    };
  };
  const [run, environ, announce, said] = [
    facts("`trilith run -- PROGRAM`", "runprogram", 20010),
    facts("a process with `SERVICE_NAME`", "environ", 20011),
    facts("`trilith announce`", "announced", 20012),
    facts("the library's `advertise()`", "advertised", 20013),
  ];
  const described = ["--tag", "blue", "--label", "zone=a", "--interval", "300ms", "--check", "http:/health"];
  const words = ["--name", announce.service, "--port", `${announce.port}`];
  let advertised: Awaited<ReturnType<typeof advertise>> | undefined;
  return [
    {
      ...run,
      ...own(machine),
      ...running([process.execPath, program, "run", "--name", run.service, ...described, "--", ...server(run)]),
      health: answered(machine, run.service),
    },
    {
      ...environ,
      ...own(machine),
      ...running(server(environ), {
        ...{ SERVICE_NAME: environ.service, SERVICE_TAGS: "blue", SERVICE_ZONE: "a" },
        ...{ SERVICE_CHECK_HTTP: "/health", SERVICE_CHECK_INTERVAL: "300ms" },
      }),
      health: answered(machine, environ.service),
    },
    {
      ...announce,
      ...own(machine),
      enter: () => machine.trilith("announce", ...words, ...described),
      health: answered(machine, announce.service),
      leave: () => machine.trilith("announce", "--withdraw", ...words),
    },
    {
      ...said,
      ...own(machine),
      async enter() {
        const { service: name, port = 0, tags, labels } = said;
        const asked = { checks: ["http:/health"], intervalMs: 300 };
        advertised = await advertise({ name, port, tags, labels, agent: AGENT, ...asked });
      },
      health: answered(machine, said.service),
      leave: async () => await advertised?.stop(),
    },
  ];
}

function byStore(machine: Machine): Entry[] {
  const { etcd, zookeeper, far } = machine;
  const [registrator, skydns, member] = [
    facts("Registrator's keys in etcd", "regetcd", 20014, none),
    facts("SkyDNS' keys in etcd", "skyetcd", 20015, none),
    facts("a member of a server set in ZooKeeper", "zkmember", 20016, none),
  ];
  const key = (path: string, value: string) => ({
    enter: () => etcd.ctl("put", path, value),
    leave: () => etcd.ctl("del", path),
  });
  let joined: Awaited<ReturnType<typeof joinSet>> | undefined;
  return [
    { ...registrator, ...others(machine), ...key("/services/regetcd/far:regetcd:80", `${far.ipv4}:20014`) },
    {
      ...skydns,
      ...others(machine),
      ...key("/skydns/local/skydns/skyetcd/1", JSON.stringify({ host: far.ipv4, port: 20015 })),
    },
    {
      ...member,
      ...others(machine),
      async enter() {
        joined = await joinSet(machine.folder, zookeeper.address, "/discovery/zkmember", far.ipv4, "20016", "-");
        const { stop } = joined;
        machine.ends.push(() => stop("SIGKILL"));
      },
      leave: async () => await joined?.stop("SIGTERM"),
    },
  ];
}

function byList(machine: Machine): Entry[] {
  const [lines, yaml, hosts] = [
    facts("a flat file: lines", "flatlines", 20017),
    facts("a flat file: YAML", "flatyaml", 20018),
    facts("a flat file: the hosts format", "flathosts", 0, none),
  ];
  const srv = facts("SRV records of another DNS", "dnssrv", 20019, { tags: ["blue"], labels: {} });
  const at = machine.far.ipv4;
  const file = (name: string, text: string, empty: string) => ({
    enter: () => writeFile(machine.at("flat", name), text),
    leave: () => writeFile(machine.at("flat", name), empty),
  });
  const { port: _, ...withoutPort } = hosts;
  return [
    { ...lines, ...others(machine), ...file("flatlines.txt", `${at}:20017 zone=a blue\n`, "") },
    {
      ...yaml,
      ...others(machine),
      ...file(
        "lists.yaml",
        `flatyaml:\n  - {host: ${at}, port: 20018, tags: [blue], labels: {zone: a}}\n`,
        "flatyaml: []\n",
      ),
    },
    { ...withoutPort, ...others(machine), ...file("all.hosts", `${at} flathosts\n`, "") },
    {
      ...srv,
      ...others(machine),
      async enter() {
        machine.zone.push(`_dnssrv._tcp.example.com. 1 SRV 0 5 20019 far.example.com.`, `far.example.com. 1 A ${at}`);
      },
      leave: async () => void machine.zone.splice(0),
    },
  ];
}

function byNeighbour(machine: Machine): Entry[] {
  const { far } = machine;
  const upstream = facts("another Consul's catalog", "consulup", 20020);
  const peer = facts("another host's agent, without a server (`--peers lan`)", "peered", 20027);
  const [go, python] = [
    facts("Minidisc on the tailnet, as its Go programs", "mdgo", 20021, none),
    facts("Minidisc on the tailnet, as its Python programs", "mdpython", 20022, none),
  ];
  const published = facts("`avahi-publish` on the LAN", "avahipublish", 20023, { tags: [], labels: { zone: "a" } });
  const eureka = facts("a Eureka client on this host", "eureka", 20024, { tags: [], labels: { zone: "a" } });
  const remote = facts("a Eureka client elsewhere", "eurekafar", 20025, { tags: [], labels: { zone: "a" } });
  const backend = facts("a back end that POSTs itself", "backend", 20026, none);
  let publishing: ChildProcess | undefined;
  const minidisc = (one: Facts, kind: Kind, ip: string): Omit<Entry, keyof Facts> => {
    let running: Awaited<ReturnType<typeof startProcess>> | undefined;
    const stop = async (): Promise<void> => {
      await running?.kill("SIGKILL");
      running = undefined;
    };
    machine.ends.push(stop);
    return {
      ...{ of: "others", address: ip },
      async enter() {
        const own = { name: ip, ip };
        running = await startProcess(kind, { own, path: machine.tailscaled(ip) }, `${one.service}:${one.port}`);
      },
      leave: stop,
    };
  };
  const heartbeats = (one: Facts, address: string, host: string): Omit<Entry, keyof Facts> => {
    const instance = {
      ...{
        instanceId: `${one.service}-1`,
        app: one.service.toUpperCase(),
        hostName: host,
        ipAddr: address,
        status: "UP",
      },
      ...{ vipAddress: one.service, port: { $: one.port, "@enabled": "true" }, dataCenterInfo: { name: "MyOwn" } },
      leaseInfo: { durationInSecs: 600 },
      metadata: one.labels,
    };
    const at = `${AGENT}/eureka/apps/${instance.app}`;
    const call = async (path: string, method: string, sent?: unknown): Promise<void> => {
      const headers = { "content-type": "application/json" };
      const reply = await fetch(at + path, {
        method,
        headers,
        ...(sent === undefined ? {} : { body: JSON.stringify(sent) }),
      });
      if (!reply.ok && reply.status !== 404) throw new Error(`${method} ${at}${path}: ${reply.status}`);
    };
    return {
      ...{ of: address === machine.here.ipv4 ? "this host" : "others", address },
      enter: () => call("", "POST", { instance }),
      health: {
        sick: () => call("", "POST", { instance: { ...instance, status: "DOWN" } }),
        well: () => call("", "POST", { instance }),
      },
      leave: () => call(`/${instance.instanceId}`, "DELETE"),
    };
  };
  const post = async (method: string, query: string): Promise<void> => {
    const url = `http://${machine.here.ipv4}/proxy/backend/web-7${query}`;
    const { exitCode, err } = await far.run("curl", "-sS", "-o", "/dev/null", "-X", method, url);
    if (exitCode !== 0) throw new Error(`${method} ${url}: ${err}`);
  };
  return [
    {
      ...upstream,
      ...others(machine),
      enter: () => machine.put(`${OTHER}/v1/agent/service/register`, { ...body(upstream), Check: TTL }),
      health: pushed(machine, "service:consulup", OTHER),
      leave: () => machine.put(`${OTHER}/v1/agent/service/deregister/consulup`),
    },
    {
      ...peer,
      ...others(machine),
      enter: () => machine.putFar("/v1/agent/service/register", { ...body(peer), Check: TTL }),
      health: {
        sick: () => machine.putFar("/v1/agent/check/fail/service:peered"),
        well: () => machine.putFar("/v1/agent/check/pass/service:peered"),
      },
      leave: () => machine.putFar("/v1/agent/service/deregister/peered"),
    },
    { ...go, ...minidisc(go, "go", TAILNET.go) },
    { ...python, ...minidisc(python, "python", TAILNET.python) },
    {
      ...published,
      ...others(machine),
      ipv6: far.ipv6,
      async enter() {
        const words = [published.service, `_${published.service}._tcp`, `${published.port}`, "zone=a"];
        publishing = far.spawn("avahi-publish", "-s", ...words);
        publishing.stdout?.resume();
        publishing.stderr?.resume();
      },
      async leave() {
        if (publishing === undefined || publishing.exitCode !== null || publishing.signalCode !== null) return;
        const gone = once(publishing, "exit");
        publishing.kill("SIGTERM");
        await gone;
      },
    },
    { ...eureka, ...heartbeats(eureka, machine.here.ipv4, "alpha") },
    { ...remote, ...heartbeats(remote, far.ipv4, "far-eureka") },
    {
      ...backend,
      ...others(machine),
      enter: () => post("POST", "?port=20026"),
      leave: () => post("DELETE", ""),
    },
  ];
}

/** "NAME:PORT" of what the machine has to serve on the agent's host, and on the other one. */
export function served(entries: readonly Entry[]): {
  readonly here: readonly string[];
  readonly far: readonly string[];
} {
  const own = new Set(["dockerenv", "dockerlabel", "runprogram", "environ"]);
  const words = (list: readonly Entry[]): readonly string[] => list.map(({ service, port }) => `${service}:${port}`);
  const there = entries.filter(({ port, service }) => port !== undefined && !own.has(service));
  const far = (entry: Entry): boolean => entry.of === "others" && !entry.address.startsWith("100.64.");
  return { here: words(there.filter((entry) => !far(entry))), far: words(there.filter(far)) };
}
