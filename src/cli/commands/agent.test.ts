// Tests the flags of `trilith agent`: each is settled somewhere, and Consul's own are taken as people have them in their units.
import { Command } from "commander";
import { expect, test } from "vitest";
import { KNOWN, settingsFrom } from "../../protocols/consul/settings.ts";
import { goFlags } from "../go-flags.ts";
import type { Io } from "../io.ts";
import { command } from "./agent.ts";

/** Each test has its own: a parser keeps what it has read. */
function parserOfAgent(): Command {
  const parser = new Command("agent");
  command.define(parser, {} as Io, () => {});
  return parser;
}

test("are those that the settings know, no more and no less", () => {
  const parser = parserOfAgent();
  const ofTheCommand = new Set(["configFile", "configDir", "quiet"]);
  const defined = parser.options.map((option) => option.attributeName()).filter((name) => !ofTheCommand.has(name));
  expect(defined.toSorted()).toEqual([...KNOWN.flags, ...KNOWN.ignoredFlags].toSorted());
});

test("of a unit of Consul's are taken, and those without an effect are told by name", async () => {
  const parser = parserOfAgent();
  const words = [
    ..."-server -bootstrap-expect=3 -data-dir=/var/lib/consul -encrypt abc= -pid-file=/run/consul.pid -log-file /var/log/consul/".split(
      " ",
    ),
    ..."-raft-protocol=3 -rejoin -syslog=false -disable-host-node-id=true -retry-interval 15s -retry-join-wan dc2 -serf-lan-port 9301".split(
      " ",
    ),
    ..."-server-port 9300 -check_output_max_size=99 -max-query-time 20s -default-query-time=10s".split(" "),
    ..."-allow-write-http-from=10.0.0.0/8 -allow-write-http-from 127.0.0.0/8".split(" "),
  ];
  const booleans = new Set(parser.options.filter((option) => option.isBoolean()).map((option) => option.name()));
  parser.parseOptions(goFlags(words, booleans));
  const { ignored, protocols } = settingsFrom([], parser.opts());
  expect(protocols?.["consul"]).toEqual({
    ...{ serverPort: 9300, serfPort: 9301, checkOutputMaxBytes: 99, maxWaitMs: 20_000, defaultWaitMs: 10_000 },
    allowWriteFrom: ["10.0.0.0/8", "127.0.0.0/8"],
  });
  expect(ignored?.toSorted()).toEqual(
    [
      ...[
        "-bootstrap-expect",
        "-disable-host-node-id",
        "-encrypt",
        "-log-file",
        "-pid-file",
        "-raft-protocol",
        "-rejoin",
      ],
      ...["-retry-interval", "-retry-join-wan", "-server"],
    ].toSorted(),
  );
  expect(parser.helpInformation()).not.toContain("raft");
});
