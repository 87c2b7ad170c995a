// Every link between documents leads somewhere: in the repository, and from the package's documents into the package.
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, normalize, relative, resolve } from "node:path";
import { describe, expect, it } from "vitest";

const root = resolve(import.meta.dirname, "..");
const git = (...words: string[]): readonly string[] =>
  execFileSync("git", ["ls-files", "--cached", "--others", "--exclude-standard", ...words], {
    cwd: root,
    encoding: "utf8",
  })
    .split("\n")
    .filter((path) => path !== "" && existsSync(join(root, path)));

interface Link {
  readonly from: string;
  /** Below the root of the repository. */
  readonly to: string;
  readonly anchor: string;
}

/** What GitHub calls a heading's anchor. */
const anchorOf = (heading: string): string =>
  heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N} _-]/gu, "")
    .replaceAll(" ", "-");

const textOf = (path: string): string => readFileSync(join(root, path), "utf8").replace(/^```[\s\S]*?^```/gm, "");

function linksIn(from: string): readonly Link[] {
  const links: Link[] = [];
  for (const [, target = ""] of textOf(from).matchAll(/\]\(([^)\s]+)\)/g)) {
    if (/^[a-z]+:/.test(target)) continue;
    const [path = "", anchor = ""] = target.split("#");
    links.push({ from, to: path === "" ? from : normalize(join(dirname(from), path)).replace(/\/$/, ""), anchor });
  }
  return links;
}

describe("links between documents", () => {
  const links = git("*.md").flatMap(linksIn);

  it("lead to files that are there", () => {
    expect(links.length).toBeGreaterThan(30);
    expect(links.filter(({ to }) => !existsSync(join(root, to)))).toEqual([]);
  });

  it("lead to headings that are there", () => {
    const missing = links.filter(({ to, anchor }) => {
      if (anchor === "" || !to.endsWith(".md")) return false;
      const headings = [...textOf(to).matchAll(/^#+ (.*)$/gm)].map(([, heading = ""]) => anchorOf(heading));
      return !headings.includes(anchor);
    });
    expect(missing).toEqual([]);
  });

  it("of documents in the package lead to what is in the package", { timeout: 60_000 }, async () => {
    const { packedFiles } = (await import("../scripts/packed.mjs" as string)) as { packedFiles(): readonly string[] };
    const packed = packedFiles();
    const inside = (to: string): boolean => packed.some((path) => path === to || !relative(to, path).startsWith(".."));
    expect(packed).toContain("README.md");
    expect(links.filter(({ from, to }) => packed.includes(from) && !inside(to))).toEqual([]);
  });
});
