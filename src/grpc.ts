// The public door `trilith/grpc`: resolvers of @grpc/grpc-js for minidisc://name?label=value and trilith://name?label=value.
import { systemClock } from "./base/clock.ts";
import { TrilithError } from "./base/error.ts";
import { createHttp } from "./base/http.ts";
import { mustFit, type Rules, text } from "./base/options.ts";
import { systemRandom } from "./base/random.ts";
import { preferring } from "./lookup/grpc/names.ts";
import { type NearestModule, registerNearest } from "./lookup/grpc/nearest.ts";
import { type ResolverModule, resolverClass } from "./lookup/grpc/resolver.ts";
import { agentSource, type SourceOptions, tailnetSource } from "./name-sources.ts";

/** The caller's own @grpc/grpc-js, 1.14 or newer: another copy of it has resolvers of its own. */
export type GrpcModule = ResolverModule & NearestModule;

/** Where services are asked for. */
export type GrpcOptions = SourceOptions;

const OPTIONS: Rules<GrpcOptions> = {
  agent: text,
  token: text,
  tailscaled: text,
  proxy: [
    'an object such as { host: "127.0.0.1", port: 1055 }',
    (value) =>
      typeof (value as GrpcOptions["proxy"])?.host === "string" &&
      Number.isInteger((value as GrpcOptions["proxy"])?.port),
  ],
};

/**
 * Registers both schemes with the caller's own @grpc/grpc-js (1.14 or newer): `registerResolvers(grpc)`, once, before channels are made.
 * `trilith://web?env=prod` asks this host's agent, and where none has ever answered the tailnet itself; `minidisc://…` asks the tailnet, and the agent
 * where there is no tailscaled. The nearest endpoints that can be reached are used in turn (the policy `trilith_nearest`) unless the channel has a
 * service config, and changes are pushed.
 * Nothing found: calls fail with UNAVAILABLE and the reason, or wait where they are ready to. An agent or tailnet that is away leaves the last endpoints.
 * @throws TrilithError `unsupported` for a module that cannot take resolvers; InputError for an option that there is not
 */
export function registerResolvers(grpc: GrpcModule, options: GrpcOptions = {}): void {
  mustFit("registerResolvers", options, OPTIONS);
  const { registerResolver, statusOrFromError } = (grpc?.experimental ?? {}) as Partial<GrpcModule["experimental"]>;
  if (registerResolver === undefined || statusOrFromError === undefined)
    throw new TrilithError(
      "unsupported",
      "registerResolvers: expected the module @grpc/grpc-js, version 1.14 or newer",
    );
  registerNearest(grpc, systemClock);
  const machine = { clock: systemClock, random: systemRandom };
  // A program that is done ends, whether or not its channels were closed.
  const http = createHttp({ background: true });
  const agent = agentSource(options, http);
  const tailnet = tailnetSource(options, http);
  registerResolver(
    "trilith",
    resolverClass(grpc, machine, () => preferring(agent, tailnet, systemClock)),
  );
  registerResolver(
    "minidisc",
    resolverClass(grpc, machine, () => preferring(tailnet, agent, systemClock)),
  );
}
