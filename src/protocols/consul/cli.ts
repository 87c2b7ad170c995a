// Consul's configuration files for the command line: `trilith agent` starts from them, `trilith validate` looks through them.
import { configFiles } from "../../base/config-files.ts";
import { type Disk, systemDisk } from "../../base/disk.ts";
import { InputError, messageOf, wrap } from "../../base/error.ts";
import type { Settings } from "../../contracts/settings.ts";
import { readOverride } from "../../model/override-words.ts";
import { decodeCheck, decodeService } from "../../wire/consul-definition/decode.ts";
import { checkFault, STATUS_FAULT, serviceFault, statusKnown } from "../../wire/consul-definition/faults.ts";
import type { Path, UnknownField } from "../../wire/consul-definition/reader.ts";
import { type ConfigText, parseConfigText } from "../../wire/hcl/config.ts";
import type { ConsulFile } from "./settings/file.ts";
import { type Flags, settingsFrom } from "./settings.ts";

export { formatGoDuration, parseGoDuration } from "../../wire/duration.ts";
export { distanceS } from "./coordinates.ts";
export { readSnapshot, type Snapshot } from "./snapshot.ts";

import { readWatches, type WatchConfig } from "./watch-config.ts";

export { follow, handlerInput, parseExact, planOf, printed } from "./watch-plan.ts";

type Reading = Pick<Disk, "info" | "list" | "readText">;

/** The files of a path, see `configFiles`. @throws TrilithError naming the path */
async function filesOf(path: string, disk: Reading): Promise<readonly string[]> {
  const files = await configFiles(path, disk).catch((error: unknown) => {
    throw wrap(error, path);
  });
  if (files === undefined) throw new InputError(path, "there is no such file or folder");
  return files;
}

async function read(path: string, disk: Reading): Promise<ConfigText> {
  const text = await disk.readText(path).catch((error: unknown) => {
    throw wrap(error, path);
  });
  return parseConfigText(text, path);
}

/** Where to look for settings. */
export interface Given {
  /** Files and folders of -config-file and -config-dir, in their order. */
  readonly paths: readonly string[];
  readonly flags: Flags;
  readonly env: (name: string) => string | undefined;
}

/**
 * The settings that files, flags and the environment (TRILITH_DATA_DIR) make; flags win over files, files over the environment.
 * @throws InputError with file, line and key
 */
export async function loadSettings(given: Given, disk: Reading = systemDisk): Promise<Partial<Settings>> {
  const files: ConsulFile[] = [];
  for (const path of given.paths)
    for (const file of await filesOf(path, disk)) {
      const { value, at } = await read(file, disk);
      files.push({ value, at, path: file });
    }
  const { untilRestart = {}, ...told } = settingsFrom(files, given.flags, given.paths);
  const settings = { ...told, untilRestart };
  const dataDir = given.env("TRILITH_DATA_DIR");
  const fromEnv = settings.dataDir === undefined && settings.dev !== true && dataDir !== undefined && dataDir !== "";
  return fromEnv ? { ...settings, dataDir } : settings;
}

/** The watches of files and folders as they stand now. @throws InputError with file, line and key */
export async function watchesIn(paths: readonly string[], disk: Reading): Promise<readonly WatchConfig[]> {
  const watches: WatchConfig[] = [];
  for (const path of paths)
    for (const file of await filesOf(path, disk)) {
      const { value, at } = await read(file, disk);
      for (const [key, raw] of Object.entries(value))
        if (key.toLowerCase() === "watches" && raw !== null) watches.push(...readWatches(raw, [key], at));
    }
  return watches;
}

/** Fields of configuration entries that are lists; everywhere else an HCL block, which reads as a list of one, means the object in it. */
const ENTRY_LISTS: ReadonlySet<string> = new Set(
  (
    "certificates consumers envoyextensions hashpolicies header hosts jwts listeners members methods overrides parents paths " +
    "permissions providers queryparam remove routes rules services sources splits targets"
  ).split(" "),
);

/** A configuration entry from HCL or JSON, as the API takes it. @throws InputError with file, line and column */
export function readConfigEntry(text: string, fileName: string): Readonly<Record<string, unknown>> {
  const plain = (value: unknown, key: string): unknown => {
    if (Array.isArray(value)) {
      const [first] = value as readonly unknown[];
      const block = value.length === 1 && typeof first === "object" && first !== null && !Array.isArray(first);
      if (block && !ENTRY_LISTS.has(key.toLowerCase())) return plain(first, key);
      return value.map((one: unknown) => plain(one, ""));
    }
    if (typeof value !== "object" || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, plain(one, name)]));
  };
  return plain(parseConfigText(text, fileName).value, "") as Readonly<Record<string, unknown>>;
}

/** What is wrong, and what has no effect, in files that an agent is to start with. */
export interface Findings {
  readonly errors: readonly string[];
  readonly warnings: readonly string[];
}

/**
 * Looks through configuration and service files; every file is looked at, whatever is wrong with others.
 * @param settingsFaults what is wrong with settings that are not Consul's
 */
export async function validateFiles(
  paths: readonly string[],
  disk: Reading = systemDisk,
  settingsFaults: (told: Partial<Settings>) => Promise<readonly string[]> = async () => [],
): Promise<Findings> {
  const errors: string[] = [];
  const warnings: string[] = [];
  const attempt = async (work: () => Promise<void> | void): Promise<void> => {
    try {
      await work();
    } catch (error) {
      errors.push(messageOf(error));
    }
  };
  for (const path of paths)
    await attempt(async () => {
      for (const file of await filesOf(path, disk))
        await attempt(async () => {
          const config = await read(file, disk);
          for (const key of config.duplicates)
            warnings.push(`${config.at(key)}: given more than once, the last one counts`);
          await attempt(async () => {
            const settings = settingsFrom([{ value: config.value, at: config.at, path: file }]);
            for (const key of settings.ignored ?? [])
              warnings.push(`${file}: ${key} is accepted and has no effect here`);
            for (const fault of await settingsFaults(settings)) errors.push(`${file}: ${fault}`);
          });
          for (const [key, read] of [
            ["service", readService],
            ["services", readService],
            ["check", readCheck],
            ["checks", readCheck],
            ["override", readOwn],
            ["overrides", readOwn],
          ] as const)
            for (const { value, at } of listed(config.value[key], [key]))
              await attempt(() => {
                // The agent takes nothing of such a file.
                for (const unknown of read(value, at, config)) errors.push(unknownText(unknown, config));
              });
        });
    });
  return { errors, warnings };
}

function listed(value: unknown, path: Path): readonly { readonly value: unknown; readonly at: Path }[] {
  if (value === undefined || value === null) return [];
  return Array.isArray(value)
    ? value.map((one, i) => ({ value: one as unknown, at: [...path, i] }))
    : [{ value, at: path }];
}

function readService(value: unknown, path: Path, config: ConfigText): readonly UnknownField[] {
  const service = decodeService(value, { spelling: "file", at: config.at, path });
  if (service.unknown.length > 0) return service.unknown;
  const fault = serviceFault(service);
  if (fault !== undefined) throw new InputError(config.at(service.path), fault);
  return [];
}

function readCheck(value: unknown, path: Path, config: ConfigText): readonly UnknownField[] {
  const check = decodeCheck(value, { spelling: "file", at: config.at, path });
  // A misspelt key leaves something out: what is missing then is not what is wrong.
  if (check.unknown.length > 0) return check.unknown;
  const fault = checkFault(check) ?? (statusKnown(check) ? undefined : STATUS_FAULT);
  if (fault !== undefined) throw new InputError(config.at(check.path), fault);
  if (check.name === "" && check.id === "") throw new InputError(config.at(check.path), "Missing check name");
  return [];
}

function readOwn(value: unknown, path: Path, config: ConfigText): readonly UnknownField[] {
  readOverride(value, path, config.at);
  return [];
}

function unknownText({ key, path, nearest }: UnknownField, config: ConfigText): string {
  return `${config.at(path)}: unknown key "${key}"${nearest === undefined ? "" : `: did you mean "${nearest}"?`}`;
}
