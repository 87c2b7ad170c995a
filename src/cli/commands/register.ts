// `trilith register`: registers a service on the agent, by flags or from definition files, in Consul's spelling.
import { InputError } from "../../base/error.ts";
import { type ClientOptions, clientFlags, withClient } from "../client.ts";
import { type Command, collect, pairs } from "../io.ts";

interface Options extends ClientOptions {
  readonly id?: string;
  readonly name?: string;
  readonly address?: string;
  readonly port?: string;
  readonly tag?: readonly string[];
  readonly meta?: readonly string[];
  readonly check?: readonly string[];
  readonly interval: string;
  readonly kind?: string;
  readonly socketPath?: string;
  readonly taggedAddress?: readonly string[];
}

/** `name=address:port` words as Consul's tagged addresses. */
function taggedAddresses(words: readonly string[]): Record<string, { Address: string; Port: number }> {
  const found: Record<string, { Address: string; Port: number }> = Object.create(null);
  for (const [name, text] of Object.entries(pairs(words, "--tagged-address"))) {
    const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text) ?? [];
    const address = bracketed ?? plain;
    if (address === undefined)
      throw new InputError("--tagged-address", `"${name}=${text}": expected name=address:port`);
    found[name] = { Address: address, Port: Number(port) };
  }
  return found;
}

/** `http:/path`, `http://…`, `tcp`, `tcp:host:port`, `ttl:30s`, `script:cmd …` as a check of Consul's API. */
function checkOf(word: string, host: string, port: number, interval: string): Record<string, unknown> {
  const [kind = "", ...rest] = word.split(":");
  const detail = rest.join(":");
  if (kind === "ttl" && detail !== "") return { TTL: detail };
  if (kind === "script" && detail !== "") return { Args: ["/bin/sh", "-c", detail], Interval: interval };
  if (kind === "tcp") return { TCP: detail === "" ? `${host}:${port}` : detail, Interval: interval };
  if (kind === "http" && detail.startsWith("//")) return { HTTP: word, Interval: interval };
  if (kind === "https" && detail.startsWith("//")) return { HTTP: word, Interval: interval };
  if (kind === "http") return { HTTP: `http://${host}:${port}${detail === "" ? "/" : detail}`, Interval: interval };
  throw new InputError(
    "--check",
    `"${word}": expected http:/path, http://host/path, tcp, tcp:host:port, ttl:30s or script:command`,
  );
}

export const command: Command = {
  name: "register",
  summary: "register a service on the agent, by flags or from a file",
  define(parser, io, done) {
    clientFlags(parser)
      .argument("[files...]", "definition files (JSON or HCL) with service or services")
      .option("--name <name>", "the service's name")
      .option("--id <id>", "its ID, if there are several on this host (default: the name)")
      .option("--address <address>", "its address (default: the node's)")
      .option("--port <port>", "its port")
      .option("--tag <tag>", "a tag (repeatable)", collect)
      .option("--meta <key=value>", "a label (repeatable)", collect)
      .option("--tagged-address <name=address:port>", "a further address: lan, wan … (repeatable)", collect)
      .option("--socket-path <path>", "the unix socket that it listens on, instead of a port")
      .option("--kind <kind>", "Consul's kind of service (connect-proxy …)")
      .option("--check <check>", "http:/path, tcp, ttl:30s, script:command (repeatable)", collect)
      .option("--interval <duration>", "how often to check", "10s")
      .action(async (files: readonly string[], options: Options) => {
        const bodies: Record<string, unknown>[] = [];
        if (files.length > 0) {
          const { servicesInFiles } = await import("../../protocols/file/cli.ts");
          bodies.push(...(await servicesInFiles(files)));
        } else {
          if (options.name === undefined)
            throw new InputError("", "a service needs a name: --name web, or a file with its definition");
          const port = Number(options.port ?? 0);
          if (!Number.isInteger(port) || port < 0 || port > 65_535)
            throw new InputError("--port", `"${options.port}": expected a whole number from 0 to 65535`);
          const host = options.address ?? "127.0.0.1";
          bodies.push({
            Name: options.name,
            ...(options.id === undefined ? {} : { ID: options.id }),
            ...(options.address === undefined ? {} : { Address: options.address }),
            Port: port,
            ...(options.kind === undefined ? {} : { Kind: options.kind }),
            ...(options.socketPath === undefined ? {} : { SocketPath: options.socketPath }),
            ...(options.taggedAddress === undefined ? {} : { TaggedAddresses: taggedAddresses(options.taggedAddress) }),
            Tags: options.tag ?? [],
            Meta: pairs(options.meta ?? [], "--meta"),
            Checks: (options.check ?? []).map((word) => checkOf(word, host, port, options.interval)),
          });
        }
        await withClient(options, io, async (client) => {
          for (const body of bodies) {
            await client.send("PUT", "/v1/agent/service/register", { body: JSON.stringify(body) });
            io.out(`Registered service: ${String(body["Name"] ?? body["name"])}\n`);
          }
        });
        done(0);
      });
  },
};
