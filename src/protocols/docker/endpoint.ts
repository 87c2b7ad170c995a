// Where an engine listens: DOCKER_HOST's spellings, and the certificates for TLS as the docker client keeps them in a folder.
import { createHash } from "node:crypto";
import type { Disk } from "../../base/disk.ts";
import { codeOf, InputError, messageOf } from "../../base/error.ts";
import { ipFamily } from "../../base/net.ts";
import type { TlsClient } from "../../base/tls.ts";

/** Where an engine listens. */
export interface Endpoint {
  /** As DOCKER_HOST spells it: "unix:///var/run/docker.sock", "tcp://10.0.0.5:2375". */
  readonly spelling: string;
  readonly socketPath?: string;
  /** `http://host:port`, `https://host:port` with TLS. */
  readonly base: string;
  /** The certificates, read anew for each connection, so that renewed ones count. @throws TrilithError naming the file */
  readonly tls?: () => Promise<Omit<TlsClient, "alpn">>;
}

const DEFAULT_TCP_PORT = 2375;
const DEFAULT_TLS_PORT = 2376;
/** Spellings of the docker client that need more than a connection. */
const NOT_SPOKEN: Readonly<Record<string, string>> = {
  npipe: "named pipes of Windows are not spoken here: have Docker listen on tcp:// as well",
  ssh: "ssh is not spoken here: forward the socket (ssh -L /tmp/far.sock:/var/run/docker.sock host) and give unix:///tmp/far.sock",
  fd: "fd:// is a daemon's spelling, not a client's",
};

/**
 * Reads DOCKER_HOST's spelling. With `tls`, tcp:// is spoken over TLS; https:// always is.
 * @throws InputError naming `where` for anything but unix:///path, tcp://host[:port], http://host:port and https://host:port
 */
export function parseHost(spelling: string, where: string, tls?: Endpoint["tls"]): Endpoint {
  const path = /^unix:\/\/(\/.+)$/.exec(spelling)?.[1];
  if (path !== undefined) return { spelling, socketPath: path, base: "http://docker" };
  const [, scheme = ""] = /^(\w+):\/\//.exec(spelling) ?? [];
  const web = scheme === "tcp" ? (tls === undefined ? "http" : "https") : scheme;
  const url = web === "http" || web === "https" ? spelling.replace(/^\w+:/, `${web}:`) : undefined;
  if (url === undefined || !URL.canParse(url) || new URL(url).hostname === "")
    throw new InputError(
      where,
      `${JSON.stringify(spelling)}: ${Object.hasOwn(NOT_SPOKEN, scheme) ? `${NOT_SPOKEN[scheme]}; ` : ""}expected unix:///path/to/docker.sock, tcp://host:port or https://host:port`,
    );
  const { hostname, host, port } = new URL(url);
  // URL drops a port that is the scheme's own.
  const implied = port === "" && /:(?:80|443)\/?$/.test(url);
  const usual = web === "https" ? DEFAULT_TLS_PORT : DEFAULT_TCP_PORT;
  const base = `${web}://${port === "" && !implied ? `${hostname}:${usual}` : host}`;
  return web === "https" ? { spelling, base, tls: tls ?? (async () => ({})) } : { spelling, base };
}

/**
 * The endpoint of a context of the docker client (`docker context create`), with its certificates. `folder`: the client's own, ~/.docker.
 * @throws InputError naming the context where there is none, or one that leads to no engine
 */
export async function endpointOfContext(name: string, folder: string, disk: Disk): Promise<Endpoint> {
  const key = createHash("sha256").update(name).digest("hex");
  const file = `${folder}/contexts/meta/${key}/meta.json`;
  const where = `docker context ${JSON.stringify(name)}`;
  let docker: { readonly Host?: unknown; readonly SkipTLSVerify?: unknown } | undefined;
  try {
    docker = (JSON.parse(await disk.readText(file)) as { Endpoints?: { docker?: typeof docker } } | null)?.Endpoints
      ?.docker;
  } catch (error) {
    throw new InputError(where, `cannot be read from ${file}: ${messageOf(error)}`, error);
  }
  if (typeof docker?.Host !== "string") throw new InputError(where, `${file} names no Docker endpoint`);
  const certificates = `${folder}/contexts/tls/${key}/docker`;
  const has = (await disk.info(certificates)) !== undefined;
  return parseHost(
    docker.Host,
    where,
    has ? certificatesIn(certificates, disk, docker.SkipTLSVerify === true) : undefined,
  );
}

/** The host another machine's engine runs on; undefined for sockets and loopback addresses, which are this host's. */
export function farHost({ spelling, socketPath }: Endpoint): string | undefined {
  if (socketPath !== undefined) return undefined;
  const host = new URL(spelling.replace(/^\w+:/, "http:")).hostname.replace(/^\[|\]$/g, "");
  const loopback = host === "localhost" || host === "::1" || (ipFamily(host) === 4 && host.startsWith("127."));
  return loopback ? undefined : host;
}

/**
 * Reads `ca.pem`, `cert.pem` and `key.pem` from a folder, as the docker client does (DOCKER_CERT_PATH); any of them may be missing, but a
 * certificate needs its key. @throws InputError naming the folder and what is missing
 */
export function certificatesIn(folder: string, disk: Pick<Disk, "readText">, skipVerify: boolean): Endpoint["tls"] {
  const read = async (file: string): Promise<string | undefined> => {
    try {
      return await disk.readText(`${folder}/${file}`);
    } catch (error) {
      if (codeOf(error) === "not-found") return undefined;
      throw error;
    }
  };
  return async () => {
    const [ca, cert, key] = await Promise.all(["ca.pem", "cert.pem", "key.pem"].map(read));
    if ((cert === undefined) !== (key === undefined))
      throw new InputError(
        folder,
        `holds ${cert === undefined ? "key.pem without cert.pem" : "cert.pem without key.pem"}`,
      );
    if (ca === undefined && cert === undefined)
      throw new InputError(folder, "holds no certificates: expected ca.pem, cert.pem and key.pem");
    return {
      skipVerify,
      ...(ca === undefined ? {} : { ca }),
      ...(cert === undefined || key === undefined ? {} : { cert, key }),
    };
  };
}
