// What the killed program writes, so that the content alone tells whether anything is missing or half done.
import type { View } from "../../src/contracts/directory.ts";
import { type Change, keyOf } from "../../src/model/record.ts";

/** So many of a writer's last keys are kept; older ones are deleted as new ones come. */
const KEPT = 5;
const PARTS = ["a", "b", "c"];

const keyFor = (writer: number, part: string, n: number): string => `w${writer}/${part}/${n}`;
const counterKey = (writer: number): string => `counter/${writer}`;

function pair(key: string, text: string): Change {
  return {
    op: "put",
    table: "kv",
    key,
    value: { key, value: new TextEncoder().encode(text), flags: 0n, lockIndex: 0 },
  };
}

/** The n-th write of a writer: three keys come, three go, a counter, a node, a service and its check follow. */
export function changesOf(writer: number, n: number): Change[] {
  const node = `node-${writer}`;
  return [
    pair(counterKey(writer), String(n)),
    ...PARTS.map((part) => pair(keyFor(writer, part, n), part.repeat(n % 3000))),
    ...PARTS.map((part): Change => ({ op: "delete", table: "kv", key: keyFor(writer, part, n - KEPT) })),
    {
      op: "put",
      table: "node",
      key: keyOf.node(node),
      value: {
        id: "",
        name: node,
        address: "10.0.0.1",
        datacenter: "dc1",
        taggedAddresses: {},
        labels: { n: String(n) },
      },
    },
    {
      op: "put",
      table: "service",
      key: keyOf.service(node, "web"),
      value: {
        id: "web",
        name: `web-${n % 3}`,
        node,
        tags: [String(n)],
        labels: {},
        address: "",
        port: 80,
        origin: { source: "api", authority: "first-hand" },
      },
    },
    {
      op: "put",
      table: "check",
      key: keyOf.check(node, "c"),
      value: {
        id: "c",
        node,
        name: "",
        status: "passing",
        notes: "",
        output: String(n),
        serviceId: "web",
        type: "ttl",
      },
    },
  ];
}

/** How far a writer came. */
export function counterOf(view: View, writer: number): number {
  return Number(Buffer.from(view.get("kv", counterKey(writer))?.value ?? []).toString() || "0");
}

/** What is wrong with a writer's content; empty when it is exactly what its n-th write leaves. */
export function faultsOf(view: View, writer: number): string[] {
  const n = counterOf(view, writer);
  const faults: string[] = [];
  const expected = new Set<string>();
  for (let i = Math.max(1, n - KEPT + 1); i <= n; i++) for (const part of PARTS) expected.add(keyFor(writer, part, i));
  for (const { key, value } of view.list("kv", `w${writer}/`)) {
    const [, part = "", i] = key.split("/");
    if (!expected.delete(key)) faults.push(`${key} is there at ${n}`);
    else if (Buffer.from(value).toString() !== part.repeat(Number(i) % 3000)) faults.push(`${key} has another value`);
  }
  for (const key of expected) faults.push(`${key} is missing at ${n}`);
  if (n === 0) return faults;
  const [resident] = view.residentsOn(`node-${writer}`);
  const seen = [resident?.node.labels["n"], resident?.instance.tags[0], resident?.checks[0]?.output];
  if (seen.some((each) => each !== String(n)))
    faults.push(`node, service and check are at ${seen.join()} instead of ${n}`);
  if (resident !== undefined && resident.instance.name !== `web-${n % 3}`)
    faults.push(`the service is ${resident.instance.name} at ${n}`);
  return faults;
}
