// `trilith snapshot save|restore|inspect FILE`: the directory's whole content into a file, back, and what is in one.
import { dirname } from "node:path";
import type { Command as Commander } from "commander";
import { systemDisk } from "../../base/disk.ts";
import { InputError } from "../../base/error.ts";
import { streamFrom, streamTo } from "../../base/file-stream.ts";
import { type ClientOptions, clientFlags, withClient } from "../client.ts";
import { type Command, formatOf, type Io, json } from "../io.ts";
import { appendedName, appendedOf, bySize, keyStats, prettyText, type SelfNames } from "../snapshot-forms.ts";

interface SaveOptions extends ClientOptions {
  readonly appendFilename?: string;
}

interface InspectOptions extends ClientOptions {
  readonly format: string;
  readonly kvdetails?: boolean;
  readonly kvdepth: string;
  readonly kvfilter: string;
}

/** There are no elections: it is always the first term, as /v1/operator/autopilot/state says. */
const TERM = 1;

/** @throws InputError where there is no such file */
async function there(file: string): Promise<void> {
  if ((await systemDisk.info(file)) === undefined) throw new InputError(file, "there is no such file");
}

/** Says on a terminal how far it got, on one line. */
async function* counted(pieces: AsyncIterable<Uint8Array>, io: Io, doing: string): AsyncGenerator<Uint8Array> {
  let bytes = 0;
  let told = 0;
  for await (const piece of pieces) {
    bytes += piece.length;
    if (io.terminal && bytes - told >= 1 << 20) {
      told = bytes;
      io.err(`\r${doing} ${(bytes / 2 ** 20).toFixed(0)} MiB`);
    }
    yield piece;
  }
  if (told > 0) io.err("\r\u001b[K");
}

async function save(given: string, options: SaveOptions, io: Io): Promise<void> {
  const appended = options.appendFilename === undefined ? undefined : appendedOf(options.appendFilename);
  const { readSnapshot } = await import("../../protocols/consul/cli.ts");
  const folder = dirname(given);
  if ((await systemDisk.info(folder))?.isDirectory !== true)
    throw new InputError(given, `there is no folder ${folder}`);
  let index = 0;
  await withClient(options, io, async (client) => {
    const file =
      appended === undefined ? given : appendedName(given, appended, await client.get<SelfNames>("/v1/agent/self"));
    const { body } = await client.request("GET", "/v1/snapshot");
    // The file gets its name only when what is in it has been read back and found whole.
    await streamTo(file, counted(body, io, "saving"), 0o600, async (written) => {
      index = (await readSnapshot(streamFrom(written))).head.index;
    });
  });
  io.out(`Saved and verified snapshot to index ${index}\n`);
}

async function restore(file: string, options: ClientOptions, io: Io): Promise<void> {
  const { readSnapshot } = await import("../../protocols/consul/cli.ts");
  await there(file);
  // Looked over here first, so that a wrong file says so before the agent is bothered.
  await readSnapshot(streamFrom(file));
  const { Readable } = await import("node:stream");
  await withClient(options, io, async (client) => {
    const body = Readable.from(counted(streamFrom(file), io, "restoring"), { objectMode: false });
    await client.send("PUT", "/v1/snapshot", { body, headTimeoutMs: 0 });
  });
  io.out("Restored snapshot\n");
}

const NAMES: Readonly<Record<string, string>> = {
  kv: "KVS",
  node: "Node",
  service: "Service",
  check: "Check",
  session: "Session",
  kept: "Other",
};

async function inspect(file: string, options: InspectOptions, io: Io): Promise<void> {
  const format = formatOf(options.format);
  if (!/^\d{1,9}$/.test(options.kvdepth))
    throw new InputError("-kvdepth", `"${options.kvdepth}": expected a whole number of 0 or more`);
  const { readSnapshot } = await import("../../protocols/consul/cli.ts");
  await there(file);
  let size = 0;
  async function* sized(): AsyncGenerator<Uint8Array> {
    for await (const piece of counted(streamFrom(file) as AsyncIterable<Uint8Array>, io, "reading")) {
      size += piece.length;
      yield piece;
    }
  }
  const { head, sizes, checksum, records } = await readSnapshot(sized());
  const Stats = bySize(
    Array.from(sizes, ([name, { count, bytes }]) => ({ Name: NAMES[name] ?? name, Sum: bytes, Count: count })),
  );
  const TotalSize = Stats.reduce((sum, { Sum }) => sum + Sum, 0);
  if (options.json) {
    const tables = Stats.map(({ Name, Count, Sum }) => ({ name: Name, count: Count, bytes: Sum }));
    io.out(json({ ...head, size, checksum, tables, total: TotalSize }));
    return;
  }
  const keys = records.flatMap(({ table, value, bytes }) =>
    table === "kv" && "key" in value ? [{ key: value.key, bytes }] : [],
  );
  const StatsKV = options.kvdetails === true ? keyStats(keys, Number(options.kvdepth), options.kvfilter) : null;
  const inspected = {
    Meta: { ID: checksum.slice(0, 16), Size: size, Index: head.index, Term: TERM, Version: head.version },
    ...{ Stats, StatsKV, TotalSize },
    TotalSizeKV: (StatsKV ?? []).reduce((sum, { Sum }) => sum + Sum, 0),
  };
  if (format === "json") return io.out(`${JSON.stringify(inspected, null, 3)}\n`);
  const more = [
    ["Taken", new Date(head.takenAtMs).toISOString()],
    ["Datacenter", head.datacenter],
    ["Node", head.node],
  ] as const;
  io.out(prettyText(inspected, more));
}

export const command: Command = {
  name: "snapshot",
  summary: "save | restore | inspect the directory's whole contents as a file",
  define(parser, io, done) {
    const leaf = <Options extends ClientOptions>(
      name: string,
      summary: string,
      act: (file: string, options: Options, io: Io) => Promise<void>,
    ): Commander =>
      clientFlags(parser.command(name).description(summary))
        .argument("<file>")
        .action(async (file: string, options: Options) => {
          await act(file, options, io);
          done(0);
        });
    leaf("save", "write the directory's whole contents to a file", save).option(
      "--append-filename <words>",
      "add these of the agent's to the file's name: version, dc, node, status, separated by commas",
    );
    leaf("restore", "replace the directory's contents by those of a file", restore);
    leaf("inspect", "show what a file contains", inspect)
      .option("--format <form>", "pretty, or json as Consul prints it", "pretty")
      .option("--kvdetails", "show how much space keys take, by their beginnings")
      .option("--kvdepth <number>", "with --kvdetails: so many names of a key are its beginning", "2")
      .option("--kvfilter <prefix>", "with --kvdetails: only keys that begin with this", "");
  },
};
