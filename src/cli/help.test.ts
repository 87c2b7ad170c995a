// Tests the overview of commands: every command once, in lines that a terminal of 80 columns shows whole.
import { expect, test } from "vitest";
import { COMMANDS, GROUPS } from "./commands.ts";
import { overview } from "./help.ts";

test("no line is wider than 80 columns", () => {
  const wide = overview()
    .split("\n")
    .filter((line) => line.length > 80);
  expect(wide).toEqual([]);
});

test("every command stands there once, with what it does", () => {
  const listed = [...overview().matchAll(/^ {2}([a-z-]+) {2,}\S/gm)].map(([, name]) => name ?? "");
  expect(listed.toSorted()).toEqual(Object.keys(COMMANDS).toSorted());
  expect(Object.values(GROUPS).flatMap(Object.keys)).toHaveLength(Object.keys(COMMANDS).length);
});

test("every command loads what goes by its name", async () => {
  for (const [name, [, load]] of Object.entries(COMMANDS)) expect((await load()).command.name).toBe(name);
});
