// What the configuration no longer asks for goes at once, past the guard: on a reload, and at a restart with less configuration.
import { expect } from "vitest";
import { startAgent } from "./ground.ts";
import { eventually, ownFolder } from "./peers.ts";

export interface LessConfigured {
  readonly protocol: string;
  /** The raw configuration with the entry that is taken out of it, and without. */
  readonly more: unknown;
  readonly less: unknown;
  /** Services of at least three instances, so that the guard would hold them: of the entry that goes, and of one that stays. */
  readonly going: string;
  readonly staying: string;
}

/** Shows it on agents with a data folder. */
export async function goesWhenLessIsConfigured({
  protocol,
  more,
  less,
  going,
  staying,
}: LessConfigured): Promise<void> {
  const folder = await ownFolder("less");
  let raw = more;
  const start = () =>
    startAgent(
      { dev: false, dataDir: folder.path, protocols: { [protocol]: raw } },
      { reread: async () => ({ dev: false, dataDir: folder.path, protocols: { [protocol]: raw } }) },
    );
  let agent = await start();
  const count = (service: string): number => agent.trilith.lookup.resolveNow({ service }).endpoints.length;
  const both = (): boolean => count(going) >= 3 && count(staying) >= 3;
  const onlyOne = (): void => {
    expect(count(going)).toBe(0);
    expect(count(staying)).toBeGreaterThanOrEqual(3);
    expect(agent.trilith.lookup.held()).toEqual([]);
  };
  const whyGone = (): string | undefined =>
    [...agent.trilith.directory.view().list("grave")].findLast(({ scopes }) => scopes.includes(`service:${going}`))?.why
      ?.text;
  try {
    await eventually("both are known", both, 30_000);
    raw = less;
    await agent.trilith.reload();
    await eventually("the service goes", () => count(going) === 0);
    onlyOne();
    expect(whyGone()).toBe(`the configuration of ${protocol} no longer asks for it`);
    // What changes nothing changes nothing.
    const at = agent.trilith.directory.view().index;
    await agent.trilith.reload();
    expect(agent.trilith.directory.view().index).toBe(at);
    raw = more;
    await agent.trilith.reload();
    await eventually("both are known again", both, 30_000);
    raw = { wrong: true };
    await expect(agent.trilith.reload()).rejects.toMatchObject({ code: "invalid" });
    expect(both()).toBe(true);
    await agent.stop();
    raw = less;
    agent = await start();
    await eventually("the service goes at the restart", () => count(going) === 0);
    onlyOne();
    raw = undefined;
    await agent.trilith.reload();
    await eventually("all goes", () => count(staying) === 0);
    expect(agent.trilith.lookup.held()).toEqual([]);
    raw = more;
    await agent.trilith.reload();
    await eventually("both come back", both, 30_000);
  } finally {
    await agent.stop();
    await folder.remove();
  }
}
