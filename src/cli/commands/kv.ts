// `trilith kv get|put|delete|export|import`: keys and values with Consul's flags.
import type { Command as Commander } from "commander";
import { systemDisk } from "../../base/disk.ts";
import { codeOf, InputError } from "../../base/error.ts";
import { type Client, type ClientOptions, clientFlags, jsonFlag, keyPath, withClient } from "../client.ts";
import { type Command, type Io, json } from "../io.ts";
import { exportText, importPairs, isBase64, joined, parseWithFlags, readExport } from "./kv-transfer.ts";

interface Pair {
  readonly LockIndex: number;
  readonly Key: string;
  /** As its digits: it has 64 bits. */
  readonly Flags: string;
  readonly Value: string | null;
  readonly CreateIndex: number;
  readonly ModifyIndex: number;
  readonly Session?: string;
}

interface Options extends ClientOptions {
  readonly recurse?: boolean;
  readonly keys?: boolean;
  readonly separator: string;
  readonly detailed?: boolean;
  readonly base64?: boolean;
  readonly cas?: boolean;
  readonly modifyIndex?: string;
  readonly flags?: string;
  readonly acquire?: boolean;
  readonly release?: boolean;
  readonly session?: string;
}

function valueIn(pair: Pair, base64: boolean | undefined): Uint8Array | string {
  if (base64) return pair.Value ?? "";
  return Buffer.from(pair.Value ?? "", "base64");
}

function detailedText(pair: Pair, base64: boolean | undefined): string {
  const rows: readonly (readonly [string, string])[] = [
    ["CreateIndex", String(pair.CreateIndex)],
    ["Flags", pair.Flags],
    ["Key", pair.Key],
    ["LockIndex", String(pair.LockIndex)],
    ["ModifyIndex", String(pair.ModifyIndex)],
    ["Session", pair.Session ?? "-"],
    ["Value", valueIn(pair, base64).toString()],
  ];
  // As wide as Consul's; a value is never cut.
  return rows.map(([name, value]) => `${name.padEnd(17)}${value}\n`).join("");
}

async function get(client: Client, key: string, options: Options, io: Io): Promise<number> {
  if (options.keys) {
    // All keys below, not only the next level.
    const separator = options.recurse ? "" : options.separator;
    const response = await client.request("GET", `${keyPath(key)}?keys&separator=${encodeURIComponent(separator)}`, {
      missing: true,
    });
    const text = await response.text();
    const keys = response.status === 404 ? [] : (JSON.parse(text) as string[]);
    io.out(options.json ? json(keys) : keys.map((found) => `${found}\n`).join(""));
    return 0;
  }
  if (!options.recurse) required(key);
  const response = await client.request("GET", `${keyPath(key)}${options.recurse ? "?recurse" : ""}`, {
    missing: true,
  });
  const text = await response.text();
  const pairs = response.status === 404 ? [] : (parseWithFlags(text) as Pair[]);
  if (pairs.length === 0 && !options.recurse) {
    io.err(`Error! No key exists at: ${key}\n`);
    return 1;
  }
  if (options.json) io.out(withNumbers(json(pairs)));
  else if (options.detailed) io.out(pairs.map((pair) => detailedText(pair, options.base64)).join("\n"));
  else if (options.recurse)
    io.out(pairs.map((pair) => `${pair.Key}:${valueIn(pair, options.base64).toString()}\n`).join(""));
  else io.out(`${valueIn(pairs[0] as Pair, options.base64).toString()}\n`);
  return 0;
}

/** @throws InputError in Consul's words where there is no key */
function required(key: string): void {
  if (key.replace(/^\//, "") === "") throw new InputError("", "Missing KEY argument");
}

/** JSON whose flags are numbers again. */
function withNumbers(json: string): string {
  return json.replace(/^( +"Flags": )"(\d+)"/gm, "$1$2");
}

/** @throws InputError for what is no whole number */
function number(text: string, flag: string): string {
  if (/^\d{1,20}$/.test(text)) return text;
  throw new InputError(flag, `"${text}": expected a whole number of 0 or more`);
}

async function fileOf(path: string): Promise<Uint8Array> {
  try {
    return await systemDisk.readBytes(path);
  } catch (error) {
    throw codeOf(error) === "not-found" ? new InputError(path, "there is no such file") : error;
  }
}

/** The value to put: `@file`, `-` (standard input) or the word itself. */
async function dataOf(word: string | undefined, options: Options, io: Io): Promise<Uint8Array> {
  const bytes =
    word === undefined
      ? new Uint8Array()
      : word === "-"
        ? await io.stdin()
        : word.startsWith("@")
          ? await fileOf(word.slice(1))
          : Buffer.from(word);
  if (!options.base64) return bytes;
  const text = Buffer.from(bytes)
    .toString("latin1")
    .replace(/[\r\n]/g, "");
  if (!isBase64(text)) throw new InputError("--base64", "the value is not base64");
  return Buffer.from(text, "base64");
}

async function put(client: Client, key: string, word: string | undefined, options: Options, io: Io): Promise<number> {
  required(key);
  const query = new URLSearchParams();
  if (options.flags !== undefined) query.set("flags", number(options.flags, "--flags"));
  if (options.cas) query.set("cas", number(options.modifyIndex ?? "0", "--modify-index"));
  if ((options.acquire || options.release) && options.session === undefined)
    throw new InputError("--session", "--acquire and --release need the session's ID");
  if (options.acquire) query.set("acquire", options.session ?? "");
  if (options.release) query.set("release", options.session ?? "");
  const text = query.size === 0 ? "" : `?${query}`;
  const body = await dataOf(word, options, io);
  const done = (await client.send("PUT", `${keyPath(key)}${text}`, { body })).trim() === "true";
  const [success, failure] = options.acquire
    ? [`Lock acquired on: ${key}`, "acquire lock"]
    : options.release
      ? [`Lock released on: ${key}`, "release lock"]
      : [`Data written to: ${key}`, `write to ${key}${options.cas ? ": CAS failed" : ""}`];
  if (done) io.out(`Success! ${success}\n`);
  else io.err(`Error! Did not ${failure}\n`);
  return done ? 0 : 1;
}

async function remove(client: Client, key: string, options: Options, io: Io): Promise<number> {
  if (!options.recurse) required(key);
  if (options.cas && options.modifyIndex === undefined)
    throw new InputError("--modify-index", "--cas needs the index that the key must still have");
  const query = options.recurse
    ? "?recurse"
    : options.cas
      ? `?cas=${number(options.modifyIndex ?? "", "--modify-index")}`
      : "";
  const done = (await client.send("DELETE", `${keyPath(key)}${query}`)).trim() === "true";
  if (done) io.out(options.recurse ? `Success! Deleted keys with prefix: ${key}\n` : `Success! Deleted key: ${key}\n`);
  else io.err(`Error! Did not delete key ${key}: CAS failed\n`);
  return done ? 0 : 1;
}

async function exported(client: Client, prefix: string, io: Io): Promise<number> {
  const response = await client.request("GET", `${keyPath(prefix)}?recurse`, { missing: true });
  const text = await response.text();
  const pairs = response.status === 404 ? [] : (parseWithFlags(text) as Pair[]);
  io.out(exportText(pairs.map(({ Key, Flags, Value }) => ({ key: Key, flags: Flags, value: Value ?? "" }))));
  return 0;
}

async function imported(client: Client, word: string, prefix: string, io: Io): Promise<number> {
  const bytes = await dataOf(word, { separator: "/" }, io);
  const pairs = readExport(Buffer.from(bytes).toString("utf8"));
  const named = pairs.map((pair) => ({ ...pair, key: joined(prefix, pair.key) }));
  await importPairs(client, named, keyPath, (key) => io.out(`Imported: ${key}\n`));
  return 0;
}

export const command: Command = {
  name: "kv",
  summary: "get | put | delete | export | import keys",
  define(parser, io, done) {
    const sub = (name: string, summary: string): Commander => clientFlags(parser.command(name).description(summary));
    const acting = async (options: Options, act: (client: Client) => Promise<number>): Promise<void> =>
      done(await withClient(options, io, act));
    jsonFlag(sub("get", "the value of a key, or all below a prefix"))
      .argument("[key]", "the key", "")
      .option("--recurse", "all keys that start with it")
      .option("--keys", "only the keys")
      .option("--separator <text>", "cut keys at this text", "/")
      .option("--detailed", "add indexes, flags and session")
      .option("--base64", "leave values in base64")
      .action((key: string, options: Options) => acting(options, (client) => get(client, key, options, io)));
    sub("put", "set a key: the value, @file, or - for standard input")
      .argument("<key>", "the key")
      .argument("[value]", "the value, @file, or - for standard input")
      // A value may begin with a dash.
      .allowUnknownOption()
      .option("--flags <number>", "a number of your own")
      .option("--base64", "the value is in base64")
      .option("--cas", "only if --modify-index still holds (0: only if there is none)")
      .option("--modify-index <index>", "the key's ModifyIndex as read, for --cas")
      .option("--acquire", "take the lock")
      .option("--release", "release the lock")
      .option("--session <id>", "for --acquire and --release")
      .action((key: string, word: string | undefined, options: Options) => {
        const { rawArgs } = parser as unknown as { readonly rawArgs: readonly string[] };
        if (/^-./.test(key) && !rawArgs.includes("--"))
          throw new InputError("", `unknown option '${key}' (put -- before a key that begins with a dash)`);
        return acting(options, (client) => put(client, key, word, options, io));
      });
    sub("delete", "remove a key, or all below a prefix")
      .argument("[key]", "the key, or the prefix with --recurse", "")
      .option("--recurse", "all keys that start with it")
      .option("--cas", "only if --modify-index still holds")
      .option("--modify-index <index>", "the key's ModifyIndex as read, for --cas")
      .action((key: string, options: Options) => acting(options, (client) => remove(client, key, options, io)));
    sub("export", "keys and values as JSON, for import")
      .argument("[prefix]", "only keys that start with it", "")
      .action((prefix: string, options: Options) => acting(options, (client) => exported(client, prefix, io)));
    sub("import", "set what export printed")
      .argument("<data>", "the JSON, @file, or - for standard input")
      .option("--prefix <prefix>", "a prefix to put before every key", "")
      .action((word: string, options: Options & { readonly prefix: string }) =>
        acting(options, (client) => imported(client, word, options.prefix, io)),
      );
  },
};
