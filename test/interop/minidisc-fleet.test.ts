// Minidisc processes of every kind on one host: whoever leads is killed, delegates die and hang, and nobody is lost.
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  type FakeTailscaled,
  fakeTailscaled,
  inside,
  type Kind,
  listed,
  names,
  type Process,
  runInTailnet,
  startProcess,
} from "../support/minidisc.ts";
import { eventually, havePrograms, ownFolder } from "../support/peers.ts";

const ready = inside || (await havePrograms("unshare", "ip"));
const suite = inside ? describe : (): void => {};
/** Set to measure: so many takeovers among Triliths, the times on standard output. */
const runs = Number(process.env["TRILITH_TAKEOVERS"] ?? 2);

(inside ? (): void => {} : describe.skipIf(!ready))("on a tailnet", () => {
  it("passes", () => runInTailnet(import.meta.filename, 110_000), 120_000);
});

suite("a fleet", () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  const hosts = new Map<string, FakeTailscaled>();
  const all: Process[] = [];
  let ports = 8000;

  const host = async (n: number): Promise<FakeTailscaled> => {
    const ip = `100.64.0.${n}`;
    const known = hosts.get(ip);
    if (known !== undefined) return known;
    const made = await fakeTailscaled(join(folder.path, `sock-${n}`), { name: `host${n}`, ip });
    hosts.set(ip, made);
    return made;
  };
  const start = async (n: number, kind: Kind, name: string): Promise<Process> => {
    const process = await startProcess(kind, await host(n), `${name}:${ports++}`);
    all.push(process);
    return process;
  };
  const lists = (n: number, expected: string, timeoutMs = 20_000): Promise<unknown> =>
    eventually(`host ${n} lists "${expected}"`, async () => (await names(`100.64.0.${n}`)) === expected, timeoutMs);

  beforeAll(async () => {
    folder = await ownFolder("minidisc-fleet");
  });
  afterAll(async () => {
    await Promise.all(all.map((each) => each.kill()));
    await Promise.all([...hosts.values()].map((each) => each.close()));
    await folder.remove();
  });

  it("of Triliths has the killed leader's port taken and all its delegates listed again", async () => {
    const fleet = new Map<string, Process>();
    for (const name of ["s0", "s1", "s2"]) fleet.set(name, await start(1, "trilith", name));
    const times: number[] = [];
    for (let run = 0; run < runs; run++) {
      await lists(1, [...fleet.keys()].sort().join(" "));
      // Who leads lists itself first.
      const leader = (await listed("100.64.0.1"))?.[0]?.name as string;
      await fleet.get(leader)?.kill();
      const before = performance.now();
      fleet.delete(leader);
      await lists(1, [...fleet.keys()].sort().join(" "));
      times.push(performance.now() - before);
      fleet.set(`s${run + 3}`, await start(1, "trilith", `s${run + 3}`));
    }
    times.sort((a, b) => a - b);
    console.log(`takeovers: ${times.map((ms) => ms.toFixed(0)).join(" ")} ms`);
    await Promise.all([...fleet.values()].map((each) => each.kill()));
  }, 100_000);

  const kinds = ["trilith", "go", "python"] as const;
  const mixed = kinds.flatMap((leader) =>
    kinds.flatMap((first, i) => [
      ...(leader === "trilith" || first === "trilith" ? [[leader, first]] : []),
      ...kinds
        .slice(i)
        .filter((second) => [leader, first, second].includes("trilith"))
        .map((second) => [leader, first, second]),
    ]),
  ) as [Kind, ...Kind[]][];

  // Two at a time: each is three programs.
  describe.each([0, 1, 2, 3])("mixed, part %i", (part) => {
    it.concurrent.each(mixed.map((fleet, i) => [i, fleet] as const).filter(([i]) => i % 4 === part))(
      "%i: %s",
      async (i, fleet) => {
        const n = 2 + (i >> 2);
        const processes: Process[] = [];
        for (const [at, kind] of fleet.entries()) processes.push(await start(n, kind, `${kind}${at}`));
        const left = fleet.map((kind, at) => `${kind}${at}`);
        const [leader = "", ...delegates] = left;
        await lists(n, [...left].sort().join(" "));
        await processes[0]?.kill();
        if (fleet.slice(1).includes("trilith") || delegates.length === 1) {
          await lists(n, [...delegates].sort().join(" "));
          // And it stays so, over the pings of the original implementations.
          await new Promise((resolve) => setTimeout(resolve, 6_500));
          await lists(n, [...delegates].sort().join(" "));
        }
        expect(await names(`100.64.0.${n}`)).not.toContain(leader);
        await Promise.all(processes.map((each) => each.kill()));
      },
      60_000,
    );
  });

  describe("delegates that die, hang or are slow", () => {
    const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

    it.concurrent("are gone at the next request, hide nobody, and are back", async () => {
      await start(6, "trilith", "lead");
      const [go, python] = [await start(6, "go", "gold"), await start(6, "python", "serpent")];
      const other = await start(6, "trilith", "other");
      await lists(6, "gold lead other serpent");
      await go.kill();
      expect(await names("100.64.0.6")).toBe("lead other serpent");
      await other.kill();
      await lists(6, "lead serpent");
      python.child.kill("SIGSTOP");
      // Within the two seconds that an original client waits.
      expect(await names("100.64.0.6", 1_900)).toBe("lead");
      python.child.kill("SIGCONT");
      await lists(6, "lead serpent");
    }, 60_000);

    it.concurrent("come back to a Go leader that has dropped them", async () => {
      await start(7, "go", "lead");
      const slow = await start(7, "trilith", "slow");
      await lists(7, "lead slow");
      slow.child.kill("SIGSTOP");
      expect(await names("100.64.0.7")).toBe("lead");
      slow.child.kill("SIGCONT");
      await lists(7, "lead slow");
    }, 60_000);

    it.concurrent("register with a Python leader once, also where it was slow or others break its replies", async () => {
      const leader = await start(8, "python", "lead");
      leader.child.kill("SIGSTOP");
      const once = startProcess("trilith", await host(8), "once:80");
      await pause(3_000);
      leader.child.kill("SIGCONT");
      all.push(await once);
      await lists(8, "lead once");
      const hung = await start(8, "go", "hung");
      await lists(8, "hung lead once");
      hung.child.kill("SIGSTOP");
      await pause(6_000);
      hung.child.kill("SIGCONT");
      // What becomes of the Go process is for the two of them.
      const ours = async (): Promise<string> => (await names("100.64.0.8")).replaceAll(/hung ?/g, "");
      await eventually("both are listed", async () => (await ours()) === "lead once");
      await pause(6_000);
      expect(await ours()).toBe("lead once");
    }, 60_000);
  });
});
