// When files are made, under a test's clock: once all is known, after bursts, again after failures; and what is followed for how long.
import { afterEach, expect, it } from "vitest";
import { fakeClock } from "../../test/simulated/clock.ts";
import { fakeDisk } from "../../test/simulated/disk.ts";
import type { Need, ServiceKnown } from "./needs.ts";
import { type RenderEvent, type Rendered, Renderer, type RendererMachine } from "./renderer.ts";
import type { Content } from "./template.ts";

const key = (name: string): Extract<Need, { kind: "key" }> => ({ kind: "key", key: name });
/** The keys, joined; it cannot be made while one is not there. */
const joined =
  (...names: readonly string[]): Content =>
  (reading) =>
    names
      .map((name) => {
        const known = reading.get(key(name));
        if (known !== undefined && known.value === undefined) reading.lacks(`key "${name}"`);
        if (known?.value === "broken") throw new Error("cannot be made");
        return known?.value;
      })
      .join(" ");

function world(manner: Partial<{ once: boolean; dry: boolean }> = {}) {
  const clock = fakeClock();
  const disk = fakeDisk(clock, ["/"]);
  const tell = new Map<string, (value: string | ServiceKnown | undefined) => void>();
  const events: RenderEvent[] = [];
  const commands: string[] = [];
  let exitCode = 0;
  const machine: { -readonly [K in keyof RendererMachine]: RendererMachine[K] } = {
    clock,
    disk,
    processes: {
      pid: 1,
      run: async (command) => {
        commands.push(command[2] ?? "");
        const output = Buffer.from(`try ${commands.length}`);
        return { exitCode, signal: null, output, totalBytes: output.length };
      },
    },
    onOutput: () => {},
    onEvent: (event) => void events.push(event),
    follow: (need, signal, told) => {
      const name = need.kind === "service" ? need.service : (need as { key: string }).key;
      tell.set(name, told);
      return new Promise((resolve) =>
        signal.addEventListener("abort", () => {
          tell.delete(name);
          resolve();
        }),
      );
    },
  };
  const renderer = new Renderer(machine, { once: false, dry: false, ...manner });
  renderers.push(renderer);
  return {
    ...{ clock, disk, tell, events, commands, renderer, machine },
    fails: (code: number) => {
      exitCode = code;
    },
    words: () => events.map(({ event }) => event).join(" "),
  };
}
type World = ReturnType<typeof world>;
const renderers: Renderer[] = [];
afterEach(async () => {
  for (const renderer of renderers.splice(0)) await renderer.stop();
});
const file = (path: string, content: Content, more: Partial<Rendered["rule"]> = {}): Rendered => ({
  rule: { path, commandTimeoutMs: 1_000, makeFolders: true, ...more },
  content,
  waitMs: 250,
  waitMostMs: 2_000,
});

it("writes when all is known, and says what is waited for", async () => {
  const w = world();
  w.renderer.set([file("/out", joined("a", "b"))]);
  await w.clock.advance(0);
  // What changes meanwhile does not put off that it is said.
  for (let i = 0; i < 10; i++) {
    w.tell.get("a")?.(`${i % 2}`);
    await w.clock.advance(1_000);
  }
  w.tell.get("a")?.("1");
  await w.clock.advance(1_000);
  expect([w.disk.text("/out"), w.words()]).toEqual([undefined, "waiting"]);
  expect(w.events[0]).toMatchObject({ text: '/out waits for key "b"' });
  w.tell.get("b")?.(undefined);
  await w.clock.advance(10_000);
  expect(w.disk.text("/out")).toBe(undefined);
  w.tell.get("b")?.("2");
  await w.clock.advance(250);
  expect([w.disk.text("/out"), w.events.at(-1)]).toEqual(["1 2", { event: "written", path: "/out" }]);
});

it("waits for bursts to end, but not for ever, and leaves alone what is the same", async () => {
  const w = world();
  w.renderer.set([file("/out", joined("a"), { command: "reload" })]);
  await w.clock.advance(0);
  w.tell.get("a")?.("0");
  await w.clock.advance(0);
  expect([w.disk.text("/out"), w.commands]).toEqual(["0", ["reload"]]);
  for (let i = 1; i <= 5; i++) {
    w.tell.get("a")?.(`${i}`);
    await w.clock.advance(200);
  }
  expect(w.disk.text("/out")).toBe("0");
  await w.clock.advance(50);
  expect([w.disk.text("/out"), w.commands.length]).toEqual(["5", 2]);
  for (let i = 0; i < 11; i++) {
    w.tell.get("a")?.(`b${i}`);
    await w.clock.advance(200);
  }
  expect(w.disk.text("/out")).toMatch(/^b\d+$/);
  w.tell.get("a")?.("b10");
  await w.clock.advance(5_000);
  const writes = w.disk.writes.length;
  w.tell.get("a")?.("b10");
  await w.clock.advance(5_000);
  expect(w.disk.writes.length).toBe(writes);
});

it("tries again what failed, says it once, and goes on with what is not broken", async () => {
  const w = world();
  w.renderer.set([file("/out", joined("a"), { command: "reload" }), file("/two", joined("a"))]);
  await w.clock.advance(0);
  w.fails(1);
  w.tell.get("a")?.("1");
  await w.clock.advance(20_000);
  expect([w.disk.text("/out"), w.disk.text("/two"), w.words()]).toEqual([undefined, "1", "failed written"]);
  w.fails(0);
  await w.clock.advance(60_000);
  expect([w.disk.text("/out"), w.words()]).toEqual(["1", "failed written written"]);
  w.tell.get("a")?.("broken");
  await w.clock.advance(60_000);
  expect([w.disk.text("/out"), w.events.at(-1)]).toMatchObject(["1", { text: "/two stays as it was: cannot be made" }]);
  w.tell.get("a")?.("3");
  await w.clock.advance(250);
  expect([w.disk.text("/out"), w.disk.text("/two")]).toEqual(["3", "3"]);
});

it("follows what its files need, and nothing else any more", async () => {
  const w = world();
  w.renderer.set([file("/out", (reading) => (joined("a")(reading) === "b" ? joined("b")(reading) : "x"))]);
  await w.clock.advance(0);
  w.tell.get("a")?.("b");
  await w.clock.advance(0);
  expect([...w.tell.keys()]).toEqual(["a", "b"]);
  w.tell.get("b")?.("1");
  await w.clock.advance(0);
  expect(w.disk.text("/out")).toBe("1");
  w.tell.get("a")?.("c");
  await w.clock.advance(250);
  expect([w.disk.text("/out"), ...w.tell.keys()]).toEqual(["x", "a"]);
  w.renderer.set([file("/other", joined("c"))]);
  await w.clock.advance(0);
  w.tell.get("c")?.("2");
  await w.clock.advance(0);
  expect([w.disk.text("/other"), ...w.tell.keys()]).toEqual(["2", "c"]);
  await w.renderer.stop();
  expect(w.tell.size).toBe(0);
});

it("ends once everything was made, and tells whether it went well", async () => {
  const w = world({ once: true });
  w.renderer.set([file("/out", joined("a")), file("/two", () => "fixed")]);
  await w.clock.advance(0);
  w.tell.get("a")?.("1");
  expect(await w.renderer.ended()).toBe(true);
  const bad = world({ once: true });
  bad.fails(1);
  bad.renderer.set([file("/out", () => "1", { check: "no" })]);
  expect(await bad.renderer.ended()).toBe(false);
  expect(bad.disk.text("/out")).toBe(undefined);
});

it("empties no file that is there in its first minute: after a boot the agent may not have found anybody yet", async () => {
  const of = (service: string): Need => ({ kind: "service", service, health: "routable" });
  const list =
    (service: string): Content =>
    (reading) =>
      (reading.get(of(service))?.value as ServiceKnown | undefined)?.answer.map(({ id }) => id).join(" ") ?? "";
  const known = (...ids: string[]) => ({ answer: ids.map((id) => ({ id })), all: [] }) as unknown as ServiceKnown;
  const w = world();
  await w.disk.replace("/web", "a b", 0o644);
  await w.disk.replace("/db", "c", 0o644);
  w.renderer.set([file("/web", list("web")), file("/db", list("db")), file("/new", list("new"))]);
  await w.clock.advance(0);
  for (const service of ["web", "db", "new"]) w.tell.get(service)?.(known());
  await w.clock.advance(10_000);
  expect([w.disk.text("/web"), w.disk.text("/db"), w.disk.text("/new")]).toEqual(["a b", "c", ""]);
  expect(w.words()).toBe("held held written");
  w.tell.get("db")?.(known());
  w.tell.get("web")?.(known("b"));
  await w.clock.advance(250);
  expect([w.disk.text("/web"), w.words()]).toEqual(["b", "held held written released written"]);
  await w.clock.advance(49_000);
  expect(w.disk.text("/db")).toBe("c");
  await w.clock.advance(1_000);
  expect([w.disk.text("/db"), w.words()]).toEqual(["", "held held written released written released written"]);
  w.tell.get("web")?.(known());
  await w.clock.advance(250);
  expect(w.disk.text("/web")).toBe("");
});

it("holds nothing for want of anybody who came, or after its first minute passed, while it looked at the file", async () => {
  const of: Need = { kind: "service", service: "web", health: "routable" };
  const content: Content = (reading) =>
    (reading.get(of)?.value as ServiceKnown | undefined)?.answer.map(({ id }) => id).join(" ") ?? "";
  const known = (...ids: string[]) => ({ answer: ids.map((id) => ({ id })), all: [] }) as unknown as ServiceKnown;
  for (const [meanwhile, becomes] of [
    [async (w: World) => w.tell.get("web")?.(known("b")), "b"],
    [async (w: World) => await w.clock.advance(60_000), ""],
  ] as const) {
    const w = world();
    await w.disk.replace("/web", "a", 0o644);
    let look = (): void => {};
    const looking = new Promise<void>((resolve) => {
      look = resolve;
    });
    w.machine.disk = { ...w.disk, info: async (path) => await looking.then(() => w.disk.info(path)) };
    w.renderer.set([file("/web", content)]);
    await w.clock.advance(0);
    w.tell.get("web")?.(known());
    await w.clock.advance(0);
    await meanwhile(w);
    look();
    await w.clock.advance(1_000);
    expect([w.disk.text("/web"), w.words()]).toEqual([becomes, "written"]);
  }
});

it("has not gone well when it was stopped before everything was made", async () => {
  const w = world({ once: true });
  w.renderer.set([file("/out", joined("a"))]);
  await w.clock.advance(0);
  await w.renderer.stop();
  expect(await w.renderer.ended()).toBe(false);
});

it("says once that a service is held, however many ask for it, and that it is not any more when the last of them is content", async () => {
  const w = world();
  const need = (tag: string): Need => ({ kind: "service", service: "web", tag, health: "routable" });
  const of =
    (tag: string): Content =>
    (reading) =>
      `${(reading.get(need(tag))?.value as ServiceKnown | undefined)?.answer.length}`;
  const told: ((held?: string) => void)[] = [];
  const follow = w.machine.follow;
  w.machine.follow = (asked, signal, tell) => {
    told.push((held) => tell({ answer: [], all: [], ...(held === undefined ? {} : { held }) } as ServiceKnown));
    return follow(asked, signal, tell);
  };
  w.renderer.set([file("/a", of("a")), file("/b", of("b"))]);
  await w.clock.advance(0);
  const [a, b] = told;
  for (let i = 0; i < 3; i++) {
    a?.("kept");
    b?.();
    await w.clock.advance(250);
  }
  b?.("kept, too");
  expect(w.words()).toBe("held written written");
  a?.();
  b?.();
  await w.clock.advance(250);
  expect(w.words()).toBe("held written written held released");
});

it("says which file could not be written, and when the former one could not be put back, which goes on to be tried", async () => {
  const w = world();
  await w.disk.replace("/out", "old", 0o644);
  w.disk.fault = (what) => (what === "replace" ? new Error("no space left") : undefined);
  w.renderer.set([file("/out", () => "new", { command: "reload" })]);
  await w.clock.advance(0);
  expect(w.events).toEqual([{ event: "failed", path: "/out", text: "/out: no space left" }]);
  w.fails(1);
  w.disk.fault = (what) => (what === "replace" && w.commands.length > 0 ? new Error("no space left") : undefined);
  await w.clock.advance(5_000);
  expect(w.events.at(-1)).toMatchObject({ text: expect.stringContaining("could not be put back: no space left") });
  expect(w.disk.text("/out")).toBe("new");
  w.disk.fault = () => undefined;
  await w.clock.advance(60_000);
  expect(w.disk.text("/out")).toBe("old");
  w.fails(0);
  await w.clock.advance(120_000);
  expect([w.disk.text("/out"), w.events.at(-1)]).toEqual(["new", { event: "written", path: "/out" }]);
});

it("prints rather than writes", async () => {
  const w = world({ once: true, dry: true });
  w.renderer.set([file("/out", () => "1", { command: "reload" })]);
  await w.renderer.ended();
  expect([w.events, w.commands, w.disk.writes]).toEqual([[{ event: "dry", path: "/out", text: "1" }], [], []]);
});
