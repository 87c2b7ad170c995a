// Server sets out: routable instances as ephemeral members, put back after a lost session, taken over from this host's last life.
import { Bell } from "../../base/bells.ts";
import type { Clock } from "../../base/clock.ts";
import { codeOf, messageOf } from "../../base/error.ts";
import type { Log } from "../../base/log.ts";
import type { openZooKeeper, ZooKeeper, ZooKeeperNews } from "../../base/zookeeper.ts";
import type { Agent } from "../../contracts/agent.ts";
import type { Directory } from "../../contracts/directory.ts";
import { FollowedServices } from "../../contracts/follow-services.ts";
import type { SourceState } from "../../contracts/ground.ts";
import type { Lookup } from "../../contracts/lookup.ts";
import { followHost, routableHere } from "../../contracts/own.ts";
import { areLoopback, type Candidate, planMembers, type WantedMember } from "./announce-plan.ts";
import type { ZooKeeperConfig } from "./config.ts";
import { decodeMember, isMemberName, MEMBER_PREFIX, type Member } from "./member.ts";
import { MARK, MARK_ID } from "./registrations.ts";
import { inParts, Znodes } from "./znodes.ts";

export interface AnnouncerMachine {
  readonly clock: Clock;
  readonly log: Log;
  readonly agent: Pick<Agent, "services" | "checks" | "changed" | "version" | "node">;
  readonly directory: Pick<Directory, "view" | "ready" | "changed">;
  readonly lookup: Pick<Lookup, "resolveNow" | "follow">;
  readonly open: typeof openZooKeeper;
  readonly nodeId: string;
  /** True where the members are to go at once when this stops: nobody comes after this life. */
  readonly last: () => boolean;
}

/** Bursts of changes are one look. */
const TOGETHER_MS = 20;
const AGAIN_MS = 1000;

/** A member as it stands in its set. */
interface StandingMember {
  readonly path: string;
  /** Undefined where it cannot be read as one. */
  readonly member: Member | undefined;
  readonly text: string;
  /** The session that it goes with; "" = it stays. */
  readonly owner: string;
}

/** One per agent. Nothing is written before `start`. */
export class Announcer {
  #config: ZooKeeperConfig;
  readonly #machine: AnnouncerMachine;
  readonly #stop = new AbortController();
  /** Sets in which something of this host's is, or was to be, in this life. */
  readonly #paths = new Set<string>();
  /** What is written from the directory; undefined where nothing is. */
  #followed: FollowedServices | undefined;
  /** Ends what is followed for the rules as they are. */
  #over = new AbortController();
  /** What follows something, until it has ended. */
  readonly #following = new Set<Promise<void>>();
  #zk: ZooKeeper | undefined;
  #standing: readonly WantedMember[] = [];
  #notes: readonly string[] = [];
  #trouble: string | undefined;
  #running: Promise<void> | undefined;
  #connection: { readonly ok: boolean; readonly text: string } = { ok: true, text: "not started" };
  readonly #bell = new Bell();

  constructor(config: ZooKeeperConfig, machine: AnnouncerMachine) {
    this.#config = config;
    this.#machine = machine;
  }

  start(): void {
    if (this.#stop.signal.aborted) return;
    this.#running ??= this.#run().catch((error: unknown) => {
      if (!this.#stop.signal.aborted)
        this.#machine.log.error("nothing is written to ZooKeeper any more", { error: messageOf(error) });
    });
  }

  /**
   * Takes other rules, where they are for the same servers and the same session. Members that the new rules ask for as well stay as they stand.
   * False where they are not: another announcer has to.
   */
  retell(config: ZooKeeperConfig): boolean {
    const { servers, sessionMs, auth } = this.#config;
    const before = JSON.stringify([servers, sessionMs, auth]);
    if (JSON.stringify([config.servers, config.sessionMs, config.auth]) !== before) return false;
    this.#config = config;
    if (this.#zk !== undefined && !this.#stop.signal.aborted) this.#follow();
    this.#bell.ring();
    return true;
  }

  /**
   * Ends the session where nobody comes after this announcer; else the members stand until the next one takes them over, or the session runs out.
   * Unless told, somebody comes where this life of the agent is not the last one.
   */
  async stop(comes: "nobody" | "somebody" = this.#machine.last() ? "nobody" : "somebody"): Promise<void> {
    this.#stop.abort(new Error("stopped"));
    if (comes === "nobody") await this.#zk?.close();
    else this.#zk?.abandon();
    this.#bell.ring();
    await this.#running;
  }

  state(): SourceState {
    const { ok, text } = this.#connection;
    const words = [
      `${this.#standing.length} ${this.#standing.length === 1 ? "member" : "members"} written`,
      ...this.#notes.slice(0, 3),
      ...(this.#notes.length > 3 ? [`and ${this.#notes.length - 3} more`] : []),
      ...(this.#trouble === undefined ? [] : [this.#trouble]),
    ];
    return { name: "zookeeper out", ok: ok && this.#trouble === undefined, text: `${text}: ${words.join("; ")}` };
  }

  /** What is written of a service, for `why`. */
  about(service: string): readonly { readonly to: string; readonly text: string }[] {
    const lower = service.toLowerCase();
    return this.#standing
      .filter((one) => one.service.toLowerCase() === lower)
      .map(({ path, text }) => ({ to: `readers of ${path}`, text }));
  }

  readonly #news = (news: ZooKeeperNews): void => {
    if (news.what === "away")
      this.#connection = { ok: false, text: `ZooKeeper at ${this.#config.servers} is away (${news.text})` };
    else this.#connection = { ok: true, text: `ZooKeeper at ${news.server}` };
    // The members of a lost session are gone.
    if (news.what === "session") this.#standing = [];
    this.#bell.ring();
  };

  async #run(): Promise<void> {
    const { clock, directory, open } = this.#machine;
    const { signal } = this.#stop;
    const { servers, sessionMs, auth } = this.#config;
    await directory.ready(signal);
    this.#connection = { ok: false, text: `ZooKeeper at ${servers} does not answer yet` };
    const zk = await open({
      ...{ servers, clock, sessionTimeoutMs: sessionMs, onNews: this.#news },
      ...(auth === undefined ? {} : { auth }),
    });
    this.#zk = zk;
    if (signal.aborted) return zk.abandon();
    const znodes = new Znodes(zk, this.#bell.ring);
    this.#follow();
    try {
      while (!signal.aborted) {
        if (zk.session() !== "") await this.#bring(zk, znodes);
        const again = this.#trouble === undefined ? undefined : clock.after(AGAIN_MS, this.#bell.ring);
        await this.#bell.heard();
        again?.cancel();
        await clock.sleep(TOGETHER_MS, signal).catch(() => {});
      }
    } finally {
      this.#over.abort(new Error("stopped"));
      await Promise.all(this.#following);
    }
  }

  /** Begins to follow what the rules ask for, in place of what those before asked for. */
  #follow(): void {
    const { agent, directory, lookup } = this.#machine;
    this.#over.abort(new Error("the rules are others"));
    this.#over = new AbortController();
    const { signal } = this.#over;
    const { announce } = this.#config;
    const rules = announce.filter(({ from }) => from === "directory");
    const services = rules.some(({ service }) => service === "*") ? undefined : rules.map(({ service }) => service);
    this.#followed =
      rules.length === 0
        ? undefined
        : new FollowedServices({
            ...{ directory, lookup, services, query: { order: "stable" }, changed: this.#bell.ring },
          });
    const going = [this.#followDirectory(this.#followed, signal)];
    if (announce.some(({ from }) => from === "host")) going.push(followHost(agent, this.#bell.ring, signal));
    for (const one of going) {
      this.#following.add(one);
      void one.then(() => this.#following.delete(one));
    }
  }

  async #followDirectory(followed: FollowedServices | undefined, signal: AbortSignal): Promise<void> {
    try {
      await followed?.run(signal);
    } catch (error) {
      this.#machine.log.error("the directory is not followed any more", { error: messageOf(error) });
    }
  }

  /** What is to be there now. */
  #wanted(): readonly WantedMember[] {
    const { agent, nodeId } = this.#machine;
    const host = { nodeId, loopback: areLoopback(this.#config.servers) };
    const notes: string[] = [];
    const wanted = new Map<string, WantedMember>();
    for (const rule of this.#config.announce) {
      const candidates: Candidate[] =
        rule.from === "host"
          ? [...(routableHere(agent)?.values() ?? [])].map((instance) => ({ instance, address: agent.node.address }))
          : [...(this.#followed?.answers().values() ?? [])].flatMap(({ endpoints }) =>
              endpoints.map(({ resident, address }) => ({ instance: resident.instance, address })),
            );
      const plan = planMembers(candidates, rule, host);
      for (const one of plan.wanted) {
        const key = `${one.path} ${one.id}`;
        if (!wanted.has(key)) wanted.set(key, one);
      }
      // Of the directory's, those that came from ZooKeeper are no news to anybody.
      for (const { id, why } of plan.not) if (rule.from === "host") notes.push(`${id} is not written: ${why}`);
    }
    this.#notes = notes;
    return [...wanted.values()];
  }

  /** Brings what stands in ZooKeeper to what should. */
  async #bring(zk: ZooKeeper, znodes: Znodes): Promise<void> {
    const wanted = this.#wanted();
    for (const { path } of wanted) this.#paths.add(path);
    const standing: WantedMember[] = [];
    this.#trouble = undefined;
    for (const path of this.#paths)
      try {
        const mine = wanted.filter((one) => one.path === path);
        standing.push(...(await this.#bringSet(zk, znodes, path, mine)));
        if (mine.length === 0) this.#paths.delete(path);
      } catch (error) {
        if (codeOf(error) === "stopped") return;
        this.#trouble = messageOf(error);
      }
    this.#standing = standing;
    znodes.sweep();
  }

  async #bringSet(
    zk: ZooKeeper,
    znodes: Znodes,
    path: string,
    wanted: readonly WantedMember[],
  ): Promise<readonly WantedMember[]> {
    const { log, nodeId } = this.#machine;
    const members = await membersOf(path, znodes);
    const session = zk.session();
    const isMine = ({ member, owner }: StandingMember): boolean => member?.metadata[MARK] === nodeId && owner !== "";
    const standing: WantedMember[] = [];
    for (const one of wanted) {
      const { id, at, text } = one;
      const same = members.filter((one) => isMine(one) && one.member?.metadata[MARK_ID] === id);
      const now = same.find(({ owner }) => owner === session);
      const old = same.find(({ owner }) => owner !== session);
      const place = now ?? old;
      const other = members.find((one) => !isMine(one) && speaksFor(one, at) && isBefore(one, place));
      if (other !== undefined) {
        this.#notes = [...this.#notes, `${id} is in ${path} already, as ${nameOf(other.path)}`];
        for (const one of same) await zk.remove(one.path);
        if (same.length > 0) znodes.forget(path);
        continue;
      }
      standing.push(one);
      if (now !== undefined) {
        if (now.text !== text) await zk.set(now.path, text);
      } else if (old !== undefined) {
        await zk.takeOver(old.path, text);
        log.info(`${id} is ${old.path} still: taken over from the last life of this agent`);
      } else log.info(`${id} is ${await makeMember(zk, path, text)}`);
      for (const one of same) if (one !== place) await zk.remove(one.path);
      if (place === undefined || same.length > 1) znodes.forget(path);
      for (const one of same) if (one.text !== text || one.owner !== session) znodes.forget(one.path);
    }
    const ids = new Set(wanted.map(({ id }) => id));
    for (const one of members)
      if (isMine(one) && one.owner === session && !ids.has(one.member?.metadata[MARK_ID] ?? "")) {
        await zk.remove(one.path);
        znodes.forget(path);
        log.info(`${one.member?.metadata[MARK_ID]} is no longer ${one.path}`);
      }
    return standing;
  }
}

const nameOf = (path: string): string => path.slice(path.lastIndexOf("/") + 1);

/** True where somebody else's member stands for an endpoint already. */
function speaksFor({ member }: StandingMember, { host, port }: WantedMember["at"]): boolean {
  const at = member?.serviceEndpoint;
  return member?.status === "ALIVE" && at?.port === port && at.host.toLowerCase() === host.toLowerCase();
}

/**
 * True where it counts more than our own: somebody's own member always does; of the members of several Triliths that write the
 * same from the directory, the first one.
 */
function isBefore(other: StandingMember, own: StandingMember | undefined): boolean {
  return other.member?.metadata[MARK] === undefined || own === undefined || nameOf(other.path) < nameOf(own.path);
}

async function membersOf(path: string, znodes: Znodes): Promise<readonly StandingMember[]> {
  const names = ((await znodes.names(path)) ?? []).filter(isMemberName).sort();
  const found = await inParts(names, async (name): Promise<readonly StandingMember[]> => {
    const znode = await znodes.get(`${path}/${name}`);
    if (znode === undefined) return [];
    const text = Buffer.from(znode.data).toString("utf8");
    let member: Member | undefined;
    try {
      member = decodeMember(znode.data);
    } catch {
      // Somebody else's, whatever it is: it is left alone.
    }
    return [{ path: `${path}/${name}`, member, text, owner: znode.stat.owner }];
  });
  return found.flat();
}

async function makeMember(zk: ZooKeeper, path: string, text: string): Promise<string> {
  for (let attempt = 1; ; attempt++)
    try {
      return await zk.createNumbered(`${path}/${MEMBER_PREFIX}`, text);
    } catch (error) {
      // The set is not there yet; others may take it away, being empty, before the member is in it.
      if (codeOf(error) !== "not-found" || attempt === 5) throw error;
      await zk.makePath(path);
    }
}
