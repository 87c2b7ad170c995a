// What enters through any dialect is found through every other: all ways in against all ways out, while it is well, ill, well again, and gone.
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { haveAvahiLan } from "../support/avahi-lan.ts";
import { entriesOf, served } from "../support/everything/entries.ts";
import { exitsOf } from "../support/everything/exits.ts";
import { type Machine, startMachine } from "../support/everything/machine.ts";
import type { Entry, Exit } from "../support/everything/model.ts";
import { EXCEPTIONS, excepted, faults, tableOf } from "../support/everything/table.ts";
import { inside, runInTailnet } from "../support/minidisc.ts";
import { eventually, havePrograms } from "../support/peers.ts";
import { haveKazoo } from "../support/serversets.ts";
import { haveZooKeeper } from "../support/zookeeper.ts";

const PROGRAMS = ["unshare", "ip", "dockerd", "docker", "iptables", "etcd", "dig", "curl", "cc"];
const PAGE = join(import.meta.dirname, "../../docs/everything.md");
const able =
  inside ||
  ((await havePrograms(...PROGRAMS)) && (await haveAvahiLan()) && (await haveZooKeeper()) && (await haveKazoo()));
const suite = (inside ? describe : (): void => {}) as typeof describe;

(inside ? (): void => {} : describe.skipIf(!able))("everything through everything", () => {
  it("passes on a host of its own", () => runInTailnet(import.meta.filename, 390_000), 400_000);
});

// A try is the whole file once more, on a new host.
suite("what enters through any dialect", { retry: 0 }, () => {
  let machine: Machine;
  let entries: readonly Entry[];
  let exits: readonly Exit[];
  beforeAll(async () => {
    machine = await startMachine();
    entries = entriesOf(machine);
    exits = exitsOf(machine);
    const { here, far } = served(entries);
    await machine.serve(here);
    await machine.serve(far, machine.far);
    await machine.registrator("-ip", machine.here.ipv4);
  });
  afterAll(() => machine?.close());
  // Each goes on from where the one before ended.
  let broken = false;
  beforeEach(({ skip }) => skip(broken, "what it begins with was not reached"));

  /** Every exit comes to show exactly what it should; what still differs at last is told of all of them together. */
  async function shown(wanted: (exit: Exit) => readonly Entry[]): Promise<void> {
    const services = entries.map(({ service }) => service);
    const end = Date.now() + 45_000;
    broken = true;
    const wrong: string[] = [];
    for (const exit of exits) {
      let last: readonly string[] = [];
      const look = async (): Promise<boolean> => {
        last = faults(exit, wanted(exit), await exit.shows(services));
        return last.length === 0;
      };
      await eventually(exit.title, look, Math.max(3_000, end - Date.now())).catch((error: Error) => {
        const seen = last.length > 0 ? last : [String(error.cause ?? error)];
        wrong.push(...seen.map((one) => `${exit.title}: ${one}`));
      });
    }
    broken = wrong.length > 0;
    if (broken) throw new Error(wrong.join("\n"));
  }

  it("is found through every other, once, as far as that can say it", async () => {
    for (const entry of entries) await entry.enter();
    await shown(() => entries);
  }, 150_000);

  it("is not found while it is critical, but where that is told, too", async () => {
    await Promise.all(entries.map(({ health }) => health?.sick()));
    const well = entries.filter(({ health }) => health === undefined);
    await shown(({ showsSick }) => (showsSick === true ? entries : well));
  }, 150_000);

  it("is found again when it is well", async () => {
    await Promise.all(entries.map(({ health }) => health?.well()));
    await shown(() => entries);
  }, 150_000);

  it("is gone everywhere when it leaves", async () => {
    for (const entry of entries) await entry.leave();
    await shown(() => []);
  }, 150_000);

  it("is told to users as it is: no exception without need, and the page has them all", async () => {
    const titles = new Set(exits.map(({ title }) => title));
    for (const { exits: of, reason } of EXCEPTIONS) {
      expect(of.filter((title) => !titles.has(title))).toEqual([]);
      for (const exit of exits.filter(({ title }) => of.includes(title)))
        expect(entries.some((entry) => excepted(exit, entry) === reason)).toBe(true);
    }
    const page = tableOf(entries, exits);
    if (process.env["UPDATE"] === "1") await writeFile(PAGE, page);
    expect(await readFile(PAGE, "utf8")).toBe(page);
  });
});
