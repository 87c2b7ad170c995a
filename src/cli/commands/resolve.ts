// `trilith resolve`: avahi-resolve without a daemon; the work is done in protocols/mdns/cli.ts.
import { invokedAs } from "../../base/program.ts";
import type { Command } from "../io.ts";
import { calledAs } from "../links.ts";

export const command: Command = {
  name: "resolve",
  summary: "look up a LAN host's address by name, or its name by address: trilith resolve -n host-a.local",
  define(parser) {
    parser
      .argument("<what...>", "names or addresses")
      .option("-V, --version", "print the version")
      .option("-n, --name", "look up addresses of hostnames")
      .option("-a, --address", "look up hostnames of addresses")
      .option("-v, --verbose", "print this host's name")
      .option("-4", "only IPv4")
      .option("-6", "only IPv6");
  },
  async verbatim(words, io) {
    const { resolve } = await import("../../protocols/mdns/cli.ts");
    return await resolve(words, { ...io, program: calledAs(invokedAs(), "resolve") });
  },
};
