// docs/compatibility.md against the code: no endpoint, key, flag or command is missing there, and none is listed that does not exist.
import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { rows } from "./routes/index.ts";
import { KNOWN } from "./settings.ts";

const root = new URL("../../../", import.meta.url);
const page = readFileSync(new URL("docs/compatibility.md", root), "utf8");
const spans = (text: string): string[] => Array.from(text.matchAll(/`([^`\n]+)`/g), (match) => match[1] as string);
/** The text between two pieces of text that both occur once. */
function between(from: string, to: string): string {
  const start = page.indexOf(from);
  const end = page.indexOf(to, start);
  expect([start === -1, end === -1], `${from} … ${to}`).toEqual([false, false]);
  return page.slice(start + from.length, end);
}
const sorted = (names: Iterable<string>): string[] => [...names].sort();

it("lists every endpoint with its methods", () => {
  const listed = spans(page).filter((text) => /^[A-Z]+( [A-Z]+)* \/v1\//.test(text));
  expect(new Set(listed).size).toBe(listed.length);
  expect(sorted(listed)).toEqual(
    sorted(rows.map(({ methods, pattern }) => `${methods.join(" ")} ${pattern.replace(/\/$/, "/…")}`)),
  );
});

it("lists every configuration key", () => {
  const counting = spans(between("**These count:** `services`", "`acl.enabled` must"));
  // The first one opens the sentence.
  expect(sorted(["services", ...counting])).toEqual(sorted([...KNOWN.keys, ...KNOWN.definitions]));
  const ignored = between("**These are accepted and have no effect,**", "## Flags").replace(/^[^\n]*\n/, "");
  expect(sorted(spans(ignored))).toEqual(sorted(KNOWN.ignoredKeys));
});

it("lists every flag", () => {
  const kebab = (name: string): string => `-${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
  const counting = spans(between("**These count:** `-config-file`", "**Accepted without"));
  expect(sorted(counting)).toEqual(sorted(["-config-dir", ...KNOWN.flags.map(kebab)]));
  expect(sorted(spans(between("**Accepted without an effect:**", "## Commands")))).toEqual(
    sorted(KNOWN.ignoredFlags.map(kebab)),
  );
});

it("lists every command", () => {
  const table = readFileSync(new URL("src/cli/commands.ts", root), "utf8");
  const names = Array.from(table.matchAll(/import\("\.\/commands\/([a-z-]+)\.ts"\)/g), (match) => match[1] as string);
  expect(names.length).toBeGreaterThan(20);
  const listed = spans(between("## Commands", "Absent: `connect`"));
  expect(names.filter((name) => !listed.includes(name))).toEqual([]);
});
