// What the ports in containers come to, for people: doctor's lines, and what `why` says of a service.
import { hostPort } from "../../../base/net.ts";
import type { SourceState } from "../../../contracts/ground.ts";
import type { Lookup } from "../../../contracts/lookup.ts";
import type { Told as ToldAnswer } from "../../../contracts/protocol.ts";
import { describe } from "../inspect.ts";
import type { Told } from "./follow.ts";
import type { Forwarder } from "./forwarder.ts";
import { portText } from "./labels.ts";

const ENDPOINTS_SHOWN = 5;

/** The endpoints that connections would have the choice of now. */
function endpointsOf({ wanted }: Forwarder, lookup: Pick<Lookup, "resolveNow">): readonly string[] {
  const { endpoints } = lookup.resolveNow({ asker: "127.0.0.1", ...wanted.query, order: "stable" });
  return endpoints.map(({ address, port }) => hostPort(address, port));
}

/** A line for each container that asks for something. */
export function connectStates(told: readonly Told[], lookup: Pick<Lookup, "resolveNow">): readonly SourceState[] {
  return told.map(({ container, forwarders, faults }) => {
    const parts = [...faults];
    let ok = faults.length === 0;
    for (const forwarder of forwarders) {
      const { wanted, trouble, listeners } = forwarder;
      const count = endpointsOf(forwarder, lookup).length;
      ok &&= trouble === undefined && count > 0;
      const is = trouble === undefined ? (listeners.length === 0 ? "is about to be" : "is") : "is not";
      const much = count === 0 ? "no endpoint" : count === 1 ? "1 endpoint" : `${count} endpoints`;
      parts.push(
        `localhost:${portText(wanted)} ${is} ${wanted.service}${trouble === undefined ? ` (${much})` : `: ${trouble.text}`}`,
      );
    }
    return { name: "connect", ok, text: `container ${describe(container)}: ${parts.join("; ")}` };
  });
}

/** Where this service stands in containers, and what a connection there is led to. */
export function connectAnswers(
  service: string,
  told: readonly Told[],
  lookup: Pick<Lookup, "resolveNow">,
): readonly ToldAnswer[] {
  return told.flatMap(({ container, forwarders }) =>
    forwarders
      .filter(({ wanted }) => wanted.query.service.toLowerCase() === service.toLowerCase())
      .map((forwarder): ToldAnswer => {
        const { wanted, trouble } = forwarder;
        const endpoints = endpointsOf(forwarder, lookup);
        const more = endpoints.length > ENDPOINTS_SHOWN ? ` and ${endpoints.length - ENDPOINTS_SHOWN} more` : "";
        const said = trouble?.text ?? (endpoints.slice(0, ENDPOINTS_SHOWN).join(", ") + more || "no endpoint");
        return { to: `container ${describe(container)}`, text: `localhost:${portText(wanted)}: ${said}` };
      }),
  );
}
