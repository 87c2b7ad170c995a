// Mixed fleets: pairs and triples of Trilith, Go and Python on one host, whichever leads is killed, and whom a Trilith can keep is kept.
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Fleet, inside, type Kind, names, type Process, runInTailnet } from "../support/minidisc.ts";
import { havePrograms, ownFolder } from "../support/peers.ts";

const ready = inside || (await havePrograms("unshare", "ip"));
const suite = inside ? describe : (): void => {};

(inside ? (): void => {} : describe.skipIf(!ready))("on a tailnet", () => {
  it("passes", () => runInTailnet(import.meta.filename, 500_000), 510_000);
});

suite("mixed fleets", () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let fleet: Fleet;
  beforeAll(async () => {
    folder = await ownFolder("minidisc-mixed");
    fleet = new Fleet(folder.path);
  });
  afterAll(async () => {
    await fleet.end();
    await folder.remove();
  });

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
  // Of several originals under an original the next one to lead would lose the others, if it were not the Trilith that leads next. Who that is
  // would be luck without its doing: so it is one among many.
  const many: [Kind, ...Kind[]] = ["go", "go", "go", "go", "go", "go", "trilith"];
  mixed.push(["go", "trilith", "go", "python"]);

  /** A fleet on host n whose leader is killed. */
  async function survives(n: number, mix: readonly [Kind, ...Kind[]]): Promise<void> {
    const processes: Process[] = [];
    try {
      for (const [at, kind] of mix.entries()) processes.push(await fleet.start(n, kind, `${kind}${at}`));
      const left = mix.map((kind, at) => `${kind}${at}`);
      const [leader = "", ...delegates] = left;
      await fleet.lists(n, [...left].sort().join(" "));
      await processes[0]?.kill();
      if (mix.slice(1).includes("trilith") || delegates.length === 1) {
        await fleet.lists(n, [...delegates].sort().join(" "));
        // And it stays so, over the pings of the original implementations.
        await new Promise((resolve) => setTimeout(resolve, 6_500));
        await fleet.lists(n, [...delegates].sort().join(" "));
      }
      expect(await names(`100.64.0.${n}`)).not.toContain(leader);
    } finally {
      // Nobody is left on the host for another try.
      await Promise.all(processes.map((each) => each.kill()));
    }
  }

  // Some at a time, each on a host of its own: each is three programs.
  describe.each([0, 1, 2])("mixed, part %i", (part) => {
    it.concurrent.each(mixed.map((mix, i) => [i, mix] as const).filter(([i]) => i % 3 === part))(
      "%i: %s",
      (i, mix) => survives(2 + Math.floor(i / 3), mix),
      120_000,
    );
  });

  // One after the other, by themselves: who leads next is a race, which other fleets on the machine must not decide.
  it.each([8, 9])("many originals, on host %i", (n) => survives(n, many), 120_000);
});
