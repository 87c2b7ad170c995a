// What is held of an etcd that was replaced, and for how long: batches of our own making, on a clock that the test moves.
import { expect, it, vi } from "vitest";
import { fakeClock } from "../../../test/simulated/clock.ts";
import { testDirectory } from "../../../test/support/directory.ts";
import { seededRandom } from "../../../test/support/lookup.ts";
import { Bell } from "../../base/bells.ts";
import type { RangeBatch } from "../../base/etcd/follow.ts";
import type { KeyValue } from "../../base/etcd/proto.ts";
import { silentLog } from "../../base/log.ts";
import type { SourceList } from "../../contracts/source.ts";
import { configureEtcd } from "./config.ts";
import { EtcdSource } from "./source.ts";

const told: RangeBatch[] = [];
const bell = new Bell();

vi.mock("../../base/etcd/client.ts", () => ({ createClient: async () => ({ close() {} }) }));
vi.mock("../../base/etcd/follow.ts", () => ({
  async *readRange() {
    yield told.shift();
  },
  async *followRange(_range: unknown, _after: number, signal: AbortSignal) {
    signal.addEventListener("abort", bell.ring, { once: true });
    for (; !signal.aborted; await bell.heard()) yield* told.splice(0);
  },
}));

/** All there is: these keys. */
function whole(keys: readonly string[], replaced?: true): void {
  const kvs = keys.map(
    (key, i) =>
      ({
        ...{ key: Buffer.from(`/services/web/${key}`), value: Buffer.from(`10.0.0.${i + 1}:80`) },
        ...{ createRevision: 1, modRevision: 1, version: 1, lease: 0 },
      }) satisfies KeyValue,
  );
  told.push({ kind: "whole", revision: 1, complete: true, kvs, ...(replaced === undefined ? {} : { replaced }) });
  bell.ring();
}

/** A source that is read, and read anew where the agent could not take a list over. */
async function begin() {
  const clock = fakeClock();
  const config = configureEtcd({ endpoints: ["http://127.0.0.1:2379"], registrator: "/services", hold: "60s" });
  if (config === undefined) throw new Error("off");
  const source = new EtcdSource(config, {
    ...{ clock, random: seededRandom(1), log: silentLog, directory: testDirectory(clock), node: "alpha" },
    ...{ disk: { readBytes: async () => new Uint8Array() }, tcp: undefined },
  });
  const stop = new AbortController();
  const lists: SourceList[] = [];
  const state = { breaks: false };
  whole(["a", "b"]);
  const reading = (async () => {
    while (!stop.signal.aborted)
      for await (const list of source.watch(stop.signal)) {
        lists.push(list);
        if (!state.breaks) continue;
        state.breaks = false;
        whole(["a", "c"]);
        break;
      }
  })();
  await clock.advance(100);
  const count = (): number | undefined => lists.at(-1)?.list.length;
  expect(count()).toBe(2);
  return {
    ...{ clock, count, state },
    async end() {
      stop.abort(new Error("enough"));
      await clock.advance(100);
      await reading;
      expect(clock.timers).toBe(0);
    },
  };
}

it("holds what came back and went missing once more for as long as the first time", async () => {
  const { clock, count, end } = await begin();
  whole(["a"], true);
  await clock.advance(50_000);
  whole(["a", "b"]);
  await clock.advance(1000);
  whole(["a"], true);
  // The first hold is over by now, the second is not.
  await clock.advance(20_000);
  expect(count()).toBe(2);
  await clock.advance(45_000);
  expect(count()).toBe(1);
  await end();
});

it("does not hold for ever what is held while it is begun anew", async () => {
  const { clock, count, state, end } = await begin();
  state.breaks = true;
  whole(["a", "c"], true);
  await clock.advance(1000);
  expect([count(), state.breaks]).toEqual([3, false]);
  await clock.advance(70_000);
  expect(count()).toBe(2);
  await end();
});
