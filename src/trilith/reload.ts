// A reload: every part reads its files and takes its configuration again, what needs no restart is taken, what does is told by name.
import { messageOf } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import type { Net } from "../base/net.ts";
import type { Agent } from "../contracts/agent.ts";
import type { Self } from "../contracts/ground.ts";
import type { Settings } from "../contracts/settings.ts";
import type { Labels } from "../model/node.ts";
import { configurationOf } from "./configuration.ts";
import type { Bring, Parts } from "./parts.ts";
import { reloaded, waiting } from "./restart.ts";
import { addressFor } from "./self.ts";

/** What is reloaded, and with what. */
export interface Reloading {
  /** Those of the start. */
  readonly settings: Settings;
  /** Those of now; undefined = they are what they were. @throws TrilithError where they cannot be read */
  reread(): Promise<Settings | undefined>;
  readonly parts: Parts;
  readonly bring: Bring;
  /** Takes out what nobody brings in any more. */
  sweep(): Promise<void>;
  /** Listens for HTTP, once there is something to answer. */
  openHttp(): Promise<void>;
  readonly agent: Pick<Agent, "restate"> & { relabel(labels: Labels): Promise<void> };
  readonly self: Pick<Self, "advertiseAddress">;
  /** Answers are guarded by these settings from now on. */
  takeGuard(now: Settings["guard"]): void;
  /** Checks ask from now on with what the files hold that these settings name. */
  takeCheckTls(now: Settings): Promise<void>;
  readonly log: Log;
  readonly net: Net;
}

/** What is said of a key without an effect. */
export const ignoredText = (key: string): string => `${key} is accepted and has no effect here`;

/** The reloads of one agent, one after the other. */
export class Reloads {
  readonly #of: Reloading;
  /** What was said to have no effect. */
  readonly #ignored: Set<string>;
  /** Checks ask with files that the settings name. */
  #hasCheckTls: boolean;

  constructor(of: Reloading) {
    this.#of = of;
    this.#ignored = new Set(of.settings.ignored);
    this.#hasCheckTls = of.settings.checkTls !== undefined;
  }

  /** @throws TrilithError what the first that could not be taken failed with; it stays as it was, everything else is taken */
  async reload(): Promise<void> {
    const { log, settings, parts, bring, agent } = this.#of;
    log.info("reading files again");
    const failures: unknown[] = [];
    const failed = (error: unknown): undefined => void failures.push(error);
    const saying =
      (text: string) =>
      (error: unknown): undefined => {
        log.error(text, { error: messageOf(error) });
        return failed(error);
      };
    const now = await this.#of.reread().catch(saying("the configuration cannot be read again: it stays as it was"));
    if (now !== undefined) log.setLevel?.(now.log.level);
    const told = now && reloaded(settings, now);
    const configured = told && ((protocol: string) => configurationOf(protocol, told));
    await parts.reload(log, bring, configured).catch(failed);
    await this.#of
      .sweep()
      .catch(saying("what is no longer asked for could not be taken out: the next reload tries again"));
    await this.#of.openHttp().catch(failed);
    if (now !== undefined) await this.#take(now).catch(saying("not everything of the configuration could be taken"));
    // What was deregistered by hand and is still stated comes back, as with Consul.
    await agent.restate().catch(saying("what is stated could not be taken in again"));
    if (failures.length > 0) throw failures[0];
  }

  /** Takes what of the settings does not need a restart, and says what does. */
  async #take(now: Settings): Promise<void> {
    const { log, net, settings, self, agent } = this.#of;
    const { level } = log.setLevel === undefined ? settings.log : now.log;
    for (const name of waiting({ ...settings, log: { ...settings.log, level } }, now))
      log.warn(`${name} is another one now: it counts after a restart`);
    const address = addressFor({ ...settings, protocols: now.protocols }, net);
    if (address !== addressFor(settings, net))
      log.warn(`others are told ${self.advertiseAddress} as this host's address; after a restart it is ${address}`);
    for (const key of now.ignored)
      if (!this.#ignored.has(key)) {
        this.#ignored.add(key);
        log.warn(ignoredText(key));
      }
    this.#of.takeGuard(now.guard);
    await agent.relabel(now.nodeLabels);
    if (now.checkTls !== undefined || this.#hasCheckTls) {
      await this.#of.takeCheckTls(now);
      this.#hasCheckTls = now.checkTls !== undefined;
    }
  }
}
