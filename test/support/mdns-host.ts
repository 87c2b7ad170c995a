// A multicast DNS engine as a program of its own, so that it can live in another network namespace: commands come in as lines of JSON, events go out so.
import { createInterface } from "node:readline";
import { systemClock } from "../../src/base/clock.ts";
import { callbackLog } from "../../src/base/log.ts";
import { systemNet } from "../../src/base/net.ts";
import { systemProcesses } from "../../src/base/process.ts";
import { systemRandom } from "../../src/base/random.ts";
import { createMdns, type Published, type Service } from "../../src/protocols/mdns/engine.ts";

/** What it is told. Texts stand for bytes in UTF-8. */
export type Command =
  | { readonly do: "browse"; readonly type: string; readonly subtype?: string }
  | { readonly do: "types" }
  | { readonly do: "resolve"; readonly name: string; readonly type: string }
  | { readonly do: "publish"; readonly name: string; readonly services: readonly TextService[] }
  | { readonly do: "update"; readonly name: string; readonly services: readonly TextService[] }
  | { readonly do: "withdraw"; readonly name: string }
  | { readonly do: "places" }
  | { readonly do: "stop" };

export type TextService = Omit<Service, "txt"> & { readonly txt?: readonly string[] };

const say = (event: unknown): void => void process.stdout.write(`${JSON.stringify(event)}\n`);
const bytes = (services: readonly TextService[]): Service[] =>
  services.map(({ txt, ...service }) => ({ ...service, txt: (txt ?? []).map((text) => Buffer.from(text)) }));

const mdns = createMdns({
  clock: systemClock,
  random: systemRandom,
  net: systemNet,
  log: callbackLog((level, _part, text) => say({ event: "log", level, text })),
  hostName: process.argv[2] ?? systemProcesses.hostname(),
});
const published = new Map<string, Published>();
await mdns.start();
say({ event: "started", places: mdns.places });

for await (const line of createInterface(process.stdin)) {
  const command = JSON.parse(line) as Command;
  switch (command.do) {
    case "browse":
      mdns.browse(command, (event) => say({ event: "browse", atMs: Date.now(), ...event }));
      break;
    case "types":
      mdns.browseTypes({}, (event) => say({ event: "types", ...event }));
      break;
    case "resolve":
      mdns.resolve(command, (event) =>
        say(
          event.kind === "resolved"
            ? {
                event: "resolve",
                kind: "resolved",
                found: { ...event.found, txt: event.found.txt.map((text) => Buffer.from(text).toString()) },
              }
            : { event: "resolve", ...event },
        ),
      );
      break;
    case "publish":
      published.set(
        command.name,
        mdns.publish(
          { name: command.name, services: bytes(command.services) },
          { changed: (event) => say({ event: "publish", host: mdns.hostName, atMs: Date.now(), ...event }) },
        ),
      );
      break;
    case "update":
      published.get(command.name)?.update(bytes(command.services));
      break;
    case "withdraw":
      await published.get(command.name)?.withdraw();
      break;
    case "places":
      say({ event: "places", places: mdns.places });
      break;
    case "stop":
      await mdns.stop();
      say({ event: "stopped", traffic: mdns.traffic });
      process.exit(0);
  }
}
