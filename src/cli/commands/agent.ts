// `trilith agent`: runs an agent in the foreground until SIGINT or SIGTERM; Consul's flags are understood.

import { systemClock } from "../../base/clock.ts";
import { codeOf, InputError, messageOf, TrilithError } from "../../base/error.ts";
import { programLog } from "../../base/log.ts";
import { serviceManager } from "../../base/notify.ts";
import { systemProcesses } from "../../base/process.ts";
import { onHangup } from "../../base/terminal.ts";
import type { Settings } from "../../index.ts";
import { consulAgentFlags } from "../consul-agent-flags.ts";
import { dataFolder } from "../data-folder.ts";
import { type Command, collect } from "../io.ts";

interface Options {
  readonly configFile?: readonly string[];
  readonly configDir?: readonly string[];
  readonly quiet?: boolean;
  readonly [flag: string]: unknown;
}

/** The start screen waits so long for what the sources find. */
const SOURCES_MS = 500;

/** Whoever starts an agent that waits for others is told so after this time. */
const SILENCE_MS = 1000;

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}

export const command: Command = {
  name: "agent",
  summary: "run an agent on this host",
  define(parser, io, done) {
    consulAgentFlags(parser)
      .option("--dev", "keep nothing on disk (for trying things out)")
      .option("--data-dir <folder>", "where the agent keeps its data (TRILITH_DATA_DIR)")
      .option("--storage <name>", "memory, lmdb (default) or etcd")
      .option("--etcd <urls>", "etcd members, separated by commas; implies --storage etcd")
      .option("--etcd-prefix <prefix>", "the prefix of all its keys (default /trilith/)")
      .option("--join <url>", "be a client host of this agent, http://host:8500 (repeatable)", collect)
      .option("--join-token <token>", "the token that the joined agents ask for")
      .option(
        "--peers <how>",
        "without a server, agents tell each other what is theirs: tailnet, lan, or hosts (10.0.0.2,10.0.0.3)",
      )
      .option(
        "--peers-key <secret>",
        "the secret that all hosts of a LAN share (better: peers_key in a configuration file)",
      )
      .option("--peers-port <port>", "the port for that (default 8504)")
      .option("--peers-bind <address>", "the address for that")
      .option("--peers-tailscaled <socket>", "tailscaled's unix socket, if it is not in the usual place")
      .option("--retry-join <host>", "Consul's spelling of --join (repeatable)", collect)
      .option("--node <name>", "this node's name (default: the hostname)")
      .option("--node-id <uuid>", "this node's ID (default: generated once and kept)")
      .option("--node-meta <key:value>", "a label of this node (repeatable)", collect)
      .option("--datacenter <name>", "the datacenter (default dc1)")
      .option("--domain <name>", "the DNS domain (default consul)")
      .option("--alt-domain <name>", "a second DNS domain")
      .option("--client <address>", "where HTTP and DNS listen (default 127.0.0.1)")
      .option("--bind <address>", "this host's own address")
      .option("--advertise <address>", "the address at which others reach this node")
      .option("--http-port <port>", "HTTP port (default 8500, -1 = off)")
      .option("--dns-port <port>", "DNS port, UDP and TCP (default 8600, -1 = off)")
      .option("--recursor <address>", "a DNS server for all other names; system = this host's (repeatable)", collect)
      .option(
        "--dns-bridge [interface]",
        "answer containers on port 53 of all their bridges, or of this one (docker0, an address)",
      )
      .option("--hook-table <path>", "where the table for hooked programs is (default: hook/table in the data folder)")
      .option("--mdns", "announce and find services on the LAN by multicast DNS (Avahi, Bonjour)")
      .option("--services <folder>", "a folder with service definition files (repeatable)", collect)
      .option("--docker-host <url>", "a Docker daemon, as unix:///path or tcp://host:port; off = none")
      .option("--environ <on|off>", "register processes with SERVICE_NAME in their environment (default on)")
      .option("--enable-script-checks", "let anyone who may register run check scripts on this host")
      .option("--enable-local-script-checks", "let service files run check scripts")
      .option("--config-file <file>", "a configuration file, JSON or HCL, in Consul's format (repeatable)", collect)
      .option("--config-dir <folder>", "a folder with such files (repeatable)", collect)
      .option("--compat <dialect>", "consul: reproduce Consul's DNS to the letter")
      .option("--log-level <level>", "trace, debug, info, warn, err")
      .option("--log-json", "log JSON lines")
      .option("--quiet", "do not print the start screen")
      .option("--server", "accepted as Consul's flag")
      .option("--ui", "accepted as Consul's flag")
      .option("--bootstrap", "accepted as Consul's flag")
      .option("--bootstrap-expect <number>", "accepted as Consul's flag")
      .action(async (options: Options) => {
        const { loadSettings } = await import("../../protocols/consul/cli.ts");
        const { configFile = [], configDir = [], quiet, ...flags } = options;
        const loaded = async (): Promise<Partial<Settings>> => {
          const told = await loadSettings({ paths: [...configFile, ...configDir], flags, env: io.env });
          if (told.dev || told.dataDir !== undefined) return told;
          const dataDir = dataFolder(io);
          if (dataDir === undefined)
            throw new InputError(
              "--data-dir",
              "this user has no home folder to keep data in: name another folder, or keep nothing with --dev",
            );
          return { ...told, dataDir };
        };
        const settings = await loaded();
        const { createTrilith } = await import("../../index.ts");
        const { startScreen, statusLine } = await import("../start-screen.ts");
        const log = await programLog(settings.log?.level ?? "info", settings.log?.format ?? "text");
        const manager = serviceManager({ processes: systemProcesses, clock: systemClock, log });
        const trilith = createTrilith(settings, { log, reread: loaded });
        const hangup = onHangup(() => {
          manager?.reloading();
          void trilith.reload().then(
            () => manager?.ready(statusLine(trilith)),
            // What fails is logged where it does.
            (error: unknown) => manager?.ready(`not everything of the last reload was taken: ${messageOf(error)}`),
          );
        });
        try {
          const started = trilith.start().catch((error: unknown) => {
            if (codeOf(error) !== "address-in-use") throw error;
            const hint = "perhaps another agent runs here; choose other ports with --http-port and --dns-port";
            throw new TrilithError("address-in-use", `${messageOf(error)}: ${hint}`, error);
          });
          const patience = new AbortController();
          const places = settings.etcd?.endpoints ?? settings.join?.servers;
          if (places !== undefined)
            void systemClock.sleep(SILENCE_MS, patience.signal).then(
              () => {
                const text = `waiting for an answer of ${places.join(", ")}`;
                log.info(text);
                manager?.status(text);
              },
              () => {},
            );
          // A start may take long, where a store is away; whoever asks to stop is not kept waiting for it.
          const up = await Promise.race([started.then(() => true), aborted(io.signal).then(() => false)]).finally(() =>
            patience.abort(),
          );
          if (up) manager?.ready(statusLine(trilith));
          if (up && !quiet) {
            await trilith.settled(SOURCES_MS);
            io.out(startScreen(trilith));
          }
          await trilith.stopped(io.signal);
          done(0);
        } finally {
          hangup.close();
          manager?.stopping();
          await trilith.stop();
        }
      });
  },
};
