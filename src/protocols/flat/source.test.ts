// Flat files as a source: whole versions only, the last good one kept, hearsay when something vanishes; in memory, and on a real folder.

import { readFileSync } from "node:fs";
import { afterEach, describe, expect, it } from "vitest";
import { type FakeClock, fakeClock } from "../../../test/simulated/clock.ts";
import { errno, type FakeDisk, fakeDisk } from "../../../test/simulated/disk.ts";
import { nodeChange, serviceChange, type TestDirectory, testDirectory } from "../../../test/support/directory.ts";
import { silentLog } from "../../base/log.ts";
import type { SourceList } from "../../contracts/source.ts";
import { keyOf } from "../../model/record.ts";
import { configureFlat } from "./config.ts";
import { FlatSource } from "./source.ts";

const WEB = "/lists/web.txt";
const stops: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const stop of stops.splice(0).reverse()) await stop();
});

interface Run {
  readonly clock: FakeClock;
  readonly disk: FakeDisk;
  readonly directory: TestDirectory;
  readonly source: FlatSource;
  readonly lists: SourceList[];
  /** "service address:port" of the last list. */
  told(): readonly string[];
  stop(): Promise<void>;
}

async function run(
  files: unknown = "/lists",
  given: Partial<Pick<Run, "clock" | "disk" | "directory">> = {},
): Promise<Run> {
  const clock = given.clock ?? fakeClock();
  const disk = given.disk ?? fakeDisk(clock, ["/lists"]);
  const directory = given.directory ?? testDirectory(clock);
  const config = configureFlat({ files });
  if (config === undefined) throw new Error("off");
  const source = new FlatSource(config, { clock, disk, directory, log: silentLog, node: "home" });
  const over = new AbortController();
  const lists: SourceList[] = [];
  const reading = (async () => {
    for await (const list of source.watch(over.signal)) lists.push(list);
  })();
  const stop = async (): Promise<void> => {
    over.abort(new Error("enough"));
    await clock.advance(100);
    await reading;
    expect(disk.bells).toBe(0);
  };
  stops.push(stop);
  await clock.advance(100);
  return {
    ...{ clock, disk, directory, source, lists, stop },
    told: () =>
      (lists.at(-1)?.list ?? []).map((r) => `${r.name} ${r.external?.node.address}${r.port === 0 ? "" : `:${r.port}`}`),
  };
}

describe("flat files", () => {
  it("that are written in place count when they are not written any more", async () => {
    const { disk, clock, told } = await run();
    disk.put(WEB, "10.0.0.1:80\n10.0.0.2:8");
    for (const more of ["0", "80\n10.0.0.3", ":80\n"]) {
      await clock.advance(200);
      expect(told()).toEqual([]);
      disk.append(WEB, more);
    }
    await clock.advance(200);
    expect(told()).toEqual([]);
    await clock.advance(200);
    expect(told()).toEqual(["web 10.0.0.1:80", "web 10.0.0.2:8080", "web 10.0.0.3:80"]);
    // Truncated and written again: nothing of it is seen before it is whole.
    disk.put(WEB, "");
    await clock.advance(400);
    disk.put(WEB, "10.0.0.1:80\n");
    await clock.advance(200);
    expect(told()).toHaveLength(3);
    await clock.advance(200);
    expect(told()).toEqual(["web 10.0.0.1:80"]);
  });

  it("that were written elsewhere and moved here count at once, as does what says its own end", async () => {
    const { disk, clock, told } = await run();
    disk.moveIn(WEB, "10.0.0.1:80\n");
    await clock.advance(100);
    expect(told()).toEqual(["web 10.0.0.1:80"]);
    disk.moveIn(WEB, "10.0.0.2:80\n");
    await clock.advance(100);
    expect(told()).toEqual(["web 10.0.0.2:80"]);
    disk.put("/lists/db.json", '["10.0.0.3:5432"');
    await clock.advance(100);
    expect(told()).toEqual(["web 10.0.0.2:80"]);
    disk.append("/lists/db.json", "]");
    await clock.advance(100);
    expect(told()).toEqual(["db 10.0.0.3:5432", "web 10.0.0.2:80"]);
  });

  it("that cannot be read keep their last good version, and say what is wrong", async () => {
    const { disk, clock, told, source, lists } = await run();
    disk.moveIn("/lists/web.json", '["10.0.0.1:80", "10.0.0.2"]');
    await clock.advance(100);
    expect(told()).toEqual(["web 10.0.0.1:80"]);
    expect(lists.at(-1)?.complaints).toEqual([
      { about: "/lists/web.json", text: expect.stringContaining('[1]: "10.0.0.2" has no port') },
    ]);
    disk.put("/lists/web.json", '{"web": ');
    await clock.advance(100);
    // What the list does say is no older for that.
    expect(source.state()).toMatchObject({ ok: true, text: expect.stringContaining("has no port") });
    await clock.advance(400);
    expect(told()).toEqual(["web 10.0.0.1:80"]);
    expect(source.state()).toMatchObject({ ok: false, text: expect.stringContaining("JSON") });
    expect(lists.at(-1)?.complaints?.[0]).toEqual({
      ...{ about: "/lists/web.json", text: expect.stringContaining("its last good version stays") },
    });
    disk.fault = (what) => (what === "readBytes" ? errno("EIO") : undefined);
    disk.put("/lists/web.json", "[]");
    await clock.advance(1000);
    expect(told()).toEqual(["web 10.0.0.1:80"]);
    disk.fault = (what) => (what === "list" ? errno("EACCES") : undefined);
    await clock.advance(6000);
    expect(told()).toEqual(["web 10.0.0.1:80"]);
    expect(source.state()).toMatchObject({ ok: false, text: expect.stringContaining("cannot be looked at") });
    disk.fault = () => undefined;
    await clock.advance(6000);
    expect(told()).toEqual([]);
    expect(source.state().ok).toBe(true);
  });

  it("that are empty or gone are not believed at once; then it is hearsay", async () => {
    const { disk, clock, told, lists } = await run();
    disk.moveIn(WEB, "10.0.0.1:80\n10.0.0.2:80\n");
    disk.moveIn("/lists/db.yaml", "[10.0.0.3:5432]");
    await clock.advance(100);
    expect(told()).toHaveLength(3);
    disk.put(WEB, "");
    await clock.advance(2500);
    expect(told()).toHaveLength(3);
    await clock.advance(1000);
    expect(told()).toEqual(["db 10.0.0.3:5432"]);
    expect([...(lists.at(-1)?.gone ?? [])].map(([, { code, confirmed }]) => ({ code, confirmed }))).toEqual([
      { code: "missing", confirmed: false },
      { code: "missing", confirmed: false },
    ]);
    expect(lists.at(-1)?.authority).toBe("second-hand");
    // Nor is one that was moved here empty.
    disk.moveIn("/lists/db.yaml", "# nothing yet\n");
    await clock.advance(2500);
    expect(told()).toEqual(["db 10.0.0.3:5432"]);
    disk.moveIn("/lists/db.yaml", "[10.0.0.3:5432]");
    await clock.advance(100);
    // As an editor does: away for a moment.
    disk.drop("/lists/db.yaml");
    await clock.advance(100);
    disk.moveIn("/lists/db.yaml", "[10.0.0.3:5432]");
    await clock.advance(1000);
    expect(told()).toEqual(["db 10.0.0.3:5432"]);
    disk.drop("/lists/db.yaml");
    await clock.advance(100);
    expect(told()).toHaveLength(1);
    await clock.advance(500);
    expect(told()).toEqual([]);
  });

  it("that are not there are missed at once; when they come they are taken, and when they go again what they said stays", async () => {
    const { disk, clock, told, source, lists } = await run(["/run/db.txt", "/none", "/lists"]);
    const unwell = (): readonly (readonly string[])[] =>
      source.state().entries?.flatMap(({ ok, name, text, tells }) => (ok ? [] : [[name, text, ...tells()]])) ?? [];
    const absent = "there is no such file or folder";
    expect(unwell()).toEqual([
      ["/run/db.txt", absent],
      ["/none", absent],
    ]);
    expect(source.state().text).toBe(
      `0 endpoints in 0 files of /run/db.txt, /none, /lists; /run/db.txt: ${absent}; /none: ${absent}`,
    );
    expect(lists.at(-1)?.complaints).toEqual([
      { about: "/run/db.txt", text: absent },
      { about: "/none", text: absent },
    ]);
    disk.moveIn("/run/db.txt", "10.0.0.1:5432\n");
    disk.moveIn("/none/web", "10.0.0.2:80\n");
    disk.moveIn(WEB, "10.0.0.3:80\n");
    await clock.advance(6000);
    expect(told()).toEqual(["db 10.0.0.1:5432", "web 10.0.0.2:80", "web 10.0.0.3:80"]);
    expect(source.state().ok).toBe(true);
    // As an editor does: away for a moment is not missed.
    disk.drop("/run/db.txt");
    await clock.advance(100);
    expect(source.state().ok).toBe(true);
    disk.drop("/none/web");
    disk.drop(WEB);
    await clock.advance(6000);
    // Of a folder that is there, what is not in it any more is gone.
    expect(told()).toEqual(["db 10.0.0.1:5432", "web 10.0.0.2:80"]);
    expect(unwell()).toEqual([
      ["/run/db.txt", `${absent} (the endpoint that it listed stays)`, "10-0-0-1/flat:db:5432"],
      ["/none", `${absent} (the endpoint that it listed stays)`, "10-0-0-2/flat:web:80"],
    ]);
    disk.moveIn("/run/db.txt", "10.0.0.1:5432\n");
    disk.moveIn("/none/web", "");
    await clock.advance(6000);
    expect(told()).toEqual(["db 10.0.0.1:5432"]);
    expect(source.state().ok).toBe(true);
  });

  it("one that is broken keeps only its own from an earlier life", async () => {
    const clock = fakeClock();
    const disk = fakeDisk(clock, ["/lists"]);
    const directory = testDirectory(clock);
    await directory.write(
      ["web 10.0.0.1", "db 10.0.0.2", "old 10.0.0.3"].flatMap((each) => {
        const [service = "", address = ""] = each.split(" ");
        const node = address.replaceAll(".", "-");
        const witnessed = [{ service: `flat:${service}:80`, source: "flat", by: ["home"] }];
        return [
          nodeChange(node, address, { external: true, witnessed }),
          serviceChange(node, `flat:${service}:80`, service, {
            port: 80,
            origin: {
              ...{ source: "flat", authority: "second-hand", foreignId: `${service} ${address}:80` },
              text: `${address}:80, from /${service === "old" ? "elsewhere" : "lists"}/${service}.txt`,
            },
          }),
        ];
      }),
    );
    disk.put(WEB, "nonsense nonsense\n");
    disk.put("/lists/db.txt", "10.0.0.9:80\n");
    disk.fault = (what, path) => (what === "readBytes" && path === WEB ? errno("EIO") : undefined);
    await clock.advance(10_000);
    const { told, source } = await run("/lists", { clock, disk, directory });
    expect(told()).toEqual(["web 10.0.0.1:80", "db 10.0.0.9:80"]);
    const [db, web] = source.state().entries ?? [];
    expect([db?.name, db?.ok, [...(db?.tells() ?? [])]]).toEqual(["/lists/db.txt", true, ["10-0-0-9/flat:db:80"]]);
    expect([web?.name, web?.ok, [...(web?.tells() ?? [])]]).toEqual([WEB, false, ["10-0-0-1/flat:web:80"]]);
    expect(web?.text).toContain("cannot be read");
  });

  it("each for one service or for many, with ports, tags and weights; the same on every host", async () => {
    const clock = fakeClock();
    const disk = fakeDisk(clock);
    const old = "10.0.0.1:80 5 zone=a\nDB.example.com:81\ndb.example.com:81\n";
    disk.put(WEB, old);
    disk.put("/lists/all.json", '{"web": ["10.0.0.1:80", "10.0.0.9:80"], "db": ["[2001:db8::1]:5432"]}');
    disk.put("/lists/.hidden", "10.0.0.7:80");
    disk.put("/lists/web.txt~", "10.0.0.7:80");
    disk.put("/etc/hosts", "127.0.0.1 localhost\n10.0.0.5 mail\n");
    disk.put("/run/cache", "10.0.0.6\n");
    await clock.advance(10_000);
    const files = [
      "/lists",
      { path: "/etc/hosts", port: 25 },
      { path: "/run/cache", service: "redis", port: 6379, tags: "c" },
    ];
    const { told, lists } = await run(files, { clock, disk });
    expect(told()).toEqual([
      "web 10.0.0.1:80",
      "web 10.0.0.9:80",
      "db 2001:db8::1:5432",
      "web db.example.com:81",
      "mail 10.0.0.5:25",
      "redis 10.0.0.6:6379",
    ]);
    expect(lists.at(-1)?.complaints).toEqual([
      { about: WEB, text: "db.example.com:81 is listed twice: the first one counts" },
    ]);
    expect(lists.at(-1)?.list[5]).toEqual({
      ...{ id: "flat:redis:6379", name: "redis", tags: ["c"], labels: {}, address: "", port: 6379, checks: [] },
      foreignId: "redis 10.0.0.6:6379",
      text: "10.0.0.6:6379, from /run/cache",
      external: { node: { name: "10-0-0-6", address: "10.0.0.6" } },
    });
    disk.drop("/lists/all.json");
    await clock.advance(1000);
    expect(lists.at(-1)?.list.find(({ port }) => port === 80)).toMatchObject({
      ...{ weights: { passing: 5, warning: 1 }, labels: { zone: "a" }, tags: [] },
    });
  });

  it("what is known at first hand is not listed besides", async () => {
    const { disk, clock, told, directory, lists } = await run();
    disk.moveIn(WEB, "10.0.0.1:80\n10.0.0.2:80\n");
    await clock.advance(100);
    await directory.write([nodeChange("box", "10.0.0.1"), serviceChange("box", "w", "web", { port: 80 })]);
    await clock.advance(500);
    expect(told()).toEqual(["web 10.0.0.2:80"]);
    expect([...(lists.at(-1)?.gone ?? [])]).toMatchObject([
      ["10-0-0-1/flat:web:80", { code: "replaced", confirmed: true }],
    ]);
    await directory.write([{ op: "delete", table: "service", key: keyOf.service("box", "w") }]);
    await clock.advance(500);
    expect(told()).toHaveLength(2);
  });

  it("configured as the README says", () => {
    const readme = readFileSync(new URL("README.md", import.meta.url), "utf8");
    const [, example = ""] = /<!-- example -->\n```json\n(.*?)```/s.exec(readme) ?? [];
    expect(configureFlat(JSON.parse(example).protocols.flat)?.files.map(({ path }) => path)).toEqual([
      "/etc/trilith/lists",
      "/run/cache.txt",
    ]);
    for (const raw of [undefined, null, false]) expect(configureFlat(raw)).toBeUndefined();
  });

  it.each([
    [true, /flat: expected an object such as/],
    [{}, /no files are named/],
    [{ files: [] }, /no files are named/],
    [{ file: "/a" }, /flat\.file: unknown key; known are files, settle/],
    [{ files: [5] }, /flat\.files\[0\]: expected an object/],
    [{ files: { service: "a" } }, /flat\.files\.path: expected the path/],
    [{ files: { path: "/a", format: "xml" } }, /format: expected one of json, yaml, lines, hosts, but got "xml"/],
    [{ files: { path: "/a", port: 0 } }, /port: expected a whole number from 1 to 65535/],
    [{ files: { path: "/a", service: "a b" } }, /service: expected a service's name/],
    [{ files: "/a", settle: "1" }, /missing unit/],
  ])("refuses %j", (raw, text) => {
    expect(() => configureFlat(raw)).toThrow(text);
  });
});
