// The log that can be followed, and whose level can be another one.
import { expect, it, vi } from "vitest";
import { callbackLog, programLog, tappedLog } from "./log.ts";

it("hands every line on and tells those who follow, until they stop", () => {
  const lines: string[] = [];
  const heard: string[] = [];
  const log = tappedLog(
    callbackLog((level, part, text, fields) => lines.push(`${level} ${part}: ${text} ${JSON.stringify(fields)}`)),
  );
  const inner = log.part("a").part("b");
  const following = inner.follow?.((level, part, text, fields) =>
    heard.push(`${level} ${part}: ${text} ${JSON.stringify(fields)}`),
  );
  log.trace("x");
  inner.error("y", { n: 1 });
  following?.close();
  following?.close();
  log.warn("z");
  expect(heard).toEqual(["trace : x {}", 'error a.b: y {"n":1}']);
  expect(lines).toEqual([...heard, "warn : z {}"]);
});

it("leaves out what is below its level, in its parts as well, and takes another level at any time", async () => {
  const written = vi.spyOn(process.stderr, "write").mockReturnValue(true);
  try {
    const log = await programLog("warn", "text");
    const part = log.part("a");
    const said = (): readonly string[] => written.mock.calls.splice(0).map(([line]) => String(line).slice(25, -1));
    part.info("one");
    part.warn("two");
    expect(said()).toEqual(["[WARN]  a: two"]);
    log.setLevel("debug");
    part.debug("three", { n: 1 });
    part.trace("four");
    expect(said()).toEqual(["[DEBUG]  a: three n=1"]);
    log.setLevel("error");
    part.warn("five");
    expect(said()).toEqual([]);
  } finally {
    written.mockRestore();
  }
});
