// The event stream: cut anywhere it reads the same, and junk only ever raises `damaged`.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { TrilithError } from "../../base/error.ts";
import { type Happening, readEvent, readEvents } from "./events.ts";

async function* pieces(bytes: Uint8Array, cuts: readonly number[]): AsyncGenerator<Uint8Array> {
  let from = 0;
  for (const cut of [...cuts].sort((a, b) => a - b)) {
    yield bytes.subarray(from, cut);
    from = Math.max(from, cut);
  }
  yield bytes.subarray(from);
}

async function all(stream: AsyncIterable<Uint8Array>): Promise<Happening[]> {
  const found: Happening[] = [];
  for await (const one of readEvents(stream, "test")) found.push(one);
  return found;
}

const event = (Action: string, id: string, Attributes: Record<string, string> = {}, Type = "container"): unknown => ({
  Type,
  Action,
  Actor: { ID: id, Attributes },
});

describe("events", () => {
  it.each([
    [event("start", "a"), { what: "started", id: "a" }],
    [event("die", "a", { exitCode: "137", name: "web" }), { what: "died", id: "a", name: "web", exitCode: 137 }],
    [event("die", "a", { exitCode: "lots" }), { what: "died", id: "a", name: "", exitCode: 0 }],
    [event("kill", "a", { signal: "15" }), { what: "signalled", id: "a", signal: 15 }],
    [event("kill", "a"), undefined],
    [event("health_status: healthy", "a"), { what: "changed", id: "a" }],
    [event("connect", "net", { container: "a" }, "network"), { what: "changed", id: "a" }],
    [event("create", "net", { container: "a" }, "network"), undefined],
    [event("delete", "img", {}, "image"), undefined],
    [
      { status: "start", id: "old" },
      { what: "started", id: "old" },
    ],
    [{}, undefined],
    [null, undefined],
  ])("%j", (raw, happening) => {
    expect(readEvent(raw)).toEqual(happening);
  });

  it("reads the same wherever the stream is cut", async () => {
    const one = fc.record({
      action: fc.constantFrom("start", "die", "pause", "rename"),
      id: fc.string({ minLength: 1, unit: "grapheme" }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(one), fc.array(fc.nat(2000)), async (events, cuts) => {
        const text = events.map(({ action, id }) => `${JSON.stringify(event(action, id, { name: id }))}\n`).join("");
        const bytes = new TextEncoder().encode(text);
        const found = await all(
          pieces(
            bytes,
            cuts.filter((cut) => cut <= bytes.length),
          ),
        );
        expect(found.map(({ id }) => id)).toEqual(events.map(({ id }) => id));
      }),
    );
  });

  it("raises damaged for anything but JSON objects", async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ minLength: 1 }), async (bytes) => {
        const stream = pieces(new Uint8Array([...bytes, 10]), []);
        try {
          expect(Array.isArray(await all(stream))).toBe(true);
        } catch (error) {
          expect((error as TrilithError).code).toBe("damaged");
          expect(error).toBeInstanceOf(TrilithError);
        }
      }),
    );
  });
});
