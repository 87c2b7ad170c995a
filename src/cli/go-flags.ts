// Lets people type flags as they type Consul's: one dash or two, `-flag=value`, `-flag value`, `-bool=false`.

/**
 * Rewrites Go-style arguments into the two-dash form that commander reads. Stops at `--` and, with `passThrough`, at the first word
 * that is no flag. `-x` with one letter stays a short flag.
 * @param booleans names of flags that take no value: `-dev=true` becomes `--dev`, `-dev=false` vanishes
 */
export function goFlags(args: readonly string[], booleans: ReadonlySet<string>): string[] {
  const rewritten: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const word = args[i] as string;
    if (word === "--") return [...rewritten, ...args.slice(i)];
    const match = /^--?([A-Za-z][A-Za-z0-9_-]+)(?:=([\s\S]*))?$/.exec(word);
    if (match === null) {
      rewritten.push(word);
      continue;
    }
    const [, name = "", value] = match;
    if (value === undefined) rewritten.push(`--${name}`);
    else if (!booleans.has(name)) rewritten.push(`--${name}=${value}`);
    else if (/^(1|t|true)$/i.test(value)) rewritten.push(`--${name}`);
    else if (!/^(0|f|false)$/i.test(value)) rewritten.push(`--${name}=${value}`);
  }
  return rewritten;
}
