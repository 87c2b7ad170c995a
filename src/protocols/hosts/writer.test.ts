// A hosts file kept in step, in memory: what is routable, others' lines, edits by hand, faults of the disk, and that nothing is written for nothing.
import { readFileSync } from "node:fs";
import { afterEach, describe, expect, it } from "vitest";
import { type FakeClock, fakeClock } from "../../../test/simulated/clock.ts";
import { errno, type FakeDisk, fakeDisk } from "../../../test/simulated/disk.ts";
import { checkChange, goneChange, nodeChange, serviceChange } from "../../../test/support/directory.ts";
import { type World, world } from "../../../test/support/lookup.ts";
import { callbackLog } from "../../base/log.ts";
import type { HeldService } from "../../contracts/agent.ts";
import { configureHosts } from "./config.ts";
import { HostsWriter } from "./writer.ts";

const PATH = "/etc/hosts";
const OTHERS = "127.0.0.1 localhost\n# mine\n10.9.9.9\tprinter\n";

interface Run {
  readonly at: World;
  readonly disk: FakeDisk;
  readonly writer: HostsWriter;
  readonly said: string[];
  readonly settle: () => Promise<void>;
  /** The block's lines, with blanks for tabs. */
  lines(): readonly string[];
  stop(): Promise<void>;
}

const stops: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const stop of stops.splice(0)) await stop();
});

async function run(
  rule: Readonly<Record<string, unknown>> = {},
  given: { readonly clock?: FakeClock; readonly disk?: FakeDisk; readonly settled?: boolean } = {},
): Promise<Run> {
  const clock = given.clock ?? fakeClock();
  const disk = given.disk ?? fakeDisk(clock, ["/etc"]);
  if (given.disk === undefined) disk.put(PATH, OTHERS);
  const at = await world({ clock });
  const [config] = configureHosts({ path: PATH, names: "{name}", ...rule }) ?? [];
  if (config === undefined) throw new Error("off");
  const said: string[] = [];
  let told: () => void = () => {};
  const first = new Promise<void>((resolve) => {
    told = resolve;
  });
  if (given.settled !== false) told();
  const services = new Map([["web-1", { instance: { origin: { source: "docker" } }, asked: { aka: ["shop", "3f"] } }]]);
  const writer = new HostsWriter(config, {
    ...{ clock, disk, directory: at.directory, lookup: at.lookup, node: "home", domain: "consul" },
    log: callbackLog((level, _part, text) => void (level !== "debug" && said.push(text))),
    agent: { services: () => services as unknown as ReadonlyMap<string, HeldService> },
    firstLists: () => first,
  });
  writer.start();
  const stop = async (): Promise<void> => {
    const stopping = writer.stop();
    await clock.advance(200);
    await stopping;
    expect(disk.bells).toBe(0);
    at.lookup.stop();
  };
  stops.push(stop);
  await clock.advance(200);
  return {
    ...{ at, disk, writer, said, stop },
    async settle() {
      told();
      await clock.advance(200);
    },
    lines: () => {
      const [, block = ""] = /# BEGIN trilith .*?\r?\n(.*?)# END trilith/s.exec(disk.text(PATH) ?? "") ?? [];
      return block
        .split(/\r?\n/)
        .filter((line) => line !== "")
        .map((line) => line.replaceAll("\t", " "));
    },
  };
}

describe("a hosts file", () => {
  it("has what is routable, in a block behind others' lines, and is written only when something changed", async () => {
    const { at, disk, lines, writer } = await run();
    expect(disk.text(PATH)?.startsWith(OTHERS)).toBe(true);
    await at.directory.write([
      nodeChange("box", "10.0.0.1"),
      serviceChange("box", "w", "web", { port: 80 }),
      serviceChange("box", "d", "db", { port: 5432, address: "10.0.0.2" }),
      serviceChange("box", "p", "printer", { port: 1 }),
      serviceChange("box", "c", "consul", { port: 8300 }),
    ]);
    await at.clock.advance(200);
    expect(lines()).toEqual(["10.0.0.2 db", "10.0.0.1 web"]);
    expect(disk.text(PATH)?.startsWith(OTHERS)).toBe(true);
    expect(writer.state()).toMatchObject({
      ...{ ok: true, text: expect.stringMatching(/2 names of 2 addresses; printer stands in others' lines already/) },
    });
    const { length } = disk.writes;
    await at.directory.write([serviceChange("box", "w", "web", { port: 80, labels: { changed: "yes" } })]);
    await at.clock.advance(60_000);
    expect(disk.writes).toHaveLength(length);
    await at.directory.write([checkChange("box", "c1", "critical", { serviceId: "w" } as never)]);
    await at.clock.advance(200);
    expect(lines()).toEqual(["10.0.0.2 db"]);
    await at.directory.write([checkChange("box", "c1", "passing", { serviceId: "w" } as never)]);
    await at.clock.advance(200);
    expect(lines()).toEqual(["10.0.0.2 db", "10.0.0.1 web"]);
    expect(writer.linesAbout("web")).toEqual(["10.0.0.1\tweb"]);
    await at.directory.write([goneChange("box", "w"), goneChange("box", "d")]);
    await at.clock.advance(200);
    expect(lines()).toEqual([]);
  });

  it("is written by two rules, each with its own block, one after the other", async () => {
    const one = await run({ block: "one" });
    const other = await run({ block: "other" }, { clock: one.at.clock, disk: one.disk });
    await one.at.directory.write([nodeChange("box", "10.0.0.1"), serviceChange("box", "w", "web", { port: 80 })]);
    await other.at.directory.write([nodeChange("box", "10.0.0.1"), serviceChange("box", "d", "db", { port: 80 })]);
    await one.at.clock.advance(500);
    expect(one.disk.text(PATH)?.match(/10\.0\.0\.1\t\w+/g)).toEqual(["10.0.0.1\tweb", "10.0.0.1\tdb"]);
    expect([...one.said, ...other.said]).toEqual([]);
    await Promise.all([one.writer.stop("goes"), other.writer.stop("goes"), one.at.clock.advance(200)]);
    expect(one.disk.text(PATH)).toBe(OTHERS);
  });

  it("keeps what the guard holds", async () => {
    const { at, lines } = await run();
    await at.list("web", ["m1", "m2", "m3", "m4"]);
    await at.clock.advance(200);
    expect(lines()).toHaveLength(4);
    await at.list("web", []);
    await at.clock.advance(5000);
    expect(lines()).toHaveLength(4);
    at.lookup.release("web");
    await at.clock.advance(200);
    expect(lines()).toEqual([]);
  });

  it("is put right after edits by hand, with a word in the log; others' edits stay", async () => {
    const { at, disk, said, lines } = await run();
    await at.directory.write([nodeChange("box", "10.0.0.1"), serviceChange("box", "w", "web", { port: 80 })]);
    await at.clock.advance(200);
    disk.put(PATH, (disk.text(PATH) ?? "").replace("10.0.0.1\tweb", "10.6.6.6\tweb").replace("# mine", "# theirs"));
    await at.clock.advance(200);
    expect(lines()).toEqual(["10.0.0.1 web"]);
    expect(disk.text(PATH)).toContain("# theirs");
    expect(said).toEqual([expect.stringContaining("was changed by hand, and is written anew")]);
    disk.put(PATH, OTHERS);
    await at.clock.advance(200);
    expect(lines()).toEqual(["10.0.0.1 web"]);
    expect(said[1]).toContain("is gone, and is written anew");
    // A name that others write is theirs from then on.
    disk.put(PATH, `${disk.text(PATH)}10.0.0.5 web\n`);
    await at.clock.advance(200);
    expect(lines()).toEqual([]);
    expect(disk.text(PATH)).toContain("10.0.0.5 web");
  });

  it("keeps at a start what an earlier life wrote until every source has told its list", async () => {
    const clock = fakeClock();
    const disk = fakeDisk(clock, ["/etc"]);
    disk.put(PATH, `${OTHERS}# BEGIN trilith\n10.0.0.1\tweb\n10.0.0.8\told\n# END trilith\n`);
    const { at, lines, settle } = await run({}, { clock, disk, settled: false });
    await at.directory.write([nodeChange("box", "10.0.0.2"), serviceChange("box", "w", "web", { port: 80 })]);
    await clock.advance(200);
    expect(lines()).toEqual(["10.0.0.8 old", "10.0.0.1 web", "10.0.0.2 web"]);
    await settle();
    expect(lines()).toEqual(["10.0.0.2 web"]);
  });

  it("does not wait for ever for sources that tell nothing", async () => {
    const clock = fakeClock();
    const disk = fakeDisk(clock, ["/etc"]);
    disk.put(PATH, "# BEGIN trilith\n10.0.0.8\told\n# END trilith\n");
    const { lines } = await run({}, { clock, disk, settled: false });
    await clock.advance(29_000);
    expect(lines()).toEqual(["10.0.0.8 old"]);
    await clock.advance(2000);
    expect(lines()).toEqual([]);
  });

  it.each(["EBUSY", "EACCES", "EROFS"])("is written in place where its place cannot be taken (%s)", async (code) => {
    const clock = fakeClock();
    const disk = fakeDisk(clock, ["/etc"]);
    disk.put(PATH, OTHERS);
    disk.fault = (what) => (what === "replace" ? errno(code) : undefined);
    const { at, lines, writer } = await run({}, { clock, disk });
    await at.directory.write([nodeChange("box", "10.0.0.1"), serviceChange("box", "w", "web", { port: 80 })]);
    await clock.advance(200);
    expect(lines()).toEqual(["10.0.0.1 web"]);
    expect(disk.writes.every((line) => line === `overwrite ${PATH}`)).toBe(true);
    expect(writer.state()).toMatchObject({ ok: true, text: expect.stringContaining("(in place)") });
  });

  it("says what is in its way, and goes on when that is over", async () => {
    const { at, disk, said, lines, writer } = await run();
    disk.fault = (what) => (what === "replace" ? errno("ENOSPC") : undefined);
    await at.directory.write([nodeChange("box", "10.0.0.1"), serviceChange("box", "w", "web", { port: 80 })]);
    await at.clock.advance(200);
    expect(writer.state()).toMatchObject({ ok: false, text: expect.stringContaining("ENOSPC") });
    await at.clock.advance(40_000);
    expect(said).toHaveLength(1);
    let tried = 0;
    disk.fault = (what) => {
      if (what !== "replace") return undefined;
      tried++;
      return new Error(`open '${PATH}'`);
    };
    await at.clock.advance(40_000);
    expect(tried).toBeGreaterThan(1);
    expect(said.slice(1)).toEqual([`${PATH}: open '${PATH}'`]);
    disk.fault = (what) => (what === "replace" ? errno("ENOENT") : undefined);
    await at.clock.advance(16_000);
    // The folder is there: it is something else, as in /proc.
    expect(writer.state()).toMatchObject({ ok: false, text: expect.stringContaining("ENOENT: made by a test") });
    const empty = fakeDisk(at.clock, []);
    empty.fault = (what) => (what === "replace" ? errno("ENOENT") : undefined);
    const other = await run({ path: "/none/hosts" }, { disk: empty });
    await other.at.directory.write([nodeChange("box", "10.0.0.1"), serviceChange("box", "w", "web", { port: 80 })]);
    await other.at.clock.advance(200);
    expect(other.writer.state().text).toContain("there is no folder /none: make it, or name another path");
    disk.fault = () => undefined;
    await at.clock.advance(16_000);
    expect(lines()).toEqual(["10.0.0.1 web"]);
    expect(writer.state().ok).toBe(true);
  });

  it("that somebody else writes at the same moment is read again", async () => {
    const { at, disk, lines } = await run({ in_place: true });
    let once = true;
    disk.fault = (what) => {
      if (what === "overwrite" && once) {
        once = false;
        disk.put(PATH, `10.1.1.1 first\n${disk.text(PATH)}`);
      }
      return undefined;
    };
    await at.directory.write([nodeChange("box", "10.0.0.1"), serviceChange("box", "w", "web", { port: 80 })]);
    await at.clock.advance(200);
    expect(disk.text(PATH)?.startsWith(`10.1.1.1 first\n${OTHERS}`)).toBe(true);
    expect(lines()).toEqual(["10.0.0.1 web"]);
  });

  it("of its own is whole Trilith's, but never somebody's file", async () => {
    const clock = fakeClock();
    const disk = fakeDisk(clock, ["/etc"]);
    const { at, writer } = await run({ block: false, nodes: "{node}.node" }, { clock, disk });
    await at.directory.write([nodeChange("box", "10.0.0.1"), serviceChange("box", "w", "web", { port: 80 })]);
    await clock.advance(200);
    expect(disk.text(PATH)?.split("\n").slice(1)).toEqual(["10.1.0.1\thome.node", "10.0.0.1\tweb box.node", ""]);
    disk.put(PATH, OTHERS);
    await clock.advance(200);
    expect(disk.text(PATH)).toBe(OTHERS);
    expect(writer.state()).toMatchObject({ ok: false, text: expect.stringContaining("has others' lines") });
  });

  it("has this host's containers by their names where that is asked, and only its own services", async () => {
    const { at, lines } = await run({ from: "host", names: ["{container}.docker", "{name}"] });
    await at.directory.write([
      nodeChange("box", "10.0.0.1"),
      serviceChange("box", "w", "web", { port: 80 }),
      serviceChange("home", "web-1", "web", {
        port: 80,
        address: "10.1.0.9",
        origin: { source: "docker", authority: "first-hand" },
      }),
    ]);
    await at.clock.advance(200);
    expect(lines()).toEqual(["10.1.0.9 web shop.docker"]);
  });

  it.each([
    ["127.0.0.1", "172.17.0.9 web"],
    ["10.7.7.7", "10.1.0.1 web"],
  ])("has the address that is of use without a port to a reader at %s", async (asker, line) => {
    const { at, lines } = await run({ asker });
    const inner = { host: "172.17.0.9", port: 80, reach: "bridge", network: "172.17.0.0/16" } as const;
    await at.directory.write([serviceChange("home", "web-1", "web", { port: 32768, addresses: [inner] })]);
    await at.clock.advance(200);
    expect(lines()).toEqual([line]);
  });

  it.each([
    [true, OTHERS],
    [false, /10\.0\.0\.1\tweb/],
  ])("at the end (remove: %s)", async (remove, left) => {
    const { at, disk, stop } = await run({ remove });
    await at.directory.write([nodeChange("box", "10.0.0.1"), serviceChange("box", "w", "web", { port: 80 })]);
    await at.clock.advance(200);
    await stop();
    stops.length = 0;
    if (typeof left === "string") expect(disk.text(PATH)).toBe(left);
    else expect(disk.text(PATH)).toMatch(left);
  });
});

describe("the configuration", () => {
  it("is the README's example", () => {
    const readme = readFileSync(new URL("README.md", import.meta.url), "utf8");
    const [, example = ""] = /<!-- example -->\n```json\n(.*?)```/s.exec(readme) ?? [];
    expect(configureHosts(JSON.parse(example).protocols.hosts)).toMatchObject([
      { path: "/etc/hosts", block: "trilith", services: undefined, names: ["{name}", "{name}.service.{domain}"] },
      { path: "/run/trilith/hosts", block: undefined, names: ["{name}.{domain}", "{container}.docker"], domain: "lan" },
    ]);
    for (const raw of [undefined, null, false]) expect(configureHosts(raw)).toBeUndefined();
  });

  it.each([
    [true, /hosts: expected an object such as/],
    [[], /no file is named/],
    [{}, /hosts\.path: expected the path of a hosts file/],
    [{ path: "/a", name: "x" }, /hosts\.name: unknown key; known are path/],
    [{ path: "/a", names: "{nmae}" }, /hosts\.names: "\{nmae\}": \{nmae\} is nothing; there are \{name\}/],
    [{ path: "/a", nodes: "{name}" }, /hosts\.nodes: .*there are \{node\}, \{domain\}/],
    [{ path: "/a", asker: "web" }, /hosts\.asker: expected an IP address/],
    [{ path: "/a", block: "a b" }, /hosts\.block: expected a word/],
    [["/a", "/a"], /hosts\[1\]\.path: "\/a" is written twice/],
    [["/a", { path: "/a", block: false }], /written twice/],
    [{ path: "/a", from: "lan" }, /hosts\.from: expected "host" or "directory"/],
    [{ path: "/a", remove: "yes" }, /hosts\.remove: expected true or false/],
  ])("refuses %j", (raw, text) => {
    expect(() => configureHosts(raw)).toThrow(text);
  });
});
