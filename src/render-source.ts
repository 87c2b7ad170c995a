// What rendered files are made from, as an agent tells it, or a Consul: followed until nobody wants it any more, through the agent's absence, too.
import { agentAddress } from "./base/agent-address.ts";
import type { Clock } from "./base/clock.ts";
import type { Disk } from "./base/disk.ts";
import { type Code, codeOf, messageOf, TrilithError } from "./base/error.ts";
import type { Http } from "./base/http.ts";
import { jitter, type Random } from "./base/random.ts";
import { follow as followAnswer } from "./protocols/api/client.ts";
import type { FindJson } from "./protocols/api/shapes.ts";
import { type Fetched, follow as followRead, parseExact, type WatchPlan } from "./protocols/consul/watch-plan.ts";
import { Hold } from "./render/hold.ts";
import type { Known, Need, ServiceInstance } from "./render/needs.ts";
import type { Follow, RenderEvent } from "./render/renderer.ts";
import {
  answeredOf,
  byNodeAndId,
  type HealthRow,
  instanceOf,
  keyOf,
  type NodeRow,
  nodeOf,
  nodeWithServicesOf,
  pairsOf,
  servicesOf,
} from "./render/told.ts";

/** An answer that has not begun after the longest wait an agent adds to the usual 300 s will not come. */
const HEAD_TIMEOUT_MS = 340_000;
const PAUSE_FIRST_MS = 500;
const PAUSE_LONGEST_MS = 15_000;
/** How often a file that templates read is looked at. */
const LOOK_MS = 2_000;
/** How long what vanished at once is kept where nobody else keeps it. */
const HOLD_MS = 60_000;

/** Failures by which an agent is not there; by others it refuses. */
const AWAY: readonly Code[] = ["unavailable", "timeout", "stopped"];
/** What its statuses mean, and those of what stands before it. */
const REFUSED: ReadonlyMap<number, Code> = new Map([
  [403, "not-allowed"],
  [502, "unavailable"],
  [503, "unavailable"],
  [504, "unavailable"],
]);

/** Where it is asked, and by what. */
export interface RenderSource {
  readonly agent?: string;
  readonly token?: string;
  /** The datacenter of what names none. */
  readonly datacenter?: string;
  readonly http: Pick<Http, "request">;
  readonly clock: Clock;
  readonly random: Random;
  readonly disk: Pick<Disk, "readText">;
  readonly onEvent: (event: RenderEvent) => void;
  /** The first failure is thrown rather than waited out. */
  readonly once: boolean;
}

type Told = (known: Known[Need["kind"]]) => void;
type ServiceNeed = Extract<Need, { kind: "service" }>;

/** Everything that files are made from, by one agent. */
export function agentFollow(source: RenderSource): Follow {
  const agent = new Asked(source);
  return async (need, signal, tell) => {
    if (need.kind === "file") await followFile(need.path, source, signal, tell);
    else if (need.kind === "service") await new FollowedService(agent, need, signal, tell).run();
    else await agent.read(planOf(need, await agent.nodeFor(need, signal), source.datacenter), signal, tell);
  };
}

async function followFile(
  path: string,
  { disk, clock, once, onEvent }: RenderSource,
  signal: AbortSignal,
  tell: Told,
): Promise<void> {
  let last: { readonly text: string | undefined } | undefined;
  let said: string | undefined;
  while (!signal.aborted) {
    try {
      const text = await disk.readText(path);
      if (last?.text !== text) tell(text);
      last = { text };
      said = undefined;
    } catch (error) {
      const isMissing = codeOf(error) === "not-found";
      // Whoever replaces it may take it away for a moment: what it said last stands.
      if (isMissing && last === undefined) {
        last = { text: undefined };
        tell(undefined);
      }
      const text = `${path} cannot be read: ${messageOf(error)}; what it said last is used`;
      if (once && !isMissing) throw new TrilithError(codeOf(error), text, error);
      if (said === undefined && !isMissing) onEvent({ event: "note", text });
      if (!isMissing) said = text;
    }
    await clock.sleep(LOOK_MS, signal).catch(() => {});
  }
}

const inPlace = (path: string, parameters: Readonly<Record<string, string | undefined>>): string => {
  const query = Object.entries(parameters).flatMap(([key, value]) =>
    value === undefined ? [] : [value === "" ? key : `${key}=${encodeURIComponent(value)}`],
  );
  return query.length === 0 ? path : `${path}?${query.join("&")}`;
};
const keyPath = (key: string): string => `/v1/kv/${key.split("/").map(encodeURIComponent).join("/")}`;

/** How everything but services and files is read. `node`: the name of the agent's own node where it is meant. */
function planOf(need: Exclude<Need, ServiceNeed | { kind: "file" }>, node: string, datacenter?: string): WatchPlan {
  const dc = need.datacenter ?? datacenter;
  const made = (path: string, shown: (status: number, json: unknown) => unknown, more = {}): WatchPlan => ({
    path: inPlace(path, { dc, ...more }),
    // What is undefined means that nothing is there.
    shown: (status, json) => ({ known: shown(status, json) }),
    grows: true,
  });
  switch (need.kind) {
    case "services":
      return made("/v1/catalog/services", (_, json) => servicesOf(json));
    case "nodes":
      return made("/v1/catalog/nodes", (_, json) => (json as readonly NodeRow[]).map(nodeOf));
    case "node":
      return made(`/v1/catalog/node/${encodeURIComponent(need.node ?? node)}`, (_, json) => nodeWithServicesOf(json));
    case "key":
      return made(keyPath(need.key), (status, json) => (status === 404 ? undefined : pairsOf(json)[0]?.value));
    case "keys":
      return made(keyPath(need.prefix), (status, json) => (status === 404 ? [] : pairsOf(json)), { recurse: "" });
  }
}

/** The agent, as it is asked; says once when it goes away, and once when it is back. */
class Asked {
  readonly source: RenderSource;
  readonly #address: ReturnType<typeof agentAddress>;
  /** What does not get answers at present. */
  readonly #failing = new Set<object>();
  /** What is refused by an agent that is there, and how. */
  readonly #refused = new Map<object, string>();
  #isAway = false;
  #noted = false;

  constructor(source: RenderSource) {
    this.source = source;
    this.#address = agentAddress(source.agent);
  }

  async ask(path: string, signal: AbortSignal): Promise<Fetched> {
    const { http, token } = this.source;
    const { base, socketPath, text: name } = this.#address;
    const response = await http
      .request({
        url: `${base}${path}`,
        headTimeoutMs: HEAD_TIMEOUT_MS,
        bodyTimeoutMs: 0,
        signal,
        ...(socketPath === undefined ? {} : { socketPath }),
        ...(token === undefined ? {} : { headers: { "x-consul-token": token } }),
      })
      .catch((error: unknown) => {
        throw signal.aborted ? error : new TrilithError("unavailable", `no agent answers at ${name}`, error);
      });
    const text = await response.text();
    if (response.status !== 200 && response.status !== 404)
      throw new TrilithError(
        REFUSED.get(response.status) ?? "internal",
        `the agent at ${name} answers ${path} with status ${response.status}: ${text.trim().slice(0, 200)}`,
      );
    const index = response.headers["x-consul-index"];
    return {
      status: response.status,
      index: typeof index === "string" ? index : undefined,
      json: text === "" || response.status === 404 ? undefined : parseExact(text),
    };
  }

  /** Follows one read; `tell` is also told the index of what it tells. */
  async read(
    plan: WatchPlan,
    signal: AbortSignal,
    tell: (known: Known[Need["kind"]], index: string) => void,
  ): Promise<void> {
    const who = {};
    try {
      await followRead(
        plan,
        {
          clock: this.source.clock,
          random: this.source.random,
          signal,
          ask: async (path) => {
            const fetched = await this.ask(path, signal);
            this.answers(who);
            return fetched;
          },
          onFailure: (error) => this.fails(who, error),
        },
        async (index, data) => {
          tell((data as { readonly known: Known[Need["kind"]] }).known, index);
          return true;
        },
      );
    } finally {
      this.forget(who);
    }
  }

  /** @throws the error where only one try is meant */
  fails(who: object, error: unknown): void {
    if (this.source.once) throw error;
    if (!AWAY.includes(codeOf(error))) {
      const text = messageOf(error);
      const isNew = ![...this.#refused.values()].includes(text);
      this.#reached(who);
      this.#refused.set(who, text);
      if (isNew)
        this.source.onEvent({ event: "note", text: `${text}; files made from that stay as they are meanwhile` });
      return;
    }
    this.#failing.add(who);
    if (this.#isAway) return;
    this.#isAway = true;
    this.source.onEvent({ event: "away", text: `${messageOf(error)}; files stay as they are meanwhile` });
  }

  answers(who: object): void {
    this.#refused.delete(who);
    this.#reached(who);
  }

  #reached(who: object): void {
    this.#failing.delete(who);
    if (!this.#isAway || this.#failing.size > 0) return;
    this.#isAway = false;
    this.source.onEvent({ event: "back", text: `the agent at ${this.#address.text} answers again` });
  }

  /** Whoever is not asked for any more keeps nobody away. */
  forget(who: object): void {
    this.#refused.delete(who);
    if (this.#failing.delete(who) && this.#failing.size === 0) this.#isAway = false;
  }

  /** Says once that nobody guards what is answered. */
  unguarded(): void {
    if (this.#noted) return;
    this.#noted = true;
    const text = `what answers at ${this.#address.text} is a Consul, no Trilith agent: services are read from its catalog, and what vanishes at once is kept for ${HOLD_MS / 1000} s`;
    this.source.onEvent({ event: "note", text });
  }

  /** The name of the agent's own node, where a need is about that. */
  async nodeFor(need: Need, signal: AbortSignal): Promise<string> {
    if (need.kind !== "node" || need.node !== undefined) return "";
    for (let tries = 1; ; tries++)
      try {
        const { json } = await this.ask("/v1/agent/self", signal);
        return (json as { readonly Config: { readonly NodeName: string } }).Config.NodeName;
      } catch (error) {
        signal.throwIfAborted();
        this.fails(need, error);
        await this.pause(tries, signal);
        signal.throwIfAborted();
      } finally {
        this.#failing.delete(need);
      }
  }

  async pause(tries: number, signal: AbortSignal): Promise<void> {
    const pauseMs = Math.min(PAUSE_FIRST_MS * 2 ** (tries - 1), PAUSE_LONGEST_MS);
    await this.source.clock.sleep(jitter(pauseMs, 0.2, this.source.random), signal).catch(() => {});
  }
}

/** One service: the agent's own answers, and what is registered, put together. */
class FollowedService {
  readonly #agent: Asked;
  readonly #need: ServiceNeed;
  readonly #signal: AbortSignal;
  readonly #tell: Told;
  readonly #hold = new Hold();
  /** What was registered of each instance, also of those that only the guard still knows. */
  readonly #known = new Map<string, ServiceInstance>();
  #all: readonly ServiceInstance[] | undefined;
  /** The index at which the read told last what is registered. */
  #index: string | undefined;
  #answer: FindJson | undefined;
  /** False: nobody gives answers but the catalog. */
  #answers = true;
  /** False: from a Consul, or from an agent that was away since the last answer and may have forgotten. */
  #guarded = true;
  /** True from an agent's answer until it goes away. */
  #heard = false;
  /** True: what gave no answers turned out to be an agent, and has not answered since. */
  #came = false;
  #timer: { cancel(): void } | undefined;

  constructor(agent: Asked, need: ServiceNeed, signal: AbortSignal, tell: Told) {
    this.#agent = agent;
    this.#need = need;
    this.#signal = signal;
    this.#tell = tell;
  }

  async run(): Promise<void> {
    try {
      await Promise.all([
        this.#agent.read(this.#plan(), this.#signal, (rows, index) => {
          this.#index = index;
          this.#registered(rows as unknown as readonly HealthRow[]);
          this.#say();
        }),
        this.#routed(),
      ]);
    } finally {
      this.#timer?.cancel();
      this.#agent.forget(this);
    }
  }

  #plan(): WatchPlan {
    const { service, tag, near, datacenter = this.#agent.source.datacenter } = this.#need;
    const path = inPlace(`/v1/health/service/${encodeURIComponent(service)}`, { dc: datacenter, tag, near });
    return { path, shown: (_, json) => ({ known: json ?? [] }), grows: true };
  }

  #registered(rows: readonly HealthRow[]): void {
    this.#all = rows.map(instanceOf);
    if (this.#need.near === undefined) this.#all = [...this.#all].sort(byNodeAndId);
    for (const one of this.#all) this.#known.set(keyOf(one), one);
  }

  /** The agent's answers, as long as it gives any; returns where it is none of ours. */
  async #routed(): Promise<void> {
    const { service, tag, health, datacenter = this.#agent.source.datacenter } = this.#need;
    const { agent, token, http } = this.#agent.source;
    const options = {
      http,
      health,
      signal: this.#signal,
      ...(agent === undefined ? {} : { agent }),
      ...(token === undefined ? {} : { token }),
      ...(tag === undefined ? {} : { tags: [tag] }),
      ...(datacenter === undefined ? {} : { datacenter }),
    };
    const plan = this.#plan();
    for (let tries = 0; !this.#signal.aborted; ) {
      try {
        for await (const answer of followAnswer(service, {}, options)) {
          this.#agent.answers(this);
          this.#came = false;
          this.#heard = true;
          tries = 0;
          // What is answered is registered by now: a file never shows an instance without what belongs to it.
          const before = this.#index;
          const { json, index } = await this.#agent.ask(plan.path, this.#signal);
          // The read may have told meanwhile what is newer.
          const isOlder = this.#index !== before && Number(index) < Number(this.#index);
          if (!isOlder) this.#registered((json ?? []) as readonly HealthRow[]);
          this.#answer = answer;
          this.#say();
          // From here on the agent has seen everything that it answers about, and guards it.
          if (!this.#hold.holding) this.#guarded = true;
        }
        return;
      } catch (caught) {
        this.#heard = false;
        const error = await this.#matter(caught);
        if (this.#signal.aborted) return;
        if (error === undefined) {
          this.#agent.unguarded();
          this.#answers = this.#guarded = false;
          this.#say();
          return;
        }
        this.#guarded = false;
        this.#agent.fails(this, error);
        await this.#agent.pause(++tries, this.#signal);
      }
    }
  }

  /** What is the matter where no answers come: undefined where it is a Consul, which gives none, and not something that stands before an agent. */
  async #matter(error: unknown): Promise<unknown> {
    if (codeOf(error) !== "unsupported") return error;
    try {
      const { status } = await this.#agent.ask("/v1/trilith/list", this.#signal);
      if (status === 404) return undefined;
      if (this.#came) return error;
      // It may have come between the two questions.
      this.#came = true;
      return new TrilithError("unavailable", messageOf(error), error);
    } catch (instead) {
      return instead;
    }
  }

  #say(): void {
    if (this.#all === undefined || (this.#answers && this.#answer === undefined)) return;
    const all = this.#all;
    const passed = this.#hold.pass(this.#answered(all), all, this.#guarded);
    if (this.#hold.holding)
      this.#timer ??= this.#agent.source.clock.after(HOLD_MS, () => {
        this.#timer = undefined;
        this.#hold.release();
        // One that is away may have forgotten more when it comes back.
        this.#guarded = this.#heard;
        this.#say();
      });
    else {
      this.#timer?.cancel();
      this.#timer = undefined;
    }
    const held = passed.held ?? this.#answer?.held?.text;
    // What is held stands where it stood: a file in another order would be another file.
    const answer = this.#need.near === undefined ? [...passed.answer].sort(byNodeAndId) : passed.answer;
    const wanted = new Set([...answer, ...all].map(keyOf));
    for (const key of this.#known.keys()) if (!wanted.has(key)) this.#known.delete(key);
    this.#tell({ answer, all, ...(held === undefined ? {} : { held }) });
  }

  #answered(all: readonly ServiceInstance[]): readonly ServiceInstance[] {
    const { health, service, near } = this.#need;
    if (!this.#answers)
      return all.filter(({ status }) => status === "passing" || (health === "routable" && status === "warning"));
    const found = (this.#answer?.endpoints ?? []).map((row) => answeredOf(service, row, this.#known.get(keyOf(row))));
    if (near === undefined) return found.sort(byNodeAndId);
    const place = new Map(all.map((one, i) => [keyOf(one), i]));
    return found.sort((a, b) => (place.get(keyOf(a)) ?? all.length) - (place.get(keyOf(b)) ?? all.length));
  }
}
