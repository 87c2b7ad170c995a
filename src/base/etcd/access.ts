// How etcd is reached: members, TLS, names and passwords, how patient a client is; and the channels to them.
import type { ChannelCredentials, Client } from "@grpc/grpc-js";
import type { Disk } from "../disk.ts";
import { InputError, wrap } from "../error.ts";

/** How to reach etcd. */
export interface EtcdAccess {
  /** `http://host:port` or `https://host:port` of one or several members. */
  readonly endpoints: readonly string[];
  readonly username?: string;
  readonly password?: string;
  /** PEM files. */
  readonly caFile?: string;
  readonly certFile?: string;
  readonly keyFile?: string;
}

/** How patient a client is; milliseconds. */
export interface ClientTiming {
  /** One request to one member. */
  readonly attemptMs: number;
  /** All attempts of one request together. */
  readonly patienceMs: number;
  /** All attempts together while every member refuses the connection: nothing is on its way, so there is nothing to wait for. */
  readonly refusedMs: number;
  /** A watch that was silent for so long is asked for a sign of life. */
  readonly askMs: number;
  /** A watch that was silent for so long is given up. */
  readonly silentMs: number;
  /** Without a watch for so long etcd counts as away. */
  readonly graceMs: number;
}

/** The patience of a client that nobody told otherwise. */
export const clientTiming: ClientTiming = {
  attemptMs: 2_000,
  patienceMs: 8_000,
  refusedMs: 2_000,
  askMs: 2_000,
  silentMs: 5_000,
  graceMs: 1_000,
};

/** An endpoint of the settings as gRPC's target and whether it is spoken to with TLS. @throws InputError */
export function parseEndpoint(endpoint: string): { readonly target: string; readonly tls: boolean } {
  const match = /^(https?):\/\/(\[[0-9a-fA-F:.%]+\]|[^/:[\]\s]+):(\d{1,5})\/?$/.exec(endpoint);
  if (match === null || Number(match[3]) > 65_535)
    throw new InputError(
      "etcd.endpoints",
      `"${endpoint}" is not an endpoint; write it as "http://host:2379" or "https://host:2379"`,
    );
  return { target: `${match[2]}:${match[3]}`, tls: match[1] === "https" };
}

async function credentials(
  grpc: typeof import("@grpc/grpc-js"),
  settings: EtcdAccess,
  disk: Pick<Disk, "readBytes">,
): Promise<ChannelCredentials> {
  const file = async (key: "caFile" | "certFile" | "keyFile"): Promise<Buffer | null> => {
    const path = settings[key];
    if (path === undefined) return null;
    try {
      return Buffer.from(await disk.readBytes(path));
    } catch (error) {
      throw wrap(error, `etcd.${key} "${path}"`);
    }
  };
  if ((settings.certFile === undefined) !== (settings.keyFile === undefined))
    throw new InputError("etcd", "certFile and keyFile belong together: give both or none");
  return grpc.credentials.createSsl(await file("caFile"), await file("keyFile"), await file("certFile"));
}

/** One member, and the channel to it. */
export interface Member {
  readonly url: string;
  readonly channel: Client;
}

/**
 * The members that the settings name, each with a channel that connects when it is used first.
 * @throws InputError for wrong settings, TrilithError for unreadable files
 */
export async function membersOf(
  grpc: typeof import("@grpc/grpc-js"),
  settings: EtcdAccess,
  disk: Pick<Disk, "readBytes">,
): Promise<readonly Member[]> {
  if (settings.endpoints.length === 0)
    throw new InputError("etcd.endpoints", 'no endpoint is given; name at least one, such as "http://127.0.0.1:2379"');
  if ((settings.username === undefined) !== (settings.password === undefined))
    throw new InputError("etcd", "username and password belong together: give both or none");
  const parsed = settings.endpoints.map((url) => ({ url, ...parseEndpoint(url) }));
  const secure = parsed.some(({ tls }) => tls) ? await credentials(grpc, settings, disk) : undefined;
  return parsed.map(({ url, target, tls }) => ({
    url,
    channel: new grpc.Client(target, tls && secure !== undefined ? secure : grpc.credentials.createInsecure(), {
      "grpc.max_receive_message_length": -1,
      "grpc.max_send_message_length": -1,
      // etcd cuts off clients that ping more often than every 5 s.
      "grpc.keepalive_time_ms": 10_000,
      "grpc.keepalive_timeout_ms": 5_000,
      "grpc.initial_reconnect_backoff_ms": 100,
      "grpc.max_reconnect_backoff_ms": 2_000,
      "grpc.enable_http_proxy": 0,
      "grpc.enable_retries": 0,
      "grpc.service_config_disable_resolution": 1,
      "grpc.use_local_subchannel_pool": 1,
    }),
  }));
}
