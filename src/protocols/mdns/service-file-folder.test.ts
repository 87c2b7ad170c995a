// A folder of service files on a real disk: dropped, changed, vanished, half-written and bad ones.
import { mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { fakeClock } from "../../../test/simulated/clock.ts";
import { systemClock } from "../../base/clock.ts";
import { systemDisk } from "../../base/disk.ts";
import { type ServiceFiles, type ServiceFolder, watchServiceFiles } from "./service-file-folder.ts";

let folder: string;
let controller: AbortController;
let label: string;
let watched: ServiceFolder;
let seen: ServiceFiles[];
let ended: Promise<void>;

const fileOf = (name: string, port: number | string = 80, type = "_http._tcp"): string =>
  `<service-group><name replace-wildcards="yes">${name}</name>\n<service><type>${type}</type>\n<port>${port}</port></service></service-group>\n`;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "trilith-service-files-"));
  controller = new AbortController();
  label = "alpha";
  watch(folder);
});

afterEach(async () => {
  controller.abort();
  await ended;
  await rm(folder, { recursive: true, force: true });
});

function watch(path: string): void {
  watched = watchServiceFiles(path, { clock: systemClock, disk: systemDisk }, () => label);
  seen = [];
  const list = seen;
  ended = (async () => {
    for await (const files of watched.watch(controller.signal)) list.push(files);
  })();
}

/** The first list from now on (the present one included) of which something is true. */
async function until(what: (files: ServiceFiles) => boolean): Promise<ServiceFiles> {
  for (const deadline = Date.now() + 20_000; ; ) {
    const last = seen.at(-1);
    if (last !== undefined && what(last)) return last;
    if (Date.now() > deadline) throw new Error(`never came: last is ${JSON.stringify(last)}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const names = (files: ServiceFiles): string[] => files.groups.map(({ group }) => group.name);

test("files come, change and go; others than *.service are nothing", async () => {
  await until((files) => files.groups.length === 0);
  await writeFile(join(folder, "a.service"), fileOf("A on %h"));
  await writeFile(join(folder, "b.service.swp"), fileOf("B"));
  await writeFile(join(folder, ".c.service"), fileOf("C"));
  const [first] = (await until((files) => files.groups.length > 0)).groups;
  expect(first).toEqual({
    path: join(folder, "a.service"),
    group: { name: "A on alpha", services: [{ type: "_http._tcp", port: 80 }] },
  });
  await writeFile(join(folder, "new"), fileOf("A", 81));
  await rename(join(folder, "new"), join(folder, "a.service"));
  await until((files) => files.groups[0]?.group.services[0]?.port === 81);
  await rm(join(folder, "a.service"));
  expect((await until((files) => files.groups.length === 0)).complaints).toEqual([]);
  expect(seen.every((files) => names(files).every((name) => name.startsWith("A")))).toBe(true);
});

test("a bad file is named with line and reason, the others stay; mended it counts", async () => {
  await writeFile(join(folder, "good.service"), fileOf("Good"));
  await writeFile(join(folder, "bad.service"), fileOf("Bad", 70_000));
  const files = await until(({ complaints }) => complaints.length > 0);
  expect(names(files)).toEqual(["Good"]);
  expect(files.complaints).toEqual([
    {
      about: join(folder, "bad.service"),
      text: `${join(folder, "bad.service")}:3:1: port "70000": 0 to 65535 are allowed`,
    },
  ]);
  await writeFile(join(folder, "bad.service"), fileOf("Mended", 7000));
  const mended = await until(({ groups }) => groups.length === 2);
  expect([names(mended), mended.complaints]).toEqual([["Mended", "Good"], []]);
  // Bad again: what it said before is not said any more.
  await writeFile(join(folder, "bad.service"), fileOf("Bad", 70_000));
  expect(names(await until(({ complaints }) => complaints.length > 0))).toEqual(["Good"]);
});

test("half-written files are never taken, and what stood there before stays meanwhile", async () => {
  const clock = fakeClock();
  let text = fileOf("Before");
  let ring = (): void => {};
  const disk = {
    list: async () => ["a.service"],
    info: async () => ({ size: text.length, modifiedMs: 0, isDirectory: false, isFile: true, identity: "1" }),
    readBytes: async () => Buffer.from(text),
    bell: async (_path: string, callback: () => void) => {
      ring = callback;
      return { close() {} };
    },
  };
  const own = new AbortController();
  const lists: ServiceFiles[] = [];
  const done = (async () => {
    for await (const files of watchServiceFiles("/s", { clock, disk }, () => "alpha").watch(own.signal))
      lists.push(files);
  })();
  const write = async (content: string, ms: number): Promise<void> => {
    text = content;
    ring();
    await clock.advance(ms);
  };
  await clock.advance(100);
  const whole = fileOf("After", 8080);
  // Each piece is looked at, but not for long enough to count.
  for (let length = 0; length < whole.length - 1; length += 12) await write(whole.slice(0, length), 200);
  await write(whole, 200);
  expect(lists.map((files) => [names(files), files.complaints])).toEqual([
    [["Before"], []],
    [["After"], []],
  ]);
  // Left so, it is what it is.
  await write(whole.slice(0, 40), 1000);
  expect(names(lists.at(-1) as ServiceFiles)).toEqual([]);
  expect(lists.at(-1)?.complaints[0]?.text).toMatch(/^\/s\/a\.service:1:\d+: not well-formed XML/);
  own.abort();
  await done;
  expect(clock.timers).toBe(0);
});

test("of two files with one name and type the first stays; when it goes the other counts", async () => {
  await writeFile(join(folder, "z.service"), fileOf("Same"));
  await until(({ groups }) => groups.length === 1);
  await writeFile(join(folder, "a.service"), fileOf("same", 81));
  const files = await until(({ complaints }) => complaints.length > 0);
  expect(files.groups.map(({ path }) => path)).toEqual([join(folder, "z.service")]);
  expect(files.complaints[0]?.text).toContain("a.service: publishes");
  await rm(join(folder, "z.service"));
  const other = await until(({ groups }) => groups[0]?.path.endsWith("a.service") === true);
  expect(other.complaints).toEqual([]);
  await writeFile(join(folder, "b.service"), fileOf("Same", 22, "_ssh._tcp"));
  await until(({ groups }) => groups.length === 2);
});

test("the host's name changes: wildcards follow", async () => {
  await writeFile(join(folder, "a.service"), fileOf("On %h"));
  await until((files) => names(files)[0] === "On alpha");
  label = "alpha-2";
  watched.ring();
  await until((files) => names(files)[0] === "On alpha-2");
  label = "x".repeat(63);
  watched.ring();
  const long = await until(({ groups }) => groups.length === 0);
  expect(long.complaints[0]?.text).toMatch(/66 bytes as with the host's name in it; 63 are allowed/);
});

test("a folder that is not there is told, and found when it comes", async () => {
  controller.abort();
  await ended;
  controller = new AbortController();
  watch(join(folder, "later"));
  const files = await until(() => true);
  expect(files.complaints[0]?.text).toContain("cannot be read");
  await mkdir(join(folder, "later"));
  await writeFile(join(folder, "later", "a.service"), fileOf("A"));
  // Looked for every few seconds.
  expect((await until(({ groups }) => groups.length === 1)).complaints).toEqual([]);
});
