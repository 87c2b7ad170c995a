// The udp check: an empty datagram is sent; a reply or silence is passing, a refused port is critical. Texts as Consul writes them.
import { hostPort, type Net } from "../../base/net.ts";
import { throwIfShort } from "../../base/shortage.ts";
import type { Probe, Target } from "../../contracts/probe.ts";
import type { Outcome } from "../../model/check.ts";
import { addressFault, fieldsOf, splitHostPort } from "./detail.ts";
import { goDatagramError } from "./go-text.ts";

/** Whom to ask. */
export interface UdpDetail {
  /** `host:port`; "" = the service's own address. */
  readonly address: string;
}

/** Makes the udp probe. */
export function udpProbe(net: Pick<Net, "exchange">): Probe<UdpDetail> {
  return {
    kind: "udp",
    light: true,
    defaultTimeoutMs: 10_000,
    parse: (raw) => ({ address: fieldsOf("udp", raw, ["address"]).text("address", "") }),
    async run(detail, target: Target, signal): Promise<Outcome> {
      const address = detail.address === "" ? hostPort(target.address, target.port) : detail.address;
      const to = splitHostPort(address);
      if (to === undefined) return { status: "critical", output: addressFault("udp", address) };
      try {
        await net.exchange(to, new Uint8Array(0), signal);
      } catch (error) {
        if (!signal.aborted) throwIfShort(error);
        // Silence proves nothing: most services answer only what they understand.
        if (!signal.aborted) return { status: "critical", output: goDatagramError(error, address) };
      }
      return { status: "passing", output: `UDP connect ${address}: Success` };
    },
  };
}
