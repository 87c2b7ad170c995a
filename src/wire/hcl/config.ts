// Configuration text (HCL 1 or JSON) as a plain object, with the line of every key for errors that are found later.
import { InputError } from "../../base/error.ts";
import { parseHcl } from "./hcl.ts";
import { parseJson } from "./json.ts";
import { SyntaxFault, type Tree, type TreeEntry } from "./tree.ts";

/** Keys (and places in lists) from the root to a value. */
export type ConfigPath = readonly (string | number)[];

/** A parsed configuration text. */
export interface ConfigText {
  /** The shape that JSON would give; objects have no prototype. Repeated HCL blocks are lists, labels are nested objects. */
  readonly value: Readonly<Record<string, unknown>>;
  readonly fileName: string;
  /** Line and column, from 1, of a key or list item; of the nearest thing around it where the path itself is not in the text. Columns count UTF-16 units. */
  position(path: ConfigPath): { readonly line: number; readonly column: number };
  /** "web.hcl:3: service.port": file, line and key, for error messages. */
  at(path: ConfigPath): string;
  /** Keys given more than once in one object where only the last counts. */
  readonly duplicates: readonly ConfigPath[];
}

/** Dots between keys, brackets around places in lists: `services[0].port`. */
export function pathText(path: ConfigPath): string {
  let text = "";
  for (const part of path) text += typeof part === "number" ? `[${part}]` : text === "" ? part : `.${part}`;
  return text;
}

/**
 * Parses configuration text: JSON where the file's name ends in .json or the text begins with "{", HCL 1 otherwise. An empty text is an empty object.
 * @throws InputError "file:line:column: …" for everything else
 */
export function parseConfigText(text: string, fileName: string): ConfigText {
  const body = text.startsWith("\ufeff") ? ` ${text.slice(1)}` : text;
  const lineStarts = [0];
  for (let i = body.indexOf("\n"); i !== -1; i = body.indexOf("\n", i + 1)) lineStarts.push(i + 1);
  const positionOf = (at: number): { line: number; column: number } => {
    let low = 0;
    let high = lineStarts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if ((lineStarts[middle] as number) <= at) low = middle;
      else high = middle - 1;
    }
    return { line: low + 1, column: at - (lineStarts[low] as number) + 1 };
  };
  const fail = (at: number, message: string): never => {
    const { line, column } = positionOf(at);
    throw new InputError(`${fileName}:${line}:${column}`, message);
  };

  const json = fileName.toLowerCase().endsWith(".json") || /^\s*\{/.test(body);
  let tree: Tree;
  try {
    const nul = body.indexOf("\u0000");
    if (nul !== -1) throw new SyntaxFault(nul, "the text holds a NUL character");
    // A file that was only just made, or emptied, states nothing, whatever its name.
    tree = json && body.trim() !== "" ? parseJson(body) : parseHcl(body);
  } catch (error) {
    if (error instanceof SyntaxFault) return fail(error.at, error.message);
    throw error;
  }
  if (tree.kind !== "object") return fail(tree.at, "the file must hold an object with keys");

  const positions = new Map<string, number>();
  const duplicates: ConfigPath[] = [];
  const keyFor = (path: ConfigPath): string => JSON.stringify(path);
  const plain = (node: Tree, path: ConfigPath): unknown => {
    if (node.kind === "scalar") return node.value;
    if (node.kind === "list")
      return node.items.map((item, i) => {
        const here = [...path, i];
        positions.set(keyFor(here), item.at);
        return plain(item, here);
      });
    const grouped = new Map<string, TreeEntry[]>();
    for (const entry of node.entries) {
      const group = grouped.get(entry.key);
      if (group === undefined) grouped.set(entry.key, [entry]);
      else group.push(entry);
    }
    const result: Record<string, unknown> = Object.create(null);
    for (const [key, group] of grouped) {
      const here = [...path, key];
      const last = group[group.length - 1] as TreeEntry;
      if (group.length > 1 && !json && group.every((entry) => entry.value.kind === "object")) {
        positions.set(keyFor(here), (group[0] as TreeEntry).at);
        result[key] = group.map((entry, i) => {
          positions.set(keyFor([...here, i]), entry.at);
          return plain(entry.value, [...here, i]);
        });
      } else {
        if (group.length > 1) duplicates.push(here);
        positions.set(keyFor(here), last.at);
        result[key] = plain(last.value, here);
      }
    }
    return result;
  };
  const value = plain(tree, []) as Readonly<Record<string, unknown>>;
  const position = (path: ConfigPath): { line: number; column: number } => {
    for (let length = path.length; length > 0; length--) {
      const at = positions.get(keyFor(path.slice(0, length)));
      if (at !== undefined) return positionOf(at);
    }
    return { line: 1, column: 1 };
  };
  return {
    value,
    fileName,
    position,
    at: (path) => {
      const key = pathText(path);
      return `${fileName}:${position(path).line}${key === "" ? "" : `: ${key}`}`;
    },
    duplicates,
  };
}
