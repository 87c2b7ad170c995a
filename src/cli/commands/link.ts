// `trilith link`: links by which this program stands in for others (avahi-browse, consul, md), so that scripts run unchanged.
import { resolve } from "node:path";
import { systemDisk } from "../../base/disk.ts";
import { InputError, TrilithError } from "../../base/error.ts";
import { invokedAs, linkAt, makeLink, programPlace, removeLink } from "../../base/program.ts";
import { COMMANDS } from "../commands.ts";
import type { Command, Io } from "../io.ts";
import { LINKS } from "../links.ts";

interface Options {
  readonly dir?: string;
  readonly remove?: boolean;
}

/** Names that stand for a command that there is. */
const known = (): string[] =>
  Object.keys(LINKS).filter((name) => LINKS[name] === "" || Object.hasOwn(COMMANDS, LINKS[name] as string));

export const command: Command = {
  name: "link",
  summary: "let this program go by another one's name: trilith link avahi-browse",
  define(parser, io, done) {
    parser
      .argument("[names...]", `${known().join(", ")}; without names: show the links that exist`)
      .option("--dir <folder>", "where the links are (default: the folder of trilith itself)")
      .option("--remove", "remove the links")
      .action(async (names: readonly string[], options: Options) => {
        const folder = options.dir === undefined ? await ownFolder() : await namedFolder(options.dir);
        const { file } = await programPlace();
        for (const name of names)
          if (!known().includes(name))
            throw new InputError("trilith link", `"${name}" is nothing that trilith can be; ${known().join(", ")} are`);
        if (names.length === 0) return done(await show(folder, file, io));
        for (const name of names) await (options.remove ? remove : place)(`${folder}/${name}`, file, io);
        done(0);
      });
  },
};

/** The folder in which `trilith` was found. @throws InputError where it was started as a file, not as a program */
async function ownFolder(): Promise<string> {
  const { folder } = await programPlace();
  if (invokedAs() === "trilith" || Object.hasOwn(LINKS, invokedAs())) return folder;
  throw new InputError("--dir", "this was not started as the program trilith, so name a folder that is in the PATH");
}

/** @throws InputError where there is no such folder */
async function namedFolder(dir: string): Promise<string> {
  const folder = resolve(dir);
  const info = await systemDisk.info(folder);
  if (info?.isDirectory === true) return folder;
  const is = info === undefined ? "there is no such folder" : "this is no folder";
  throw new InputError("--dir", `${folder}: ${is}: name one that is in the PATH, or make it first (mkdir -p)`);
}

async function show(folder: string, file: string, io: Io): Promise<number> {
  for (const name of known()) {
    const there = await linkAt(`${folder}/${name}`);
    if (typeof there === "object" && there.to === file) io.out(`${folder}/${name}\n`);
  }
  return 0;
}

async function place(path: string, file: string, io: Io): Promise<void> {
  const there = await linkAt(path);
  if (typeof there === "object" && there.to === file) {
    io.out(`${path} is there already\n`);
    return;
  }
  if (there !== "nothing")
    throw new TrilithError("conflict", `${path} is something else, which stays; name another folder with --dir`);
  await makeLink(file, path);
  io.out(`${path} is trilith now\n`);
}

async function remove(path: string, file: string, io: Io): Promise<void> {
  const there = await linkAt(path);
  if (there === "nothing") {
    io.out(`${path} is not there\n`);
    return;
  }
  if (typeof there !== "object" || there.to !== file)
    throw new TrilithError("conflict", `${path} is not a link to this program; it stays`);
  await removeLink(path);
  io.out(`${path} is gone\n`);
}
