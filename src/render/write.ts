// One rendered file on the disk: checked beside its place, swapped in whole, and put back where the program that reads it does not take it.
import { folderOf } from "../base/bells.ts";
import type { Clock } from "../base/clock.ts";
import type { Disk } from "../base/disk.ts";
import { codeOf, messageOf, TrilithError } from "../base/error.ts";
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
  readonly disk: Pick<Disk, "info" | "readBytes" | "readText" | "realPath" | "replace" | "remove" | "makeFolder">;
  readonly processes: Pick<Processes, "run" | "pid">;
  /** What commands print. */
  readonly onOutput: (text: string) => void;
}

/** What was there before: bytes, which need not be UTF-8. */
interface Before {
  readonly bytes: Uint8Array;
  readonly mode: number;
  readonly owner?: { readonly uid: number; readonly gid: number };
}

/** A text as one word of a shell's command. */
export const shellWord = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;
const READ_BYTES = 4096;
/** A command that starts a daemon has ended although that keeps its output open. */
const OUTPUT_GRACE_MS = 500;
/** Files of whoever may read what is in them keep it to themselves while it stands beside. */
const PRIVATE = 0o600;

async function before(path: string, { disk }: WriteMachine): Promise<Before | undefined> {
  const info = await disk.info(path);
  if (info === undefined) return undefined;
  if (!info.isFile) throw new TrilithError("conflict", `${path} is not a file`);
  const bytes = await disk.readBytes(path);
  return { bytes, mode: info.mode ?? 0o644, ...(info.owner === undefined ? {} : { owner: info.owner }) };
}

/** What stands beside a file while its command runs: the content before, so that a command that never came to its end is run again. */
interface Pending {
  /** Null: there was no file. */
  readonly former: { readonly base64: string; readonly mode: number; readonly owner?: Before["owner"] } | null;
}

/** @returns undefined where no command is pending, null where there was no file before it */
async function pendingAt(path: string, { disk }: WriteMachine): Promise<Before | null | undefined> {
  if ((await disk.info(path)) === undefined) return undefined;
  try {
    const { former } = JSON.parse(await disk.readText(path)) as Pending;
    if (former === null) return null;
    const { base64, mode, owner } = former;
    return { bytes: Buffer.from(base64, "base64"), mode, ...(owner === undefined ? {} : { owner }) };
  } catch (error) {
    throw new TrilithError("damaged", `${path} cannot be read: ${messageOf(error)}; remove it`, error);
  }
}

function pendingText(old: Before | undefined): string {
  if (old === undefined) return JSON.stringify({ former: null } satisfies Pending);
  const { bytes, mode, owner } = old;
  const base64 = Buffer.from(bytes).toString("base64");
  return JSON.stringify({
    former: { base64, mode, ...(owner === undefined ? {} : { owner }) },
  } satisfies Pending);
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
    const how = { signal, keepBytes: READ_BYTES, outputGraceMs: OUTPUT_GRACE_MS };
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
  const there = await before(path, machine);
  const folder = folderOf(path);
  // Names that programs do not take which read a whole folder.
  const name = `${folder}/.${path.slice(path.lastIndexOf("/") + 1)}`;
  const pending = `${name}.pending`;
  const left = rule.command === undefined ? undefined : await pendingAt(pending, machine);
  const mode = rule.mode ?? there?.mode ?? 0o644;
  const isSame = there !== undefined && Buffer.from(text).equals(there.bytes);
  const isDone = isSame && there.mode === mode;
  if (isDone && left === undefined) return false;
  // Whom it belongs to; what is there is nothing to go back to as long as its command has not gone well.
  const owner = there?.owner;
  const old = left === undefined ? there : (left ?? undefined);
  if (rule.makeFolders && (await disk.info(folder)) === undefined) await disk.makeFolder(folder);
  if (rule.check !== undefined && !isSame) {
    const beside = `${name}.${machine.processes.pid}.new`;
    try {
      await disk.replace(beside, text, mode, owner);
      const command = rule.check.replaceAll("{}", () => shellWord(beside));
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
  if (rule.backup === true && old !== undefined) await disk.replace(`${path}.bak`, old.bytes, old.mode, old.owner);
  if (rule.command !== undefined && left === undefined) await disk.replace(pending, pendingText(old), PRIVATE);
  if (!isDone) {
    await disk.replace(path, text, mode, owner);
    const made = rule.mode === undefined ? undefined : await disk.info(path);
    // A new file loses what the umask says; one whose owner is told does not.
    if (made?.owner !== undefined && made.mode !== mode) await disk.replace(path, text, mode, made.owner);
  }
  if (rule.command === undefined) return true;
  const failure = await failureOf(rule.command, rule.commandTimeoutMs, machine, stop);
  if (failure !== undefined)
    try {
      if (old === undefined) await disk.remove(path);
      else await disk.replace(path, old.bytes, old.mode, old.owner);
    } catch (error) {
      throw new TrilithError(
        codeOf(error),
        `${rule.path}: "${rule.command}" failed: ${failure}; the former file, which ${pending} holds, could not be put back: ${messageOf(error)}`,
        error,
      );
    }
  const again = failure === undefined ? undefined : await failureOf(rule.command, rule.commandTimeoutMs, machine, stop);
  await disk.remove(pending);
  if (failure === undefined) return true;
  const back = old === undefined ? "the new file is gone again" : "the former file is back";
  throw new TrilithError(
    "unavailable",
    `${rule.path}: "${rule.command}" failed: ${failure}; ${back}, and with it the command ${again === undefined ? "went well" : `failed, too: ${again}`}`,
  );
}
