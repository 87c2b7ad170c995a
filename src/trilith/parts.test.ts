// The parts taken together: what a reload hands to each, which is made anew, switched on or off, and whose configuration waits for a restart.
import { expect, it } from "vitest";
import { callbackLog } from "../base/log.ts";
import type { Part } from "../contracts/protocol.ts";
import { type ListedProtocol, Parts } from "./parts.ts";

/** What was said and done, and parts made by `make` from whatever is not "off" or "wrong". */
function world() {
  const said: string[] = [];
  const did: string[] = [];
  const log = callbackLog((level, _part, text) => void said.push(`${level} ${text}`));
  const parts = new Parts();
  const now: Record<string, unknown> = {};
  const fault = { bring: "" };
  const listed = (name: string, make: (raw: unknown) => Part): ListedProtocol => ({
    name,
    key: `protocols.${name}`,
    async check(raw) {
      if (raw === "wrong") throw new Error(`${name} is wrong`);
      return raw === "off";
    },
    async install(raw) {
      if (raw === "wrong") throw new Error(`${name} is wrong`);
      return raw === "off" ? undefined : make(raw);
    },
  });
  const bring = async (name: string, part: Part | undefined): Promise<void> => {
    if (fault.bring === name) {
      fault.bring = "";
      throw new Error(`${name} cannot be had`);
    }
    did.push(`${name}: ${part === undefined ? "nothing" : (part.routes?.[0]?.prefix ?? "a part")}`);
  };
  const add = async (name: string, raw: unknown, make: (raw: unknown) => Part): Promise<void> => {
    now[name] = raw;
    await parts.add(listed(name, make), raw);
  };
  const reload = (): Promise<void> => parts.reload(log, bring, (name) => now[name]);
  const route = (raw: unknown): Part => ({ routes: [{ prefix: `${raw}`, handle: () => {} }] });
  return { parts, said, did, now, fault, log, bring, add, reload, route };
}

it("hands each part its configuration, says which ones count after a restart only, and fails as the first that does", async () => {
  const { parts, said, now, log, bring, add, reload } = world();
  const read: unknown[] = [];
  await add("taking", { a: 1 }, () => ({ rereads: true, reload: async (now) => void read.push(now) }));
  await add("deaf", { path: "/etc/hosts" }, () => ({}));
  await add("files", { ports: [1] }, () => ({ reload: async () => void read.push("files") }));
  await parts.reload(log, bring);
  now["taking"] = { a: 2 };
  await reload();
  expect(read.splice(0)).toEqual([undefined, "files", { raw: { a: 2 } }, "files"]);
  expect(said).toEqual([]);
  now["deaf"] = { path: "/run/hosts" };
  now["files"] = { ports: [2] };
  const waiting = ["deaf", "files"].map(
    (name) => `warn protocols.${name} is another one now: it counts after a restart`,
  );
  await reload();
  expect(said.splice(0)).toEqual(waiting);
  expect(read.splice(0)).toEqual([{ raw: { a: 2 } }, "files"]);
  // It waits until there is one, or it is as it was.
  now["files"] = { ports: [1] };
  await reload();
  expect(said.splice(0)).toEqual(waiting.slice(0, 1));
  await add("broken", 1, () => ({ reload: () => Promise.reject(new Error("no such file")) }));
  await expect(reload()).rejects.toThrow("no such file");
  expect(said).toContain("error broken: could not read everything again");
});

it("makes parts anew, switches protocols on and off, and shows what they put at the agent's disposal then", async () => {
  const { parts, said, did, now, add, reload, route } = world();
  const probe = (name: string) => ({ kind: name }) as never;
  await add("door", "a", (raw) => ({ ...route(raw), rereads: "anew", probes: [probe(`p-${raw}`)] }));
  await add("gate", "off", route);
  await add("own", "x", () => ({ ...route("own"), rereads: true }));
  const prefixes = (): readonly string[] => parts.routes.map(({ prefix }) => prefix);
  const at = parts.routes;
  await reload();
  expect([prefixes(), did.splice(0)]).toEqual([
    ["a", "own"],
    ["door: a", "gate: nothing", "own: own"],
  ]);
  now["door"] = "b";
  now["gate"] = "g";
  now["own"] = "off";
  await reload();
  expect(did.splice(0)).toEqual(["door: b", "gate: g", "own: nothing"]);
  expect(prefixes()).toEqual(["b", "g"]);
  expect(parts.routes).not.toBe(at);
  expect([...parts.probes.keys()]).toEqual(["p-b"]);
  expect(parts.all.map(([name]) => name)).toEqual(["door", "gate"]);
  expect(said.splice(0)).toEqual([
    "info door has another configuration",
    "info gate is switched on",
    "info own is switched off",
  ]);
  now["own"] = "again";
  await reload();
  expect(prefixes()).toEqual(["b", "g", "own"]);
});

it("leaves what stood where a configuration is wrong or cannot be had", async () => {
  const { parts, did, now, fault, add, reload, route } = world();
  const taken: unknown[] = [];
  await add("door", "a", (raw) => ({ ...route(raw), rereads: "anew" }));
  await add("own", "x", () => ({ ...route("own"), rereads: true, reload: async (read) => void taken.push(read?.raw) }));
  await add("deaf", "a", route);
  for (const name of ["door", "own", "deaf"]) {
    now[name] = "wrong";
    await expect(reload()).rejects.toThrow(`${name} is wrong`);
    now[name] = name === "own" ? "x" : "a";
  }
  now["door"] = "b";
  fault.bring = "door";
  await expect(reload()).rejects.toThrow("door cannot be had");
  expect(parts.routes.map(({ prefix }) => prefix)).toEqual(["a", "own", "a"]);
  did.splice(0);
  await reload();
  expect(did).toContain("door: b");
  taken.splice(0);
  now["own"] = "y";
  fault.bring = "own";
  await expect(reload()).rejects.toThrow("own cannot be had");
  expect(taken.splice(0)).toEqual(["y", "x"]);
  await reload();
  expect(taken).toEqual(["y"]);
});
