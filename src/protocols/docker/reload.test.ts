// Another configuration of Docker while the agent runs, against imitated engines: what it says changes, no container's service leaves for it, and no connection ends that need not.
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { FakeEngine, json } from "../../../test/support/docker-engine.ts";
import { type RunningAgent, startAgent } from "../../../test/support/ground.ts";
import { eventually, ownFolder } from "../../../test/support/peers.ts";
import { createHttp } from "../../base/http.ts";
import { callbackLog } from "../../base/log.ts";

let folder: Awaited<ReturnType<typeof ownFolder>>;
let serving: ReturnType<typeof createHttp>;
const ends: (() => Promise<unknown> | unknown)[] = [];
beforeEach(async () => {
  folder = await ownFolder("docker-reload");
  serving = createHttp();
});
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
  await serving.close();
  await folder.remove();
});

/** An engine with these containers, published at these ports. */
async function engineWith(name: string, containers: Readonly<Record<string, number>>): Promise<FakeEngine> {
  const engine = new FakeEngine(join(folder.path, `${name}.sock`));
  for (const [each, port] of Object.entries(containers)) engine.add(each, port);
  await engine.start(serving);
  ends.push(() => engine.stop());
  return engine;
}
const at = (engine: FakeEngine): string => `unix://${engine.path}`;

/** An agent with this configuration, until `become` reloads it with another one; `lost` counts how often a port was not there that should be. */
async function changing(first: unknown, ports: readonly number[]) {
  let docker = first;
  const said: string[] = [];
  const agent: RunningAgent = await startAgent(
    { advertiseAddress: "10.0.0.1", protocols: { docker } },
    {
      log: callbackLog((level, part, text) => void said.push(`${level} ${part}: ${text}`)),
      reread: async () => ({ advertiseAddress: "10.0.0.1", protocols: { docker } }),
    },
  );
  ends.push(() => agent.stop());
  const { trilith } = agent;
  const held = () =>
    [...trilith.agent.services().values()].flatMap(({ instance }) =>
      instance.origin.source === "docker" ? [instance] : [],
    );
  const ids = (): readonly string[] =>
    held()
      .map(({ id, port }) => `${id} ${port}`)
      .sort();
  const become = async (next: unknown): Promise<readonly string[]> => {
    docker = next;
    said.splice(0);
    await trilith.reload();
    return said.filter((line) => !line.startsWith("debug"));
  };
  const settled = (...expected: readonly string[]): Promise<unknown> =>
    eventually(`there are ${expected.join(", ")}`, () => ids().join() === [...expected].sort().join());
  let lost = 0;
  let looking: NodeJS.Timeout | undefined;
  /** From now on. */
  const look = (): void => {
    looking = setInterval(() => {
      const view = trilith.directory.view();
      const there = new Set([...view.list("service")].map(({ port }) => port));
      if (!ports.every((port) => there.has(port))) lost++;
    }, 1);
    ends.push(() => clearInterval(looking));
  };
  const why = (id: string): string | undefined =>
    [...trilith.directory.view().list("grave")].findLast((grave) => JSON.stringify(grave).includes(id))?.why?.text;
  return { agent, become, held, ids, settled, look, lost: () => lost, why };
}

it("reads containers otherwise over the connection that is there, and asks nobody where nothing is another one", async () => {
  const engine = await engineWith("one", { a: 1001, b: 1002 });
  const base = { host: at(engine), hostname: "h", ip: "192.0.2.1" };
  const { agent, become, held, settled, look, lost, why } = await changing(base, [1001, 1002]);
  await settled("h:a:80 1001", "h:b:80 1002");
  look();
  const [stream] = engine.streams;
  const asked = engine.asked.length;
  const { index } = agent.trilith.directory.view();
  expect(await become({ ...base })).toEqual(["info : reading files again"]);
  expect(await become({ ...base, deregister: "on-success", connect: false })).toEqual(["info : reading files again"]);
  expect(await become({ ...base, connect: "images" })).toEqual(["info : reading files again"]);
  expect([agent.trilith.directory.view().index, engine.asked.length]).toEqual([index, asked]);
  await become({ ...base, tags: "x,{{.Name}}" });
  await eventually("tags are others", () => held().every(({ tags }) => tags.includes("x")));
  await become({ ...base, tags: "y" });
  await eventually("templates that no text tells apart are taken", () =>
    held().every(({ tags }) => tags.join() === "y"),
  );
  await become({ ...base, ip: "192.0.2.2", name: "n" });
  await eventually("they are at another address", () =>
    held().every(({ address, name }) => address === "192.0.2.2" && name === "n"),
  );
  expect([engine.asked.length, [...engine.streams][0] === stream]).toEqual([asked, true]);
  expect(lost()).toBe(0);
  // Another ID is another service; the port is there all the time.
  await become({ ...base, hostname: "g" });
  await settled("g:a:80 1001", "g:b:80 1002");
  expect(why("h:a:80")).toBe('is called "g:a:80" now');
  await expect(become({ ...base, deregister: "never" })).rejects.toThrow("docker.deregister");
  await expect(become({ ...base, host: "ssh://far" })).rejects.toThrow("docker.host");
  engine.happens("start", engine.add("c", 1003));
  await settled("g:a:80 1001", "g:b:80 1002", "g:c:80 1003");
});

it("follows further engines and drops others; one that is elsewhere keeps its containers", async () => {
  const one = await engineWith("one", { a: 1001 });
  const two = await engineWith("two", { b: 1002 });
  const endpoint = (engine: FakeEngine, name: string) => ({ host: at(engine), name, hostname: name });
  const { become, settled, look, lost, why } = await changing({ endpoints: [endpoint(one, "one")] }, [1001]);
  await settled("one:a:80 1001");
  look();
  const [stream] = one.streams;
  await become({ endpoints: [endpoint(one, "one"), endpoint(two, "two")] });
  await settled("one:a:80 1001", "two:b:80 1002");
  await become({ endpoints: [endpoint(two, "two"), endpoint(one, "one")] });
  await become({ endpoints: [endpoint(one, "one")] });
  await settled("one:a:80 1001");
  expect(why("two:b:80")).toBe("the configuration of docker no longer asks for it");
  expect([one.streams.size, [...one.streams][0] === stream]).toEqual([1, true]);
  await eventually("the other is left alone", () => two.streams.size === 0);
  // The same engine at another socket, and one that is not there (yet).
  const moved = await engineWith("moved", { a: 1001, c: 1003 });
  await become({ endpoints: [endpoint(moved, "one")] });
  await settled("one:a:80 1001", "one:c:80 1003");
  await become({ endpoints: [{ ...endpoint(moved, "one"), host: `unix://${folder.path}/none.sock` }] });
  await eventually("it is not heard there", () => moved.streams.size === 0);
  await settled("one:a:80 1001", "one:c:80 1003");
  expect([lost(), one.streams.size]).toEqual([0, 0]);
});

it("is switched off and on, and keeps what failed or does not", async () => {
  const engine = await engineWith("one", { a: 1001, b: 1002 });
  const base = { host: at(engine), hostname: "h", ip: "192.0.2.1", deregister: "on-success" };
  const { agent, become, settled, why } = await changing(base, []);
  await settled("h:a:80 1001", "h:b:80 1002");
  const [id = ""] = engine.containers.keys();
  const raw = engine.containers.get(id) as Record<string, unknown>;
  raw["State"] = { ...(raw["State"] as object), Running: false, ExitCode: 3 };
  engine.happens("die", id, { exitCode: "3" });
  await eventually("it is told", () => agent.trilith.sources().some(({ text }) => text.includes("1 container")));
  await settled("h:a:80 1001", "h:b:80 1002");
  await become({ ...base, deregister: "always" });
  await settled("h:b:80 1002");
  expect(why("h:a:80")).toContain("no longer keeps containers that failed, as a (");
  for (const off of [{ ...base, enabled: false }, false]) {
    await become(off);
    await settled();
    expect(why("h:b:80")).toBe("the configuration of docker no longer asks for it");
    await eventually("the engine is left alone", () => engine.streams.size === 0);
    await become(base);
    await settled("h:b:80 1002");
  }
});

it("opens ports in containers or not", async () => {
  const engine = await engineWith("one", {});
  engine.image = json(403, { message: "images are not for you" });
  engine.add("a", 1001, (raw) => {
    raw["Config"] = { ...raw["Config"], Labels: { "connect.x": "redis" } };
  });
  const base = { host: at(engine), hostname: "h", ip: "192.0.2.1" };
  const { agent, become, settled } = await changing({ ...base, connect: false }, []);
  await settled("h:a:80 1001");
  const told = (): readonly string[] =>
    agent.trilith.sources().flatMap(({ text }) => (text.includes("container a") ? [text] : []));
  expect(told()).toEqual([]);
  await become(base);
  const own = told().join();
  expect(own).toContain("is not known");
  await become({ ...base, connect: "images" });
  expect(told().join()).toContain("connect.x");
  await become(base);
  expect(told().join()).toBe(own);
  await become({ ...base, connect: false });
  expect(told()).toEqual([]);
});

it("writes to other registries besides; those that stay are not begun anew", async () => {
  const engine = await engineWith("one", { a: 1001 });
  const [first, second] = [await startAgent({ node: "one" }), await startAgent({ node: "two" })];
  ends.push(
    () => first.stop(),
    () => second.stop(),
  );
  const uri = ({ url }: RunningAgent): string => url.replace("http:", "consul:");
  const there = ({ trilith }: RunningAgent): string =>
    [...trilith.agent.services().values()].map(({ instance }) => `${instance.id} ${instance.tags}`).join();
  const base = { host: at(engine), hostname: "h", ip: "192.0.2.1" };
  const { become, settled } = await changing({ ...base, backends: [uri(first)] }, []);
  await settled("h:a:80 1001");
  await eventually("the first has it", () => there(first).startsWith("h:a:80"));
  const streams = [...engine.streams];
  await become({ ...base, backends: [uri(first), uri(second)] });
  await eventually("the second has it", () => there(second).startsWith("h:a:80"));
  expect(streams.every((stream) => engine.streams.has(stream))).toBe(true);
  const said = await become({ ...base, backends: [uri(second)], tags: "t" });
  expect(said).toContain(
    `warn docker: docker.backends: ${uri(first)} is written to no more; what was written stays there`,
  );
  await eventually("it is tagged", () => there(second) === "h:a:80 t");
  expect(there(first)).toBe("h:a:80 ");
});
