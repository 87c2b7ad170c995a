// GET /v1/trilith/magic/NAME: the address that a service has of its own on this host, opened for programs without the hook.
import { codeOf, InputError, messageOf, TrilithError } from "../../base/error.ts";
import type { Handler } from "../../base/http.ts";
import { decodeName, isFromHere, STATUS_OF, sendJson } from "../../base/requests.ts";
import type { Lookup } from "../../contracts/lookup.ts";
import type { Magic } from "../../contracts/magic.ts";
import type { Doors } from "./magic-doors.ts";
import type { Ports } from "./ports.ts";

export const MAGIC_PREFIX = "/v1/trilith/magic";

/** The answer. */
export interface MagicJson {
  readonly service: string;
  /** "127.136.7.9" */
  readonly address: string;
  /** Ports at which the address answers programs without the hook. */
  readonly listening: readonly { readonly port: number; readonly protocol: "tcp" | "udp" }[];
  /** Those at which it ought to, and why it does not. */
  readonly missing: readonly { readonly port: number; readonly protocol: "tcp" | "udp"; readonly text: string }[];
}

export interface MagicHandlerParts {
  readonly magic: Pick<Magic, "of" | "kept">;
  readonly lookup: Pick<Lookup, "resolveNow">;
  readonly ports: Pick<Ports, "listeners" | "missing">;
  /** Undefined: switched off. */
  readonly doors: () => Pick<Doors, "open" | "left"> | undefined;
}

/** See the first line. */
export function createMagicHandler(parts: MagicHandlerParts): Handler {
  return (request, response) => {
    request.resume();
    const path = (request.url ?? "").replace(/\?.*$/, "");
    void (async () => {
      if (request.method !== "GET") {
        response.setHeader("allow", "GET");
        sendJson(response, 405, {
          error: { code: "invalid", message: `${request.method} is not for ${path}: use GET` },
        });
        return;
      }
      try {
        if (!isFromHere(request))
          throw new TrilithError("not-allowed", "magic addresses mean this host: ask the agent of your own");
        sendJson(response, 200, await magicOf(decodeName(path.slice(MAGIC_PREFIX.length + 1)), parts));
      } catch (error) {
        const code = codeOf(error);
        sendJson(response, STATUS_OF[code], { error: { code, message: messageOf(error) } });
      }
    })();
  };
}

async function magicOf(name: string, parts: MagicHandlerParts): Promise<MagicJson> {
  const { magic, lookup, ports } = parts;
  const doors = parts.doors();
  const service = name.toLowerCase();
  if (service === "") throw new InputError(MAGIC_PREFIX, `expected a service behind it, as in ${MAGIC_PREFIX}/web`);
  if (doors === undefined)
    throw new TrilithError("unsupported", 'nobody listens at magic addresses: the configuration says "magic": false');
  if (!lookup.resolveNow({ service, asker: "127.0.0.1" }).known)
    throw new TrilithError("not-found", `there is no service "${name}"`);
  const { v4 } = magic.of({ service });
  await magic.kept();
  await doors.open(service);
  const isIts = ({ query, host }: { readonly query: { readonly service: string }; readonly host: string }): boolean =>
    query.service === service && host === v4;
  const left = doors.left().find((each) => each.service === service)?.ports ?? [];
  return {
    service,
    address: v4,
    listening: ports.listeners().flatMap(({ wanted }) => (isIts(wanted) ? [portOf(wanted)] : [])),
    missing: [
      ...ports.missing().flatMap((each) => (isIts(each) ? [{ ...portOf(each), text: each.text }] : [])),
      ...left.map((each) => ({ ...portOf(each), text: "left to this host's own instance" })),
    ],
  };
}

function portOf({ port, protocol }: { readonly port: number; readonly protocol: "tcp" | "udp" }): {
  readonly port: number;
  readonly protocol: "tcp" | "udp";
} {
  return { port, protocol };
}
