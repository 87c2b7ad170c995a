// Flags of `consul agent` that people have in their units and scripts and that are no part of our help: understood where a key says the same, else without an effect.
import { type Command, Option } from "commander";
import { collect } from "./io.ts";

/** Without a value. */
const SWITCHES: readonly string[] = [
  "auto-reload-config",
  "disable-host-node-id",
  "disable-keyring-file",
  "non-voting-server",
  "read-replica",
  "rejoin",
  "syslog",
];

/** With one. */
const WITH_VALUES: readonly string[] = [
  "advertise-wan",
  "check_output_max_size",
  "default-query-time",
  "encrypt",
  "grpc-port",
  "grpc-tls-port",
  "https-port",
  "join-wan",
  "log-file",
  "log-rotate-bytes",
  "log-rotate-duration",
  "log-rotate-max-files",
  "max-query-time",
  "pid-file",
  "primary-gateway",
  "protocol",
  "raft-protocol",
  "retry-interval",
  "retry-interval-wan",
  "retry-join-wan",
  "retry-max",
  "retry-max-wan",
  "segment",
  "serf-lan-allowed-cidrs",
  "serf-lan-bind",
  "serf-lan-port",
  "serf-wan-allowed-cidrs",
  "serf-wan-bind",
  "serf-wan-port",
  "server-port",
  "ui-content-path",
  "ui-dir",
];

/** Adds them; what each does is settled where the settings are made (protocols/consul/settings/flags.ts). */
export function consulAgentFlags(command: Command): Command {
  for (const name of SWITCHES) command.addOption(new Option(`--${name}`).hideHelp());
  for (const name of WITH_VALUES) command.addOption(new Option(`--${name} <value>`).hideHelp());
  const networks = new Option("--allow-write-http-from <network>").hideHelp();
  return command.addOption(networks.argParser(collect));
}
