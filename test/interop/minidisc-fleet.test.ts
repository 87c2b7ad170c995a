// Minidisc processes on one host: the leader is killed, delegates die and hang, and nobody is lost.
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Fleet, inside, listed, names, type Process, runInTailnet } from "../support/minidisc.ts";
import { eventually, havePrograms, ownFolder } from "../support/peers.ts";

const ready = inside || (await havePrograms("unshare", "ip"));
const suite = inside ? describe : (): void => {};
/** Set to measure: so many takeovers among Triliths, the times on standard output. */
const runs = Number(process.env["TRILITH_TAKEOVERS"] ?? 2);

(inside ? (): void => {} : describe.skipIf(!ready))("on a tailnet", () => {
  it("passes", () => runInTailnet(import.meta.filename, 170_000), 180_000);
});

suite("a fleet", () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let fleet: Fleet;
  beforeAll(async () => {
    folder = await ownFolder("minidisc-fleet");
    fleet = new Fleet(folder.path);
  });
  afterAll(async () => {
    await fleet.end();
    await folder.remove();
  });

  it("of Triliths has the killed leader's port taken and all its delegates listed again", async () => {
    await fleet.clear(1);
    const running = new Map<string, Process>();
    for (const name of ["s0", "s1", "s2"]) running.set(name, await fleet.start(1, "trilith", name));
    const times: number[] = [];
    for (let run = 0; run < runs; run++) {
      await fleet.lists(1, [...running.keys()].sort().join(" "));
      // Who leads lists itself first.
      const leader = (await listed("100.64.0.1"))?.[0]?.name as string;
      await running.get(leader)?.kill();
      const before = performance.now();
      running.delete(leader);
      await fleet.lists(1, [...running.keys()].sort().join(" "));
      times.push(performance.now() - before);
      running.set(`s${run + 3}`, await fleet.start(1, "trilith", `s${run + 3}`));
    }
    times.sort((a, b) => a - b);
    console.log(`takeovers: ${times.map((ms) => ms.toFixed(0)).join(" ")} ms`);
    await Promise.all([...running.values()].map((each) => each.kill()));
  }, 100_000);

  describe("delegates that die, hang or are slow", () => {
    const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

    it.concurrent("are gone at the next request, hide nobody, and are back", async () => {
      await fleet.clear(6);
      await fleet.start(6, "trilith", "lead");
      const [go, python] = [await fleet.start(6, "go", "gold"), await fleet.start(6, "python", "serpent")];
      const other = await fleet.start(6, "trilith", "other");
      await fleet.lists(6, "gold lead other serpent");
      await go.kill();
      expect(await names("100.64.0.6")).toBe("lead other serpent");
      await other.kill();
      await fleet.lists(6, "lead serpent");
      python.child.kill("SIGSTOP");
      // Within the two seconds that an original client waits.
      expect(await names("100.64.0.6", 1_900)).toBe("lead");
      python.child.kill("SIGCONT");
      await fleet.lists(6, "lead serpent");
    }, 60_000);

    it.concurrent("come back to a Go leader that has dropped them", async () => {
      await fleet.clear(7);
      await fleet.start(7, "go", "lead");
      const slow = await fleet.start(7, "trilith", "slow");
      await fleet.lists(7, "lead slow");
      slow.child.kill("SIGSTOP");
      expect(await names("100.64.0.7")).toBe("lead");
      slow.child.kill("SIGCONT");
      await fleet.lists(7, "lead slow");
    }, 60_000);

    it.concurrent("register with a Python leader once, also where it was slow or others break its replies", async () => {
      await fleet.clear(8);
      const leader = await fleet.start(8, "python", "lead");
      leader.child.kill("SIGSTOP");
      const once = fleet.start(8, "trilith", "once");
      await pause(3_000);
      leader.child.kill("SIGCONT");
      await once;
      await fleet.lists(8, "lead once");
      const hung = await fleet.start(8, "go", "hung");
      await fleet.lists(8, "hung lead once");
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
