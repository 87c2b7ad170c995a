// The ways to ask "alive?" that every agent has; protocols bring further ones (docker's exec).
import type { Disk } from "../../base/disk.ts";
import { wrap } from "../../base/error.ts";
import type { Http } from "../../base/http.ts";
import type { Net } from "../../base/net.ts";
import type { Processes } from "../../base/process.ts";
import { secureContext } from "../../base/tls.ts";
import type { Probe } from "../../contracts/probe.ts";
import type { Settings } from "../../contracts/settings.ts";
import type { CheckTls } from "./detail.ts";
import { grpcProbe } from "./grpc.ts";
import { h2pingProbe } from "./h2ping.ts";
import { httpProbe } from "./http.ts";
import { osServiceProbe } from "./os-service.ts";
import { scriptProbe } from "./script.ts";
import { tcpProbe } from "./tcp.ts";
import { udpProbe } from "./udp.ts";

/** http, tcp, udp, grpc, h2ping, script and os-service. `tls`: what the agent brings to the checks' TLS connections. */
export function builtInProbes(machine: {
  readonly http: Http;
  readonly net: Net;
  readonly processes: Processes;
  readonly tls?: CheckTls;
}): readonly Probe[] {
  const { http, net, processes, tls } = machine;
  return [
    httpProbe(http, tls),
    tcpProbe(net, tls),
    udpProbe(net),
    grpcProbe(tls),
    h2pingProbe(net, tls),
    scriptProbe(processes),
    osServiceProbe(processes),
  ] as readonly Probe[];
}

/** Where systems keep the authorities they believe; the first that is there counts, as for Go's programs. */
const SYSTEM_AUTHORITIES: readonly string[] = [
  "/etc/ssl/certs/ca-certificates.crt",
  "/etc/pki/tls/certs/ca-bundle.crt",
  "/etc/ssl/ca-bundle.pem",
  "/etc/pki/tls/cacert.pem",
  "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
  "/etc/ssl/cert.pem",
];

/** The system's authorities (SSL_CERT_FILE, else the usual places) as PEM; undefined where it has none. */
async function systemAuthorities(
  disk: Pick<Disk, "readText">,
  environment: string | undefined,
): Promise<string | undefined> {
  for (const file of environment ? [environment] : SYSTEM_AUTHORITIES) {
    const text = await disk.readText(file).catch(() => "");
    if (text.includes("-----BEGIN CERTIFICATE-----")) return text;
  }
  return undefined;
}

/**
 * Reads what the checks of this agent bring to their TLS connections: the system's authorities unless the settings name others. With settings,
 * servers have to be called as the node is where neither check nor settings tell a name, as Consul has it.
 * @throws TrilithError that names the file
 */
export async function readCheckTls(
  settings: Settings["checkTls"],
  machine: { readonly disk: Pick<Disk, "readText">; readonly processes: Pick<Processes, "env"> },
  node: string,
): Promise<CheckTls> {
  const { disk, processes } = machine;
  const read = (file: string): Promise<string> =>
    disk.readText(file).catch((error: unknown) => {
      throw wrap(error, `reading the TLS file ${file} for checks`);
    });
  const { caFile, certFile, keyFile, serverName = node } = settings ?? {};
  const ca = caFile === undefined ? await systemAuthorities(disk, processes.env("SSL_CERT_FILE")) : await read(caFile);
  const tls: CheckTls = {
    ...(settings === undefined ? {} : { serverName }),
    ...(ca === undefined ? {} : { ca }),
    ...(certFile === undefined ? {} : { cert: await read(certFile) }),
    ...(keyFile === undefined ? {} : { key: await read(keyFile) }),
  };
  try {
    secureContext(settings === undefined ? {} : tls);
  } catch (error) {
    throw wrap(error, `the TLS files for checks (${[caFile, certFile, keyFile].filter(Boolean).join(", ")})`);
  }
  return tls;
}
