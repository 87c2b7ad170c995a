// One rendered file on the disk: checked beside its place, swapped in whole, and put back where the program that reads it does not take it.
import { folderOf } from "../base/bells.ts";
import type { Clock } from "../base/clock.ts";
import type { Disk } from "../base/disk.ts";
import { messageOf, TrilithError } from "../base/error.ts";
import type { Processes } from "../base/process.ts";

/** A file that is kept, and what is done around it. */
export interface FileRule {
  readonly path: string;
  /** A shell command, run after the file has changed; where it fails the file is put back and it is run again. */
  readonly command?: string;
  /** A shell command that must be content with the new file before it takes its place: {} is the new file's path. */
  readonly check?: string;
  /** How long either may take. */
  readonly commandTimeoutMs: number;
  /** Permission bits; those of the file that is there, else 0644, unless told. */
  readonly mode?: number;
  /** Keeps what was there before as PATH.bak. */
  readonly backup?: boolean;
  /** Makes the folder where it is missing. */
  readonly makeFolders: boolean;
}

export interface WriteMachine {
  readonly clock: Pick<Clock, "after">;
  readonly disk: Pick<Disk, "info" | "readText" | "realPath" | "replace" | "remove" | "makeFolder">;
  readonly processes: Pick<Processes, "run" | "pid">;
  /** What commands print. */
  readonly onOutput: (text: string) => void;
}

/** What was there before. */
interface Before {
  readonly text: string;
  readonly mode: number;
  readonly owner?: { readonly uid: number; readonly gid: number };
}

const WORD = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;
const READ_BYTES = 4096;

async function before(path: string, { disk }: WriteMachine): Promise<Before | undefined> {
  const info = await disk.info(path);
  if (info === undefined) return undefined;
  if (!info.isFile) throw new TrilithError("conflict", `${path} is not a file`);
  const text = await disk.readText(path);
  return { text, mode: info.mode ?? 0o644, ...(info.owner === undefined ? {} : { owner: info.owner }) };
}

/** Runs a shell command. @returns undefined where it went well, else what went wrong */
async function failureOf(
  command: string,
  timeoutMs: number,
  machine: WriteMachine,
  stop: AbortSignal,
): Promise<string | undefined> {
  const limit = new AbortController();
  const timer = machine.clock.after(timeoutMs, () =>
    limit.abort(new TrilithError("timeout", `it took longer than ${timeoutMs / 1000} s`)),
  );
  try {
    const signal = AbortSignal.any([stop, limit.signal]);
    const how = { signal, keepBytes: READ_BYTES };
    const { exitCode, signal: endedBy, output } = await machine.processes.run(["/bin/sh", "-c", command], how);
    const text = Buffer.from(output).toString().trim();
    if (exitCode !== 0)
      return `${endedBy === null ? `exit status ${exitCode}` : `signal ${endedBy}`}${text === "" ? "" : `: ${text}`}`;
    if (text !== "") machine.onOutput(text);
    return undefined;
  } catch (error) {
    stop.throwIfAborted();
    return messageOf(error);
  } finally {
    timer.cancel();
  }
}

/**
 * Brings a file to a content. The same content touches nothing and runs nothing.
 * @param stop ends the commands that run; what is there then stays
 * @returns whether it was written
 * @throws TrilithError saying what failed, and that the former content is there (again)
 */
export async function writeFile(
  rule: FileRule,
  text: string,
  machine: WriteMachine,
  stop: AbortSignal,
): Promise<boolean> {
  const { disk } = machine;
  // What a link leads to is replaced, and the link stays.
  const path = (await disk.realPath(rule.path)) ?? rule.path;
  const old = await before(path, machine);
  const mode = rule.mode ?? old?.mode ?? 0o644;
  if (old?.text === text && old.mode === mode) return false;
  const folder = folderOf(path);
  if (rule.makeFolders && (await disk.info(folder)) === undefined) await disk.makeFolder(folder);
  const put = (to: string, content: string): Promise<void> => disk.replace(to, content, mode, old?.owner);
  if (rule.check !== undefined && old?.text !== text) {
    // Not a name that programs take which read a whole folder.
    const beside = `${folder}/.${path.slice(path.lastIndexOf("/") + 1)}.${machine.processes.pid}.new`;
    try {
      await put(beside, text);
      const command = rule.check.replaceAll("{}", () => WORD(beside));
      const failure = await failureOf(command, rule.commandTimeoutMs, machine, stop);
      if (failure !== undefined)
        throw new TrilithError(
          "invalid",
          `${rule.path} stays as it was: "${rule.check}" does not take the new one: ${failure}`,
        );
    } finally {
      await disk.remove(beside);
    }
  }
  if (rule.backup === true && old !== undefined) await disk.replace(`${path}.bak`, old.text, old.mode, old.owner);
  await put(path, text);
  if (rule.command === undefined) return true;
  const failure = await failureOf(rule.command, rule.commandTimeoutMs, machine, stop);
  if (failure === undefined) return true;
  if (old === undefined) await disk.remove(path);
  else await disk.replace(path, old.text, old.mode, old.owner);
  const again = await failureOf(rule.command, rule.commandTimeoutMs, machine, stop);
  const back = old === undefined ? "the new file is gone again" : "the former file is back";
  throw new TrilithError(
    "unavailable",
    `${rule.path}: "${rule.command}" failed: ${failure}; ${back}, and with it the command ${again === undefined ? "went well" : `failed, too: ${again}`}`,
  );
}
