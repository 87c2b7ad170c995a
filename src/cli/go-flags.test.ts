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

  it.each([
    [
      ["-n", "2", "-dev", "key", "ls", "-la", "-dev=true"],
      ["-n", "2", "--dev", "key", "ls", "-la", "-dev=true"],
    ],
    [
      ["-node", "alpha", "key", "-node=x"],
      ["--node", "alpha", "key", "-node=x"],
    ],
    [
      ["-node=alpha", "-dev", "key", "-x"],
      ["--node=alpha", "--dev", "key", "-x"],
    ],
    [
      ["-h", "key"],
      ["-h", "key"],
    ],
    [["-node"], ["--node"]],
  ])("hands on what follows the first word: %j → %j", (given, wanted) => {
    expect(goFlags(given, new Set([...booleans, "h"]), true)).toEqual(wanted);
  });

  it("switches off what is on", () => {
    expect(goFlags(["-shell=false", "-dev=false"], new Set(["shell", "no-shell", "dev"]))).toEqual(["--no-shell"]);
  });

  it("leaves what is no flag as it was typed, where the flags are known", () => {
    const known = new Set(["dev", "no-shell"]);
    expect(
      goFlags(["-dev", "key", "-value", "-v=1", "-shell=false"], new Set(["dev", "no-shell", "shell"]), false, known),
    ).toEqual(["--dev", "key", "-value", "-v=1", "--no-shell"]);
  });

  it("leaves a nonsensical boolean for the parser to refuse", () => {
    expect(goFlags(["-dev=maybe"], booleans)).toEqual(["--dev=maybe"]);
  });

  it.each([
    [["-join", "--dev"], '-join: its value is missing: "--dev" follows (-join=--dev if that is meant)'],
    [["--join", "-join=http://10.0.0.1:8500"], "--join: its value is missing"],
    [["--dev", "--join", "--help"], "--join: its value is missing"],
  ])("takes no flag for a value: %j", (given, says) => {
    expect(() => goFlags(given, booleans, false, new Set(["dev", "join", "help"]), new Set(["join"]))).toThrow(says);
  });

  it("takes what is no flag for a value, and leaves out one that need not be", () => {
    const known = new Set(["dev", "join", "bridge"]);
    const flags = (...given: string[]) => goFlags(given, booleans, false, known, new Set(["join"]));
    expect(flags("--join", "-1")).toEqual(["--join", "-1"]);
    expect(flags("--join", "--other")).toEqual(["--join", "--other"]);
    expect(flags("--join=--dev")).toEqual(["--join=--dev"]);
    expect(flags("--bridge", "--dev")).toEqual(["--bridge", "--dev"]);
  });
});
