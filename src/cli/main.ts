#!/usr/bin/env node
// The program `trilith`: finds the command, loads only that one, and turns errors into a sentence and an exit code.
import { Command as Commander, CommanderError } from "commander";
import { codeOf, messageOf } from "../base/error.ts";
import { processIo } from "../base/terminal.ts";
import { COMMANDS } from "./commands.ts";
import { goFlags } from "./go-flags.ts";
import { HELP_STYLE, overview } from "./help.ts";
import { wordsAs } from "./links.ts";

/** Exit codes: 0 done, 1 it did not work or nothing was found, 2 the command line is wrong. */
async function main(argv: readonly string[]): Promise<number> {
  const io = processIo();
  const [word = "help", ...rest] = argv;
  const help = /^(help|-h|-help|--help)$/.test(word);
  if (help && rest[0] === undefined) {
    io.out(overview());
    return 0;
  }
  const name = help ? (rest[0] ?? "") : /^--?v(ersion)?$/.test(word) ? "version" : word;
  const entry = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (entry === undefined) {
    const far = (known: string): number => distance(name, known);
    const nearest = Math.min(2, ...Object.keys(COMMANDS).map(far));
    const near = Object.keys(COMMANDS).filter((known) => far(known) <= nearest);
    const meant = near.length === 0 ? "" : ` Did you mean ${near.map((known) => `"${known}"`).join(" or ")}?`;
    io.err(`trilith: there is no command "${name}".${meant} "trilith help" lists them.\n`);
    return 2;
  }
  const { command } = await entry[1]();
  if (command.verbatim !== undefined) {
    try {
      return await command.verbatim(help ? [...rest.slice(1), "--help"] : rest, io);
    } catch (error) {
      io.err(`trilith ${command.name}: ${messageOf(error)}\n`);
      return 1;
    } finally {
      io.close();
    }
  }
  let exitCode = 0;
  const parser = new Commander(`trilith ${command.name}`)
    .description(command.summary)
    .exitOverride()
    .showHelpAfterError(`(try "trilith ${command.name} --help")`)
    .configureOutput({
      writeOut: io.out,
      writeErr: io.err,
      outputError: (text, write) => write(text.replace(/^error:/, `trilith ${command.name}:`)),
    })
    .helpOption("-h, --help", "show this help")
    .configureHelp(HELP_STYLE);
  command.define(parser, io, (code) => {
    exitCode = code;
  });
  const helpful = (parent: Commander, path: string): void => {
    for (const sub of parent.commands) {
      const line = `${path} ${sub.name()}`;
      sub.showHelpAfterError(`(try "${line} --help")`).helpOption("-h, --help", "show this help");
      helpful(sub as Commander, line);
    }
  };
  helpful(parser, `trilith ${command.name}`);
  try {
    const words = help ? [...rest.slice(1), "--help"] : rest;
    if (command.passThrough) parser.passThroughOptions();
    const { booleans, all, valued } = flagsOf(parser);
    await parser.parseAsync(goFlags(words, booleans, command.passThrough, all, valued), { from: "user" });
    return exitCode;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    if (io.signal.aborted) return 130;
    io.err(`trilith ${command.name}: ${forbiddenPlace(error) ?? messageOf(error)}\n`);
    return codeOf(error) === "invalid" ? 2 : 1;
  } finally {
    io.close();
  }
}

/** What to say of a file that this user may not read or write. */
function forbiddenPlace(error: unknown): string | undefined {
  const { code, path } = error as NodeJS.ErrnoException;
  if (path === undefined || (code !== "EACCES" && code !== "EPERM")) return undefined;
  // Files are written beside their place first.
  const place = path.endsWith(".tmp") ? path.slice(0, path.lastIndexOf("/")) || "/" : path;
  return `no permission for ${place}: run this as root (sudo) or as the user it belongs to`;
}

/** The names of the flags that take no value, of those that must have one, and of all. */
function flagsOf(parser: Commander): Readonly<Record<"booleans" | "valued" | "all", ReadonlySet<string>>> {
  const booleans = new Set(["h", "help"]);
  const all = new Set(booleans);
  const valued = new Set<string>();
  const take = (command: Commander): void => {
    for (const option of command.options)
      for (const flag of [option.long?.slice(2), option.short?.slice(1)]) {
        if (flag === undefined) continue;
        all.add(flag);
        if (option.isBoolean() || option.negate) booleans.add(flag);
        if (option.required) valued.add(flag);
      }
    for (const sub of command.commands) take(sub as Commander);
  };
  take(parser);
  return { booleans, all, valued };
}

/** How many letters have to be put in, taken out or changed (Levenshtein). */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length && i < 20; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++)
      next.push(
        Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)),
      );
    row = next;
  }
  return row.at(-1) ?? 0;
}

process.exitCode = await main(wordsAs(process.argv[1] ?? "", process.argv.slice(2)));
