// Settings that do not exist, at every level that an agent reads itself: refused with the one that was likely meant.
import { expect, it } from "vitest";
import { InputError } from "../base/error.ts";
import { defaultSettings } from "../contracts/settings.ts";
import { settingsOf } from "../joins/settings.ts";
import { createTrilith } from "../trilith.ts";

const created = (given: object, machine?: object) => () =>
  createTrilith({ dev: true, ...given }, machine as Parameters<typeof createTrilith>[1]);

it.each([
  [{ nod: "a" }, /createTrilith: nod: there is no such option: did you mean "node"\?/],
  [{ data_dir: "/x" }, /did you mean "dataDir"\?/],
  [{ guard: { ...defaultSettings.guard, dropshare: 0.5 } }, /createTrilith: guard: dropshare: .*"dropShare"/],
  [
    { guard: { ...defaultSettings.guard, perService: { web: { holdms: 1 } } } },
    /createTrilith: guard\.perService\.web: holdms: .*"holdMs"/,
  ],
  [{ scripts: { fromApi: true, fromFile: true } }, /createTrilith: scripts: fromFile: .*"fromFiles"/],
  [{ log: { level: "loud", format: "text" } }, /createTrilith: log: level: "loud": expected one of trace/],
  [{ join: { servers: ["http://a"], livenessMs: 1, tokens: "x" } }, /createTrilith: join: tokens: .*"token"/],
  [{ peers: { find: "wan" } }, /createTrilith: peers: find: "wan": expected one of/],
  [{ etcd: { endpoint: [] } }, /createTrilith: etcd: endpoint: .*"endpoints"/],
  [{ checkTls: { cafile: "x" } }, /createTrilith: checkTls: cafile: .*"caFile"/],
  [{ magic: { v5: "x" } }, /createTrilith: magic: v5: there is no such option/],
  [{ httpPort: "8500" }, /createTrilith: httpPort: "8500": expected a port/],
  [
    { protocols: { dns: { prot: 1 } }, nodeLabels: { a: 1 } },
    /createTrilith: nodeLabels: .*expected an object of texts/,
  ],
])("%j is refused", (given, says) => {
  expect(created(given)).toThrow(InputError);
  expect(created(given)).toThrow(says);
});

it("refuses pieces of a machine that there are not, and takes undefined for absent", () => {
  expect(created({}, { clocks: {} })).toThrow(/second argument: clocks: .*"clock"/);
  expect(created({}, { log: console.log })).toThrow(/second argument: log: .*expected an object with info/);
  const agent = created({ node: undefined, guard: undefined, log: undefined }, { log: undefined, clock: undefined })();
  expect(agent.settings).toEqual({ ...defaultSettings, dev: true });
});

it("what is told of the guard leaves the rest of it as usual", () => {
  const told = { dev: true, guard: { panicPercent: 40, holdMs: undefined } } as unknown as Parameters<
    typeof settingsOf
  >[0];
  expect(settingsOf(told).guard).toEqual({ ...defaultSettings.guard, panicPercent: 40 });
});
