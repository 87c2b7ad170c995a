// What `protocols.flat` may say: files and folders with lists of endpoints.
import { InputError } from "../../base/error.ts";
import { given } from "../../wire/given.ts";
import type { Format } from "./parse.ts";

/** A file or a folder of them. */
export interface FlatRule {
  readonly path: string;
  /** What the list is about; absent = the file's name without its ending. Lists by service tell it themselves. */
  readonly service?: string;
  /** Absent = by the file's name. */
  readonly format?: Format;
  /** Of entries that tell none. */
  readonly port?: number;
  readonly tags: readonly string[];
}

export interface FlatConfig {
  readonly files: readonly FlatRule[];
  /** A file that is written in place counts so long after its last change. */
  readonly settleMs: number;
}

const EXAMPLE = '{"files": ["/etc/services.d", {"path": "/run/db.txt", "service": "db", "port": 5432}]}';
const FORMATS: readonly Format[] = ["json", "yaml", "lines", "hosts"];
const SETTLE_MS = 300;

/** Undefined = off, which is the default. @throws InputError that names the key */
export function configureFlat(raw: unknown): FlatConfig | undefined {
  if (raw === undefined || raw === null || raw === false) return undefined;
  const told = given(raw, "flat", ["files", "settle"], EXAMPLE);
  const files = told.list("files", fileRule);
  if (files.length === 0) throw new InputError("flat", `no files are named: expected ${EXAMPLE}`);
  return { files, settleMs: told.duration("settle", 0) ?? SETTLE_MS };
}

function fileRule(value: unknown, where: string): FlatRule {
  const rule = given(
    typeof value === "string" ? { path: value } : value,
    where,
    ["path", "service", "format", "port", "tags"],
    '{"path": "/run/db.txt", "service": "db"}',
  );
  const path = rule.text("path", "the path of a file or folder");
  if (path === undefined) throw rule.wrong("path", "the path of a file or folder");
  const service = rule.text("service", "a service's name", /^[^\s/]+$/);
  const told = rule.text("format", `one of ${FORMATS.join(", ")}`);
  const format = FORMATS.find((one) => one === told);
  if (told !== undefined && format === undefined) throw rule.wrong("format", `one of ${FORMATS.join(", ")}`);
  const port = rule.number("port", 1, 65_535);
  return {
    path: path.replace(/(.)\/+$/, "$1"),
    tags: rule.texts("tags", "a tag"),
    ...(service === undefined ? {} : { service }),
    ...(format === undefined ? {} : { format }),
    ...(port === undefined ? {} : { port }),
  };
}
