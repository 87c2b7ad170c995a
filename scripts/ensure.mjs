// Makes a fresh clone ready: installs packages and builds when something is missing or older than its source.
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, rmSync, statSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

export const root = join(dirname(fileURLToPath(import.meta.url)), "..");

const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
if (major < 20 || (major === 20 && minor < 19)) {
  console.error(`Trilith needs Node.js 20.19 or newer; this is ${process.versions.node}.`);
  process.exit(1);
}

function newest(path) {
  const found = statSync(path);
  if (!found.isDirectory()) return found.mtimeMs;
  return Math.max(0, ...readdirSync(path).map((name) => newest(join(path, name))));
}

/** Runs a command with the caller's output; ends this process when it fails. */
export function must(command, args, options = {}) {
  const done = spawnSync(command, args, { cwd: root, stdio: "inherit", ...options });
  if (done.status !== 0) process.exit(done.status ?? 1);
}

export function ensureInstalled() {
  const marker = join(root, "node_modules", ".package-lock.json");
  if (existsSync(marker) && statSync(marker).mtimeMs >= statSync(join(root, "package-lock.json")).mtimeMs) return;
  console.error("Installing packages (once) …");
  // The lock's versions, but not `npm ci`, which begins by throwing away what is there. --no-save keeps the clone clean. What npm
  // says belongs to standard error: standard output is the program's.
  must("npm", ["install", "--no-save", "--no-audit", "--no-fund", "--loglevel=error"], { stdio: ["ignore", 2, 2] });
}

/** Written when a build is complete: one that was interrupted leaves some of its files, the program's perhaps among them. */
export const stamp = join(root, ".tmp", "built");

/** True where what was built in a folder is whole, and no older than its sources. */
export function isBuilt(folder) {
  const [main, built] = [join(folder, "dist", "cli", "main.js"), join(folder, relative(root, stamp))];
  if (!existsSync(main) || !existsSync(built)) return false;
  const sources = ["src", "package.json", "tsconfig.build.json", "tsconfig.json"].map((name) =>
    newest(join(folder, name)),
  );
  return statSync(built).mtimeMs >= Math.max(...sources);
}

export function ensureBuilt() {
  ensureInstalled();
  if (isBuilt(root)) return;
  console.error("Building …");
  rmSync(stamp, { force: true });
  must("npm", ["run", "--silent", "build"], { stdio: ["ignore", 2, 2] });
}
