// The tcp check: passing when a connection (with TLS: the handshake, too) comes about. Texts as Consul writes them.
import { hostPort, type Net } from "../../base/net.ts";
import type { Probe, Target } from "../../contracts/probe.ts";
import type { Outcome } from "../../model/check.ts";
import { fieldsOf, splitHostPort } from "./detail.ts";
import { goNetworkError } from "./go-text.ts";

/** Where to connect. */
export interface TcpDetail {
  /** `host:port`; "" = the service's own address. */
  readonly address: string;
  readonly useTls: boolean;
  /** "" = the address's host. */
  readonly tlsServerName: string;
  readonly tlsSkipVerify: boolean;
}

/** Makes the tcp probe. */
export function tcpProbe(net: Net): Probe<TcpDetail> {
  return {
    kind: "tcp",
    defaultTimeoutMs: 10_000,
    parse(raw) {
      const fields = fieldsOf("tcp", raw, ["address", "useTls", "tlsServerName", "tlsSkipVerify"]);
      const address = fields.text("address", "");
      // Consul takes any text here and lets the check fail; so does the probe, with Go's words.
      return {
        address,
        useTls: fields.flag("useTls"),
        tlsServerName: fields.text("tlsServerName", ""),
        tlsSkipVerify: fields.flag("tlsSkipVerify"),
      };
    },
    async run(detail, target: Target, signal): Promise<Outcome> {
      const address = detail.address === "" ? hostPort(target.address, target.port) : detail.address;
      const to = splitHostPort(address);
      if (to === undefined) {
        const why = /:\d*$/.test(address) ? "invalid port" : "missing port in address";
        return { status: "critical", output: `dial tcp: address ${address}: ${why}` };
      }
      try {
        const socket = await net.connect(
          detail.useTls
            ? {
                ...to,
                tls: {
                  ...(detail.tlsSkipVerify ? { skipVerify: true } : {}),
                  ...(detail.tlsServerName === "" ? {} : { serverName: detail.tlsServerName }),
                },
              }
            : to,
          signal,
        );
        socket.on("error", () => {});
        socket.destroy();
        return { status: "passing", output: `TCP connect ${address}: Success` };
      } catch (error) {
        if (signal.aborted) return { status: "critical", output: `dial tcp ${address}: i/o timeout` };
        return { status: "critical", output: goNetworkError(error, address) };
      }
    },
  };
}
