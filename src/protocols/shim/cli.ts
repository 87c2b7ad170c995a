// `trilith hook`: starts a program with the hook's library and the agent's table, stands in for it, and says where the library cannot help.
import { codeOf, InputError, messageOf, TrilithError } from "../../base/error.ts";
import { createHttp } from "../../base/http.ts";
import { whyNotUsed } from "../../base/mapped-file.ts";
import { hookLibrary, type Libc, lastingLibrary, lastingName } from "../../base/native-build.ts";
import { type Processes, systemProcesses } from "../../base/process.ts";
import { findProgram, machineArch, ownProgram, type ProgramFile } from "../../base/program-file.ts";
import { onSignals } from "../../base/signals.ts";
import { exitCodeOf, exitOf, isInForeground, STAND_IN_SIGNALS, startFault } from "../../base/stand-in.ts";
import { isElf, readElf } from "../../wire/elf.ts";
import { type HookJson, PREFIX } from "./route.ts";

/** The command line's wishes. */
export interface HookFlags {
  readonly command: readonly string[];
  /** The table, where the agent is not to be asked. */
  readonly table?: string;
  /** Where this host's agent writes its table unless told, for when that agent is away. */
  readonly lastTable?: string;
  /** Only print the variables. */
  readonly print?: boolean;
  /** For which C library the variables are printed; this system's unless told. */
  readonly libc?: string;
  readonly agent: {
    readonly base: string;
    readonly shown: string;
    readonly socketPath?: string;
    readonly token?: string;
  };
}

export interface HookIo {
  out(text: string): void;
  err(text: string): void;
  env(name: string): string | undefined;
}

const DEFAULT_TABLE = "/run/trilith/table";
const TABLE_VARIABLE = "TRILITH_HOOK_TABLE";
/** Longer than an agent takes to write a first table. */
const AGENT_MS = 15_000;
const DEEPEST_SCRIPT = 4;

/**
 * Runs a command to its end, with the hook.
 * @returns the exit code: the program's own, 128 + n when signal n ended it, 127 or 126 when it could not be started
 * @throws InputError for flags that make no sense; TrilithError where there is no table or no library
 */
export async function hook(flags: HookFlags, io: HookIo, processes: Processes = systemProcesses): Promise<number> {
  const note = (text: string): void => io.err(`trilith hook: ${text}\n`);
  if (flags.libc !== undefined && flags.libc !== "glibc" && flags.libc !== "musl")
    throw new InputError("--libc", `"${flags.libc}": expected glibc or musl`);
  const told = flags.libc as Libc | undefined;
  const table = await tableOf(flags, io, note);
  const [command] = flags.command;
  if (flags.print === true) {
    const libc =
      told ?? (command === undefined ? await systemLibc() : (await lookAt(command, io)).libc) ?? (await systemLibc());
    // What is printed is kept in files: it must not go with the next version.
    const library = await lastingLibrary(await hookLibrary(libc));
    io.out(`LD_PRELOAD=${library}\n${TABLE_VARIABLE}=${table}\n`);
    return 0;
  }
  if (command === undefined || command === "")
    throw new InputError("", "a command is missing: trilith hook -- curl http://web.service.consul/");
  const unusable = await whyNotUsed(table);
  if (unusable !== undefined) note(unusable);
  const { libc, warning } = await lookAt(command, io);
  if (warning !== undefined) note(warning);
  // What the library cannot be loaded into may start programs that it can: a script, a shell in a static busybox.
  const library = await hookLibrary(told ?? libc ?? (await systemLibc()));
  const before = io.env("LD_PRELOAD");
  // As `--print` names it, too: one library twice would do everything twice.
  const already = before?.split(/[\s:]+/).some((each) => each === library || each === lastingName(library)) === true;
  return await standIn(
    flags.command,
    {
      LD_PRELOAD: before === undefined ? library : already ? before : `${library}:${before}`,
      [TABLE_VARIABLE]: table,
    },
    note,
    processes,
  );
}

async function standIn(
  command: readonly string[],
  env: Readonly<Record<string, string>>,
  note: (text: string) => void,
  processes: Processes,
): Promise<number> {
  let kill: ((name: NodeJS.Signals) => void) | undefined;
  const waiting: NodeJS.Signals[] = [];
  const signals = onSignals(STAND_IN_SIGNALS, async (name) => {
    if ((name === "SIGINT" || name === "SIGQUIT") && (await isInForeground(processes))) return;
    if (kill === undefined) waiting.push(name);
    else kill(name);
  });
  try {
    const child = processes.start(command, { env });
    const exit = exitOf(child);
    kill = (name) => void child.kill(name);
    for (const name of waiting) kill(name);
    return exitCodeOf(await exit);
  } catch (error) {
    const { text, exitCode } = startFault(error);
    note(`${command[0]}: ${text}`);
    return exitCode;
  } finally {
    signals.close();
  }
}

/** The table's path: as told, as the agent tells it, else where programs look by themselves. */
async function tableOf(flags: HookFlags, io: HookIo, note: (text: string) => void): Promise<string> {
  if (flags.table !== undefined) {
    if (!flags.table.startsWith("/"))
      throw new InputError(
        "--table",
        `"${flags.table}": expected a path from "/" on, since programs change their folder`,
      );
    const unusable = await whyNotUsed(flags.table);
    if (unusable !== undefined && flags.print !== true && unusable.startsWith("there is no table"))
      throw new TrilithError("not-found", unusable);
    return flags.table;
  }
  try {
    return await askAgent(flags.agent);
  } catch (error) {
    // The agent said no: another table would be another agent's.
    if (codeOf(error) !== "unavailable" && codeOf(error) !== "timeout") throw error;
    for (const path of [io.env(TABLE_VARIABLE), DEFAULT_TABLE, flags.lastTable]) {
      if (path === undefined || (await whyNotUsed(path)) !== undefined) continue;
      note(`${messageOf(error)}; going on with the table ${path} as it was last written`);
      return path;
    }
    throw new TrilithError(
      "unavailable",
      `${messageOf(error)}, and there is no table at ${DEFAULT_TABLE}: start an agent (trilith agent), or name it (--http-addr) or its table (--table)`,
      error,
    );
  }
}

async function askAgent({ base, shown, socketPath, token }: HookFlags["agent"]): Promise<string> {
  const http = createHttp();
  try {
    let text: string;
    let status: number;
    try {
      const response = await http.request({
        url: base + PREFIX,
        method: "GET",
        headTimeoutMs: AGENT_MS,
        headers: token === undefined ? {} : { "x-consul-token": token },
        ...(socketPath === undefined ? {} : { socketPath }),
      });
      status = response.status;
      text = await response.text();
    } catch (error) {
      throw new TrilithError("unavailable", `no agent answers at ${shown}`, error);
    }
    let json: Partial<HookJson> & { readonly error?: { readonly message?: string } };
    try {
      json = JSON.parse(text) as typeof json;
    } catch {
      throw new TrilithError(
        "unsupported",
        `what answers at ${shown} is not a Trilith agent that has the hook's table`,
      );
    }
    if (status === 200 && typeof json.table === "string") return json.table;
    if (status === 404)
      throw new TrilithError(
        "unsupported",
        `the agent at ${shown} writes no table for programs (hook.enabled is false, or it is older)`,
      );
    throw new TrilithError("not-allowed", `the agent at ${shown}: ${json.error?.message ?? `status ${status}`}`);
  } finally {
    await http.close();
  }
}

/** What kind of program a command is, and why the library cannot help it; nothing where that cannot be told. */
async function lookAt(
  command: string,
  io: Pick<HookIo, "env">,
): Promise<{ readonly libc?: Libc; readonly warning?: string }> {
  let word = command;
  for (let depth = 0; depth < DEEPEST_SCRIPT; depth++) {
    const file = await findProgram(word, io.env("PATH"));
    // Starting it will say so.
    if (file === undefined) return {};
    const start = await file.read(0, 256).catch(() => undefined);
    if (start === undefined) return {};
    if (isElf(start)) return await lookAtElf(file);
    // [execve(2) "Interpreter scripts"]
    const [, interpreter, argument] =
      /^#![ \t]*([^\s]+)(?:[ \t]+([^\n]*))?/.exec(Buffer.from(start).toString("latin1")) ?? [];
    if (interpreter === undefined) return {};
    const asked = /(^|\/)env$/.test(interpreter)
      ? /^(?:-S\s+)?(?:\w+=\S*\s+)*([^\s-]\S*)/.exec(argument ?? "")?.[1]
      : undefined;
    word = asked ?? interpreter;
  }
  return {};
}

const INSTEAD =
  "have it connect to a proxy instead (trilith proxy 8080=NAME), or to NAME.connect.DOMAIN where the agent answers that by DNS";

async function lookAtElf(file: ProgramFile): Promise<{ readonly libc?: Libc; readonly warning?: string }> {
  let elf: Awaited<ReturnType<typeof readElf>>;
  try {
    elf = await readElf((at, bytes) => file.read(at, bytes));
  } catch {
    return {};
  }
  const libc: Libc | undefined =
    elf.loader === undefined ? undefined : elf.loader.includes("ld-musl") ? "musl" : "glibc";
  const kind = libc === undefined ? {} : { libc };
  const warn = (what: string): { readonly libc?: Libc; readonly warning: string } => ({
    ...kind,
    warning: `${file.path} ${what}: services are not found by it; ${INSTEAD}`,
  });
  if (elf.loader === undefined) return warn("is statically linked, so that no library can be loaded with it");
  if (file.changesUser) return warn("runs as another user (setuid or setgid), and takes no library along");
  if (elf.arch !== machineArch) return warn(`is for another processor (${elf.arch}) than the library (${machineArch})`);
  if (elf.go) return warn("is a Go program, which speaks to the kernel without libc");
  return kind;
}

/** The C library of this system's own programs. */
async function systemLibc(): Promise<Libc> {
  return (
    (await lookAt("sh", { env: () => undefined })).libc ??
    (await lookAt(ownProgram, { env: () => undefined })).libc ??
    "glibc"
  );
}
