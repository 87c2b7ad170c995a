// Consul's HTTP API as Registrator reaches it: by the URI, and by the CONSUL_* variables of Consul's own client.
import { messageOf, TrilithError } from "../../../base/error.ts";
import type { TlsClient } from "../../../base/tls.ts";
import type { BackendGround } from "./backend.ts";
import { type Answer, ask, unexpected } from "./http.ts";
import type { RegistryUri } from "./uri.ts";

/** Requests to one Consul. */
export interface ConsulApi {
  request(method: string, path: string, signal: AbortSignal, body?: string): Promise<Answer>;
  /** Asks who leads, and says it, as Registrator's ping does. */
  ping(scheme: string, signal: AbortSignal): Promise<void>;
}

const DEFAULT_ADDRESS = "127.0.0.1:8500";

/**
 * Consul by `consul://host`, `consul-unix://path`, `consul-tls://host` (and consulkv…). Without a host CONSUL_HTTP_ADDR counts. Honours
 * CONSUL_HTTP_TOKEN, _TOKEN_FILE, _AUTH, _SSL and, for TLS, CONSUL_CACERT, CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY, CONSUL_TLS_SERVER_NAME
 * and CONSUL_HTTP_SSL_VERIFY; files are read at the first request. Source: Registrator 7.4.0 consul/consul.go, Consul api/api.go.
 */
export function consulApi(uri: RegistryUri, ground: BackendGround): ConsulApi {
  const { env, disk } = ground;
  const kind = /-(unix|tls)$/.exec(uri.scheme)?.[1];
  const fromEnvironment = env("CONSUL_HTTP_ADDR") ?? "";
  const unix =
    kind === "unix"
      ? `${uri.host}${uri.path}`
      : uri.host === "" && fromEnvironment.startsWith("unix://")
        ? fromEnvironment.slice("unix://".length)
        : undefined;
  const address = uri.host || fromEnvironment || DEFAULT_ADDRESS;
  const tls = kind === "tls" || /^(1|t|true)$/i.test(env("CONSUL_HTTP_SSL") ?? "") || /^https:\/\//.test(address);
  const base =
    unix === undefined
      ? `${tls ? "https" : "http"}://${address.replace(/^https?:\/\//, "").replace(/\/+$/, "")}`
      : "http://localhost";

  let prepared: Promise<{ readonly tls?: TlsClient; readonly headers: Record<string, string> }> | undefined;
  const file = async (name: string): Promise<string | undefined> => {
    const path = env(name) ?? "";
    if (path === "") return undefined;
    try {
      return await disk.readText(path);
    } catch (error) {
      throw new TrilithError("invalid", `Cannot set up Consul TLSConfig: ${name}=${path}: ${messageOf(error)}`, error);
    }
  };
  const prepare = async (): Promise<{ readonly tls?: TlsClient; readonly headers: Record<string, string> }> => {
    const headers: Record<string, string> = {};
    const token = env("CONSUL_HTTP_TOKEN") ?? (await file("CONSUL_HTTP_TOKEN_FILE"))?.trim() ?? "";
    if (token !== "") headers["x-consul-token"] = token;
    const auth = env("CONSUL_HTTP_AUTH") ?? "";
    if (auth !== "") headers["authorization"] = `Basic ${Buffer.from(auth).toString("base64")}`;
    if (!tls || unix !== undefined) return { headers };
    const [ca, cert, key] = [
      await file("CONSUL_CACERT"),
      await file("CONSUL_CLIENT_CERT"),
      await file("CONSUL_CLIENT_KEY"),
    ];
    if ((cert === undefined) !== (key === undefined))
      throw new TrilithError(
        "invalid",
        "Cannot set up Consul TLSConfig: CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY belong together: one of them is missing",
      );
    const serverName = env("CONSUL_TLS_SERVER_NAME") ?? "";
    return {
      headers,
      tls: {
        skipVerify: /^(0|f|false)$/i.test(env("CONSUL_HTTP_SSL_VERIFY") ?? ""),
        ...(serverName === "" ? {} : { serverName }),
        ...(ca === undefined ? {} : { ca }),
        ...(cert === undefined || key === undefined ? {} : { cert, key }),
      },
    };
  };
  const request: ConsulApi["request"] = async (method, path, signal, body) => {
    prepared ??= prepare();
    const { headers, tls: certificates } = await prepared;
    return await ask(
      ground,
      {
        url: base + path,
        method,
        headers,
        ...(unix === undefined ? {} : { socketPath: unix }),
        ...(certificates === undefined ? {} : { tls: certificates }),
        ...(body === undefined ? {} : { body }),
      },
      signal,
    );
  };
  return {
    request,
    async ping(scheme, signal) {
      const answer = await request("GET", "/v1/status/leader", signal);
      if (answer.status !== 200) throw unexpected("", answer);
      ground.say(`${scheme.replace(/-.*/, "")}: current leader  ${String(JSON.parse(answer.text))}`);
    },
  };
}

/** A path segment as Go's url.PathEscape writes it, as far as Consul cares: a colon stays. */
export function segment(text: string): string {
  return encodeURIComponent(text).replaceAll("%3A", ":");
}
