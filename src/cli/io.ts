// What a command is handed: where to write, what to read, how to be interrupted; and how to print tables.
import type { Command as Commander } from "commander";
import { InputError } from "../base/error.ts";
import type { Terminal } from "../base/terminal.ts";

/** What a command is handed. */
export type Io = Terminal;

/** One command of the program, in one file. `define` adds its flags and action; the action's number is the exit code. */
export interface Command {
  readonly name: string;
  readonly summary: string;
  /** True: flags end at the first word that is none; what follows is another command's line. */
  readonly passThrough?: true;
  define(command: Commander, io: Io, done: (exitCode: number) => void): void;
  /** For a drop-in that reads its flags itself: handed the words as they were typed, resolves with the exit code. `define` then serves completion only. */
  verbatim?(words: readonly string[], io: Io): Promise<number>;
}

/** What the flags by which an agent is reached are called together in help texts. */
export const CLIENT_GROUP = "To reach the agent:";

/** Longer cells are cut, or one instance with many tags would fill the screen with blanks; --json prints them whole. */
const LONGEST_CELL = 120;

/**
 * Columns aligned by two blanks, as wide as their widest cell; no trailing blanks. `whole`: no cell is cut, for what programs read;
 * `gap`: more blanks.
 */
export function table(
  rows: readonly (readonly string[])[],
  { whole = false, gap = 2 }: { readonly whole?: boolean; readonly gap?: number } = {},
): string {
  const cells = rows.map((row) => row.map((cell) => (whole ? printable(cell) : cut(printable(cell)))));
  const widths: number[] = [];
  for (const row of cells) for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, width(cell));
  const padded = (cell: string, i: number): string => cell + " ".repeat((widths[i] ?? 0) - width(cell));
  return cells.map((row) => `${row.map(padded).join(" ".repeat(gap)).trimEnd()}\n`).join("");
}

function cut(text: string): string {
  const points = [...text];
  return points.length <= LONGEST_CELL ? text : `${points.slice(0, LONGEST_CELL - 1).join("")}…`;
}

/** Text from outside as one line that cannot steer a terminal: control and direction characters as \u{…}. */
export function printable(text: string): string {
  return text.replace(
    /[\p{Cc}\p{Cs}\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu,
    (character) => `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`,
  );
}

const WIDE =
  /\p{Emoji_Presentation}|[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]/u;

/** Columns of a terminal. */
function width(text: string): number {
  let columns = 0;
  for (const point of text) columns += /[\p{Mn}\p{Me}\p{Cf}]/u.test(point) ? 0 : WIDE.test(point) ? 2 : 1;
  return columns;
}

/** What --json prints: indented, with a line break at its end. */
export function json(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}

/** What Consul's -format takes. @throws InputError */
export function formatOf(value: string): "pretty" | "json" {
  if (value === "pretty" || value === "json") return value;
  throw new InputError("-format", `"${value}": expected pretty or json`);
}

/** Collects a repeatable option. */
export function collect(value: string, before: readonly string[] | undefined): readonly string[] {
  return [...(before ?? []), value];
}

/** `key=value` words as an object without prototype. @throws InputError naming the word that has no `=` */
export function pairs(words: readonly string[], flag: string): Record<string, string> {
  const labels: Record<string, string> = Object.create(null);
  for (const word of words) {
    const at = word.indexOf("=");
    if (at <= 0) throw new InputError(flag, `"${word}": expected key=value`);
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
