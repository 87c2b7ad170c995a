// Objects read field by field, as Go's JSON decoder does it for the API and as HCL gives them in files; every complaint has its place.
import { InputError } from "../../base/error.ts";
import { isObject } from "../../base/is-object.ts";
import { nearestName, plainName } from "../../base/nearest-name.ts";
import { parseDurationValue } from "../duration.ts";
import type { Field, FieldType } from "./fields.ts";

/** Keys from the definition's root to a field, as written in the input; numbers are places in lists. */
export type Path = readonly (string | number)[];
export interface DecodeOptions {
  /**
   * `api`: names as Go's JSON decoder takes them (any case, a few snake_case aliases). `file`: snake_case, with or without underscores, any case,
   * and a list of one object where an object belongs, as HCL blocks give it.
   */
  readonly spelling: "api" | "file";
  /** Where a field stands, for the messages of errors: "web.hcl:3: service.port". Default: the path joined by dots. */
  readonly at?: (path: Path) => string;
  /** The path of `raw` itself. */
  readonly path?: Path;
}

/** A field that no definition of its kind has. */
export interface UnknownField {
  readonly key: string;
  readonly path: Path;
  /** The spelling of the known field that comes nearest; undefined where none is near. */
  readonly nearest: string | undefined;
}

/** Go's text for a field that the decoder does not know. */
export function unknownFieldText(unknown: UnknownField): string {
  return `json: unknown field ${JSON.stringify(unknown.key)}`;
}

interface Index {
  readonly api: ReadonlyMap<string, Field>;
  readonly file: ReadonlyMap<string, Field>;
}
const indexes = new Map<readonly Field[], Index>();
function indexOf(fields: readonly Field[]): Index {
  let index = indexes.get(fields);
  if (index === undefined) {
    const api = new Map<string, Field>();
    const file = new Map<string, Field>();
    for (const one of fields) {
      for (const name of [one.name, ...(one.api ?? [])]) api.set(name.toLowerCase(), one);
      for (const name of [plainName(one.snake), plainName(one.name), ...(one.file ?? [])]) file.set(name, one);
    }
    index = { api, file };
    indexes.set(fields, index);
  }
  return index;
}

/** A value as messages show it: short, and objects by their kind. */
export function describe(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object") return "an object";
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}

/** Reads one definition, and gathers the fields in it that nobody knows. */
export class Reader {
  readonly unknown: UnknownField[] = [];
  readonly options: DecodeOptions;
  constructor(options: DecodeOptions) {
    this.options = options;
  }

  fail(path: Path, message: string): never {
    throw new InputError(this.options.at?.(path) ?? path.join("."), message);
  }

  /** The object at a place; in files also the single object of a list. `null` counts as an empty object. */
  object(value: unknown, path: Path): { readonly value: Readonly<Record<string, unknown>>; readonly path: Path } {
    if (value === null || value === undefined) return { value: {}, path };
    if (isObject(value)) return { value, path };
    if (this.options.spelling === "file" && Array.isArray(value)) {
      if (value.length === 1 && isObject(value[0])) return { value: value[0], path: [...path, 0] };
      if (value.length > 1 && value.every(isObject)) return this.fail(path, "is given more than once");
    }
    return this.fail(path, `must be an object, not ${describe(value)}`);
  }

  /** Reads the known fields of an object; the value of each is checked and given by the field's CamelCase name. */
  fields(value: Readonly<Record<string, unknown>>, path: Path, fields: readonly Field[]): Fields {
    const index = indexOf(fields);
    const found = new Map<string, { readonly value: unknown; readonly path: Path }>();
    for (const key of Object.keys(value)) {
      const here = [...path, key];
      const known = this.options.spelling === "api" ? index.api.get(key.toLowerCase()) : index.file.get(plainName(key));
      if (known === undefined) {
        const names = fields.map((one) => (this.options.spelling === "api" ? one.name : one.snake));
        this.unknown.push({ key, path: here, nearest: nearestName(key, names) });
        continue;
      }
      const raw = value[key];
      if (raw === null || raw === undefined) continue;
      found.set(known.name, { value: this.typed(raw, here, known.type), path: here });
    }
    return new Fields(found);
  }

  private typed(raw: unknown, path: Path, type: FieldType): unknown {
    switch (type) {
      case "string":
        return typeof raw === "string" ? raw : this.fail(path, `must be text, not ${describe(raw)}`);
      case "int":
        return typeof raw === "number" && Number.isSafeInteger(raw)
          ? raw
          : this.fail(path, `must be a whole number, not ${describe(raw)}`);
      case "bool":
        return typeof raw === "boolean" ? raw : this.fail(path, `must be true or false, not ${describe(raw)}`);
      case "duration":
        return parseDurationValue(raw, this.options.at?.(path) ?? path.join("."));
      case "strings":
        return this.strings(raw, path);
      case "map":
      case "headers": {
        const map = this.object(raw, path);
        const result: Record<string, unknown> = Object.create(null);
        for (const [key, item] of Object.entries(map.value))
          result[key] =
            type === "headers" ? this.strings(item, [...map.path, key]) : this.text(item, [...map.path, key]);
        return result;
      }
      case "object":
      case "objects":
      case "any":
        return raw;
    }
  }

  private text(raw: unknown, path: Path): string {
    if (typeof raw === "string") return raw;
    // Files are read leniently here: `version = 3` in HCL means the text "3".
    if (this.options.spelling === "file" && (typeof raw === "number" || typeof raw === "boolean")) return String(raw);
    return this.fail(path, `must be text, not ${describe(raw)}`);
  }

  private strings(raw: unknown, path: Path): readonly string[] {
    if (!Array.isArray(raw)) return this.fail(path, `must be a list of texts, not ${describe(raw)}`);
    return raw.map((item, i) => this.text(item, [...path, i]));
  }
}

/** The fields that were found, by CamelCase name. */
export class Fields {
  private readonly found: ReadonlyMap<string, { readonly value: unknown; readonly path: Path }>;
  constructor(found: ReadonlyMap<string, { readonly value: unknown; readonly path: Path }>) {
    this.found = found;
  }
  get(name: string): { readonly value: unknown; readonly path: Path } | undefined {
    return this.found.get(name);
  }
  string(name: string): string {
    return (this.found.get(name)?.value as string | undefined) ?? "";
  }
  number(name: string): number {
    return (this.found.get(name)?.value as number | undefined) ?? 0;
  }
  bool(name: string, otherwise = false): boolean {
    return (this.found.get(name)?.value as boolean | undefined) ?? otherwise;
  }
  strings(name: string): readonly string[] {
    return (this.found.get(name)?.value as readonly string[] | undefined) ?? [];
  }
  names(): Iterable<string> {
    return this.found.keys();
  }
}
