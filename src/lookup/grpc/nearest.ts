// A load balancing policy for @grpc/grpc-js: calls go to the nearest group of endpoints in which somebody can be reached, as connect and undici choose [gRFC A56].
import type { ChannelOptions, experimental } from "@grpc/grpc-js";
import type { Clock, Timer } from "../../base/clock.ts";

/** The policy's name in service configs. */
export const NEAREST = "trilith_nearest";

type Experimental = typeof experimental;
type LoadBalancer = experimental.LoadBalancer;
type Config = experimental.TypedLoadBalancingConfig;
type Helper = experimental.ChannelControlHelper;
type Given = Parameters<LoadBalancer["updateAddressList"]>[0];
type State = Parameters<Helper["updateState"]>[0];

/** What is needed of the caller's own @grpc/grpc-js. */
export interface NearestModule {
  readonly connectivityState: Record<"IDLE" | "CONNECTING" | "READY" | "TRANSIENT_FAILURE", State>;
  readonly experimental: Pick<
    Experimental,
    | "ChildLoadBalancerHandler"
    | "QueuePicker"
    | "UnavailablePicker"
    | "createChildChannelControlHelper"
    | "registerLoadBalancerType"
    | "selectLbConfigFromList"
    | "statusOrFromValue"
  >;
}

/** An endpoint with the group that it belongs to; lower ones come first, absent = 0. */
export interface GroupedEndpoint extends experimental.Endpoint {
  readonly group?: number;
}

/** How the policy is written in a service config: which policy chooses inside a group, and how long one may take to connect to before the next one is used, too. */
export interface NearestConfig {
  readonly childPolicy: readonly Readonly<Record<string, object>>[];
  readonly tryMs?: number;
}

const ROUND_ROBIN: NearestConfig["childPolicy"] = [{ round_robin: {} }];
const TRY_MS = 1_000;

/** Makes the policy known to this copy of @grpc/grpc-js. */
export function registerNearest(grpc: NearestModule, clock: Pick<Clock, "after">): void {
  const { connectivityState, experimental: own } = grpc;
  const { READY, IDLE, CONNECTING, TRANSIENT_FAILURE } = connectivityState;

  class ReadConfig implements Config {
    readonly child: Config;
    readonly tryMs: number;
    constructor(child: Config, tryMs: number) {
      this.child = child;
      this.tryMs = tryMs;
    }
    getLoadBalancerName(): string {
      return NEAREST;
    }
    toJsonObject(): object {
      return { [NEAREST]: { childPolicy: [this.child.toJsonObject()], tryMs: this.tryMs } };
    }
    static createFromJson({ childPolicy = ROUND_ROBIN, tryMs = TRY_MS }: Partial<NearestConfig>): ReadConfig {
      const child = own.selectLbConfigFromList([...childPolicy] as Parameters<typeof own.selectLbConfigFromList>[0]);
      if (child === null) throw new Error(`${NEAREST}: childPolicy: none of these is known`);
      if (!(Number.isInteger(tryMs) && tryMs > 0)) throw new Error(`${NEAREST}: tryMs: expected milliseconds above 0`);
      return new ReadConfig(child, tryMs);
    }
  }

  /** Not by its class: who registers the policy again gives channels that are there configurations of another one. */
  const isOurs = (config: Config): config is ReadConfig => config.getLoadBalancerName() === NEAREST;

  /** What the channel gave last, but for the endpoints. */
  interface Circumstances {
    readonly config: ReadConfig;
    readonly options: ChannelOptions;
    readonly note: string;
  }

  /** The endpoints of one group, with a policy of their own once they are needed. */
  class Group {
    readonly #helper: Helper;
    readonly #changed: () => void;
    endpoints: readonly GroupedEndpoint[] = [];
    #child: LoadBalancer | undefined;
    #told = "";
    #tryMs = TRY_MS;
    #timer: Timer | undefined;
    state: State = IDLE;
    picker: experimental.Picker | undefined;
    why: string | null = null;
    /** It was connected to for as long as one may be while others are left. */
    isSlow = false;

    constructor(helper: Helper, changed: () => void) {
      this.#helper = helper;
      this.#changed = changed;
    }

    /** Connects, where that has not begun, and takes in what is new. */
    use({ config, options, note }: Circumstances): void {
      this.#tryMs = config.tryMs;
      const told = JSON.stringify([this.endpoints.map(({ addresses }) => addresses), config.toJsonObject()]);
      if (this.#child === undefined) {
        this.state = CONNECTING;
        this.#child = new own.ChildLoadBalancerHandler(
          own.createChildChannelControlHelper(this.#helper, {
            updateState: (state, picker, why) => {
              // One that failed is not waited for again.
              if (state !== CONNECTING) this.#settled();
              else if (this.state === TRANSIENT_FAILURE) this.isSlow = true;
              else this.#wait();
              this.state = state;
              this.picker = picker;
              this.why = why;
              this.#changed();
            },
          }),
        );
        this.#wait();
      } else if (told === this.#told) return;
      this.#told = told;
      this.#child.updateAddressList(own.statusOrFromValue([...this.endpoints]), config.child, options, note);
    }

    #wait(): void {
      if (this.isSlow) return;
      this.#timer ??= clock.after(this.#tryMs, () => {
        this.isSlow = true;
        this.#changed();
      });
    }

    #settled(): void {
      this.#timer?.cancel();
      this.#timer = undefined;
      this.isSlow = false;
    }

    exitIdle(): void {
      this.#child?.exitIdle();
    }

    resetBackoff(): void {
      this.#child?.resetBackoff();
    }

    /** It is not needed any more: a nearer one is there, or it is empty. */
    leave(): void {
      this.#settled();
      const child = this.#child;
      this.#child = undefined;
      this.picker = undefined;
      this.state = IDLE;
      child?.destroy();
    }
  }

  class Nearest implements LoadBalancer {
    readonly #helper: Helper;
    readonly #groups = new Map<number, Group>();
    #now: Circumstances | undefined;
    #choosing = false;

    constructor(helper: Helper) {
      this.#helper = helper;
    }

    updateAddressList(given: Given, config: Config, options: ChannelOptions, note: string): boolean {
      if (!isOurs(config)) return false;
      if (!given.ok) {
        if (this.#groups.size === 0) this.#fail(given.error.details, given.error);
        return true;
      }
      this.#now = { config, options, note };
      const groups = new Map<number, GroupedEndpoint[]>();
      for (const endpoint of given.value as readonly GroupedEndpoint[]) {
        const { group = 0 } = endpoint;
        const list = groups.get(group) ?? [];
        groups.set(group, list);
        list.push(endpoint);
      }
      for (const [key, group] of this.#groups)
        if (!groups.has(key)) {
          this.#groups.delete(key);
          group.leave();
        }
      for (const [key, endpoints] of groups) {
        let group = this.#groups.get(key);
        if (group === undefined) {
          group = new Group(this.#helper, () => this.#choose());
          this.#groups.set(key, group);
        }
        group.endpoints = endpoints;
      }
      if (groups.size === 0) this.#fail(`No addresses resolved. Resolution note: ${note}`);
      else this.#choose();
      return true;
    }

    #fail(details: string, error: { readonly details: string } = { details }): void {
      this.#helper.updateState(TRANSIENT_FAILURE, new own.UnavailablePicker(error), details);
    }

    /** Says which group is used. What a group says while it is told something is looked at when it has said it. */
    #choose(): void {
      if (this.#choosing) return;
      this.#choosing = true;
      const chosen = this.#chosen();
      this.#choosing = false;
      if (chosen === undefined) return;
      this.#helper.updateState(chosen.state, chosen.picker ?? new own.QueuePicker(this), chosen.why);
    }

    /** The first one that can be called or still may be; else one that is on its way; else the last one. Those behind it are left. */
    #chosen(): Group | undefined {
      const now = this.#now;
      if (now === undefined) return undefined;
      const groups = [...this.#groups].sort(([a], [b]) => a - b).map(([, group]) => group);
      let chosen: Group | undefined;
      for (const group of groups) {
        if (chosen !== undefined) {
          group.leave();
          continue;
        }
        group.use(now);
        const waits = group.state === CONNECTING && !group.isSlow;
        if (group.state === READY || group.state === IDLE || waits) chosen = group;
      }
      return chosen ?? groups.find(({ state }) => state === CONNECTING) ?? groups.at(-1);
    }

    exitIdle(): void {
      for (const group of this.#groups.values()) group.exitIdle();
    }

    resetBackoff(): void {
      for (const group of this.#groups.values()) group.resetBackoff();
    }

    destroy(): void {
      this.#now = undefined;
      for (const group of this.#groups.values()) group.leave();
      this.#groups.clear();
    }

    getTypeName(): string {
      return NEAREST;
    }
  }

  own.registerLoadBalancerType(NEAREST, Nearest, ReadConfig);
}
