// `trilith resolve`: avahi-resolve without a daemon; the work is done in protocols/mdns/cli.ts.
import { invokedAs } from "../../base/program.ts";
import type { Command } from "../io.ts";
import { calledAs } from "../links.ts";

export const command: Command = {
  name: "resolve",
  summary: "the address of a host on the LAN, or its name: trilith resolve -n host-a.local",
  define(parser) {
    parser
      .argument("<what...>", "names or addresses")
      .option("-V, --version", "print the version")
      .option("-n, --name", "addresses of hosts' names")
      .option("-a, --address", "names of addresses")
      .option("-v, --verbose", "tell the host's name")
      .option("-4", "only IPv4")
      .option("-6", "only IPv6");
  },
  async verbatim(words, io) {
    const { resolve } = await import("../../protocols/mdns/cli.ts");
    return await resolve(words, { ...io, program: calledAs(invokedAs(), "resolve") });
  },
};
