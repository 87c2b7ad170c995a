// `trilith snapshot save|restore|inspect FILE`: the directory's whole content into a file, back, and what is in one.
import { dirname } from "node:path";
import { systemDisk } from "../../base/disk.ts";
import { InputError } from "../../base/error.ts";
import { streamFrom, streamTo } from "../../base/file-stream.ts";
import { type ClientOptions, clientFlags, withClient } from "../client.ts";
import { type Command, type Io, json, table } from "../io.ts";

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

async function save(file: string, options: ClientOptions, io: Io): Promise<void> {
  const { readSnapshot } = await import("../../protocols/consul/cli.ts");
  const folder = dirname(file);
  if ((await systemDisk.info(folder))?.isDirectory !== true) throw new InputError(file, `there is no folder ${folder}`);
  let index = 0;
  await withClient(options, io, async (client) => {
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

async function inspect(file: string, options: ClientOptions, io: Io): Promise<void> {
  const { readSnapshot } = await import("../../protocols/consul/cli.ts");
  await there(file);
  let size = 0;
  async function* sized(): AsyncGenerator<Uint8Array> {
    for await (const piece of counted(streamFrom(file) as AsyncIterable<Uint8Array>, io, "reading")) {
      size += piece.length;
      yield piece;
    }
  }
  const { head, sizes, checksum } = await readSnapshot(sized());
  const rows = [...sizes]
    .map(([name, { count, bytes }]) => ({ name: NAMES[name] ?? name, count, bytes }))
    .sort((a, b) => b.bytes - a.bytes);
  const total = rows.reduce((sum, { bytes }) => sum + bytes, 0);
  if (options.json) {
    io.out(json({ ...head, size, checksum, tables: rows, total }));
    return;
  }
  io.out(
    table([
      ["ID", checksum.slice(0, 16)],
      ["Size", String(size)],
      ["Index", String(head.index)],
      ["Version", String(head.version)],
      ["Taken", new Date(head.takenAtMs).toISOString()],
      ["Datacenter", head.datacenter],
      ["Node", head.node],
    ]),
  );
  const line = ["----", "----", "----"];
  io.out(
    `\n${table([
      ["Type", "Count", "Size"],
      line,
      ...rows.map(({ name, count, bytes }) => [name, String(count), `${bytes}B`]),
      line,
      ["Total", "", `${total}B`],
    ])}`,
  );
}

export const command: Command = {
  name: "snapshot",
  summary: "save | restore | inspect the directory's whole contents as a file",
  define(parser, io, done) {
    for (const [name, summary, act] of [
      ["save", "write the directory's whole contents to a file", save],
      ["restore", "replace the directory's contents by those of a file", restore],
      ["inspect", "show what a file contains", inspect],
    ] as const) {
      const sub = clientFlags(parser.command(name).description(summary)).argument("<file>");
      sub.action(async (file: string, options: ClientOptions) => {
        await act(file, options, io);
        done(0);
      });
    }
  },
};
