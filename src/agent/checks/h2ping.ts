// The h2ping check: passing when an HTTP/2 server answers a PING. Texts as Consul writes them.
import { messageOf } from "../../base/error.ts";
import { pingHttp2 } from "../../base/http2.ts";
import { hostPort, type Net } from "../../base/net.ts";
import { throwIfShort } from "../../base/shortage.ts";
import type { Probe, Target } from "../../contracts/probe.ts";
import type { Outcome } from "../../model/check.ts";
import { type AddressDetail, addressDetail, addressFault, type CheckTls, splitHostPort, tlsOf } from "./detail.ts";
import { goNetworkError } from "./go-text.ts";

/** Makes the h2ping probe. */
export function h2pingProbe(net: Net, tls: CheckTls = {}): Probe<AddressDetail> {
  return {
    kind: "h2ping",
    defaultTimeoutMs: 10_000,
    parse: (raw) => addressDetail("h2ping", raw),
    async run(detail, target: Target, signal): Promise<Outcome> {
      const address = detail.address === "" ? hostPort(target.address, target.port) : detail.address;
      const critical = (output: string): Outcome => ({ status: "critical", output });
      const to = splitHostPort(address);
      if (to === undefined) return critical(`Failed to dial to ${address}: ${addressFault("tcp", address)}`);
      try {
        const socket = await net.connect(
          detail.useTls ? { ...to, tls: { ...tlsOf(detail, tls), alpn: ["h2"] } } : to,
          signal,
        );
        try {
          await pingHttp2(socket, signal);
          return { status: "passing", output: "HTTP2 ping was successful" };
        } catch (error) {
          return critical(`HTTP2 ping failed: ${signal.aborted ? "context deadline exceeded" : messageOf(error)}`);
        }
      } catch (error) {
        throwIfShort(error);
        const why = signal.aborted ? `dial tcp ${address}: i/o timeout` : goNetworkError(error, address);
        return critical(`Failed to dial to ${address}: ${why}`);
      }
    },
  };
}
