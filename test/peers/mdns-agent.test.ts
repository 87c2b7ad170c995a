// An agent with mDNS beside real Avahi daemons on a LAN of namespaces: found and announced both ways, with health, goodbyes and service files.
import { readFileSync } from "node:fs";
import { chmod, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { browsed, removeServiceFiles, startAgentOn as startOn } from "../support/avahi-agent.ts";
import { type AvahiDaemon, type AvahiHost, type AvahiLan, haveAvahiLan, startAvahiLan } from "../support/avahi-lan.ts";
import { eventually, havePrograms } from "../support/peers.ts";
import { program } from "../support/program.ts";

const possible = (await haveAvahiLan()) && (await havePrograms("dig", "curl", "avahi-publish"));
const ends: (() => Promise<unknown>)[] = [];
const startAgentOn = (host: AvahiHost) => startOn(ends, host);

/** For the running test. */
async function startAvahi(host: AvahiHost): Promise<AvahiDaemon> {
  const daemon = await host.avahi();
  ends.push(() => daemon.stop());
  return daemon;
}

const file = (name: string, port: number): string =>
  `<service-group><name>${name}</name><service><type>_http._tcp</type><port>${port}</port><txt-record>path=/${name}</txt-record></service></service-group>`;

interface Entry {
  readonly Node: { readonly Node: string; readonly Address: string; readonly Meta: Readonly<Record<string, string>> };
  readonly Service: { readonly ID: string; readonly Port: number; readonly Meta: Readonly<Record<string, string>> };
}

describe.runIf(possible)("an agent on a LAN with Avahi", { timeout: 120_000 }, () => {
  let lan: AvahiLan;
  const [a, c, d] = ["a", "c", "d"].map((name) => () => lan.host(name)) as [
    () => AvahiHost,
    () => AvahiHost,
    () => AvahiHost,
  ];

  beforeAll(async () => {
    lan = await startAvahiLan("a", "c", "d");
    await a().avahi();
  });
  afterEach(async () => {
    for (const end of ends.splice(0).reverse()) await end();
    await removeServiceFiles(d());
  });
  afterAll(() => lan?.close());

  it("announces a service with its labels; it says goodbye while it is critical and when it goes; Avahi on the same host is no trouble", async () => {
    await startAvahi(c());
    const agent = await startAgentOn(c());
    await agent.register({
      ...{ Name: "shop", Port: 8080, Tags: ["v2"], Meta: { "mdns-type": "http", "mdns-name": "My shop", zone: "a" } },
      Check: { CheckID: "pulse", TTL: "1h", Status: "passing" },
    });
    const seen = (host: AvahiHost) => browsed(host, "_http._tcp");
    for (const host of [a(), c()])
      expect(await eventually(`${host.name} sees it`, async () => (await seen(host))[0])).toMatch(
        /^=;eth0;IPv4;My\\032shop;_http\._tcp;local;host-c\.local;(?:10\.77\.0\.12|fd77::c);8080;"trilith=[-0-9a-f]+" "tags=v2" "zone=a"$/,
      );
    await agent.host.run("curl", "-sf", "-X", "PUT", "http://127.0.0.1:8500/v1/agent/check/fail/pulse");
    await eventually("critical: nobody sees it", async () => (await seen(a())).length === 0);
    await agent.host.run("curl", "-sf", "-X", "PUT", "http://127.0.0.1:8500/v1/agent/check/pass/pulse");
    await eventually("well again", async () => (await seen(a())).length === 1);
    const why = await agent.trilith("why", "shop");
    expect(why.out).toMatch(/the LAN \(eth0\).*_http\._tcp\.local PTR: "My shop" at host-c\.local:8080/s);
    await agent.register({ Name: "plain", Port: 9 });
    expect((await agent.trilith("why", "plain")).out).toMatch(
      /nothing of plain: neither its label mdns=true nor a rule/,
    );
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

  it("announces the service files of its host while no avahi-daemon does, and leaves them to one that comes", async () => {
    const agent = await startAgentOn(d());
    const xml = file("front", 8099).replaceAll("\n", " ");
    await d().run("sh", "-c", `echo '${xml}' > /etc/avahi/services/front.service`);
    const seen = async (): Promise<string[]> => await browsed(a(), "_http._tcp");
    // Which address of a host Avahi tells is left to chance.
    expect(await eventually("seen", async () => (await seen())[0])).toMatch(
      /^=;eth0;IPv4;front;_http\._tcp;local;host-d\.local;(?:10\.77\.0\.13|fd77::d);8099;"path=\/front"$/,
    );
    expect(await agent.get("/v1/catalog/service/http")).toMatchObject([{ Node: "host-d", ServicePort: 8099 }]);
    await d().run("sh", "-c", "echo '<service-group><oops/></service-group>' > /etc/avahi/services/bad.service");
    await eventually("the bad file is named", async () =>
      /bad\.service.*:1:.*<oops>/.test((await agent.trilith("doctor")).out),
    );
    const avahi = await startAvahi(d());
    await eventually("it is Avahi's: on a node beside the agent's", async () => {
      const [one, ...more] = (await agent.get("/v1/catalog/service/http")) as { Node: string }[];
      return more.length === 0 && one?.Node === "host-d-mdns";
    });
    await eventually("it is seen once", async () => (await seen()).length === 1);
    await avahi.stop();
    await eventually("it is the agent's again", async () => {
      const [one] = (await agent.get("/v1/catalog/service/http")) as { Node: string }[];
      return one?.Node === "host-d";
    });
    await d().run("sh", "-c", "rm /etc/avahi/services/*");
    await eventually("gone with its file", async () => (await seen()).length === 0);
  });

  it("announces Avahi's static hosts, and service files on their behalf, while no avahi-daemon does", async () => {
    await startAgentOn(d());
    await d().run("sh", "-c", "echo '10.77.0.200 router.local # by hand' > /etc/avahi/hosts");
    const xml = file("admin", 80).replace("</type>", "</type><host-name>router.local</host-name>");
    await d().run("sh", "-c", `echo '${xml}' > /etc/avahi/services/admin.service`);
    const resolved = async (...words: string[]): Promise<string> => (await a().run("avahi-resolve", ...words)).out;
    await eventually("by name", async () => (await resolved("-n", "router.local")) === "router.local\t10.77.0.200\n");
    expect(await resolved("-a", "10.77.0.200")).toBe("10.77.0.200\trouter.local\n");
    const seen = () => browsed(a(), "_http._tcp");
    const admin = '=;eth0;IPv4;admin;_http._tcp;local;router.local;10.77.0.200;80;"path=/admin"';
    await eventually("what is published for it", async () => (await seen())[0] === admin);
    const avahi = await startAvahi(d());
    await eventually("of the daemon, too", async () => (await seen()).join() === admin);
    await avahi.stop();
    await eventually("it is the agent's again", async () => (await seen()).join() === admin);
    await d().run("sh", "-c", "rm /etc/avahi/hosts /etc/avahi/services/*");
    await eventually("gone with its file", async () => (await resolved("-n", "router.local")) === "");
  });

  it("does what its README says", async () => {
    const readme = readFileSync(new URL("../../src/protocols/mdns/README.md", import.meta.url), "utf8");
    const example = /<!-- example -->\n+```\w+\n([\s\S]*?)```/.exec(readme)?.[1] ?? "";
    const bin = join(d().folder, "bin");
    await mkdir(bin, { recursive: true });
    // As an installed package has it on the PATH.
    await writeFile(join(bin, "trilith"), `#!/bin/sh\nexec ${process.execPath} ${program} "$@"\n`);
    await chmod(join(bin, "trilith"), 0o755);
    const agent = await startAgentOn(d());
    const { exitCode, out, err } = await d().run("sh", "-euc", `export PATH=${bin}:$PATH\n${example}`);
    expect([exitCode, err]).toEqual([0, ""]);
    expect(out).toMatch(/^10\.77\.0\.13 8080\n/);
    expect(out).toMatch(
      /^=;eth0;IPv4;master;_http\._tcp;local;host-d\.local;(?:10\.77\.0\.13|fd77::d);8080;"trilith=[^"]+" "zone=a"$/m,
    );
    await agent.stop();
  });
});
