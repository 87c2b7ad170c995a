// Tests who an agent is: its node's ID, and the address it tells others to reach it at: loopback as long as it speaks to nobody else, then one of this host's.
import { expect, test } from "vitest";
import { systemClock } from "../base/clock.ts";
import { memoryDurable } from "../base/durable.ts";
import { type Interface, systemNet } from "../base/net.ts";
import { systemProcesses } from "../base/process.ts";
import { systemRandom } from "../base/random.ts";
import { defaultSettings, type Settings } from "../contracts/settings.ts";
import { selfOf } from "./self.ts";

const at = (name: string, address: string, internal = false): Interface => ({
  name,
  address,
  family: address.includes(":") ? 6 : 4,
  cidr: `${address}/${address.includes(":") ? 64 : 24}`,
  internal,
});
const INTERFACES = [
  at("lo", "127.0.0.1", true),
  at("docker0", "172.17.0.1"),
  at("eth0", "fe80::1"),
  at("eth0", "10.9.0.1"),
  at("eth0", "2001:db8::1"),
];

const MACHINE = {
  clock: systemClock,
  random: systemRandom,
  net: { ...systemNet, interfaces: () => INTERFACES },
  processes: systemProcesses,
};

async function advertised(settings: Partial<Settings>): Promise<string> {
  const self = await selfOf({ ...defaultSettings, ...settings }, memoryDurable(), MACHINE, new Map());
  return self.advertiseAddress;
}

test("a node's new ID is a UUID with which no name of letters begins; it stays", async () => {
  for (const first of ["00", "63", "64", "ba", "db", "ff"]) {
    const random = { ...systemRandom, uuid: () => `${first}12d3c4-0000-4000-8000-0123456789ab` };
    const durable = memoryDurable();
    const { nodeId } = await selfOf(defaultSettings, durable, { ...MACHINE, random }, new Map());
    expect(nodeId).toMatch(/^\d\d12d3c4-0000-4000-8000-0123456789ab$/);
    expect((await selfOf(defaultSettings, durable, MACHINE, new Map())).nodeId).toBe(nodeId);
  }
  const told = { ...defaultSettings, nodeId: "ba12d3c4-0000-4000-8000-0123456789ab" };
  expect((await selfOf(told, memoryDurable(), MACHINE, new Map())).nodeId).toBe(told.nodeId);
});

test.each([
  [{}, "127.0.0.1"],
  [{ clientAddress: "localhost" }, "127.0.0.1"],
  [{ clientAddress: "127.0.0.1 ::1" }, "127.0.0.1"],
  [{ clientAddress: "0.0.0.0" }, "10.9.0.1"],
  [{ clientAddress: "10.9.0.1" }, "10.9.0.1"],
  [{ clientAddress: "127.0.0.1 10.9.0.1" }, "10.9.0.1"],
  [{ clientAddress: "127.0.0.1,2001:db8::1" }, "2001:db8::1"],
  [{ clientAddress: "127.0.0.1 0.0.0.0" }, "10.9.0.1"],
  [{ clientAddress: "127.0.0.1 10.9.0.1", bindAddress: "10.9.0.7" }, "10.9.0.7"],
  [{ clientAddress: "127.0.0.1 10.9.0.1", advertiseAddress: "192.0.2.1" }, "192.0.2.1"],
  [{ join: { servers: ["http://10.9.0.2:8500"], livenessMs: 15_000 } }, "10.9.0.1"],
] satisfies [Partial<Settings>, string][])("%j: others reach it at %s", async (settings, address) => {
  expect(await advertised(settings)).toBe(address);
});
