// `trilith kv export|import`: keys below a prefix as Consul's JSON, `[{key, flags, value (base64)}]`, and back.
import { InputError, messageOf, TrilithError } from "../../base/error.ts";
import type { Client } from "../client.ts";

/** A key as it is written down; flags as their digits, for they have 64 bits. */
export interface Exported {
  readonly key: string;
  readonly flags: string;
  /** Base64. */
  readonly value: string;
}

// Numbers beyond 2^53 are kept as their digits. Inside of a text the quotes would be escaped.
const FLAGS = /("flags"\s*:\s*)(\d{1,20})(?=\s*[,}])/gi;
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

/** Whether a text is base64, padded, without blanks. */
export function isBase64(text: string): boolean {
  return BASE64.test(text);
}

/** JSON with every number called flags as a text. @throws SyntaxError */
export function parseWithFlags(text: string): unknown {
  return JSON.parse(text.replace(FLAGS, '$1"$2"'));
}

/** As `consul kv export` prints it: indented by tabs, keys in their order. */
export function exportText(pairs: readonly Exported[]): string {
  if (pairs.length === 0) return "[]\n";
  const field = (name: string, value: string): string => `\t\t"${name}": ${value}`;
  const objects = pairs.map(({ key, flags, value }) =>
    [
      "\t{",
      `${field("key", JSON.stringify(key))},`,
      `${field("flags", flags)},`,
      field("value", JSON.stringify(value)),
      "\t}",
    ].join("\n"),
  );
  return `[\n${objects.join(",\n")}\n]\n`;
}

/** Reads what `export` wrote. @throws InputError with the entry that is wrong */
export function readExport(text: string): readonly Exported[] {
  let list: unknown;
  try {
    list = parseWithFlags(text);
  } catch (error) {
    throw new InputError("data", `is not JSON: ${messageOf(error)}`);
  }
  if (!Array.isArray(list)) throw new InputError("data", "expected a list of {key, flags, value}");
  return list.map((raw: unknown, i): Exported => {
    const where = `data[${i}]`;
    if (typeof raw !== "object" || raw === null) throw new InputError(where, "expected {key, flags, value}");
    // Names in any case, as Go reads them.
    const fields = new Map(Object.entries(raw).map(([name, value]) => [name.toLowerCase(), value as unknown]));
    const key = fields.get("key");
    const flags = fields.get("flags") ?? "0";
    const value = fields.get("value") ?? "";
    if (typeof key !== "string" || key === "")
      throw new InputError(`${where}.key`, "expected a text that is not empty");
    if (typeof flags !== "string" || !/^\d+$/.test(flags) || BigInt(flags) >= 1n << 64n)
      throw new InputError(`${where}.flags`, `${JSON.stringify(flags)}: expected a whole number below 2^64`);
    if (typeof value !== "string" || !isBase64(value))
      throw new InputError(`${where}.value`, `of key "${key}": expected base64`);
    return { key, flags, value };
  });
}

/** `prefix` and `key` with one slash between them, as Consul's import joins them. */
export function joined(prefix: string, key: string): string {
  return prefix === "" ? key : `${prefix.replace(/\/+$/, "")}/${key.replace(/^\/+/, "")}`;
}

/**
 * Sets the keys one after the other. Everything is read before the first is written.
 * @param path the key's path in the API
 * @param told called with each key that was written
 */
export async function importPairs(
  client: Client,
  pairs: readonly Exported[],
  path: (key: string) => string,
  told: (key: string) => void,
): Promise<void> {
  for (const { key, flags, value } of pairs) {
    try {
      const body = Buffer.from(value, "base64");
      const written = await client.send("PUT", `${path(key)}?flags=${flags}`, { body });
      if (written.trim() !== "true") throw new TrilithError("conflict", "the agent did not write it");
    } catch (error) {
      throw new TrilithError("unavailable", `Failed writing data for key ${key}: ${messageOf(error)}`, error);
    }
    told(key);
  }
}
