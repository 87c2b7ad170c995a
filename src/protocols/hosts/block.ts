// The marked block in a hosts file: found, put in, taken out; what others wrote is not touched by a byte. Pure.

/** A file taken apart. */
export interface Parts {
  /** What is others': `before` ends where the block begins. */
  readonly before: string;
  readonly after: string;
  /** The block with its marks, as it stands there; undefined where there is none. */
  readonly block: string | undefined;
  /** Marks without their counterpart and second blocks, which were left out of `before` and `after`. */
  readonly strays: number;
}

const begin = (name: string): string => `# BEGIN ${name}`;
const end = (name: string): string => `# END ${name}`;
const NOTE = " (written by Trilith: changes in here are lost)";

/** A block with its lines. */
export function blockOf(name: string, lines: readonly string[], newline = "\n"): string {
  return [begin(name) + NOTE, ...lines, end(name), ""].join(newline);
}

/** The lines within a block as it stands in a file. */
export function linesIn(block: string): readonly string[] {
  return block.split(/\r?\n/).slice(1, -2);
}

/** "\r\n" where the file's lines end so. */
export const newlineOf = (text: string): string => (/\r\n/.test(text) ? "\r\n" : "\n");

/**
 * A mark without its counterpart is taken out alone: the lines around it may be somebody's. Of several blocks the first counts, the others
 * are Trilith's too, and go.
 */
export function takeApart(text: string, name: string): Parts {
  const lines = text.match(/[^\n]*\n|[^\n]+$/g) ?? [];
  const isBegin = (line: string): boolean => line.trim() === begin(name) || line.startsWith(`${begin(name)} (`);
  const isEnd = (line: string): boolean => line.trim() === end(name);
  let [before, after] = ["", ""];
  let block: string | undefined;
  let strays = 0;
  for (let i = 0; i < lines.length; i++) {
    const line = lines[i] as string;
    if (isBegin(line)) {
      let to = i + 1;
      while (to < lines.length && !isEnd(lines[to] as string) && !isBegin(lines[to] as string)) to++;
      if (to < lines.length && isEnd(lines[to] as string)) {
        const found = lines.slice(i, to + 1).join("");
        if (block === undefined) block = found.endsWith("\n") ? found : `${found}\n`;
        else strays++;
        i = to;
        continue;
      }
      strays++;
    } else if (isEnd(line)) strays++;
    else if (block === undefined) before += line;
    else after += line;
  }
  return { before, after, block, strays };
}

/** The file with a block in the place of the old one, else at its end; without one where it is undefined. */
export function putTogether({ before, after, block: old }: Parts, block: string | undefined): string {
  if (block === undefined) return before + after;
  const newline = newlineOf(before + after);
  const gap = before === "" || before.endsWith("\n") ? "" : newline;
  return old === undefined && after === "" ? before + gap + block : before + gap + block + after;
}
