// Holds the code to the import table of ARCHITECTURE.md, and the machine's doors (time, network, files, processes) to base/.
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { basename, dirname, join, relative, resolve } from "node:path";
import { describe, expect, it } from "vitest";

const root = resolve(import.meta.dirname, "..");
const src = join(root, "src");

function filesBelow(folder: string): string[] {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) return filesBelow(path);
    return path.endsWith(".ts") ? [path] : [];
  });
}

interface Import {
  readonly specifier: string;
  readonly lazy: boolean;
}

function importsOf(text: string): Import[] {
  const found: Import[] = [];
  for (const match of text.matchAll(/^\s*(?:import|export)\s[^;]*?from\s+"([^"]+)"|^\s*import\s+"([^"]+)"/gm))
    found.push({ specifier: match[1] ?? match[2] ?? "", lazy: false });
  for (const match of text.matchAll(/import\(\s*"([^"]+)"\s*\)/g))
    found.push({ specifier: match[1] ?? "", lazy: true });
  return found;
}

/** The table of ARCHITECTURE.md: which room may import which. */
function readTable(): Map<string, Set<string>> {
  const [text = ""] = readFileSync(join(root, "ARCHITECTURE.md"), "utf8").split("## The rooms");
  const rows = [...text.matchAll(/^\| ([^|]+) \| ([^|]+) \|$/gm)].map(
    (m) => [m[1]?.trim() ?? "", m[2]?.trim() ?? ""] as const,
  );
  const table = new Map<string, Set<string>>();
  for (const [rooms, may] of rows) {
    if (rooms === "folder" || rooms.startsWith("---")) continue;
    for (const room of rooms.split(", "))
      table.set(room, new Set(may === "—" ? [] : may.split(/[,;] /).map((s) => s.trim())));
  }
  return table;
}

/** The rooms of ARCHITECTURE.md's map and what it says of each. */
function readRooms(): Map<string, string> {
  const text = readFileSync(join(root, "ARCHITECTURE.md"), "utf8");
  const rows = [...text.slice(text.indexOf("## The rooms")).matchAll(/^\| `([^`]+)` *\| (.*) \|$/gm)];
  return new Map(rows.map(([, room = "", says = ""]) => [room.replace(/\/$/, ""), says]));
}

/** The room of a file, and for a protocol its own name. */
function roomOf(path: string): { room: string; protocol: string } {
  const parts = relative(src, path).split("/");
  if (parts.length === 1) return { room: parts[0] ?? "", protocol: "" };
  if (parts[0] === "protocols")
    return parts.length > 2 ? { room: "protocols/x", protocol: parts[1] ?? "" } : { room: "protocols", protocol: "" };
  return { room: parts[0] ?? "", protocol: "" };
}

const MACHINE = /^node:(net|dgram|dns|http|https|http2|tls|fs|child_process|os|timers|worker_threads)(\/|$)/;
const GLOBALS =
  /(?<![\w.])(setTimeout|setInterval|setImmediate|fetch)\(|(?<![\w.])(Date\.now|performance\.now|Math\.random|crypto\.randomUUID|process\.(?:env|kill|on|exit|hrtime|cwd|pid))\b|new Date\(\)/;

describe("the map and the code", () => {
  const table = readTable();
  const files = filesBelow(src);

  it("reads a table at all", () => {
    expect(table.get("base")?.size).toBe(0);
    expect(table.get("directory")).toEqual(new Set(["base", "wire", "model", "contracts"]));
  });

  it("imports only what the table allows", () => {
    const wrong: string[] = [];
    for (const file of files) {
      const from = roomOf(file);
      // Tests are not shipped and may put real neighbours together.
      if (file.endsWith(".test.ts")) continue;
      const may = table.get(from.room) ?? (from.room === "protocols" ? table.get("protocols/x") : undefined);
      if (may === undefined) {
        wrong.push(`${relative(root, file)} lies in a place that the table does not name`);
        continue;
      }
      if (may.has("everything")) continue;
      for (const { specifier, lazy } of importsOf(readFileSync(file, "utf8"))) {
        if (!specifier.startsWith(".")) continue;
        const target = resolve(dirname(file), specifier);
        if (!target.startsWith(src)) {
          wrong.push(`${relative(root, file)} leaves src: ${specifier}`);
          continue;
        }
        const to = roomOf(target);
        const own = to.room === from.room && to.protocol === from.protocol;
        // The list of protocols names every folder; that is what it is for.
        const list = from.room === "protocols" && to.room === "protocols/x";
        const lazily =
          lazy &&
          to.room === "protocols/x" &&
          relative(src, target).endsWith("/cli.ts") &&
          may.has("lazily protocols/x/cli.ts");
        if (own || list || lazily || may.has(to.room)) continue;
        wrong.push(`${relative(root, file)} (${from.room}) imports ${relative(src, target)} (${to.room})`);
      }
    }
    expect(wrong).toEqual([]);
  });

  it("reaches the machine only through base/", () => {
    const wrong: string[] = [];
    for (const file of files) {
      if (file.endsWith(".test.ts") || roomOf(file).room === "base") continue;
      const text = readFileSync(file, "utf8");
      for (const match of text.matchAll(/^\s*import\s+(type\s)?[^;]*?from\s+"(node:[^"]+)"/gm))
        if (match[1] === undefined && MACHINE.test(match[2] ?? ""))
          wrong.push(`${relative(root, file)} imports ${match[2]}`);
      for (const [number, line] of text.split("\n").entries()) {
        const code = line.replace(/\/\/.*$|^\s*\*.*$|"(?:[^"\\]|\\.)*"|`[^`]*`/g, "");
        const found = GLOBALS.exec(code);
        if (found !== null) wrong.push(`${relative(root, file)}:${number + 1} uses ${found[0]}`);
      }
    }
    expect(wrong).toEqual([]);
  });

  it("names every folder of src, and none that is gone", () => {
    const rows = readRooms();
    const folders = [...new Set(files.map((file) => relative(src, dirname(file))))].flatMap((folder) =>
      folder.split("/").map((_, i, parts) => parts.slice(0, i + 1).join("/")),
    );
    const named = (folder: string): boolean =>
      rows.has(folder) || (rows.get(dirname(folder)) ?? "").includes(`\`${basename(folder)}/\``);
    const unnamed = [...new Set(folders)].filter((folder) => !/^(protocols)?$/.test(folder) && !named(folder));
    const gone = [...rows].flatMap(([room, text]) => [
      ...(existsSync(join(src, room)) ? [] : [room]),
      ...[...text.matchAll(/`([\w-]+)\/`/g)]
        .map((m) => join(room, m[1] ?? ""))
        .filter((at) => !existsSync(join(src, at))),
    ]);
    const tableGone = [...table.keys()].filter((room) => room !== "protocols/x" && !existsSync(join(src, room)));
    expect({ unnamed, gone, tableGone }).toEqual({ unnamed: [], gone: [], tableGone: [] });
  });

  it("says in every file's first line what the file is", () => {
    const silent = [...files, ...filesBelow(join(root, "test")), ...filesBelow(join(root, "bench"))]
      .filter((file) => !/^(#!.*\n)?\/\/ \S.{10,}/.test(readFileSync(file, "utf8")))
      .map((file) => relative(root, file));
    expect(silent).toEqual([]);
  });

  it("gives every protocol a README", () => {
    const protocols = readdirSync(join(src, "protocols")).filter((name) =>
      statSync(join(src, "protocols", name)).isDirectory(),
    );
    const without = protocols.filter((name) => !readdirSync(join(src, "protocols", name)).includes("README.md"));
    expect(without).toEqual([]);
  });
});
