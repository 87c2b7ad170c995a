// Stone 2: this host's agent, and what its checks ask with.
import { createAgent, type RunningAgent } from "../agent/agent.ts";
import { builtInProbes, readCheckTls } from "../agent/checks/index.ts";
import type { Settings } from "../contracts/settings.ts";
import { NODE_LABELS, serverService } from "../protocols/consul/server-service.ts";
import type { Base } from "./base.ts";
import type { Truth } from "./truth.ts";

/** The agent, not started yet: it starts when everything stands. */
export async function makeAgent(base: Base, { directory, storage }: Truth): Promise<RunningAgent> {
  const { settings, self, durable, life, clock, random, log, metrics, parts } = base;
  await takeCheckTls(settings, base);
  return createAgent({
    directory,
    durable,
    clock,
    random,
    log,
    metrics,
    probes: parts.probes,
    settings,
    self,
    shared: storage.shared,
    life,
    labels: NODE_LABELS,
    // Client hosts are no servers.
    ...(settings.join === undefined ? { selfService: serverService(settings) } : {}),
  });
}

/** Checks ask from now on with what the files hold that the settings name. */
export async function takeCheckTls(
  { checkTls }: Settings,
  { disk, processes, http, net, self, parts }: Base,
): Promise<void> {
  const tls = await readCheckTls(checkTls, { disk, processes }, self.node);
  parts.addProbes(builtInProbes({ http, net, processes, tls }));
}
