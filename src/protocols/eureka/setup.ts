// The protocol "eureka": applications that register by heartbeats and fetch the registry, as with Netflix's Eureka server.
import { InputError } from "../../base/error.ts";
import { httpListener } from "../../contracts/http-listener.ts";
import { defineProtocol, type Part, type Protocol, type Told } from "../../contracts/protocol.ts";
import { Registry } from "./applications.ts";
import { Leases } from "./leases.ts";
import { createEurekaHandler } from "./server.ts";

/** Under `protocols.eureka` of the settings. */
export interface EurekaConfig {
  readonly off: boolean;
  /** A listener of its own; without one the agent's HTTP listener answers below /eureka/. */
  readonly listen?: { readonly host: string; readonly port: number };
  /** Every request needs it, where set. */
  readonly token?: string;
}

const PREFIX = "/eureka/";

function configure(raw: unknown): EurekaConfig {
  if (raw === undefined || raw === true) return { off: false };
  if (raw === false) return { off: true };
  if (typeof raw !== "object" || raw === null || Array.isArray(raw))
    throw new InputError(
      "eureka",
      `expected true, false or an object such as {"port": 8761}, but got ${JSON.stringify(raw)}`,
    );
  const { port, address, token, ...unknown } = raw as Record<string, unknown>;
  const [strange] = Object.keys(unknown);
  if (strange !== undefined)
    throw new InputError(`eureka.${strange}`, 'unknown key; known are "port", "address" and "token"');
  if (port !== undefined && (!Number.isInteger(port) || Number(port) < 0 || Number(port) > 65_535))
    throw new InputError("eureka.port", `expected a port from 0 to 65535, but got ${JSON.stringify(port)}`);
  if (address !== undefined && (typeof address !== "string" || address === ""))
    throw new InputError("eureka.address", `expected an IP address, but got ${JSON.stringify(address)}`);
  if (address !== undefined && port === undefined)
    throw new InputError("eureka.address", "is for a listener of its own, which needs a port: 8761 is Spring's");
  if (token !== undefined && (typeof token !== "string" || token === ""))
    throw new InputError("eureka.token", `expected a text that is not empty, but got ${JSON.stringify(token)}`);
  return {
    off: false,
    ...(port === undefined ? {} : { listen: { host: address ?? "127.0.0.1", port: Number(port) } }),
    ...(token === undefined ? {} : { token }),
  };
}

export const eureka: Protocol<EurekaConfig, "clock" | "log" | "net" | "http" | "directory" | "agent" | "lookup"> =
  defineProtocol({
    name: "eureka",
    needs: ["clock", "log", "net", "http", "directory", "agent", "lookup"],
    configure,
    setup(config, ground) {
      if (config.off) return undefined;
      const { clock, directory, agent, lookup, net, http } = ground;
      const log = ground.log.part("eureka");
      const leases = new Leases({
        clock,
        log,
        directory,
        agent,
        ownAddresses: () => net.interfaces().map(({ address }) => address),
      });
      const registry = new Registry({ clock, directory, lookup, lease: (app, id) => leases.get(app, id) });
      /** Where it is asked, by whom; instances and their leases stay. */
      const doorOf = ({ listen, token }: EurekaConfig): Pick<Part, "routes" | "listeners"> => {
        const shared = listen === undefined;
        const handle = createEurekaHandler(PREFIX, { clock, leases, registry, log, token, shared });
        if (listen === undefined) return { routes: [{ prefix: PREFIX, handle }] };
        return {
          listeners: [
            httpListener("eureka", http, listen, (request, response) => {
              if (request.url?.startsWith(PREFIX) === true) return handle(request, response);
              response.writeHead(404, { "content-type": "text/plain" }).end(`Eureka is below ${PREFIX}\n`);
            }),
          ],
        };
      };
      let text = JSON.stringify(config);
      let door = doorOf(config);
      const answers = async (service: string): Promise<readonly Told[]> => {
        const found = registry.application(service)?.instances ?? [];
        const text = found.map((each) => `${each["instanceId"]} ${each["status"]}`).sort();
        const what = `GET ${PREFIX}apps/${service.toUpperCase()}`;
        return [{ to: "everybody", text: `${what}: ${text.length === 0 ? "404" : text.join(", ")}` }];
      };
      return {
        source: leases,
        answers,
        get routes() {
          return door.routes ?? [];
        },
        get listeners() {
          return door.listeners ?? [];
        },
        rereads: true,
        async reload(read) {
          if (read === undefined) return;
          const now = configure(read.raw);
          if (JSON.stringify(now) === text) return;
          text = JSON.stringify(now);
          door = doorOf(now);
        },
      };
    },
  });
