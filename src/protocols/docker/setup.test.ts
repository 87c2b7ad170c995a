// Docker's configuration: what is accepted, what is refused and how, and which address the host has.
import { createHash } from "node:crypto";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { fakeClock } from "../../../test/simulated/clock.ts";
import { FakeEngine } from "../../../test/support/docker-engine.ts";
import { ownFolder } from "../../../test/support/peers.ts";
import { systemClock } from "../../base/clock.ts";
import { type Disk, systemDisk } from "../../base/disk.ts";
import { createHttp } from "../../base/http.ts";
import { silentLog } from "../../base/log.ts";
import { systemProcesses } from "../../base/process.ts";
import { systemRandom } from "../../base/random.ts";
import type { Ground } from "../../contracts/ground.ts";
import { endpointOfContext, parseHost } from "./endpoint.ts";
import { hostAddress, hostAddressSoon } from "./host-address.ts";
import { signalNumber } from "./inspect.ts";
import { endpointOfEnvironment } from "./places.ts";
import { docker } from "./setup.ts";

describe("configuration", () => {
  it("by default looks for the usual sockets", () => {
    expect(docker.configure(undefined)).toMatchObject({ enabled: "auto", host: "", compat: false, connect: true });
    expect(docker.configure({ connect: "images" })).toMatchObject({ connect: "images" });
    expect(docker.configure({ connect: false })).toMatchObject({ connect: false });
    expect(() => docker.configure({ connect: "yes" })).toThrow(
      'docker.connect: "yes": expected "images", true or false',
    );
    expect(docker.configure(true)).toMatchObject({ enabled: true });
    expect(docker.configure(false)).toMatchObject({ enabled: false });
  });
  it.each([
    [{ sockets: "x" }, 'unknown key "sockets"'],
    [[], "expected true, false or an object"],
    [{ enabled: "yes" }, 'docker.enabled: "yes": expected "auto", true or false'],
    [{ host: "ssh://host" }, 'docker.host: "ssh://host": ssh is not spoken here: forward the socket'],
    [{ host: "npipe:////./pipe/docker_engine" }, "named pipes of Windows are not spoken here"],
    [{ host: "/run/docker.sock" }, "expected unix:///path/to/docker.sock, tcp://host:port or https://host:port"],
    [{ deregister: "never" }, 'docker.deregister: "never": expected "always" or "on-success"'],
    [{ name: "{{.Name" }, "docker.name: template: tags: unclosed action"],
    [{ endpoints: [] }, "docker.endpoints: []: expected a list of places"],
    [{ endpoints: ["unix:///a.sock", { host: "unix:///b/a.sock" }] }, 'another endpoint is called "a" already'],
    [{ endpoints: [{ socket: "x" }] }, 'docker.endpoints[0]: unknown key "socket"'],
    [{ endpoints: ["unix:///a.sock"], host: "unix:///b.sock" }, 'docker.host: "unix:///b.sock": expected none beside'],
    [{ ip: "0.0.0.0" }, "docker.ip"],
    [{ internal: "true" }, 'docker.internal: "true": expected true or false'],
    [{ tags: "{{.Name" }, "docker.tags: template: tags: unclosed action"],
  ])("refuses %j", (raw, text) => {
    expect(() => docker.configure(raw)).toThrow(text);
  });
  it.each([
    ["unix:///var/run/docker.sock", { socketPath: "/var/run/docker.sock", base: "http://docker" }],
    ["tcp://10.0.0.5:2376", { base: "http://10.0.0.5:2376" }],
    ["tcp://docker", { base: "http://docker:2375" }],
    ["tcp://[::1]:80", { base: "http://[::1]" }],
    ["http://docker:80/", { base: "http://docker" }],
    ["https://docker", { base: "https://docker:2376", tls: expect.any(Function) }],
    ["https://docker:443", { base: "https://docker", tls: expect.any(Function) }],
  ])("reads the host %s", (spelling, endpoint) => {
    expect(parseHost(spelling, "test")).toEqual({ spelling, ...endpoint });
  });
  it.each(["", "unix://relative", "tcp://", "npipe:////./pipe/docker_engine", "/var/run/docker.sock"])(
    "refuses the host %j",
    (spelling) => {
      expect(() => parseHost(spelling, "DOCKER_HOST")).toThrow(/^DOCKER_HOST: /);
    },
  );
  it("names endpoints by their sockets and hosts", () => {
    const { endpoints } = docker.configure({
      endpoints: ["unix:///run/podman/podman.sock", "tcp://127.0.0.1:2375", { host: "tcp://far:2376", name: "f" }],
    });
    expect(endpoints.map(({ name }) => name)).toEqual(["podman", "127.0.0.1:2375", "f"]);
  });
  it("DOCKER_TLS_VERIFY and DOCKER_CERT_PATH are the docker client's", async () => {
    const disk = {
      readText: async (path: string) => {
        if (path === "/certs/ca.pem") return "CA";
        throw Object.assign(new Error("none"), { code: "ENOENT" });
      },
    } as unknown as Disk;
    const at = (env: Record<string, string>) => endpointOfEnvironment({ env: (name) => env[name] }, disk);
    expect(at({})).toBeUndefined();
    expect(at({ DOCKER_HOST: "tcp://far" })).toEqual({ spelling: "tcp://far", base: "http://far:2375" });
    const far = at({ DOCKER_HOST: "tcp://far", DOCKER_TLS_VERIFY: "1", DOCKER_CERT_PATH: "/certs" });
    expect(far?.base).toBe("https://far:2376");
    expect(await far?.tls?.()).toEqual({ ca: "CA", skipVerify: false });
    const none = at({ DOCKER_HOST: "tcp://far", DOCKER_TLS_VERIFY: "1", HOME: "/root" });
    await expect(none?.tls?.()).rejects.toThrow("/root/.docker: holds no certificates: expected ca.pem");
  });
  it("a context of the docker client is read with its certificates, as the client wrote it", async () => {
    const key = createHash("sha256").update("far").digest("hex");
    const files = new Map([
      [
        `/d/contexts/meta/${key}/meta.json`,
        '{"Name":"far","Metadata":{},"Endpoints":{"docker":{"Host":"tcp://10.0.0.5:2376","SkipTLSVerify":true}}}',
      ],
      [`/d/contexts/tls/${key}/docker/ca.pem`, "CA"],
    ]);
    const disk = {
      readText: async (path: string) => {
        const text = files.get(path);
        if (text === undefined) throw Object.assign(new Error("none"), { code: "ENOENT" });
        return text;
      },
      info: async (path: string) => ([...files.keys()].some((file) => file.startsWith(path)) ? {} : undefined),
    } as unknown as Disk;
    const far = await endpointOfContext("far", "/d", disk);
    expect(far.base).toBe("https://10.0.0.5:2376");
    expect(await far.tls?.()).toEqual({ ca: "CA", skipVerify: true });
    await expect(endpointOfContext("near", "/d", disk)).rejects.toThrow(
      'docker context "near": cannot be read from /d/',
    );
    // By DOCKER_CONTEXT an agent starts all the same and says so; by configuration it does not.
    const env: Record<string, string> = { DOCKER_CONTEXT: "near", DOCKER_CONFIG: "/d" };
    const processes = { ...systemProcesses, env: (name: string) => env[name] };
    const ground = { processes, disk, self: {}, net: {}, probes: new Map() } as unknown as Ground;
    expect((await docker.setup(docker.configure(undefined), ground))?.source?.state().text).toContain(
      'off: docker context "near"',
    );
    await expect(docker.setup(docker.configure({ context: "near" }), ground)).rejects.toThrow("cannot be read");
  });
  it("an agent starts although DOCKER_HOST names what is not spoken, and says so", async () => {
    const processes = { ...systemProcesses, env: () => "ssh://far" };
    const ground = { processes, self: {}, net: {}, probes: new Map() } as unknown as Ground;
    const part = await docker.setup(docker.configure(undefined), ground);
    expect(part?.source?.state()).toEqual({
      ok: false,
      text: expect.stringContaining('off: DOCKER_HOST: "ssh://far"'),
    });
    const stop = new AbortController();
    const said = (async () => {
      const lists = [];
      for await (const list of part?.source?.watch(stop.signal) ?? []) lists.push(list);
      return lists;
    })();
    stop.abort();
    expect(await said).toEqual([]);
    await expect(docker.setup(docker.configure(true), ground)).rejects.toThrow("ssh://far");
  });

  it("without an engine, checks inside containers are critical and say why", async () => {
    const ask = async (config: unknown, dockerHost: string): Promise<unknown> => {
      const processes = { ...systemProcesses, env: () => dockerHost };
      const ground = { processes, self: {}, net: {}, http: {}, probes: new Map() } as unknown as Ground;
      const probe = (await docker.setup(docker.configure(config), ground))?.probes?.[0];
      const detail = probe?.parse({ container: "box", args: ["true"] });
      return await probe?.run(detail, { address: "", port: 0 }, new AbortController().signal);
    };
    expect(await ask(false, "")).toEqual({
      status: "critical",
      output: "exec failed: Docker is switched off on this agent",
    });
    expect(await ask(undefined, "ssh://far")).toEqual({
      status: "critical",
      output: expect.stringMatching(/^exec failed: DOCKER_HOST: "ssh:\/\/far"/),
    });
  });
});

describe("the address of the host", () => {
  const net = (...addresses: string[]) => ({
    resolve: async () => {
      if (addresses.length === 0) throw new Error("ENOTFOUND");
      return addresses;
    },
  });
  it.each([
    [["2001:db8::1", "192.0.2.1"], "10.0.0.1", false, "192.0.2.1"],
    [["2001:db8::1"], "10.0.0.1", false, "2001:db8::1"],
    [["127.0.1.1"], "10.0.0.1", false, "10.0.0.1"],
    [["127.0.1.1"], "10.0.0.1", true, "127.0.1.1"],
    [["127.0.1.1"], "127.0.0.1", false, "127.0.1.1"],
    [[], "10.0.0.1", false, "10.0.0.1"],
    [[], "127.0.0.1", false, ""],
    [[], "10.0.0.1", true, ""],
  ])("%j, advertised %s, compat %s: %s", async (addresses, advertised, compat, address) => {
    expect(await hostAddress(net(...addresses), "h", advertised, compat)).toBe(address);
  });
  it("is guessed where the resolver takes its time, and only there", async () => {
    const clock = fakeClock();
    const guesses: string[] = [];
    let found: (addresses: readonly string[]) => void = () => {};
    const slow = {
      resolve: () =>
        new Promise<readonly string[]>((resolve) => {
          found = resolve;
        }),
    };
    const asked = hostAddressSoon(slow, clock, "h", "10.0.0.1", false, (address) => void guesses.push(address));
    await clock.advance(1_000);
    expect(guesses).toEqual(["10.0.0.1"]);
    found(["192.0.2.1"]);
    expect(await asked).toBe("192.0.2.1");
    const soon = hostAddressSoon(
      net("192.0.2.1"),
      clock,
      "h",
      "10.0.0.1",
      false,
      (address) => void guesses.push(address),
    );
    expect(await soon).toBe("192.0.2.1");
    expect(clock.timers).toBe(0);
    expect(guesses).toHaveLength(1);
  });
});

it("containers are listed while the resolver does not answer", async () => {
  const folder = await ownFolder("docker-setup");
  const serving = createHttp();
  const http = createHttp();
  const engine = new FakeEngine(join(folder.path, "docker.sock"));
  engine.add("one", 1001);
  await engine.start(serving);
  const ground = {
    ...{ processes: systemProcesses, disk: systemDisk, clock: systemClock, random: systemRandom, http, log: silentLog },
    self: { advertiseAddress: "10.0.0.1", scripts: { fromApi: false, fromFiles: false } },
    net: { resolve: () => new Promise(() => {}) },
    ...{ probes: new Map(), agent: { services: () => new Map(), report: async () => {} } },
  } as unknown as Ground;
  const config = docker.configure({ host: `unix://${engine.path}`, hostname: "h", connect: false });
  const stop = new AbortController();
  try {
    const part = await docker.setup(config, ground);
    for await (const { list } of part?.source?.watch(stop.signal) ?? []) {
      expect(list.map(({ id, address, port }) => [id, address, port])).toEqual([["h:one:80", "10.0.0.1", 1001]]);
      stop.abort();
    }
    expect(stop.signal.aborted).toBe(true);
  } finally {
    stop.abort();
    await http.close();
    await engine.stop();
    await serving.close();
    await folder.remove();
  }
});

describe("signals", () => {
  it.each([
    ["SIGTERM", 15],
    ["term", 15],
    ["9", 9],
    ["SIGRTMIN+3", 37],
    ["RTMAX-1", 63],
    ["", undefined],
    ["toString", undefined],
  ])("%s", (spelling, number) => {
    expect(signalNumber(spelling)).toBe(number);
  });
});
