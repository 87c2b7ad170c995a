// The log that can be followed.
import { expect, it } from "vitest";
import { callbackLog, tappedLog } from "./log.ts";

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
