// What a command is handed: where to write, what to read, how to be interrupted; and how to print tables.
import type { Command as Commander } from "commander";

export interface Io {
  out(text: string): void;
  err(text: string): void;
  env(name: string): string | undefined;
  /** Standard input as bytes, to its end. */
  stdin(): Promise<Uint8Array>;
  /** Aborted by SIGINT or SIGTERM. */
  readonly signal: AbortSignal;
  readonly terminal: boolean;
  /** Lets go of SIGINT and SIGTERM, for a command that handles them itself; `signal` is not aborted any more. */
  close(): void;
}

/** One command of the program, in one file. `define` adds its flags and action; the action's number is the exit code. */
export interface Command {
  readonly name: string;
  readonly summary: string;
  define(command: Commander, io: Io, done: (exitCode: number) => void): void;
}

/** Columns aligned by two blanks, as wide as their widest cell; no trailing blanks. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, cell.length);
  return rows
    .map(
      (row) =>
        `${row
          .map((cell, i) => cell.padEnd(widths[i] ?? 0))
          .join("  ")
          .trimEnd()}\n`,
    )
    .join("");
}

/** Collects a repeatable option. */
export function collect(value: string, before: readonly string[] | undefined): readonly string[] {
  return [...(before ?? []), value];
}

/** `key=value` words as an object without prototype. @throws Error naming the word that has no `=` */
export function pairs(words: readonly string[], flag: string): Record<string, string> {
  const labels: Record<string, string> = Object.create(null);
  for (const word of words) {
    const at = word.indexOf("=");
    if (at <= 0) throw new Error(`${flag} "${word}": expected key=value`);
    labels[word.slice(0, at)] = word.slice(at + 1);
  }
  return labels;
}

/** Milliseconds as people say them: "3s", "4m 10s", "2h 5m", "3d 4h". */
export function ago(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m ${seconds % 60}s`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)}h ${Math.floor((seconds % 3600) / 60)}m`;
  return `${Math.floor(seconds / 86_400)}d ${Math.floor((seconds % 86_400) / 3600)}h`;
}
