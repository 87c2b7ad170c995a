// Agents with mDNS beside real Avahi daemons on a LAN of namespaces: found and announced both ways, with health, goodbyes, silence and witnesses.
import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { type AvahiDaemon, type AvahiHost, type AvahiLan, haveAvahiLan, startAvahiLan } from "../support/avahi-lan.ts";
import { eventually, havePrograms, startProgram } from "../support/peers.ts";
import { type Done, program } from "../support/program.ts";

const possible = (await haveAvahiLan()) && (await havePrograms("dig", "curl", "etcd", "avahi-publish"));
if (!existsSync(program)) throw new Error(`${program} is missing: npm run build`);

interface AgentOnHost {
  readonly host: AvahiHost;
  /** `trilith …` on the agent's host, against it. */
  trilith(...words: string[]): Promise<Done>;
  /** An answer of its HTTP API. */
  get(path: string): Promise<unknown>;
  register(service: object): Promise<void>;
  dig(...question: string[]): Promise<string>;
  stop(signal?: NodeJS.Signals): Promise<void>;
}

const ends: (() => Promise<unknown>)[] = [];
let agents = 0;

async function startAgentOn(host: AvahiHost, ...flags: string[]): Promise<AgentOnHost> {
  const data = join(host.folder, `data${++agents}`);
  await mkdir(data);
  const words = [process.execPath, program, "agent", "--mdns", "--docker-host", "off", "--environ", "off", "--quiet"];
  const told = flags.includes("--data-dir") ? flags : ["--data-dir", data, ...flags];
  const running = await startProgram(host.command(...words, ...told), join(host.folder, "agent.log"));
  ends.push(() => running.stop("SIGKILL"));
  const curl = async (...more: string[]): Promise<string> => {
    const { exitCode, out, err } = await host.run("curl", "-sf", "-m", "5", ...more);
    if (exitCode !== 0) throw new Error(`curl ${more.join(" ")}: ${exitCode} ${err}`);
    return out;
  };
  const url = "http://127.0.0.1:8500";
  const agent: AgentOnHost = {
    host,
    trilith: (...more) => host.run(process.execPath, program, ...more),
    get: async (path) => JSON.parse(await curl(`${url}${path}`)),
    register: async (service) =>
      void (await curl("-X", "PUT", "-d", JSON.stringify(service), `${url}/v1/agent/service/register`)),
    dig: async (...question) => (await host.run("dig", "+short", "@127.0.0.1", "-p", "8600", ...question)).out,
    stop: running.stop,
  };
  await eventually(`the agent on ${host.name} answers`, async () => (await agent.get("/v1/agent/self")) !== undefined);
  return agent;
}

/** Lines of avahi-browse for resolved services of a type, IPv4. */
async function browsed(host: AvahiHost, type: string): Promise<string[]> {
  const { out } = await host.run("avahi-browse", "-rptk", type);
  return out.split("\n").filter((line) => line.startsWith("=;eth0;IPv4;"));
}

const file = (name: string, port: number): string =>
  `<service-group><name>${name}</name><service><type>_http._tcp</type><port>${port}</port><txt-record>path=/${name}</txt-record></service></service-group>`;

interface Entry {
  readonly Node: { readonly Node: string; readonly Address: string; readonly Meta: Readonly<Record<string, string>> };
  readonly Service: { readonly ID: string; readonly Port: number; readonly Meta: Readonly<Record<string, string>> };
}

describe.runIf(possible)("an agent on a LAN with Avahi", () => {
  let lan: AvahiLan;
  let daemon: AvahiDaemon;
  const [a, b, c, d] = ["a", "b", "c", "d"].map((name) => () => lan.host(name)) as [
    () => AvahiHost,
    () => AvahiHost,
    () => AvahiHost,
    () => AvahiHost,
  ];

  beforeAll(async () => {
    lan = await startAvahiLan("a", "b", "c", "d");
    daemon = await a().avahi();
    await b().avahi();
  });
  afterEach(async () => {
    for (const end of ends.splice(0).reverse()) await end();
  });
  afterAll(() => lan?.close());

  it("announces a service with its labels; it says goodbye while it is critical and when it goes; Avahi on the same host is no trouble", async () => {
    await c().avahi();
    const agent = await startAgentOn(c());
    await agent.register({
      ...{ Name: "shop", Port: 8080, Tags: ["v2"], Meta: { "mdns-type": "http", "mdns-name": "My shop", zone: "a" } },
      Check: { CheckID: "pulse", TTL: "1h", Status: "passing" },
    });
    const seen = (host: AvahiHost) => browsed(host, "_http._tcp");
    for (const host of [a(), c()])
      expect(await eventually(`${host.name} sees it`, async () => (await seen(host))[0])).toMatch(
        /^=;eth0;IPv4;My\\032shop;_http\._tcp;local;host-c\.local;10\.77\.0\.12;8080;"trilith=[-0-9a-f]+" "tags=v2" "zone=a"$/,
      );
    await agent.host.run("curl", "-sf", "-X", "PUT", "http://127.0.0.1:8500/v1/agent/check/fail/pulse");
    await eventually("critical: nobody sees it", async () => (await seen(a())).length === 0);
    await agent.host.run("curl", "-sf", "-X", "PUT", "http://127.0.0.1:8500/v1/agent/check/pass/pulse");
    await eventually("well again", async () => (await seen(a())).length === 1);
    const why = await agent.trilith("why", "shop");
    expect(why.out).toMatch(/the LAN \(eth0\).*_http\._tcp\.local PTR: "My shop" at host-c\.local:8080/s);
    // It is not found a second time by what it says itself.
    expect(await agent.get("/v1/catalog/service/http")).toEqual([]);
    await agent.stop();
    await eventually("stopped: nobody sees it", async () => (await seen(a())).length === 0);
  });

  it("finds what is published over DNS, HTTP and the command line, and what says goodbye is gone", async () => {
    const agent = await startAgentOn(d());
    const publisher = a().spawn(
      "avahi-publish",
      "-s",
      "Living Room",
      "_http._tcp",
      "8081",
      "path=/x",
      "tags=blue,green",
    );
    ends.push(async () => void publisher.kill("SIGKILL"));
    const [entry] = await eventually("over Consul's API", async () => {
      const found = (await agent.get("/v1/health/service/http?passing")) as Entry[];
      return found.length > 0 && found;
    });
    expect(entry?.Node).toMatchObject({ Node: "host-a", Address: "10.77.0.10", Meta: { "external-node": "true" } });
    expect(entry?.Service).toMatchObject({
      ...{ ID: "Living Room._http._tcp", Port: 8081, Tags: ["blue", "green"] },
      Meta: { path: "/x", "mdns-instance": "Living Room", "mdns-type": "_http._tcp" },
    });
    expect(await agent.dig("http.service.consul", "A")).toBe("10.77.0.10\n");
    expect(await agent.dig("green.http.service.consul", "SRV")).toMatch(/^1 1 8081 host-a\.node\.dc1\.consul\.$/m);
    expect((await agent.trilith("find", "http")).out).toMatch(
      /^10\.77\.0\.10 +8081 +host-a +passing +Living Room\._http\._tcp +blue,green /m,
    );
    expect((await agent.trilith("why", "http")).out).toMatch(/"Living Room".*host-a\.local[\s\S]*seen by host-d/);
    expect((await agent.trilith("doctor")).out).toMatch(
      /as host-d\.local on eth0 \(IPv4, IPv6\): 1 found, 0 announced/,
    );
    publisher.kill("SIGTERM");
    await eventually("gone", async () => (await agent.dig("http.service.consul", "A")) === "");
    expect((await agent.trilith("why", "http")).out).toMatch(/"Living Room" at host-a said goodbye on the LAN/);
  });

  it("keeps what it knew over a restart while its announcer is silent, then holds what went by hearsay", async () => {
    const data = join(d().folder, "kept");
    await mkdir(data);
    let agent = await startAgentOn(d(), "--data-dir", data);
    for (const n of [1, 2, 3]) await daemon.serviceFile(`${n}.service`, file(`web${n}`, 8090 + n));
    const instances = async (): Promise<number> => ((await agent.get("/v1/health/service/http")) as unknown[]).length;
    await eventually("all three", async () => (await instances()) === 3);
    await daemon.stop("SIGKILL");
    ends.push(async () => {
      for (const n of [1, 2, 3]) await daemon.serviceFile(`${n}.service`, undefined);
      daemon = await a().avahi();
    });
    expect(await instances()).toBe(3);
    await agent.stop();
    agent = await startAgentOn(d(), "--data-dir", data);
    expect(await instances()).toBe(3);
    expect((await agent.trilith("doctor")).out).toMatch(/3 found \(3 last known, not heard yet\)/);
    await eventually("recorded as gone", async () => (await instances()) === 0);
    const held = (await agent.trilith("find", "http")).out;
    expect(held.match(/^10\.77\.0\.10 +809\d /gm)?.length).toBe(3);
    expect((await agent.trilith("why", "http")).out).toMatch(/held.*[\s\S]*was not heard on the LAN within 10 s/);
  });

  it("announces the service files of its host while no avahi-daemon does, and leaves them to one that comes", async () => {
    const agent = await startAgentOn(d());
    const xml = file("front", 8099).replaceAll("\n", " ");
    await d().run("sh", "-c", `echo '${xml}' > /etc/avahi/services/front.service`);
    const seen = async (): Promise<string[]> => await browsed(a(), "_http._tcp");
    expect(await eventually("seen", async () => (await seen())[0])).toBe(
      '=;eth0;IPv4;front;_http._tcp;local;host-d.local;10.77.0.13;8099;"path=/front"',
    );
    expect(await agent.get("/v1/catalog/service/http")).toMatchObject([{ Node: "host-d", ServicePort: 8099 }]);
    await d().run("sh", "-c", "echo '<service-group><oops/></service-group>' > /etc/avahi/services/bad.service");
    await eventually("the bad file is named", async () =>
      /bad\.service.*:1:.*<oops>/.test((await agent.trilith("doctor")).out),
    );
    const avahi = await d().avahi();
    await eventually("it is Avahi's: on a node beside the agent's", async () => {
      const [one, ...more] = (await agent.get("/v1/catalog/service/http")) as { Node: string }[];
      return more.length === 0 && one?.Node === "host-d-mdns";
    });
    expect(await seen()).toHaveLength(1);
    await avahi.stop();
    await eventually("it is the agent's again", async () => {
      const [one] = (await agent.get("/v1/catalog/service/http")) as { Node: string }[];
      return one?.Node === "host-d";
    });
    await d().run("sh", "-c", "rm /etc/avahi/services/*");
    await eventually("gone with its file", async () => (await seen()).length === 0);
  });

  it("with others on one etcd is a witness of one instance, and leaves what they announce to them", async () => {
    const at = `http://${b().ipv4}:2379`;
    const peers = "http://127.0.0.1:2380";
    const etcd = await startProgram(
      b().command(
        ...["etcd", "--data-dir", join(b().folder, "etcd"), "--listen-client-urls", at, "--advertise-client-urls", at],
        ...[
          "--listen-peer-urls",
          peers,
          "--initial-advertise-peer-urls",
          peers,
          "--initial-cluster",
          `default=${peers}`,
        ],
      ),
      join(b().folder, "etcd.log"),
    );
    ends.push(() => etcd.stop());
    const [one, two] = await Promise.all([startAgentOn(c(), "--etcd", at), startAgentOn(d(), "--etcd", at)]);
    const publisher = a().spawn("avahi-publish", "-s", "printer", "_ipp._tcp", "631");
    ends.push(async () => void publisher.kill("SIGKILL"));
    await one.register({ Name: "shop", Port: 8080, Meta: { mdns: "true" } });
    await eventually("announced", async () => (await browsed(a(), "_shop._tcp")).length === 1);
    for (const agent of [one, two]) {
      await eventually("two witnesses", async () =>
        /seen by host-c, host-d/.test((await agent.trilith("why", "ipp")).out),
      );
      expect(await agent.get("/v1/catalog/service/ipp")).toMatchObject([{ Node: "host-a", ServicePort: 631 }]);
      expect(await agent.get("/v1/catalog/service/shop")).toMatchObject([{ Node: "host-c", ServicePort: 8080 }]);
    }
    publisher.kill("SIGTERM");
    for (const agent of [one, two])
      await eventually("gone", async () => ((await agent.get("/v1/catalog/service/ipp")) as unknown[]).length === 0);
    await one.stop();
    await two.stop();
  });
});
