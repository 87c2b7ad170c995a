// `trilith config read|write|list|delete`: configuration entries, which an agent of Trilith keeps and gives back.
import type { Command as Commander } from "commander";
import { systemDisk } from "../../base/disk.ts";
import { codeOf, InputError, messageOf, TrilithError } from "../../base/error.ts";
import { type Client, type ClientOptions, clientFlags, Refused, segment, withClient } from "../client.ts";
import type { Command, Io } from "../io.ts";

interface Options extends ClientOptions {
  readonly kind?: string;
  readonly name?: string;
  readonly filename?: string;
  readonly cas?: boolean;
  readonly modifyIndex?: string;
  readonly filter?: string;
}

type Entry = Readonly<Record<string, unknown>>;

function required(value: string | undefined, flag: string): string {
  if (value === undefined || value === "") throw new InputError("", `Must specify the -${flag} parameter`);
  return value;
}

function casOf({ cas, modifyIndex }: Options, needed: boolean): string {
  if (!cas) {
    if (modifyIndex !== undefined && modifyIndex !== "0")
      throw new InputError("", "Cannot specify -modify-index without -cas");
    return "";
  }
  if (needed && (modifyIndex === undefined || modifyIndex === "0"))
    throw new InputError("", "Must specify a -modify-index greater than 0 with -cas");
  if (!/^\d+$/.test(modifyIndex ?? "0"))
    throw new InputError("--modify-index", `"${modifyIndex}": expected a whole number of 0 or more`);
  return `?cas=${modifyIndex ?? "0"}`;
}

/** The entry that a file, or standard input, holds. */
async function entryIn(file: string, io: Io): Promise<Entry> {
  const { readConfigEntry } = await import("../../protocols/consul/cli.ts");
  const read = async (): Promise<string> => {
    if (file === "-") return Buffer.from(await io.stdin()).toString("utf8");
    try {
      return await systemDisk.readText(file);
    } catch (error) {
      throw codeOf(error) === "not-found" ? new InputError(file, "there is no such file") : error;
    }
  };
  return readConfigEntry(await read(), file === "-" ? "standard input" : file);
}

const fieldOf = (entry: Entry, name: string): string => {
  const found = Object.entries(entry).find(([key]) => key.toLowerCase() === name);
  return typeof found?.[1] === "string" ? found[1] : "";
};

async function read(client: Client, options: Options, io: Io): Promise<number> {
  const [kind, name] = [required(options.kind, "kind"), required(options.name, "name")];
  const entry = await asked(`Error reading config entry ${kind}/${name}`, () =>
    client.get<Entry>(`/v1/config/${segment(kind)}/${segment(name)}`),
  );
  // In the order in which Consul's structures are written, whatever the answer's was.
  const { Kind, Name, CreateIndex, ModifyIndex, ...rest } = entry;
  io.out(`${JSON.stringify({ Kind, Name, ...rest, CreateIndex, ModifyIndex }, null, 4)}\n`);
  return 0;
}

async function list(client: Client, options: Options, io: Io): Promise<number> {
  const kind = required(options.kind, "kind");
  const filter = options.filter === undefined ? "" : `?filter=${encodeURIComponent(options.filter)}`;
  const entries = await asked(`Error listing config entries for kind "${kind}"`, () =>
    client.get<Entry[]>(`/v1/config/${segment(kind)}${filter}`),
  );
  if (options.json) io.out(`${JSON.stringify(entries, null, 4)}\n`);
  else io.out(entries.map((entry) => `${String(entry["Name"])}\n`).join(""));
  return 0;
}

async function write(client: Client, file: string, options: Options, io: Io): Promise<number> {
  const entry = await entryIn(file, io);
  const what = `${fieldOf(entry, "kind")}/${fieldOf(entry, "name") || "…"}`;
  const path = `/v1/config${casOf(options, false)}`;
  const written = await asked(`Error writing config entry ${what}`, () =>
    client.send("PUT", path, { body: JSON.stringify(entry) }),
  );
  if (written.trim() !== "true") {
    io.err(`Error writing config entry ${what}: entry is out of date\n`);
    return 1;
  }
  io.out(`Config entry written: ${what.replace(/…$/, fieldOf(entry, "kind") === "mesh" ? "mesh" : "global")}\n`);
  return 0;
}

async function remove(client: Client, options: Options, io: Io): Promise<number> {
  let { kind, name } = options;
  if (options.filename !== undefined) {
    if (kind !== undefined || name !== undefined) throw new InputError("", "filename can't be used with kind or name");
    const entry = await entryIn(options.filename, io);
    [kind, name] = [fieldOf(entry, "kind"), fieldOf(entry, "name")];
  }
  const [ofKind, called] = [required(kind, "kind"), required(name, "name")];
  const path = `/v1/config/${segment(ofKind)}/${segment(called)}${casOf(options, true)}`;
  const deleted = await asked(`Error deleting config entry ${ofKind}/${called}`, () => client.send("DELETE", path));
  if (deleted.trim() === "false") {
    io.err(`Config entry not deleted: ${ofKind}/${called}\n`);
    return 1;
  }
  io.out(`Config entry deleted: ${ofKind}/${called}\n`);
  return 0;
}

/** In Consul's words where the agent refuses. */
async function asked<T>(failed: string, ask: () => Promise<T>): Promise<T> {
  try {
    return await ask();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    throw new TrilithError(
      error.code === "invalid" ? "unavailable" : error.code,
      `${failed}: Unexpected response code: ${error.status} (${messageOf(error)})`,
      error,
    );
  }
}

export const command: Command = {
  name: "config",
  summary: "read | write | list | delete configuration entries (kept, but without effect)",
  define(parser, io, done) {
    const sub = (name: string, summary: string): Commander => clientFlags(parser.command(name).description(summary));
    const acting = async (options: Options, act: (client: Client) => Promise<number>): Promise<void> =>
      done(await withClient(options, io, act));
    sub("read", "print one entry")
      .option("--kind <kind>", "its kind: service-defaults, proxy-defaults …")
      .option("--name <name>", "its name")
      .action((options: Options) => acting(options, (client) => read(client, options, io)));
    sub("list", "the names of all entries of a kind")
      .option("--kind <kind>", "the kind")
      .option("--filter <expression>", "only those that match, in Consul's filter language")
      .option("--json", "print the entries")
      .action((options: Options) => acting(options, (client) => list(client, options, io)));
    sub("write", "store an entry")
      .argument("<file>", "HCL or JSON, or - for standard input")
      .option("--cas", "only if --modify-index still holds (0: only if there is none)")
      .option("--modify-index <index>", "the entry's ModifyIndex as read, for --cas")
      .action((file: string, options: Options) => acting(options, (client) => write(client, file, options, io)));
    sub("delete", "remove an entry")
      .option("--kind <kind>", "its kind")
      .option("--name <name>", "its name")
      .option("--filename <file>", "the file that it was written from, instead of kind and name")
      .option("--cas", "only if --modify-index still holds")
      .option("--modify-index <index>", "the entry's ModifyIndex as read, for --cas")
      .action((options: Options) => acting(options, (client) => remove(client, options, io)));
  },
};
