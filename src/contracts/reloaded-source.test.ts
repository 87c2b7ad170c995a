// Configuration that is read again: what was off waits for a restart and says so, what is the same or wrong changes nothing, another one takes over.
import { describe, expect, it } from "vitest";
import { fakeClock } from "../../test/simulated/clock.ts";
import { testDirectory } from "../../test/support/directory.ts";
import { callbackLog } from "../base/log.ts";
import { offUntilRestart, reloadable } from "./reloaded-source.ts";
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
      return typeof raw === "string" ? { name: raw, of: new Set([raw]) } : undefined;
    };
    const { source, reload } = reloadable(
      {
        ...{ name: "x", clock, directory: testDirectory(clock), node: "home", configure },
        make: ({ name }) => (name === "empty" ? undefined : waiting(name, did)),
      },
      { name: "a", of: new Set(["a"]) },
    );
    const stop = new AbortController();
    const lists: SourceList[] = [];
    const reading = (async () => {
      for await (const list of source?.watch(stop.signal) ?? []) lists.push(list);
    })();
    const became = async (raw?: unknown): Promise<readonly string[]> => {
      await reload(raw === undefined ? undefined : { raw });
      await clock.advance(100);
      return did.splice(0);
    };
    await clock.advance(100);
    expect(did.splice(0)).toEqual(["begin a"]);
    expect(await became()).toEqual([]);
    expect(await became("a")).toEqual([]);
    await expect(reload({ raw: "wrong" })).rejects.toThrow("wrong");
    expect(source?.state().text).toBe("a");
    expect(await became("b")).toEqual(["end a", "begin b"]);
    expect(source?.state().text).toBe("b");
    for (const off of [false, "empty"]) {
      expect(await became(off)).toEqual(off === false ? ["end b"] : []);
      expect(source?.state()).toEqual({ ok: true, text: "is not configured any more" });
    }
    expect(await became("c")).toEqual(["begin c"]);
    stop.abort(new Error("enough"));
    await reading;
    expect(did).toEqual(["end c"]);
    expect(clock.timers).toBe(0);
  });

  it("is begun by a restart where it was off, which is said", async () => {
    const said: string[] = [];
    const log = callbackLog((level, _part, text) => void said.push(`${level} ${text}`));
    const part = offUntilRestart("x", log, (raw) => raw ?? undefined);
    await part.reload?.();
    await part.reload?.({ raw: undefined });
    expect(said).toEqual([]);
    await part.reload?.({ raw: { files: [] } });
    expect(said).toEqual(["warn x was off when this agent started: a restart switches it on"]);
  });
});
