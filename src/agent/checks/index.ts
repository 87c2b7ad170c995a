// The ways to ask "alive?" that every agent has; protocols bring further ones (docker's exec).
import type { Http } from "../../base/http.ts";
import type { Net } from "../../base/net.ts";
import type { Processes } from "../../base/process.ts";
import type { Probe } from "../../contracts/probe.ts";
import { httpProbe } from "./http.ts";
import { scriptProbe } from "./script.ts";
import { tcpProbe } from "./tcp.ts";

/** http, tcp and script. */
export function builtInProbes(machine: {
  readonly http: Http;
  readonly net: Net;
  readonly processes: Processes;
}): readonly Probe[] {
  return [httpProbe(machine.http), tcpProbe(machine.net), scriptProbe(machine.processes)] as readonly Probe[];
}
