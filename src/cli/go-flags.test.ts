// Go-style flags as people type them.
import { describe, expect, it } from "vitest";
import { goFlags } from "./go-flags.ts";

const booleans = new Set(["dev", "json"]);

describe("goFlags", () => {
  it.each([
    [
      ["-dev", "-node=alpha"],
      ["--dev", "--node=alpha"],
    ],
    [
      ["-node", "alpha"],
      ["--node", "alpha"],
    ],
    [["-dev=true"], ["--dev"]],
    [["-dev=false", "-json=0"], []],
    [["--dev=1"], ["--dev"]],
    [["-http-addr=127.0.0.1:8500"], ["--http-addr=127.0.0.1:8500"]],
    [["-node="], ["--node="]],
    [["-h"], ["-h"]],
    [["-"], ["-"]],
    [["-1"], ["-1"]],
    [
      ["--", "-dev=false"],
      ["--", "-dev=false"],
    ],
    [
      ["key", "-value"],
      ["key", "--value"],
    ],
  ])("%j → %j", (given, wanted) => {
    expect(goFlags(given, booleans)).toEqual(wanted);
  });

  it("leaves a nonsensical boolean for the parser to refuse", () => {
    expect(goFlags(["-dev=maybe"], booleans)).toEqual(["--dev=maybe"]);
  });
});
