// Flags as GNU's getopt_long reads them, for commands that stand in for Avahi's: bundles, shortened long flags, flags behind words, its sentences.

/** A flag: its letter ("" = none), whether a value belongs to it. */
export interface Flag {
  readonly letter: string;
  readonly value?: true;
}

export interface Parsed {
  /** In the order in which they came, by their long names. */
  readonly flags: readonly { readonly name: string; readonly value: string }[];
  readonly words: readonly string[];
}

/** Reads a command line. @returns what is wrong with it as a sentence instead, as getopt prints it behind the program's name */
export function getopt(words: readonly string[], known: Readonly<Record<string, Flag>>): Parsed | string {
  const flags: { name: string; value: string }[] = [];
  const others: string[] = [];
  for (let i = 0; i < words.length; i++) {
    const word = words[i] as string;
    if (word === "--") {
      others.push(...words.slice(i + 1));
      break;
    }
    if (word.startsWith("--")) {
      const at = word.indexOf("=");
      const written = word.slice(2, at < 0 ? undefined : at);
      const name = longName(written, known);
      if ("fault" in name) return name.fault;
      const { found } = name;
      if (known[found]?.value !== true) {
        if (at >= 0) return `option '--${found}' doesn't allow an argument`;
        flags.push({ name: found, value: "" });
      } else {
        const value = at < 0 ? words[++i] : word.slice(at + 1);
        if (value === undefined) return `option '--${found}' requires an argument`;
        flags.push({ name: found, value });
      }
    } else if (word.startsWith("-") && word.length > 1) {
      for (let at = 1; at < word.length; at++) {
        const letter = word[at] as string;
        const name = Object.keys(known).find((each) => known[each]?.letter === letter);
        if (name === undefined) return `invalid option -- '${letter}'`;
        if (known[name]?.value !== true) {
          flags.push({ name, value: "" });
          continue;
        }
        const value = at + 1 < word.length ? word.slice(at + 1) : words[++i];
        if (value === undefined) return `option requires an argument -- '${letter}'`;
        flags.push({ name, value });
        break;
      }
    } else others.push(word);
  }
  return { flags, words: others };
}

/** The flag that is written out, or the only one that begins so. */
function longName(
  written: string,
  known: Readonly<Record<string, Flag>>,
): { readonly found: string } | { readonly fault: string } {
  if (Object.hasOwn(known, written)) return { found: written };
  const fitting = Object.keys(known).filter((name) => name.startsWith(written));
  const [found] = fitting;
  if (found === undefined) return { fault: `unrecognized option '--${written}'` };
  if (fitting.length === 1) return { found };
  return {
    fault: `option '--${written}' is ambiguous; possibilities: ${fitting.map((name) => `'--${name}'`).join(" ")}`,
  };
}
