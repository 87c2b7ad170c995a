// The docker source against an engine that does everything a daemon should not: garbage, silence, hangs, stale answers.
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { fakeClock } from "../../../test/simulated/clock.ts";
import { type Answer, FakeEngine, json } from "../../../test/support/docker-engine.ts";
import { eventually, ownFolder } from "../../../test/support/peers.ts";
import { type Clock, systemClock } from "../../base/clock.ts";
import { systemDisk } from "../../base/disk.ts";
import { createHttp, type ServerResponse } from "../../base/http.ts";
import { silentLog } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import type { HeldService } from "../../contracts/agent.ts";
import type { SourceList } from "../../contracts/source.ts";
import type { Outcome } from "../../model/check.ts";
import { parseHost } from "./endpoint.ts";
import type { TranslateOptions } from "./registrator.ts";
import { type DockerOptions, dockerSource, engineIdentity } from "./source.ts";

const raw =
  (status: number, body: string): Answer =>
  (response) =>
    void response.writeHead(status, { "content-type": "text/html" }).end(body);
const flood: Answer = (response) => {
  response.writeHead(200);
  const chunk = Buffer.alloc(1 << 20, "[");
  const more = (): void => {
    while (!response.destroyed && response.write(chunk));
    if (!response.destroyed) response.once("drain", more);
  };
  more();
};
const hang: Answer = () => {};
const cutOff: Answer = (response) => {
  response.writeHead(200, { "content-length": "1000" });
  response.write('[{"Id":"abc');
  setImmediate(() => response.destroy());
};

const HTML = "<!DOCTYPE html><html><body>It works!</body></html>";
const GARBAGE: Readonly<Record<string, Answer>> = {
  "truncated JSON": raw(200, '[{"Id":"abc"'),
  "an answer cut off": cutOff,
  HTML: raw(200, HTML),
  "an HTML 404": raw(404, HTML),
  "a JSON 404 of somebody else": json(404, { error: "not found" }),
  "an object of wrong types": json(200, { Id: 5, Config: [], State: "yes" }),
  "an array of numbers": json(200, [1, 2, 3]),
  null: json(200, null),
  nothing: raw(200, ""),
  "an internal error": json(500, { message: "server error" }),
  "an endless answer": flood,
  "a closed connection": (response) => void response.destroy(),
};

const options: TranslateOptions = {
  ip: "",
  internal: false,
  explicit: false,
  useIpFromLabel: "",
  tags: () => "",
  compat: false,
  hostname: "h",
  hostIp: "192.0.2.1",
  scripts: false,
  probes: new Map(),
  nodeAddress: "192.0.2.1",
};

describe("the docker source", () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let serving: ReturnType<typeof createHttp>;
  let asking: ReturnType<typeof createHttp>;
  let engine: FakeEngine;
  let stop: AbortController;
  let ended: Promise<void>;
  let lists: SourceList[];
  let reports: { check: string; outcome: Outcome }[];
  let source: ReturnType<typeof dockerSource>;
  let held: ReadonlyMap<string, HeldService>;

  beforeEach(async () => {
    folder = await ownFolder("docker-source");
    serving = createHttp();
    asking = createHttp();
    engine = new FakeEngine(join(folder.path, "docker.sock"));
    stop = new AbortController();
    ended = Promise.resolve();
    lists = [];
    reports = [];
    held = new Map();
  });
  afterEach(async () => {
    stop.abort();
    await ended;
    await asking.close();
    await engine.stop();
    await serving.close();
    await folder.remove();
  });

  function watch(clock: Clock = systemClock, optional = false, more: Partial<DockerOptions> = {}): void {
    source = dockerSource(
      { endpoints: [parseHost(`unix://${engine.path}`, "test")], optional, translation: async () => options, ...more },
      {
        clock,
        random: systemRandom,
        disk: systemDisk,
        http: asking,
        log: silentLog,
        agent: {
          report: async (check, outcome) => void reports.push({ check, outcome }),
          services: () => held,
        },
      },
    );
    ended = (async () => {
      for await (const list of source.watch(stop.signal)) lists.push(list);
    })();
  }
  const names = (list = lists.at(-1)): string[] => (list?.list ?? []).map(({ id }) => id);
  const shows = (...ids: string[]): Promise<unknown> =>
    eventually(
      `the list is ${ids.join(", ")}`,
      () => lists.length > 0 && JSON.stringify(names()) === JSON.stringify(ids),
    );

  describe("several engines", () => {
    let other: FakeEngine;
    beforeEach(() => {
      other = new FakeEngine(join(folder.path, "other.sock"));
    });
    afterEach(() => other.stop());
    const far = (more: Partial<TranslateOptions> = {}): DockerOptions => ({
      name: "far",
      endpoints: [parseHost(`unix://${other.path}`, "test")],
      optional: false,
      translation: async ({ id }) => ({ ...options, hostname: "f", engine: engineIdentity("far", id), ...more }),
    });
    /** What the agent holds of the list, as after a restart. */
    const holding = (list: SourceList | undefined): ReadonlyMap<string, HeldService> =>
      new Map(
        (list?.list ?? []).map(({ checks, foreignId = "", ...facts }) => [
          facts.id,
          {
            checks,
            instance: { ...facts, node: "n", origin: { source: "docker", authority: "first-hand", foreignId } },
          },
        ]),
      );

    it("are one list, with the engine in the identity of all but the main one", async () => {
      const one = engine.add("one", 1001);
      const two = other.add("two", 1002);
      await engine.start(serving);
      await other.start(serving);
      watch(systemClock, false, { others: [far()] });
      await shows("h:one:80", "f:two:80");
      expect(lists.at(-1)?.list.map(({ foreignId }) => foreignId)).toEqual([
        `${one}:80/tcp`,
        `${two}:80/tcp@far/AAAA:BBBB`,
      ]);
      expect(source.state().text).toMatch(
        /^Docker 20.10.24 at .*, 1 container; far: Docker 20.10.24 at .*, 1 container$/,
      );
      other.happens("die", two, { exitCode: "1" });
      other.containers.delete(two);
      await shows("h:one:80");
      expect(lists.at(-1)?.gone?.get("f:two:80")).toMatchObject({ code: "died" });
    });

    it("one that is dead hides nobody: of the others everything is followed, of itself what was known stays", async () => {
      engine.add("one", 1001);
      const two = other.add("two", 1002);
      await engine.start(serving);
      await other.start(serving);
      watch(systemClock, false, { others: [far()] });
      await shows("h:one:80", "f:two:80");
      const before = lists.at(-1);
      await other.stop();
      engine.happens("start", engine.add("three", 1003));
      await eventually("the other goes on", () => names().includes("h:three:80"));
      expect(names()).toContain("f:two:80");
      // The agent starts anew while the engine is away.
      held = holding(before);
      stop.abort();
      await ended;
      stop = new AbortController();
      lists = [];
      watch(systemClock, false, { others: [far()] });
      await eventually("the living one is read", () => names().includes("h:three:80"));
      expect(lists.every((list) => names(list).includes("f:two:80"))).toBe(true);
      expect(lists.at(-1)?.list.find(({ id }) => id === "f:two:80")?.foreignId).toBe(`${two}:80/tcp@far/AAAA:BBBB`);
      expect(source.state().ok).toBe(false);
      // It comes back without the container: gone now.
      other.containers.delete(two);
      await other.start(serving);
      await eventually("gone", () => !names().includes("f:two:80"));
      expect(names()).toEqual(["h:one:80", "h:three:80"]);
    });

    it("two sockets of one engine are one, and a clash of IDs is told", async () => {
      const one = engine.add("one", 1001);
      other.containers.set(one, engine.containers.get(one) ?? {});
      const clash = other.add("zwei", 1002, (raw) => {
        Object.assign(raw["Config"] ?? {}, { Env: ["SERVICE_ID=h:one:80"] });
      });
      await engine.start(serving);
      await other.start(serving);
      watch(systemClock, false, { others: [far()] });
      await eventually("the clash is told", () => (lists.at(-1)?.complaints?.length ?? 0) > 0);
      expect(names()).toEqual(["h:one:80"]);
      expect(lists.at(-1)?.complaints?.[0]?.about).toContain(clash.slice(0, 12));
    });

    it("one that need not be there and is not takes nothing and nobody's time", async () => {
      engine.add("one", 1001);
      await engine.start(serving);
      watch(systemClock, true, { others: [{ ...far(), optional: true }] });
      await shows("h:one:80");
      expect(source.state()).toMatchObject({ ok: true, text: expect.not.stringContaining("far") });
      other.add("two", 1002);
      await other.start(serving);
      await eventually("it appeared", () => names().includes("f:two:80"));
    });
  });

  describe("deregister: on-success", () => {
    const end = (id: string, exitCode: number): void => {
      const raw = engine.containers.get(id);
      if (raw !== undefined) raw["State"] = { ...(raw["State"] as object), Running: false, ExitCode: exitCode };
      engine.happens("die", id, { exitCode: String(exitCode) });
    };
    it("what fails stays until it runs again or is removed; what succeeds or is killed goes", async () => {
      const ids = [0, 1, 127, 137].map((code) => engine.add(`c${code}`, 1000 + code));
      await engine.start(serving);
      watch(systemClock, false, { deregister: "on-success" });
      await eventually("all", () => names().length === 4);
      for (const [i, code] of [0, 1, 127, 137].entries()) end(ids[i] ?? "", code);
      await shows("h:c1:80", "h:c127:80");
      expect(lists.at(-1)?.list.map(({ port }) => port)).toEqual([1001, 1127]);
      // It runs again, on another port.
      const again = engine.containers.get(ids[1] ?? "") as Record<string, Record<string, unknown>>;
      again["State"] = { ...again["State"], Running: true };
      again["NetworkSettings"] = {
        ...again["NetworkSettings"],
        Ports: { "80/tcp": [{ HostIp: "", HostPort: "2001" }] },
      };
      engine.happens("start", ids[1] ?? "");
      await eventually("its new port", () => lists.at(-1)?.list.some(({ port }) => port === 2001));
      engine.containers.delete(ids[2] ?? "");
      engine.happens("destroy", ids[2] ?? "");
      await shows("h:c1:80");
      expect(lists.at(-1)?.gone?.get("h:c127:80")?.text).toContain("was removed");
    });
    it("also what failed while the agent was away, as it was registered", async () => {
      const failed = engine.add("failed", 1001);
      const fine = engine.add("fine", 1002);
      await engine.start(serving);
      watch(systemClock, false, { deregister: "on-success" });
      await shows("h:failed:80", "h:fine:80");
      const before = lists.at(-1)?.list ?? [];
      held = new Map(
        before.map(({ checks, foreignId = "", ...facts }) => [
          facts.id,
          {
            checks,
            instance: { ...facts, node: "n", origin: { source: "docker", authority: "first-hand", foreignId } },
          },
        ]),
      );
      stop.abort();
      await ended;
      end(failed, 3);
      end(fine, 0);
      const settings = engine.containers.get(failed)?.["NetworkSettings"] as Record<string, unknown>;
      settings["Ports"] = {};
      stop = new AbortController();
      lists = [];
      watch(systemClock, false, { deregister: "on-success" });
      await shows("h:failed:80");
      expect(lists.at(-1)?.list[0]?.port).toBe(1001);
    });
  });

  describe("garbage never empties the list, and what comes after it is followed", () => {
    for (const [what, answer] of Object.entries(GARBAGE)) {
      it(`${what} for the list`, async () => {
        engine.add("one", 1001);
        await engine.start(serving);
        watch();
        await shows("h:one:80");
        engine.list = answer;
        engine.drop();
        await eventually("it says so", () => source.state().text.includes("away, trying again"));
        expect(source.state().ok).toBe(false);
        engine.list = undefined;
        engine.add("two", 1002);
        await shows("h:one:80", "h:two:80");
        expect(lists.every((list) => names(list).includes("h:one:80"))).toBe(true);
      });

      it(`${what} for a container`, async () => {
        const one = engine.add("one", 1001);
        await engine.start(serving);
        watch();
        await shows("h:one:80");
        engine.inspect = (id, honest) => (id === one ? answer : honest);
        engine.happens("update", one);
        await eventually("it says so", () => source.state().text.includes("cannot be read"));
        const two = engine.add("two", 1002);
        engine.happens("start", two);
        await shows("h:one:80", "h:two:80");
        engine.inspect = undefined;
        await eventually("it is read again", () => source.state().ok);
        expect(lists.every((list) => names(list).includes("h:one:80"))).toBe(true);
      });
    }

    for (const [what, junk] of Object.entries({
      HTML: `${HTML}\n`,
      "truncated JSON": '{"Type":"container","Action\n',
      "an array": "[1,2]\n",
      "a line without end": "x".repeat((1 << 20) + 2),
      "bytes that are no text": `${String.fromCharCode(0xd800)}\u0000\n`,
    }))
      it(`${what} in the event stream`, async () => {
        engine.add("one", 1001);
        await engine.start(serving);
        watch();
        await shows("h:one:80");
        const [before] = engine.streams;
        engine.tell(junk);
        await eventually(
          "it connects again",
          () => engine.streams.size > 0 && !engine.streams.has(before as ServerResponse),
        );
        const two = engine.add("two", 1002);
        engine.happens("start", two);
        await shows("h:one:80", "h:two:80");
        expect(lists.every((list) => names(list).includes("h:one:80"))).toBe(true);
      });

    it("events without sense are passed over", async () => {
      const one = engine.add("one", 1001);
      await engine.start(serving);
      watch();
      await shows("h:one:80");
      for (const event of [
        {},
        { Type: "container" },
        { Type: "container", Action: "die" },
        { Type: "container", Action: 5, Actor: { ID: 7 } },
        { Type: "image", Action: "die", Actor: { ID: one } },
        { Type: "container", Action: "kill", Actor: { ID: one, Attributes: { signal: "lots" } } },
        { Type: "network", Action: "connect", Actor: { ID: "n" } },
      ])
        engine.tell(event);
      const two = engine.add("two", 1002);
      engine.happens("start", two);
      await shows("h:one:80", "h:two:80");
      expect(lists).toHaveLength(2);
    });
  });

  it("an answer that drips for ever ends at the deadline", async () => {
    const clock = fakeClock();
    engine.add("one", 1001);
    let drips = 0;
    engine.list = (response) => {
      response.writeHead(200);
      response.write("[");
      drips++;
    };
    await engine.start(serving);
    watch(clock);
    await eventually("the list is asked for", () => drips > 0);
    await eventually("the deadline passes", async () => {
      await clock.advance(1_000);
      return source.state().text.includes("did not answer GET /containers/json within 15000 ms");
    });
    expect(lists).toEqual([]);
  });

  it("begins when the socket appears, and is no fault until then where Docker is optional", async () => {
    const clock = fakeClock();
    engine.add("one", 1001);
    watch(clock, true);
    await eventually("it looks", () => source.state().text.startsWith("no Docker: nothing at unix://"));
    expect(source.state().ok).toBe(true);
    await engine.start(serving);
    await eventually("the list", async () => {
      await clock.advance(500);
      return names().length === 1;
    });
    expect(source.state().text).toMatch(/^Docker 20\.10\.24 at unix:.*, 1 container$/);
  });

  it("a container that vanished between list and inspect is simply not there", async () => {
    const two = engine.add("two", 1002);
    engine.add("one", 1001);
    engine.inspect = (id, honest) => (id === two ? json(404, { message: "No such container: two" }) : honest);
    await engine.start(serving);
    watch();
    await shows("h:one:80");
    expect(lists).toHaveLength(1);
  });

  it("an inspect answer older than a death does not bring the dead back", async () => {
    const one = engine.add("one", 1001);
    await engine.start(serving);
    watch();
    await shows("h:one:80");
    const held: (() => void)[] = [];
    engine.inspect = (_, honest) => (response) => void held.push(() => honest(response));
    engine.happens("update", one);
    await eventually("an inspect is under way", () => held.length === 1);
    const alive = held[0] as () => void;
    engine.inspect = undefined;
    engine.happens("die", one, { name: "one", exitCode: "3" });
    await shows();
    alive();
    engine.containers.delete(one);
    await eventually("it is looked at again", () => engine.asked.filter((id) => id === one).length >= 3);
    engine.add("last", 1003);
    engine.happens("start", [...engine.containers.keys()].at(-1) ?? "");
    await shows("h:last:80");
    expect(lists.map((list) => names(list))).toEqual([["h:one:80"], [], ["h:last:80"]]);
    expect(lists[1]?.gone?.get("h:one:80")).toMatchObject({
      code: "died",
      text: expect.stringMatching(/^container one \([0-9a-f]{12}\) died, exit code 3$/),
      confirmed: true,
    });
  });

  it("a container whose inspect hangs holds up nobody else", async () => {
    engine.add("one", 1001);
    await engine.start(serving);
    watch();
    await shows("h:one:80");
    const stuck = engine.add("stuck", 1002);
    engine.inspect = (id, honest) => (id === stuck ? hang : honest);
    engine.happens("start", stuck);
    const two = engine.add("two", 1003);
    engine.happens("start", two);
    await shows("h:one:80", "h:two:80");
  });

  it("the first list waits for what cannot be read, then reports it by name", async () => {
    const bad = engine.add("bad", 1001);
    engine.add("one", 1002);
    const attempts = (): number => engine.asked.filter((id) => id === bad).length;
    engine.inspect = (id, honest) => (id === bad ? json(500, { message: "boom" }) : honest);
    await engine.start(serving);
    watch();
    await shows("h:one:80");
    expect(attempts()).toBeGreaterThanOrEqual(4);
    expect(lists[0]?.complaints).toEqual([
      { about: `container ${bad.slice(0, 12)}`, text: expect.stringContaining("boom") },
    ]);
  });

  it("nothing at all is said while no container can be read", async () => {
    engine.add("one", 1001);
    engine.inspect = () => json(500, { message: "boom" });
    await engine.start(serving);
    watch();
    await eventually("many attempts", () => engine.asked.length > 3);
    expect(lists).toEqual([]);
    engine.inspect = undefined;
    await shows("h:one:80");
  });

  it("of two containers with one ID the older is registered, then the other", async () => {
    const older = engine.add("older", 1001, (raw) => {
      Object.assign(raw["Config"] ?? {}, { Env: ["SERVICE_ID=same"] });
      Object.assign(raw["State"] ?? {}, { StartedAt: "2026-01-01T00:00:00Z" });
    });
    engine.add("newer", 1002, (raw) => {
      Object.assign(raw["Config"] ?? {}, { Env: ["SERVICE_ID=same"] });
    });
    await engine.start(serving);
    watch();
    await shows("same");
    expect(lists[0]?.list[0]?.port).toBe(1001);
    expect(lists[0]?.complaints?.[0]?.text).toContain('has the ID "same" already');
    engine.containers.delete(older);
    engine.happens("die", older, { exitCode: "0" });
    await eventually("the other takes over", () => lists.at(-1)?.list[0]?.port === 1002);
    expect(lists.at(-1)?.complaints).toEqual([]);
  });

  it("what shares another container's network follows its address", async () => {
    const owner = engine.add("owner", 1001, (raw) => Object.assign(raw["Config"] ?? {}, { Env: ["SERVICE_IGNORE=1"] }));
    engine.add("side", 1002, (raw) => Object.assign(raw["HostConfig"] ?? {}, { NetworkMode: `container:${owner}` }));
    await engine.start(serving);
    watch();
    await shows("h:side:80");
    expect(lists[0]?.list[0]?.address).toBe("172.17.0.2");
    const changed = engine.containers.get(owner) as Record<string, Record<string, unknown>>;
    changed["NetworkSettings"] = { ...changed["NetworkSettings"], IPAddress: "172.17.0.9" };
    engine.happens("update", owner);
    await eventually("the new address", () => lists.at(-1)?.list[0]?.address === "172.17.0.9");
  });

  it("only what may have changed is looked at again", async () => {
    const [one, two] = [engine.add("one", 1001), engine.add("two", 1002)];
    await engine.start(serving);
    watch();
    await shows("h:one:80", "h:two:80");
    engine.asked.length = 0;
    (engine.containers.get(two) as Record<string, unknown>)["Name"] = "/deux";
    engine.happens("rename", two);
    await shows("h:one:80", "h:deux:80");
    expect(engine.asked).toEqual([two]);
    expect(lists.at(-1)?.gone?.get("h:two:80")?.code).toBe("replaced");
    engine.happens("update", one);
    await eventually("it is looked at", () => engine.asked.includes(one));
    expect(lists).toHaveLength(2);
  });

  it("health is pushed and is no change of the list", async () => {
    const health = (status: string): unknown => ({ Status: status, Log: [{ Output: `says ${status}` }] });
    const one = engine.add("one", 1001, (raw) => Object.assign(raw["State"] ?? {}, { Health: health("starting") }));
    await engine.start(serving);
    watch();
    await shows("h:one:80");
    for (const status of ["healthy", "unhealthy"]) {
      Object.assign((engine.containers.get(one) as { State: object }).State, { Health: health(status) });
      engine.happens(`health_status: ${status}`, one);
      await eventually(status, () => reports.at(-1)?.outcome.output === `says ${status}`);
    }
    expect(reports.map(({ outcome }) => outcome.status)).toEqual(["critical", "passing", "critical"]);
    expect(lists).toHaveLength(1);
  });

  it("sees by Podman's list that a container is being stopped, for its events tell no signal", async () => {
    engine.server = "Libpod/4.3.1 (linux)";
    const id = engine.add("one", 1001);
    engine.add("two", 1002);
    await engine.start(serving);
    watch();
    await eventually("both are there", () => names().length === 2);
    const raw = engine.containers.get(id) as Record<string, Record<string, unknown>>;
    Object.assign(raw["State"] ?? {}, { Status: "stopping", Running: false });
    // What it had is being taken away already.
    raw["NetworkSettings"] = {};
    await eventually("it drains", () => lists.at(-1)?.list[0]?.draining);
    expect(lists.at(-1)?.list.map(({ id, port, draining }) => [id, port, draining])).toEqual([
      ["h:one:80", 1001, true],
      ["h:two:80", 1002, undefined],
    ]);
    engine.containers.delete(id);
    engine.happens("died", id, { containerExitCode: "0" });
    await eventually("it is gone", () => names().length === 1);
    expect(lists.at(-1)?.gone?.get("h:one:80")?.code).toBe("stopped");
  });

  it("drains on the stop signal of the container only, for its stop time-out", async () => {
    const clock = fakeClock();
    const one = engine.add("one", 1001, (raw) =>
      Object.assign(raw["Config"] ?? {}, { StopSignal: "SIGQUIT", StopTimeout: 3 }),
    );
    await engine.start(serving);
    watch(clock);
    await shows("h:one:80");
    engine.happens("kill", one, { signal: "15" });
    engine.happens("kill", one, { signal: "3" });
    await eventually("it drains", () => lists.at(-1)?.list[0]?.draining);
    expect(lists).toHaveLength(2);
    await clock.advance(4_900);
    expect(lists).toHaveLength(2);
    await clock.advance(200);
    await eventually("it is routable again", () => lists.length === 3);
    expect(lists[2]?.list[0]?.draining).toBeUndefined();
    engine.happens("kill", one, { signal: "9" });
    await eventually("SIGKILL drains, too", () => lists.at(-1)?.list[0]?.draining);
  });

  describe("while nobody knows the host's address", () => {
    /** As of a resolver that does not answer: the guess at once, the address when the test says. */
    const slowly = (): { readonly more: Partial<DockerOptions>; readonly found: (hostIp: string) => void } => {
      let found: (hostIp: string) => void = () => {};
      const resolving = new Promise<string>((resolve) => {
        found = resolve;
      });
      const more: Partial<DockerOptions> = {
        async translation(_, meanwhile) {
          meanwhile({ ...options, hostIp: "10.0.0.9" });
          return { ...options, hostIp: await resolving };
        },
      };
      return { more, found };
    };
    const addresses = () => lists.at(-1)?.list.map(({ address, port }) => `${address}:${port}`);

    it("containers are listed with the guess, and again with the address", async () => {
      engine.add("one", 1001);
      await engine.start(serving);
      const { more, found } = slowly();
      watch(systemClock, false, more);
      await shows("h:one:80");
      expect(addresses()).toEqual(["10.0.0.9:1001"]);
      engine.happens("start", engine.add("two", 1002));
      await shows("h:one:80", "h:two:80");
      found("192.0.2.7");
      await eventually("the address is known", () => addresses()?.[0] === "192.0.2.7:1001");
      expect(addresses()).toEqual(["192.0.2.7:1001", "192.0.2.7:1002"]);
      // A new connection asks anew; what was found out goes before a guess.
      const before = lists.length;
      engine.drop();
      engine.happens("start", engine.add("three", 1003));
      await eventually("it is connected again", () => names().length === 3);
      expect(lists.slice(before).flatMap(({ list }) => list.map(({ address }) => address))).not.toContain("10.0.0.9");
    });

    it("what an earlier life of the agent knew stays, with the port of now", async () => {
      const one = engine.add("one", 1001);
      await engine.start(serving);
      held = new Map([
        [
          "h:one:80",
          {
            checks: [],
            instance: {
              ...{ id: "h:one:80", name: "one", tags: [], labels: {}, address: "192.0.2.7", port: 999, node: "n" },
              origin: { source: "docker", authority: "first-hand", foreignId: `${one}:80/tcp` },
            },
          },
        ],
      ]);
      const { more, found } = slowly();
      watch(systemClock, false, more);
      await shows("h:one:80");
      expect(addresses()).toEqual(["192.0.2.7:1001"]);
      engine.happens("start", engine.add("two", 1002));
      await shows("h:one:80", "h:two:80");
      expect(addresses()).toEqual(["192.0.2.7:1001", "10.0.0.9:1002"]);
      found("192.0.2.8");
      await eventually("the address is known", () => addresses()?.[0] === "192.0.2.8:1001");
      expect(addresses()).toEqual(["192.0.2.8:1001", "192.0.2.8:1002"]);
    });
  });

  it("stopped before it started it says nothing; stopped, it leaves no connection and no timer", async () => {
    const clock = fakeClock();
    engine.add("one", 1001);
    await engine.start(serving);
    watch(clock);
    await shows("h:one:80");
    expect(engine.streams.size).toBe(1);
    stop.abort();
    await ended;
    await eventually("the stream is closed", () => engine.streams.size === 0);
    expect(clock.timers).toBe(0);
    const again: SourceList[] = [];
    for await (const list of source.watch(stop.signal)) again.push(list);
    expect(again).toEqual([]);
  });
});
