// Bursts of containers that start and are killed all at once, for the agent that has to miss none and keep none.
import type { Trilith } from "../../src/trilith.ts";
import type { Docker } from "./docker.ts";
import { eventually } from "./peers.ts";

const BURST = 40;

/** The ports of an agent's services, in order. */
function portsOf(agent: Trilith): number[] {
  return [...agent.agent.services().values()].map(({ instance }) => instance.port).sort((a, b) => a - b);
}

/**
 * Starts and kills 40 containers at once, `rounds` times. Rejects, naming the round, where a start is missing (or has another port than
 * Docker says) or a dead one stays. `hostname`: the first part of the agent's service IDs.
 */
export async function bursts(docker: Docker, agent: Trilith, hostname: string, rounds: number): Promise<void> {
  const names = Array.from({ length: BURST }, (_, i) => `b${String(i).padStart(2, "0")}`);
  const all = JSON.stringify(names.map((name) => `${hostname}:${name}:80`));
  const held = (): string[] => [...agent.agent.services().keys()].sort();
  const every = (action: string): Promise<unknown> =>
    Promise.all(names.map((name) => docker.post(`/containers/${name}/${action}`)));
  for (const name of names) await docker.docker("create", "--name", name, "-P", "bbexp1");
  for (let round = 1; round <= rounds; round++) {
    await every("start");
    await eventually(`round ${round}: all there`, () => JSON.stringify(held()) === all, 60_000);
    const published = (await docker.docker("ps", "--format", "{{.Ports}}")).match(/(?<=0\.0\.0\.0:)\d+/g) ?? [];
    const wanted = published.map(Number).sort((a, b) => a - b);
    if (JSON.stringify(portsOf(agent)) !== JSON.stringify(wanted))
      throw new Error(`round ${round}: registered with ports ${portsOf(agent)}, published are ${wanted}`);
    await every("kill");
    await eventually(`round ${round}: none there`, () => held().length === 0, 60_000);
  }
  await docker.docker("rm", "-f", ...names);
}
