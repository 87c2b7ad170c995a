// What is held of a Consul's catalog: numbers that only grow, late answers, what is missing, and what this host wrote itself.
import { expect, it } from "vitest";
import type { Batch, Row } from "../../contracts/storage.ts";
import type { Tables } from "../../model/record.ts";
import { Mirror } from "./consul-mirror.ts";
import { type Held, nodeRow, serviceRows } from "./consul-rows.ts";

const node = (name: string, index: number, more: object = {}): Held =>
  nodeRow({ Node: name, Address: "10.0.0.1", Datacenter: "dc1", CreateIndex: 1, ModifyIndex: index, ...more });

const service = (on: string, id: string, index: number, more: object = {}, checks: readonly object[] = []): Held[] => [
  ...serviceRows([
    {
      Node: { Node: on, Address: "10.0.0.1", Datacenter: "dc1", CreateIndex: 1, ModifyIndex: 1 },
      Service: { ID: id, Service: "web", Port: 80, Address: "", CreateIndex: 1, ModifyIndex: index, ...more },
      Checks: checks,
    },
  ]),
];

function mirror(after = 1): { mirror: Mirror; told: Batch[]; rows(): readonly Row[] } {
  const told: Batch[] = [];
  const held = new Mirror({ node: "Own", after, tell: (batch) => told.push(batch) });
  const rows = (): readonly Row[] => {
    const [batch] = told.splice(0);
    return batch?.kind === "delta" ? batch.rows : [];
  };
  return { mirror: held, told, rows };
}

it("a whole catalog has one number beyond all that was known, and each record once, as it was last", () => {
  const { mirror: held } = mirror(50);
  const batch = held.begin([node("a", 20), node("a", 30, { Address: "10.0.0.9" }), node("b", 90)], 40);
  expect(batch).toMatchObject({ kind: "snapshot", index: 51, complete: true });
  const rows = batch.kind === "snapshot" ? batch.rows : [];
  expect(rows.map(({ key, modifyIndex }) => [key, modifyIndex])).toEqual([
    ["a", 30],
    ["b", 51],
  ]);
  expect(rows[0]?.value).toMatchObject({ address: "10.0.0.9" });
});

it("another host's record is told again with its newer number, though nothing else of it changed", () => {
  const { mirror: held, rows } = mirror();
  held.begin([node("a", 5)], 10);
  held.change([node("a", 20)], [], 20);
  expect(rows()).toMatchObject([{ key: "a", modifyIndex: 20 }]);
});

it("an answer that comes late gets a later number than the server's; one that is older than what is held is nothing", () => {
  const { mirror: held, told, rows } = mirror();
  held.begin([node("a", 5)], 10);
  held.change([node("b", 30)], [], 30);
  expect(rows()).toMatchObject([{ key: "b", modifyIndex: 30 }]);
  held.change([node("c", 20)], [], 20);
  expect(rows()).toMatchObject([{ key: "c", modifyIndex: 31 }]);
  held.change([node("a", 4, { Address: "10.9.9.9" })], [], 40);
  expect(told).toEqual([]);
  expect(held.get("node", "a")?.value).toMatchObject({ address: "10.0.0.1" });
});

it("what is missing from a list is gone, unless it is younger than the list", () => {
  const { mirror: held, rows } = mirror();
  held.begin([node("a", 5), node("b", 6)], 10);
  held.change([node("young", 25)], [], 25);
  rows();
  held.replace("node", [node("a", 5)], 20, () => true);
  expect(rows().map(({ key, value }) => [key, value])).toEqual([["b", undefined]]);
  expect([...held.values()].map(({ key }) => key)).toEqual(["a", "young"]);
});

it("what this host wrote comes back without what Consul has no place for, and stays as it was written", () => {
  const { mirror: held, told } = mirror();
  held.begin([node("own", 5)], 10);
  const [, written] = service("own", "w", 0);
  const own = {
    ...(written as Held),
    value: { ...(written as Held).value, origin: { source: "api", authority: "first-hand" } } as Tables["service"],
  };
  held.emit([{ ...own, serverIndex: 12 }], [], 12);
  told.splice(0);
  held.change(service("own", "w", 13), [], 13);
  expect(told).toEqual([]);
  expect(held.get("service", own.key)).toMatchObject({ serverIndex: 13, value: { origin: { source: "api" } } });
  held.change(service("own", "w", 14, { Port: 81 }), [], 14);
  expect(told).toMatchObject([{ rows: [{ key: own.key, value: { port: 81 } }] }]);
});

it("an instance that drains no more is news, though only a check is missing", () => {
  const { mirror: held, rows } = mirror();
  const drain = { Node: "a", CheckID: "trilith-draining:w", ServiceID: "w", Status: "critical", ModifyIndex: 12 };
  held.begin(service("a", "w", 8, {}, [drain]), 12);
  expect([...held.instancesOf("WEB")][0]?.value).toMatchObject({ draining: true });
  held.change(service("a", "w", 8), [], 15);
  expect(rows().map(({ table, value }) => [table, (value as Tables["service"]).draining === true])).toEqual([
    ["service", false],
  ]);
});

it("finds instances by their service and checks by their instance, also after they moved", () => {
  const { mirror: held } = mirror();
  const check = { Node: "a", CheckID: "c", ServiceID: "w", Status: "passing", Name: "c", ModifyIndex: 9 };
  held.begin(service("a", "w", 8, {}, [check]), 10);
  expect([...held.checksOf("a", "w")].map(({ key }) => key)).toEqual(["a\u0000c"]);
  held.change(service("a", "w", 11, { Service: "api" }), [], 11);
  expect([...held.serviceNames()]).toEqual(["api"]);
  const [instance] = held.instancesOf("api");
  held.change([], [instance as Held, ...held.checksOf("a", "w")], 12);
  expect([[...held.serviceNames()], [...held.checksOf("a", "w")]]).toEqual([[], []]);
});
