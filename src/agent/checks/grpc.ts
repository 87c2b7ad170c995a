// The grpc check: asks grpc.health.v1.Health/Check; passing when the service is SERVING. Texts as Consul writes them.
import type { ServiceError } from "@grpc/grpc-js";
import { hostPort } from "../../base/net.ts";
import { throwIfShort } from "../../base/shortage.ts";
import { secureContext } from "../../base/tls.ts";
import { defaultLimits, type Limits, type Probe, type Target } from "../../contracts/probe.ts";
import type { Outcome } from "../../model/check.ts";
import { head } from "../../wire/check-output.ts";
import { type AddressDetail, addressDetail, addressFault, type CheckTls, splitHostPort, tlsOf } from "./detail.ts";
import { goGrpcError } from "./go-text.ts";

/** `HealthCheckResponse.ServingStatus` [grpc/health/v1/health.proto]. */
const SERVING = 1;

/** HealthCheckRequest: field 1 is the service's name; "" (the server as a whole) is not written. */
export function encodeHealthRequest(service: string): Uint8Array {
  const name = new TextEncoder().encode(service);
  if (name.length === 0) return name;
  const length: number[] = [];
  let rest = name.length;
  for (; rest > 127; rest >>>= 7) length.push((rest & 127) | 128);
  length.push(rest);
  return Uint8Array.from([0x0a, ...length, ...name]);
}

/** HealthCheckResponse: field 1 is the status, 0 (UNKNOWN) where it is not written. @throws RangeError for anything but a message */
export function decodeHealthResponse(bytes: Uint8Array): number {
  let status = 0;
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[at++];
      if (byte === undefined || shift > 63) throw new RangeError("the health response ends within a number");
      if (shift < 49) value += (byte & 127) * 2 ** shift;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    const wire = tag & 7;
    if (wire === 0) {
      const value = varint();
      if (tag >>> 3 === 1) status = value;
      continue;
    }
    // Fields of later versions are stepped over.
    if (wire === 1) at += 8;
    else if (wire === 5) at += 4;
    else if (wire === 2) {
      const length = varint();
      at += length;
    } else throw new RangeError(`the health response holds a field of wire type ${wire}`);
    if (at > bytes.length) throw new RangeError("the health response ends within a field");
  }
  return status;
}

/** Makes the grpc probe. The library is loaded when the first check is asked. */
export function grpcProbe(agentTls: CheckTls = {}): Probe<AddressDetail> {
  return {
    kind: "grpc",
    defaultTimeoutMs: 10_000,
    /** `address`: host:port[/service]; without host and port ("", "/service") the check's own service is asked. */
    parse: (raw) => addressDetail("grpc", raw),
    async run(detail, target: Target, signal, limits: Limits = defaultLimits): Promise<Outcome> {
      const slash = detail.address.indexOf("/");
      const given = slash === -1 ? detail.address : detail.address.slice(0, slash);
      const service = slash === -1 ? "" : detail.address.slice(slash + 1);
      const address = given === "" ? hostPort(target.address, target.port) : given;
      const shown = given === "" ? address + detail.address : detail.address;
      const critical = (output: string): Outcome => ({ status: "critical", output });
      if (splitHostPort(address) === undefined) return critical(goGrpcError(14, addressFault("tcp", address), address));
      const grpc = await import("@grpc/grpc-js");
      if (signal.aborted) return critical(goGrpcError(4, "", address));
      const tls = tlsOf(detail, agentTls);
      let client: InstanceType<typeof grpc.Client>;
      try {
        const context = secureContext(tls);
        const verify = {
          rejectUnauthorized: tls.skipVerify !== true,
          ...(tls.skipVerify === true ? { checkServerIdentity: () => undefined } : {}),
        };
        const credentials = !detail.useTls
          ? grpc.credentials.createInsecure()
          : context === undefined
            ? grpc.credentials.createSsl(null, null, null, verify)
            : grpc.credentials.createFromSecureContext(context, verify);
        client = new grpc.Client(`dns:${address}`, credentials, {
          // A connection of its own each time: the question is whether the service takes new ones.
          "grpc.use_local_subchannel_pool": 1,
          "grpc.enable_http_proxy": 0,
          "grpc.enable_retries": 0,
          "grpc.service_config_disable_resolution": 1,
          ...(detail.useTls && tls.serverName !== undefined ? { "grpc.ssl_target_name_override": tls.serverName } : {}),
        });
      } catch (error) {
        return critical(goGrpcError(14, String(error), address));
      }
      try {
        return await new Promise<Outcome>((resolve, reject) => {
          const call = client.makeUnaryRequest(
            "/grpc.health.v1.Health/Check",
            (name: string) => Buffer.from(encodeHealthRequest(name)),
            decodeHealthResponse,
            service,
            (error: ServiceError | null, status?: number) => {
              signal.removeEventListener("abort", onAbort);
              if (error !== null) {
                const late = signal.aborted;
                try {
                  // The library keeps no more of an errno than its name; what a server says that was reached is about the server.
                  if (!late && call.getPeer() === client.getChannel().getTarget()) throwIfShort(error, true);
                } catch (shortage) {
                  return reject(shortage);
                }
                const code = late ? 4 : error.code;
                resolve(critical(goGrpcError(code, head(error.details, limits.outputMaxBytes), address)));
              } else if (status !== SERVING) resolve(critical("gRPC application didn't report service healthy"));
              else resolve({ status: "passing", output: `gRPC check ${shown}: success` });
            },
          );
          const onAbort = (): void => call.cancel();
          signal.addEventListener("abort", onAbort, { once: true });
        });
      } finally {
        client.close();
      }
    },
  };
}
