// Real clients of Consul for tests: Go programs built by the module proxy, Python and npm packages in folders of their own, and how they are run.
import { execFile, spawn } from "node:child_process";
import { cp, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { havePrograms } from "./peers.ts";

const run = promisify(execFile);

/** What came of a program that ended by itself. */
export interface Ended {
  /** null = ended by a signal (it took too long). */
  readonly exitCode: number | null;
  /** Standard output and standard error, as they came. */
  readonly output: string;
}

/** Runs a program to its end and hands back its output; ended by SIGKILL after `timeoutMs`. */
export function runClient(
  command: readonly string[],
  options: {
    readonly env?: Readonly<Record<string, string>>;
    readonly cwd?: string;
    readonly timeoutMs?: number;
  } = {},
): Promise<Ended> {
  const [file = "", ...args] = command;
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, ...options.env },
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    });
    const killer = setTimeout(() => child.kill("SIGKILL"), options.timeoutMs ?? 60_000);
    let output = "";
    const take = (chunk: Buffer): void => {
      output += chunk.toString();
    };
    child.stdout.on("data", take);
    child.stderr.on("data", take);
    child.once("error", reject);
    child.once("close", (exitCode) => {
      clearTimeout(killer);
      resolve({ exitCode, output });
    });
  });
}

async function must(command: readonly string[], cwd: string, env: Readonly<Record<string, string>>): Promise<void> {
  const [file = "", ...args] = command;
  try {
    await run(file, args, { cwd, env: { ...process.env, ...env }, maxBuffer: 1 << 26 });
  } catch (cause) {
    const { stderr = "", stdout = "" } = cause as { stderr?: string; stdout?: string };
    throw new Error(`${command.join(" ")}: ${stdout.slice(-2000)}${stderr.slice(-4000)}`, { cause });
  }
}

/**
 * Whether Go can build these clients (1.22 or later). False = not here: the caller marks its tests as not run, and the reason was said;
 * with CI=true this throws instead. Debian 12's own Go is too old, so nothing is installed.
 */
export async function haveGo(): Promise<boolean> {
  const version = await run("go", ["env", "GOVERSION"]).then(
    ({ stdout }) => stdout.trim(),
    () => "",
  );
  const [, minor] = /^go1\.(\d+)/.exec(version) ?? [];
  if (Number(minor) >= 22) return true;
  const text = `not run: these clients are built with Go 1.22 or later, ${version === "" ? "and go is not on the PATH" : `not with ${version}`}`;
  if (process.env["CI"] === "true") throw new Error(text);
  console.warn(text);
  return false;
}

/** Two compilations at a time: tests share the machine. Nothing is stamped, because the folders are under no version control. */
const GO_ENV = { GOFLAGS: "-mod=mod -buildvcs=false -p=2", GOWORK: "off" } as const;

/**
 * Builds a Go program into `folder`/bin and returns the binary's path; what was compiled stays in Go's own cache.
 * `source`: a folder with go.mod to be copied (its own program, or the package `main` of its requirements), or the text of a go.mod whose requirements hold the package `main`.
 */
export async function buildGo(
  folder: string,
  name: string,
  source: { readonly folder: string; readonly main?: string } | { readonly goMod: string; readonly main: string },
): Promise<string> {
  const at = join(folder, `${name}-source`);
  const binary = join(folder, "bin", name);
  if ("folder" in source) await cp(source.folder, at, { recursive: true });
  else {
    await mkdir(at, { recursive: true });
    await writeFile(join(at, "go.mod"), source.goMod);
  }
  await must(["go", "build", "-o", binary, source.main ?? "."], at, GO_ENV);
  return binary;
}

/** Whether Python can make virtual environments here (Debian keeps that in a package of its own); as `havePrograms`. */
export async function havePython(): Promise<boolean> {
  const whole = await run("python3", ["-c", "import venv, ensurepip"]).then(
    () => true,
    () => false,
  );
  return whole || (await havePrograms("python3", "virtualenv"));
}

/** A virtual environment in `folder` with these packages (`name==version`); returns its Python. */
export async function pythonWith(folder: string, ...packages: readonly string[]): Promise<string> {
  const at = join(folder, "venv");
  await must(["python3", "-m", "venv", at], folder, {}).catch(() => must(["virtualenv", "--clear", at], folder, {}));
  const python = join(at, "bin/python");
  await must([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", ...packages], folder, {});
  return python;
}

/** Installs npm packages (`name@version`) into `folder`, without running their scripts. */
export async function npmWith(folder: string, ...packages: readonly string[]): Promise<void> {
  await writeFile(join(folder, "package.json"), '{"private":true}');
  await must(["npm", "install", "--no-save", "--no-audit", "--no-fund", "--ignore-scripts", ...packages], folder, {});
}
