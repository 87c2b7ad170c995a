// A value of a configuration file or a flag, with its place: read as what the key expects, or refused in the same words everywhere.
import { InputError } from "../../../base/error.ts";
import { hostPort, ipFamily } from "../../../base/net.ts";
import { parseDurationValue } from "../../../wire/duration.ts";

/** Keys (and places in lists) from the file's root to a value. */
export type KeyPath = readonly (string | number)[];

/** A value with its place. */
export class Value {
  readonly raw: unknown;
  readonly #at: string;
  constructor(raw: unknown, at: string) {
    this.raw = raw;
    this.#at = at;
  }
  /** What stands within this value, below `keys`. */
  within(raw: unknown, ...keys: readonly string[]): Value {
    return new Value(raw, [this.#at, ...keys].join("."));
  }
  fail(right: string): never {
    throw new InputError(this.#at, `${JSON.stringify(this.raw) ?? String(this.raw)}: expected ${right}`);
  }
  text(): string {
    return typeof this.raw === "string" ? this.raw : this.fail("a text");
  }
  bool(): boolean {
    if (this.raw === "true" || this.raw === "false") return this.raw === "true";
    return typeof this.raw === "boolean" ? this.raw : this.fail("true or false");
  }
  integer(least: number, most: number): number {
    const value = typeof this.raw === "string" && /^-?\d+$/.test(this.raw) ? Number(this.raw) : this.raw;
    if (typeof value === "number" && Number.isInteger(value) && value >= least && value <= most) return value;
    return this.fail(`a whole number from ${least} to ${most}`);
  }
  port(): number {
    return this.integer(-1, 65_535);
  }
  durationMs(): number {
    const ms = parseDurationValue(this.raw, this.#at);
    return ms >= 0 ? ms : this.fail('a duration that is not negative, such as "10s"');
  }
  /** Whole milliseconds, from `least` to `most`. */
  durationWithin(least: number, most: number, expected: string): number {
    const ms = Math.round(this.durationMs());
    return ms >= least && ms <= most ? ms : this.fail(expected);
  }
  texts(): readonly string[] {
    if (typeof this.raw === "string") return [this.raw];
    if (Array.isArray(this.raw) && this.raw.every((item) => typeof item === "string")) return this.raw as string[];
    return this.fail("a list of texts");
  }
  map(): readonly (readonly [key: string, value: string])[] {
    const object = Array.isArray(this.raw) && this.raw.length === 1 ? (this.raw[0] as unknown) : this.raw;
    if (typeof object !== "object" || object === null || Array.isArray(object)) return this.fail("an object of texts");
    return Object.entries(object).map(([key, value]) => {
      if (typeof value === "string") return [key, value] as const;
      if (typeof value === "number" || typeof value === "boolean") return [key, String(value)] as const;
      return this.fail(`an object of texts ("${key}" is none)`);
    });
  }
  /** An IP address; names and go-sockaddr templates are refused with what would be right. */
  address(): string {
    const text = this.text().trim();
    if (text.includes("{{")) return this.fail("an IP address (go-sockaddr templates are not understood)");
    if (text === "localhost") return "127.0.0.1";
    return ipFamily(text) === 0 ? this.fail("an IP address") : text;
  }
  /** Addresses to listen on, separated by blanks; unix sockets for HTTP are `unix://path`. */
  addresses(): string {
    const text = this.text().trim();
    if (text.includes("{{")) return this.fail("IP addresses (go-sockaddr templates are not understood)");
    for (const one of text.split(/\s+/))
      if (!one.startsWith("unix://") && one !== "localhost" && ipFamily(one) === 0)
        return this.fail(`IP addresses separated by blanks; "${one}" is none`);
    return text;
  }
}

/** An object; in HCL a block is one in a list. */
export function inner(raw: unknown): object | undefined {
  const object = Array.isArray(raw) && raw.length === 1 ? (raw[0] as unknown) : raw;
  return typeof object === "object" && object !== null && !Array.isArray(object) ? object : undefined;
}

/** The URL of an agent's HTTP API from `host`, `host:port` or a URL; the ports of Consul's gossip and servers mean its host. */
function agentUrl(text: string, value: Value): string {
  const given = text.trim();
  if (/^provider\s*=/.test(given) || given.includes("{{"))
    return value.fail(`a host or the URL of an agent; cloud auto-join ("${given}") is not understood`);
  if (/^[a-z]+:\/\//i.test(given)) {
    if (!/^https?:\/\/[^/?#]+\/?$/i.test(given) || !URL.canParse(given))
      return value.fail('a URL such as "http://10.0.0.1:8500"');
    return given.replace(/\/+$/, "");
  }
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:[\]]+))(?::(\d+))?$/.exec(given) ?? [];
  const host = bracketed ?? plain ?? (ipFamily(given) === 6 ? given : undefined);
  if (host === undefined || /[\s/]/.test(host))
    return value.fail('a host such as "10.0.0.1", or a URL such as "http://10.0.0.1:8500"');
  const http = port === undefined || port === "8300" || port === "8301" || port === "8302" ? 8500 : Number(port);
  return `http://${hostPort(host, http)}`;
}

export const urlsOf = (value: Value): readonly string[] =>
  value
    .texts()
    .flatMap((text) => (text.includes("provider=") ? [text] : text.split(",")))
    .map((text) => agentUrl(text, value));
