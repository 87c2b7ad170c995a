// Tests the overview of commands: every command once, in lines that a terminal of 80 columns shows whole.
import { Command as Commander } from "commander";
import { expect, test } from "vitest";
import { COMMANDS, GROUPS } from "./commands.ts";
import { HELP_STYLE, overview } from "./help.ts";
import type { Io } from "./io.ts";

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

test("the help of no command and none of its verbs is wider than that", async () => {
  const io = { env: () => undefined, signal: AbortSignal.abort(), out: () => {}, err: () => {}, close: () => {} };
  const wide: string[] = [];
  const look = (parser: Commander): void => {
    let help = "";
    const writeOut = (text: string): void => {
      help += text;
    };
    parser.configureOutput({ writeOut, getOutHelpWidth: () => 80 }).outputHelp();
    expect(help).toContain("Usage: trilith");
    wide.push(...help.split("\n").filter((line) => line.length > 80));
    for (const verb of parser.commands) look(verb as Commander);
  };
  for (const [, load] of Object.values(COMMANDS)) {
    const { command } = await load();
    // Those speak as the programs that they stand for.
    if (command.verbatim !== undefined) continue;
    const parser = new Commander(`trilith ${command.name}`).configureHelp(HELP_STYLE);
    command.define(parser, io as unknown as Io, () => {});
    look(parser);
  }
  expect(wide).toEqual([]);
});

test("every command loads what goes by its name", async () => {
  for (const [name, [, load]] of Object.entries(COMMANDS)) expect((await load()).command.name).toBe(name);
});
