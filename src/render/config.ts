// Which files are kept, and what is in them: `IN:OUT[:COMMAND[:CHECK]]` on the command line, and consul-template's configuration files.
import { InputError } from "../base/error.ts";
import { isObject } from "../base/is-object.ts";
import { nearestName } from "../base/nearest-name.ts";
import { parseGoDuration } from "../wire/duration.ts";
import { type ConfigPath, type ConfigText, parseConfigText } from "../wire/hcl/config.ts";
import type { Target } from "./targets.ts";
import { shellWord } from "./write.ts";

/** How long bursts are waited for. */
export interface Wait {
  readonly waitMs: number;
  readonly waitMostMs: number;
}

/** One file that is wanted. */
export interface Wanted {
  /** What is in it: a template from a file, one that stands in the configuration (`name` is where), or a load balancer's file of a service. */
  readonly from:
    | { readonly template: string }
    | { readonly contents: string; readonly name: string }
    | { readonly target: Target; readonly service: string };
  readonly path: string;
  readonly command?: string;
  readonly check?: string;
  readonly commandTimeoutMs?: number;
  readonly mode?: number;
  readonly backup?: boolean;
  readonly makeFolders?: boolean;
  readonly wait?: Wait;
}

/** What a configuration file says. */
export interface RenderConfig {
  readonly files: readonly Wanted[];
  readonly wait?: Wait;
  readonly agent?: string;
  readonly token?: string;
  /** Keys that are known from consul-template and have no effect here. */
  readonly ignored: readonly string[];
}

/** `SOURCE:PATH[:COMMAND[:CHECK]]` of a flag. @throws InputError naming the flag */
export function wantedFromText(text: string, flag: string, target?: Target): Wanted {
  const [source = "", path = "", command = "", check = "", ...more] = text.split(":");
  const what = target === undefined ? "TEMPLATE" : "SERVICE";
  if (source === "" || path === "")
    throw new InputError(flag, `${JSON.stringify(text)}: expected ${what}:FILE[:COMMAND[:CHECK]]`);
  if (more.length > 0)
    throw new InputError(
      flag,
      `${JSON.stringify(text)}: a colon too many for ${what}:FILE[:COMMAND[:CHECK]]; put commands with colons into a template block of a --config file`,
    );
  return {
    from: target === undefined ? { template: source } : { target, service: source },
    path,
    ...(command === "" ? {} : { command }),
    ...(check === "" ? {} : { check }),
  };
}

/** `MIN[:MAX]` of -wait; MAX is four times MIN unless told. @throws InputError naming `where` */
export function waitFromText(text: string, where: string): Wait {
  const [min = "", max, ...more] = text.split(":");
  if (more.length > 0)
    throw new InputError(where, `${JSON.stringify(text)}: expected MIN or MIN:MAX, such as 250ms:2s`);
  const waitMs = parseGoDuration(min, where);
  const waitMostMs = max === undefined ? waitMs * 4 : parseGoDuration(max, where);
  if (waitMs < 0 || waitMostMs < waitMs)
    throw new InputError(where, `${JSON.stringify(text)}: expected 0 or more, and MAX not below MIN`);
  return { waitMs, waitMostMs };
}

/** An octal text or number, as people write permissions. @throws InputError */
function modeOf(value: unknown, where: string): number {
  const text = typeof value === "number" ? value.toString(8).padStart(4, "0") : String(value);
  if (!/^0?[0-7]{3,4}$/.test(text)) throw new InputError(where, `"${text}": expected permissions such as "0644"`);
  return Number.parseInt(text, 8);
}

const TEMPLATE_KEYS = [
  "source",
  "contents",
  "destination",
  "command",
  "command_timeout",
  "exec",
  "check",
  "validate",
  "perms",
  "backup",
  "create_dest_dirs",
  "wait",
  "haproxy",
  "nginx",
  "apache",
] as const;
/** Of a template block in consul-template, without effect here. */
const TEMPLATE_IGNORED = ["error_on_missing_key", "error_fatal", "function_denylist", "sandbox_path"];
const TOP_KEYS = ["template", "wait", "consul"] as const;
const TOP_IGNORED = (
  "log_level log_file syslog max_stale kill_signal reload_signal dump_signal pid_file block_query_wait deduplicate " +
  "parse_only default_delimiters template_error_fatal err_on_failed_lookup once"
).split(" ");

/** A block's keys, read one after the other. */
class Block {
  readonly #value: Readonly<Record<string, unknown>>;
  readonly #path: ConfigPath;
  readonly #config: ConfigText;
  constructor(value: unknown, path: ConfigPath, config: ConfigText) {
    if (!isObject(value)) throw new InputError(config.at(path), "expected a block");
    this.#value = value as Readonly<Record<string, unknown>>;
    this.#path = path;
    this.#config = config;
  }
  at(key: string): string {
    return this.#config.at([...this.#path, key]);
  }
  /** @returns keys out of `ignored` that are there @throws InputError for one that is in neither list */
  only(known: readonly string[], ignored: readonly string[]): string[] {
    const without: string[] = [];
    for (const key of Object.keys(this.#value)) {
      if (known.includes(key)) continue;
      if (ignored.includes(key)) {
        without.push(this.at(key));
        continue;
      }
      const near = nearestName(key, known);
      throw new InputError(
        this.at(key),
        `there is no such key here${near === undefined ? `; known are ${known.join(", ")}` : `: did you mean "${near}"?`}`,
      );
    }
    return without;
  }
  text(key: string): string | undefined {
    const value = this.value(key);
    if (value === undefined || typeof value === "string") return value;
    throw new InputError(this.at(key), "expected a text");
  }
  flag(key: string): boolean | undefined {
    const value = this.value(key);
    if (value === undefined || typeof value === "boolean") return value;
    throw new InputError(this.at(key), "expected true or false");
  }
  value(key: string): unknown {
    return this.#value[key] ?? undefined;
  }
  /** The blocks of a name: HCL repeats them, JSON lists them. */
  blocks(key: string): readonly Block[] {
    const value = this.#value[key];
    if (value === undefined || value === null) return [];
    if (!Array.isArray(value)) return [new Block(value, [...this.#path, key], this.#config)];
    return value.map((one, i) => new Block(one, [...this.#path, key, i], this.#config));
  }
  duration(key: string): number | undefined {
    const text = this.text(key);
    return text === undefined ? undefined : parseGoDuration(text, this.at(key));
  }
  /** The one key out of these that is given. @throws InputError for none or several */
  oneOf(keys: readonly string[]): string {
    const given = keys.filter((key) => this.#value[key] !== undefined);
    if (given.length !== 1)
      throw new InputError(
        this.at(given[1] ?? given[0] ?? ""),
        given.length === 0 ? `expected one of ${keys.join(", ")}` : `${given.join(" and ")} exclude each other`,
      );
    return given[0] as string;
  }
}

function waitOf(block: Block): Wait | undefined {
  const found = block.blocks("wait")[0];
  if (found === undefined) return undefined;
  found.only(["enabled", "min", "max"], []);
  if (found.flag("enabled") === false) return { waitMs: 0, waitMostMs: 0 };
  const [min, max] = [found.text("min") ?? "250ms", found.text("max")];
  return waitFromText(max === undefined ? min : `${min}:${max}`, found.at("min"));
}

function templateOf(block: Block, ignored: string[]): Wanted {
  ignored.push(...block.only(TEMPLATE_KEYS, TEMPLATE_IGNORED));
  const source = block.oneOf(["source", "contents", "haproxy", "nginx", "apache"]);
  const text = block.text(source) ?? "";
  const path = block.text("destination");
  if (path === undefined || path === "")
    throw new InputError(block.at("destination"), "expected the file that is to be written");
  const exec = block.blocks("exec")[0];
  exec?.only(["command", "timeout"], []);
  // consul-template takes a list of words, too.
  const given = exec?.value("command");
  const words = Array.isArray(given) ? given.map((word) => shellWord(String(word))).join(" ") : exec?.text("command");
  const command = block.text("command") ?? words;
  const check = block.text("check") ?? block.text("validate");
  const timeoutMs = block.duration("command_timeout") ?? exec?.duration("timeout");
  const perms = block.value("perms");
  const backup = block.flag("backup");
  const makeFolders = block.flag("create_dest_dirs");
  const wait = waitOf(block);
  return {
    from:
      source === "source"
        ? { template: text }
        : source === "contents"
          ? { contents: text, name: block.at("contents") }
          : { target: source as Target, service: text },
    path,
    ...(command === undefined ? {} : { command }),
    ...(check === undefined ? {} : { check }),
    ...(timeoutMs === undefined ? {} : { commandTimeoutMs: timeoutMs }),
    ...(perms === undefined ? {} : { mode: modeOf(perms, block.at("perms")) }),
    ...(backup === undefined ? {} : { backup }),
    ...(makeFolders === undefined ? {} : { makeFolders }),
    ...(wait === undefined ? {} : { wait }),
  };
}

/** Reads a configuration file in consul-template's HCL or JSON. @throws InputError with file, line and key */
export function renderConfig(text: string, fileName: string): RenderConfig {
  const config = parseConfigText(text, fileName);
  const top = new Block(config.value, [], config);
  const ignored = top.only(TOP_KEYS, TOP_IGNORED);
  const files = top.blocks("template").map((block) => templateOf(block, ignored));
  const consul = top.blocks("consul")[0];
  if (consul !== undefined) ignored.push(...consul.only(["address", "token"], ["retry", "auth", "ssl", "transport"]));
  const wait = waitOf(top);
  const [agent, token] = [consul?.text("address"), consul?.text("token")];
  return {
    files,
    ignored,
    ...(wait === undefined ? {} : { wait }),
    ...(agent === undefined ? {} : { agent }),
    ...(token === undefined ? {} : { token }),
  };
}
