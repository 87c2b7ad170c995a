// What runs of the parts over reloads: listeners are exchanged without a gap where that is possible, and a part stands whole whatever fails.
import { expect, it } from "vitest";
import { fakeClock } from "../../test/simulated/clock.ts";
import { TrilithError } from "../base/error.ts";
import { callbackLog } from "../base/log.ts";
import { systemRandom } from "../base/random.ts";
import type { Listener, Part } from "../contracts/protocol.ts";
import type { Source } from "../contracts/source.ts";
import { Running, type RunningMachine } from "./running.ts";

/** A machine whose ports are `taken`, and an agent that adopts unless `fault` says otherwise. */
function world() {
  const did: string[] = [];
  const said: string[] = [];
  const taken = new Set<string>();
  const fault = { adopt: false };
  const machine = {
    agent: {
      node: { name: "alpha" },
      services: () => new Map(),
      async adopt(name: string) {
        if (fault.adopt) throw new TrilithError("disk-full", "no space is left");
        did.push(`adopt ${name}`);
      },
    },
    directory: { view: () => ({ list: () => [] }) },
    log: callbackLog((level, _part, text) => void said.push(`${level} ${text}`)),
    ...{ clock: fakeClock(), random: systemRandom, listening: new Map<string, string>() },
  } as unknown as RunningMachine & { readonly listening: Map<string, string> };
  const listener = (host: string, port: number, tells = true, name = "http"): Listener => {
    const at = `${host}:${port}`;
    let open = false;
    return {
      name,
      ...(tells ? { place: { host, port } } : {}),
      async start() {
        if (taken.has(at)) throw new TrilithError("address-in-use", `${at} is taken`);
        taken.add(at);
        open = true;
        did.push(`open ${at}`);
        return at;
      },
      async stop() {
        if (!open) return;
        open = false;
        taken.delete(at);
        did.push(`close ${at}`);
      },
    };
  };
  const background = (name: string): NonNullable<Part["background"]> => ({
    start: () => void did.push(`begin ${name}`),
    stop: async () => void did.push(`end ${name}`),
  });
  const source = (name: string): Source => ({
    name,
    async *watch(signal) {
      await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
    },
    state: () => ({ ok: true, text: "" }),
  });
  return { running: new Running(machine), machine, did, said, taken, fault, listener, background, source };
}

it("a port that somebody else has costs the old one nothing, not for a moment", async () => {
  const { running, machine, did, taken, listener } = world();
  await running.bring("x", { listeners: [listener("127.0.0.1", 1)] });
  taken.add("127.0.0.1:2").add("127.0.0.2:1");
  did.splice(0);
  for (const [host, port] of [
    ["127.0.0.1", 2],
    ["127.0.0.2", 1],
  ] as const)
    await expect(running.bring("x", { listeners: [listener(host, port)] })).rejects.toThrow(`${host}:${port} is taken`);
  expect(did).toEqual([]);
  expect(machine.listening.get("http")).toBe("127.0.0.1:1");
});

it("what was open before the port that could not be had closes again, and where the old ones are is still known", async () => {
  const { running, machine, did, taken, listener } = world();
  await running.bring("x", {
    listeners: [listener("127.0.0.1", 1, true, "udp"), listener("127.0.0.1", 2, true, "tcp")],
  });
  taken.add("127.0.0.1:4");
  did.splice(0);
  const wanted = [listener("127.0.0.1", 3, true, "udp"), listener("127.0.0.1", 4, true, "tcp")];
  await expect(running.bring("x", { listeners: wanted })).rejects.toThrow("127.0.0.1:4 is taken");
  expect(did).toEqual(["open 127.0.0.1:3", "close 127.0.0.1:3"]);
  expect(Object.fromEntries(machine.listening)).toEqual({ udp: "127.0.0.1:1", tcp: "127.0.0.1:2" });
});

it("a port that the system chose may be told later", async () => {
  const { running, machine, taken, listener } = world();
  const chosen = listener("127.0.0.1", 1);
  await running.bring("x", { listeners: [{ ...chosen, place: { host: "127.0.0.1", port: 0 } }] });
  await running.bring("x", { listeners: [listener("127.0.0.1", 1)] });
  expect([machine.listening.get("http"), [...taken]]).toEqual(["127.0.0.1:1", ["127.0.0.1:1"]]);
});

it("the new one listens before the old one ends; on one port the old one goes first", async () => {
  const { running, machine, did, listener } = world();
  await running.bring("x", { listeners: [listener("127.0.0.1", 1)] });
  await running.bring("x", { listeners: [listener("127.0.0.1", 2)] });
  expect(did.splice(0)).toEqual(["open 127.0.0.1:1", "open 127.0.0.1:2", "close 127.0.0.1:1"]);
  // What else is old is not in the way, and goes when all of the new stands.
  await running.bring("x", { listeners: [listener("127.0.0.1", 2), listener("127.0.0.1", 3)] });
  expect(did.splice(0)).toEqual(["close 127.0.0.1:2", "open 127.0.0.1:2", "open 127.0.0.1:3"]);
  await running.bring("x", { listeners: [listener("127.0.0.1", 3)] });
  expect(did.splice(0)).toEqual(["close 127.0.0.1:3", "open 127.0.0.1:3", "close 127.0.0.1:2"]);
  expect(machine.listening.get("http")).toBe("127.0.0.1:3");
});

it.each([
  ["a name", "localhost", 1, true],
  ["all addresses", "0.0.0.0", 1, true],
  ["all addresses of IPv6", "::", 1, true],
  ["a place that is not known", "192.0.2.1", 9, false],
])("%s may be the old one's place, which is open again where it was not", async (_, host, port, tells) => {
  const { running, machine, did, taken, listener } = world();
  await running.bring("x", { listeners: [listener("127.0.0.1", 1)] });
  taken.add(`${host}:${port}`);
  await expect(running.bring("x", { listeners: [listener(host, port, tells)] })).rejects.toThrow("is taken");
  expect(did).toEqual(["open 127.0.0.1:1", "close 127.0.0.1:1", "open 127.0.0.1:1"]);
  expect(machine.listening.get("http")).toBe("127.0.0.1:1");
});

it("a part stands whole also where what it brought in before cannot be taken out, which is tried again", async () => {
  const { running, did, fault, listener, background, source } = world();
  const old = { listeners: [listener("127.0.0.1", 1)], background: background("old"), source: source("x") };
  await running.bring("x", old);
  const now = { listeners: [listener("127.0.0.1", 2)], background: background("new") };
  fault.adopt = true;
  await running.bring("x", now);
  await expect(running.sweep()).rejects.toThrow("no space is left");
  expect(did.splice(0).slice(2)).toEqual(["open 127.0.0.1:2", "close 127.0.0.1:1", "end old", "begin new"]);
  await expect(running.sweep()).rejects.toThrow("no space is left");
  fault.adopt = false;
  await running.sweep();
  await running.sweep();
  expect(did.splice(0)).toEqual(["adopt x"]);
  // Whoever brings it in again by then keeps it.
  await running.bring("x", old);
  await running.bring("x", now);
  await running.bring("x", old);
  did.splice(0);
  await running.sweep();
  expect(did).toEqual([]);
  await running.silenceAll();
});
