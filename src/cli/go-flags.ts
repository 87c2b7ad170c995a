// Lets people type flags as they type Consul's: one dash or two, `-flag=value`, `-flag value`, `-bool=false`.

import { InputError } from "../base/error.ts";

const NONE: ReadonlySet<string> = new Set();
const FLAG = /^--?([A-Za-z][A-Za-z0-9_-]+)(?:=([\s\S]*))?$/;

/**
 * Rewrites Go-style arguments into the two-dash form that commander reads. Stops at `--` and, with `passThrough`, at the first word
 * that is neither a flag nor a flag's value. `-x` with one letter stays a short flag.
 * @param known names of all flags: what is no flag (a value that begins with a dash) stays as it was typed
 * @param booleans names of flags that take no value: `-dev=true` becomes `--dev`; `-dev=false` becomes `--no-dev` where that is among them, else it vanishes
 * @param valued names of flags that must have a value: another flag behind one is not taken for it
 * @throws InputError where one of them is followed by another flag of `known`
 */
export function goFlags(
  args: readonly string[],
  booleans: ReadonlySet<string>,
  passThrough = false,
  known?: ReadonlySet<string>,
  valued: ReadonlySet<string> = NONE,
): string[] {
  const rewritten: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const word = args[i] as string;
    if (word === "--") return [...rewritten, ...args.slice(i)];
    const match = FLAG.exec(word);
    const next = args[i + 1] ?? "";
    if (valued.has(match?.[1] ?? "") && match?.[2] === undefined && known?.has(FLAG.exec(next)?.[1] ?? ""))
      throw new InputError(`${word}`, `its value is missing: "${next}" follows (${word}=${next} if that is meant)`);
    if (passThrough) {
      if (!/^-./.test(word)) return [...rewritten, ...args.slice(i)];
      const takesValue = match === null ? /^-[A-Za-z]$/.test(word) : match[2] === undefined;
      const value = args[i + 1];
      if (takesValue && !booleans.has(match?.[1] ?? word.slice(1)) && value !== undefined) {
        rewritten.push(match === null ? word : `--${match[1]}`, value);
        i++;
        continue;
      }
    }
    if (match === null) {
      rewritten.push(word);
      continue;
    }
    const [, name = "", value] = match;
    // A negated one is asked for by its bare name.
    if (known !== undefined && !known.has(name) && !known.has(`no-${name}`)) rewritten.push(word);
    else if (value === undefined) rewritten.push(`--${name}`);
    else if (!booleans.has(name)) rewritten.push(`--${name}=${value}`);
    else if (/^(1|t|true)$/i.test(value)) rewritten.push(`--${name}`);
    else if (!/^(0|f|false)$/i.test(value)) rewritten.push(`--${name}=${value}`);
    else if (booleans.has(`no-${name}`)) rewritten.push(`--no-${name}`);
  }
  return rewritten;
}
