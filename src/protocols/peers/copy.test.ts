// Another host's copy while the store takes its time: what comes meanwhile counts.
import { expect, it } from "vitest";
import { fakeClock } from "../../../test/simulated/clock.ts";
import { testDirectory } from "../../../test/support/directory.ts";
import { silentLog } from "../../base/log.ts";
import type { Directory } from "../../contracts/directory.ts";
import type { Instance } from "../../model/instance.ts";
import type { Reason } from "../../model/reason.ts";
import { type Change, keyOf } from "../../model/record.ts";
import { type Claim, Copy } from "./copy.ts";
import { type OwnRow, PEERS_VERSION } from "./lines.ts";

const NODE: OwnRow = {
  table: "node",
  id: "",
  value: { id: "1", name: "beta", address: "10.0.0.2", datacenter: "dc1", taggedAddresses: {}, labels: {} },
};
const web = (id: string, port: number): OwnRow => {
  const origin = { source: "test", authority: "first-hand" } as const;
  const value: Instance = { id, name: "web", tags: [], labels: {}, address: "", port, node: "beta", origin } as never;
  return { table: "service", id, value };
};
const claim = (life: string): Claim => ({
  hello: { kind: "hello", version: PEERS_VERSION, datacenter: "dc1", node: "beta", nodeId: "1", life },
  place: "10.0.0.2:8505",
});

function world() {
  const clock = fakeClock();
  const directory = testDirectory(clock);
  const written: Change[] = [];
  /** Held back: nothing is written before this resolves. */
  const store: { slow?: Promise<void> } = {};
  const write: Directory["write"] = async (changes, expected, signal) => {
    written.push(...changes);
    await store.slow;
    return await directory.write(changes, expected, signal);
  };
  const copy = new Copy(
    {
      clock,
      directory: { ...directory, write },
      log: silentLog,
      vouch: async (node, life, _ttlMs, signal) => {
        await directory.write([{ op: "put", table: "alive", key: keyOf.alive(node), value: { node, life } }]);
        await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
      },
    },
    claim("1"),
  );
  const slow = (): (() => void) => {
    let go = (): void => {};
    store.slow = new Promise((resolve) => {
      go = resolve;
    });
    return go;
  };
  return { clock, directory, written, copy, slow };
}

it("keeps the reason for what goes while something else is being written", async () => {
  const { clock, directory, written, copy, slow } = world();
  const { release } = copy.hold(claim("1"), new AbortController());
  copy.take(true, [NODE, web("a", 1), web("b", 1)]);
  await clock.settle();
  expect(directory.view().residents("web")).toHaveLength(2);
  const go = slow();
  copy.take(false, [web("b", 2)]);
  await clock.settle();
  const why: Reason = { code: "expired", text: "was not heard", confirmed: false, atMs: 1 };
  copy.take(false, [{ table: "service", id: "a", value: undefined, why }]);
  go();
  await clock.settle();
  expect(directory.view().residents("web")).toHaveLength(1);
  expect(written.filter(({ op }) => op === "delete")).toMatchObject([{ why }]);
  copy.stop();
  await release();
});

it("lives where its host is back while the goodbye of its life before is being written", async () => {
  const { clock, directory, copy, slow } = world();
  const { release } = copy.hold(claim("1"), new AbortController());
  copy.take(true, [NODE, web("a", 1)]);
  await clock.settle();
  await release();
  const go = slow();
  const leaving = copy.goodbye(false);
  await clock.settle();
  const again = copy.hold(claim("2"), new AbortController());
  go();
  await leaving;
  expect(copy.living).toBe(true);
  copy.take(true, [NODE, web("a", 2)]);
  await clock.settle();
  expect(directory.view().residents("web")).toMatchObject([{ instance: { port: 2 } }]);
  copy.stop();
  expect(copy.living).toBe(false);
  await again.release();
});
