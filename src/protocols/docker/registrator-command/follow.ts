// Docker's containers into one backend, as Registrator describes them.
import type { Clock } from "../../../base/clock.ts";
import type { Disk } from "../../../base/disk.ts";
import type { Http } from "../../../base/http.ts";
import { callbackLog } from "../../../base/log.ts";
import type { Net } from "../../../base/net.ts";
import { outwardAddresses } from "../../../base/networks.ts";
import type { Processes } from "../../../base/process.ts";
import type { Random } from "../../../base/random.ts";
import type { SourceList } from "../../../contracts/source.ts";
import { fingerprint } from "../backends/memory.ts";
import type { Writer } from "../backends/writer.ts";
import type { Endpoint } from "../endpoint.ts";
import { hostAddress } from "../host-address.ts";
import { dockerSource } from "../source.ts";
import { createEntries } from "./entries.ts";
import type { RegistratorFlags } from "./flags.ts";

/** The flags that say what a container comes to. */
export type FollowFlags = Pick<RegistratorFlags, "ip" | "internal" | "explicit" | "useIpFromLabel" | "deregister">;

/** Whose containers, and how they are read. */
export interface Followed {
  readonly flags: FollowFlags;
  /** The -tags template. */
  readonly template: (raw: unknown) => string;
  readonly endpoints: readonly Endpoint[];
  /** The host part of IDs. */
  readonly hostname: string;
  /** True where the engine may be absent without anybody being told. */
  readonly optional: boolean;
}

export interface FollowMachine {
  readonly clock: Clock;
  readonly random: Random;
  readonly disk: Disk;
  readonly net: Net;
  readonly http: Http;
}

/** Docker's containers → entries → the backend, until the signal. */
export async function follow(
  { flags, template, endpoints, hostname, optional }: Followed,
  writer: Writer,
  say: (text: string) => void,
  signal: AbortSignal,
  machine: FollowMachine,
): Promise<void> {
  const { net } = machine;
  const outward = outwardAddresses(net.interfaces()).find(({ family }) => family === 4)?.address ?? "";
  const entries = createEntries();
  const asGiven = { parse: (raw: unknown): unknown => raw };
  const source = dockerSource(
    {
      endpoints,
      optional,
      deregister: flags.deregister === "on-success" ? "on-success" : "always",
      failed(containerIds) {
        if (entries.failed(containerIds) && last !== undefined) writer.want(entries.of(last));
      },
      async translation() {
        const resolved = await hostAddress(net, hostname, "", true);
        return {
          ip: flags.ip,
          internal: flags.internal,
          explicit: flags.explicit,
          useIpFromLabel: flags.useIpFromLabel,
          tags(container) {
            // Called once for each container that is translated: what backends write beside its registrations comes from it.
            entries.seen(container);
            return template(container.raw);
          },
          compat: true,
          hostname,
          // Registrator would register 0.0.0.0.
          hostIp: resolved || outward,
          scripts: true,
          // The backend's agent judges checks, not this program.
          probes: new Map(["http", "tcp", "script", "grpc", "docker"].map((kind) => [kind, asGiven])),
          nodeAddress: resolved || outward,
        };
      },
    },
    {
      ...machine,
      log: callbackLog((level, _part, text) => {
        if (level === "warn" || level === "error") say(text);
      }),
      agent: { report: async () => {} },
    },
  );
  let last: SourceList | undefined;
  const told = new Set<string>();
  const reading = (async (): Promise<void> => {
    for await (const list of source.watch(signal)) {
      const complaints = (list.complaints ?? []).map(({ about, text }) => `${about}: ${text}`);
      for (const text of complaints) if (!told.has(text)) say(text);
      told.clear();
      for (const text of complaints) told.add(text);
      last = list;
      writer.want(entries.of(list));
    }
  })();
  await Promise.all([reading, writer.run(signal)]);
}

/** Where it is remembered what was written: by backend, engine and host. TRILITH_REGISTRATOR_STATE names the file; "off" = nowhere. */
export function statePath(
  processes: Pick<Processes, "env" | "userName" | "hostname">,
  uri: string,
  endpoints: readonly Endpoint[],
): string | undefined {
  const given = processes.env("TRILITH_REGISTRATOR_STATE") ?? "";
  if (given !== "") return given === "off" ? undefined : given;
  const home = processes.env("HOME") ?? "";
  const folder =
    processes.userName() === "root"
      ? "/var/lib/trilith"
      : `${processes.env("XDG_STATE_HOME") || `${home}/.local/state`}/trilith`;
  const name = fingerprint(JSON.stringify([uri, processes.hostname(), endpoints.map(({ spelling }) => spelling)]));
  return `${folder}/registrator-${name}.json`;
}
