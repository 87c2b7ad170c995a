// The tcp check: passing when a connection (with TLS: the handshake, too) comes about. Texts as Consul writes them.
import { hostPort, type Net } from "../../base/net.ts";
import { throwIfShort } from "../../base/shortage.ts";
import type { Probe, Target } from "../../contracts/probe.ts";
import type { Outcome } from "../../model/check.ts";
import { type AddressDetail, addressDetail, addressFault, type CheckTls, splitHostPort, tlsOf } from "./detail.ts";
import { goNetworkError } from "./go-text.ts";

/** Makes the tcp probe. */
export function tcpProbe(net: Net, tls: CheckTls = {}): Probe<AddressDetail> {
  return {
    kind: "tcp",
    defaultTimeoutMs: 10_000,
    parse: (raw) => addressDetail("tcp", raw),
    async run(detail, target: Target, signal): Promise<Outcome> {
      const address = detail.address === "" ? hostPort(target.address, target.port) : detail.address;
      const to = splitHostPort(address);
      if (to === undefined) return { status: "critical", output: addressFault("tcp", address) };
      try {
        const socket = await net.connect(detail.useTls ? { ...to, tls: tlsOf(detail, tls) } : to, signal);
        socket.on("error", () => {});
        socket.destroy();
        return { status: "passing", output: `${detail.useTls ? "TCP+TLS" : "TCP"} connect ${address}: Success` };
      } catch (error) {
        if (signal.aborted) return { status: "critical", output: `dial tcp ${address}: i/o timeout` };
        throwIfShort(error);
        return { status: "critical", output: goNetworkError(error, address) };
      }
    },
  };
}
