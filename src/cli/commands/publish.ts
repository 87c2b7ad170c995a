// `trilith publish`: avahi-publish without a daemon; the work is done in protocols/mdns/cli.ts.
import { invokedAs } from "../../base/program.ts";
import { type Command, collect } from "../io.ts";
import { calledAs } from "../links.ts";

export const command: Command = {
  name: "publish",
  summary: "announce a service on the LAN while this runs: trilith publish NAME _http._tcp 8080 [key=value…]",
  define(parser) {
    parser
      .argument("<name>", "the instance's name; with -a the host's: printer.local")
      .argument("<type>", "_http._tcp; with -a the address")
      .argument("[port]", "0 to 65535")
      .argument("[txt...]", "key=value")
      .option("-V, --version", "print the version")
      .option("-s, --service", "publish a service (the default)")
      .option("-a, --address", "publish an address under a hostname: trilith publish -a printer.local 192.0.2.7")
      .option("-R, --no-reverse", "with -a: do not let the name be found by the address")
      .option("-v, --verbose", "print this host's name")
      .option("-d, --domain <domain>", "the domain to publish in")
      .option("-H, --host <host>", "the host that offers it, if not this one")
      .option("--subtype <subtype>", "_printer._sub._http._tcp (repeatable)", collect)
      .option("-f, --no-fail", "wait if there is no network yet");
  },
  async verbatim(words, io) {
    const { publish } = await import("../../protocols/mdns/cli.ts");
    return await publish(words, { ...io, program: calledAs(invokedAs(), "publish") });
  },
};
