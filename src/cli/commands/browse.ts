// `trilith browse`: avahi-browse without a daemon; the work is done in protocols/mdns/cli.ts.
import { invokedAs } from "../../base/program.ts";
import type { Command } from "../io.ts";
import { calledAs } from "../links.ts";

export const command: Command = {
  name: "browse",
  summary: "list services on the LAN, with avahi-browse's flags and output, without a daemon",
  define(parser) {
    parser
      .argument("[type]", "_http._tcp, or a subtype: _printer._sub._http._tcp")
      .option("-V, --version", "print the version")
      .option("-D, --browse-domains", "domains that are recommended for browsing")
      .option("-a, --all", "all services, whatever their type")
      .option("-d, --domain <domain>", "the domain to browse in")
      .option("-v, --verbose", "headings, and when the list is complete")
      .option("-t, --terminate", "stop when the list is more or less complete, after about a second")
      .option("-c, --cache", "the same, as there is no daemon whose cache could be dumped")
      .option("-l, --ignore-local", "leave out the services of this host")
      .option("-r, --resolve", "with host, address, port and TXT record")
      .option("-f, --no-fail", "wait if there is no network yet")
      .option("-p, --parsable", "print lines for programs to read")
      .option("-k, --no-db-lookup", "leave types as they are: _http._tcp, not Web Site")
      .option("-b, --dump-db", "print the names of types");
  },
  async verbatim(words, io) {
    const { browse } = await import("../../protocols/mdns/cli.ts");
    return await browse(words, { ...io, program: calledAs(invokedAs(), "browse") });
  },
};
