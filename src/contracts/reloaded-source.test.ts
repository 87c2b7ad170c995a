// Configuration that is read again: what is the same or wrong changes nothing, another one takes over, and where there is nothing to bring in there is no source.
import { describe, expect, it } from "vitest";
import { fakeClock } from "../../test/simulated/clock.ts";
import { reloadable } from "./reloaded-source.ts";
import type { Source, SourceList } from "./source.ts";

/** A source that lists nothing but waits, and what became of it. */
function waiting(name: string, did: string[]): Source {
  return {
    name: "x",
    state: () => ({ ok: true, text: name }),
    async *watch(signal) {
      did.push(`begin ${name}`);
      yield { list: [], authority: "second-hand" };
      await new Promise((resolve) => signal.addEventListener("abort", resolve, { once: true }));
      did.push(`end ${name}`);
    },
  };
}

describe("a source whose configuration is read again", () => {
  it("goes on with the same one, refuses a wrong one, and takes another one over", async () => {
    const clock = fakeClock();
    const did: string[] = [];
    const configure = (raw: unknown): { name: string; of: Set<string> } | undefined => {
      if (raw === "wrong") throw new Error("wrong");
      const [name, ...of] = String(raw).split(" ");
      return name === "off" || name === undefined ? undefined : { name, of: new Set(of) };
    };
    const part = reloadable(
      { name: "x", configure, make: ({ name }) => (name === "empty" ? undefined : waiting(name, did)) },
      { name: "a", of: new Set(["1"]) },
    );
    const { source } = part;
    const stop = new AbortController();
    const lists: SourceList[] = [];
    const reading = (async () => {
      for await (const list of source?.watch(stop.signal) ?? []) lists.push(list);
    })();
    const became = async (raw?: unknown): Promise<readonly string[]> => {
      await part.reload(raw === undefined ? undefined : { raw });
      await clock.advance(100);
      return did.splice(0);
    };
    await clock.advance(100);
    expect(did.splice(0)).toEqual(["begin a"]);
    expect(await became()).toEqual([]);
    expect(await became("a 1")).toEqual([]);
    await expect(part.reload({ raw: "wrong" })).rejects.toThrow("wrong");
    expect(source?.state().text).toBe("a");
    // Another set of the same size is another configuration.
    expect(await became("a 2")).toEqual(["end a", "begin a"]);
    expect(await became("b")).toEqual(["end a", "begin b"]);
    expect([source?.state().text, part.source === source]).toEqual(["b", true]);
    stop.abort(new Error("enough"));
    await reading;
    expect(did).toEqual(["end b"]);
    expect(clock.timers).toBe(0);
  });

  it("is none while there is nothing to bring in, and another one afterwards", async () => {
    const did: string[] = [];
    const make = (name: string): Source | undefined => (name === "empty" ? undefined : waiting(name, did));
    const configure = (raw: unknown): string | undefined => (raw === "off" ? undefined : String(raw));
    const part = reloadable({ name: "x", configure, make }, "empty");
    expect(part.source).toBeUndefined();
    await part.reload({ raw: "a" });
    const first = part.source;
    expect(first?.state().text).toBe("a");
    for (const raw of ["empty", "off"]) {
      await part.reload({ raw });
      expect(part.source).toBeUndefined();
    }
    await part.reload({ raw: "b" });
    expect(part.source).not.toBe(first);
    expect(part.source?.state().text).toBe("b");
  });
});
