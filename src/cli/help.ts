// What `trilith help` prints: all commands by subject, in lines that fit every terminal.
import { Help } from "commander";
import { GROUPS } from "./commands.ts";
import { CLIENT_GROUP } from "./io.ts";

const WIDTH = 80;

/** How commander prints the help of one command. */
export const HELP_STYLE: Pick<Help, "groupItems" | "minWidthToWrap"> = {
  /** Beside the longest flags less than commander's 40 columns are left of 80. */
  minWidthToWrap: 20,
  /** A command's own flags come before those that all have. */
  groupItems(unsorted, visible, getGroup) {
    const groups = new Help().groupItems(unsorted, visible, getGroup);
    const common = groups.get(CLIENT_GROUP);
    if (common !== undefined && groups.delete(CLIENT_GROUP)) groups.set(CLIENT_GROUP, common);
    return groups;
  },
};

/** The overview of all commands. */
export function overview(): string {
  const groups = Object.entries(GROUPS);
  const names = Math.max(...groups.flatMap(([, commands]) => Object.keys(commands).map((name) => name.length)));
  const parts = groups.map(([title, commands]) => {
    const lines = Object.entries(commands).map(([name, [summary]]) =>
      wrap(summary, WIDTH - names - 4)
        .map((line, i) => `  ${(i === 0 ? name : "").padEnd(names)}  ${line}`)
        .join("\n"),
    );
    return `${title}\n${lines.join("\n")}\n`;
  });
  return `Usage: trilith <command> [flags]

Trilith is service discovery: whatever runs is found by name, over DNS and HTTP.

${parts.join("\n")}
"trilith <command> --help" lists a command's flags. First steps:
  trilith agent
  trilith run --name web -- python3 -m http.server 0
  trilith find web
`;
}

/** Cuts a text at blanks into lines of at most so many characters, where its words allow. */
function wrap(text: string, width: number): readonly string[] {
  const lines: string[] = [];
  for (const word of text.split(" ")) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= width) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines;
}
