// Where and how a command reaches an agent, from Consul's client flags and variables: address, token, TLS, basic authentication.
import { type Command as Commander, Option } from "commander";
import { type AgentAddress, agentAddress } from "../base/agent-address.ts";
import { systemDisk } from "../base/disk.ts";
import { codeOf, InputError } from "../base/error.ts";
import type { HttpRequest } from "../base/http.ts";
import { CLIENT_GROUP } from "./io.ts";

/** What the flags say. */
export interface ClientOptions {
  readonly httpAddr?: string;
  readonly token?: string;
  readonly tokenFile?: string;
  readonly caFile?: string;
  readonly caPath?: string;
  readonly clientCert?: string;
  readonly clientKey?: string;
  readonly tlsServerName?: string;
  readonly datacenter?: string;
  readonly stale?: boolean;
  readonly namespace?: string;
  readonly partition?: string;
  readonly json?: boolean;
}

const FLAGS: readonly (readonly [flag: string, about: string])[] = [
  [
    "--http-addr <address>",
    "its HTTP address: host:port, http(s)://…, unix:///path (TRILITH_HTTP_ADDR, CONSUL_HTTP_ADDR)",
  ],
  ["--token <token>", "its token (TRILITH_HTTP_TOKEN, CONSUL_HTTP_TOKEN)"],
  ["--token-file <file>", "a file with its token (CONSUL_HTTP_TOKEN_FILE)"],
  ["--ca-file <file>", "for https: the certificate authorities to trust (CONSUL_CACERT)"],
  ["--ca-path <folder>", "for https: a folder with such authorities (CONSUL_CAPATH)"],
  ["--client-cert <file>", "for https: the client certificate (CONSUL_CLIENT_CERT)"],
  ["--client-key <file>", "for https: its key (CONSUL_CLIENT_KEY)"],
  ["--tls-server-name <name>", "for https: the name that its certificate must have (CONSUL_TLS_SERVER_NAME)"],
  ["--datacenter <name>", "the datacenter, if not its own"],
  ["--stale", "allow the last known answer if its store is unreachable"],
];
/** Of Consul Enterprise: an agent refuses them by name. */
const ENTERPRISE: readonly string[] = ["--namespace <name>", "--partition <name>"];

/** Adds the flags that every command has that talks to an agent. */
export function clientFlags(command: Commander): Commander {
  for (const [flag, about] of FLAGS) command.addOption(new Option(flag, about).helpGroup(CLIENT_GROUP));
  for (const flag of ENTERPRISE) command.addOption(new Option(flag).hideHelp());
  return command;
}

/** How an agent is reached. */
export interface Connection extends AgentAddress {
  /** What goes with every request, files read once they are needed. @throws InputError naming a file that cannot be read */
  readonly extras: () => Promise<Pick<HttpRequest, "tls"> & { readonly headers: Readonly<Record<string, string>> }>;
  /** Parameters of every request. */
  readonly query: readonly (readonly [name: string, value: string])[];
}

type Env = (name: string) => string | undefined;

/** Go's `strconv.ParseBool`. @throws InputError naming the variable */
function flagIn(env: Env, name: string): boolean | undefined {
  const text = env(name);
  if (text === undefined) return undefined;
  if (/^(1|t|true)$/i.test(text)) return true;
  if (/^(0|f|false)$/i.test(text)) return false;
  throw new InputError(name, `"${text}": expected true or false`);
}

/** @throws TrilithError `invalid` for an address or a variable that is none */
export function connectionOf(options: ClientOptions, env: Env): Connection {
  const given = options.httpAddr ?? env("TRILITH_HTTP_ADDR") ?? env("CONSUL_HTTP_ADDR");
  const tlsWanted = flagIn(env, "CONSUL_HTTP_SSL") === true;
  const verify = flagIn(env, "CONSUL_HTTP_SSL_VERIFY") !== false;
  const address = agentAddress(
    tlsWanted && !/^[a-z]+:\/\//i.test(given ?? "") ? `https://${given ?? "127.0.0.1:8500"}` : given,
  );
  const namespace = options.namespace ?? env("CONSUL_NAMESPACE");
  const partition = options.partition ?? env("CONSUL_PARTITION");
  let extras: ReturnType<Connection["extras"]> | undefined;
  return {
    ...address,
    extras() {
      extras ??= (async () => ({
        headers: await headersOf(options, env),
        ...(address.base.startsWith("https:") ? { tls: await tlsOf(options, env, verify) } : {}),
      }))();
      return extras;
    },
    query: [
      ...(options.datacenter === undefined ? [] : [["dc", options.datacenter] as const]),
      ...(namespace === undefined ? [] : [["ns", namespace] as const]),
      ...(partition === undefined ? [] : [["partition", partition] as const]),
    ],
  };
}

async function headersOf(options: ClientOptions, env: Env): Promise<Readonly<Record<string, string>>> {
  const token = await tokenOf(options, env);
  const login = env("CONSUL_HTTP_AUTH");
  return {
    ...(token === undefined || token === "" ? {} : { "x-consul-token": token }),
    ...(login === undefined ? {} : { authorization: `Basic ${Buffer.from(login).toString("base64")}` }),
  };
}

async function tokenOf(options: ClientOptions, env: Env): Promise<string | undefined> {
  if (options.token !== undefined) return options.token;
  if (options.tokenFile !== undefined) return (await textOf(options.tokenFile, "--token-file")).trim();
  const token = env("TRILITH_HTTP_TOKEN") ?? env("CONSUL_HTTP_TOKEN");
  const file = env("CONSUL_HTTP_TOKEN_FILE");
  return token ?? (file === undefined ? undefined : (await textOf(file, "CONSUL_HTTP_TOKEN_FILE")).trim());
}

async function tlsOf(options: ClientOptions, env: Env, verify: boolean): Promise<NonNullable<HttpRequest["tls"]>> {
  const one = (flag: string | undefined, variable: string): string | undefined => flag ?? env(variable);
  const caFile = one(options.caFile, "CONSUL_CACERT");
  const caPath = one(options.caPath, "CONSUL_CAPATH");
  const certFile = one(options.clientCert, "CONSUL_CLIENT_CERT");
  const keyFile = one(options.clientKey, "CONSUL_CLIENT_KEY");
  const serverName = one(options.tlsServerName, "CONSUL_TLS_SERVER_NAME");
  if ((certFile === undefined) !== (keyFile === undefined))
    throw new InputError("--client-cert", "both client cert and client key must be provided");
  const ca =
    caFile !== undefined
      ? await textOf(caFile, "--ca-file")
      : caPath !== undefined
        ? await folderOf(caPath)
        : undefined;
  return {
    skipVerify: !verify,
    ...(serverName === undefined ? {} : { serverName }),
    ...(ca === undefined ? {} : { ca }),
    ...(certFile === undefined || keyFile === undefined
      ? {}
      : { cert: await textOf(certFile, "--client-cert"), key: await textOf(keyFile, "--client-key") }),
  };
}

async function textOf(path: string, from: string): Promise<string> {
  try {
    return await systemDisk.readText(path);
  } catch (error) {
    throw new InputError(from, `${path} ${codeOf(error) === "not-found" ? "is not there" : "cannot be read"}`, error);
  }
}

/** The certificates of all files in a folder. */
async function folderOf(path: string): Promise<string> {
  let names: readonly string[];
  try {
    names = await systemDisk.list(path);
  } catch (error) {
    throw new InputError(
      "--ca-path",
      `${path} ${codeOf(error) === "not-found" ? "is not there" : "cannot be read"}`,
      error,
    );
  }
  const texts: string[] = [];
  for (const name of names)
    if ((await systemDisk.info(`${path}/${name}`))?.isFile) texts.push(await textOf(`${path}/${name}`, "--ca-path"));
  if (texts.length === 0) throw new InputError("--ca-path", `${path} holds no certificate`);
  return texts.join("\n");
}
