// The ways to ask "alive?" that every agent has; protocols bring further ones (docker's exec).
import type { Disk } from "../../base/disk.ts";
import { wrap } from "../../base/error.ts";
import type { Http } from "../../base/http.ts";
import type { Net } from "../../base/net.ts";
import type { Processes } from "../../base/process.ts";
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

/**
 * Reads the agent's own part in its checks' TLS connections; where no name is given, servers have to be called as the node is, as Consul has it.
 * @throws TrilithError that names the file
 */
export async function readCheckTls(
  settings: Settings["checkTls"],
  disk: Pick<Disk, "readText">,
  node: string,
): Promise<CheckTls> {
  if (settings === undefined) return {};
  const { caFile, certFile, keyFile, serverName = node } = settings;
  const read = (file: string): Promise<string> =>
    disk.readText(file).catch((error: unknown) => {
      throw wrap(error, `reading the TLS file ${file} for checks`);
    });
  return {
    serverName,
    ...(caFile === undefined ? {} : { ca: await read(caFile) }),
    ...(certFile === undefined ? {} : { cert: await read(certFile) }),
    ...(keyFile === undefined ? {} : { key: await read(keyFile) }),
  };
}
