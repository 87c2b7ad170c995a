// What runs of Docker under one configuration, and becomes of it under another: the source, the ports in containers, the registries besides, the probe.
import { isDeepStrictEqual } from "node:util";
import { systemNamespaceSockets } from "../../base/namespace-socket.ts";
import type { Ground, SourceState } from "../../contracts/ground.ts";
import type { Probe } from "../../contracts/probe.ts";
import type { Part, Told } from "../../contracts/protocol.ts";
import type { Source } from "../../contracts/source.ts";
import type { EngineInfo } from "./client.ts";
import { configure, type DockerConfig } from "./config.ts";
import { Forwarding } from "./connect/follow.ts";
import { connectAnswers, connectStates } from "./connect/tell.ts";
import { farHost } from "./endpoint.ts";
import type { EngineOptions } from "./engine-watch.ts";
import { type ExecDetail, execProbe } from "./exec.ts";
import { hostAddressSoon } from "./host-address.ts";
import { type Looking, lookingOf, type Place } from "./places.ts";
import type { TranslateOptions } from "./registrator.ts";
import { mirrors } from "./registrator-command/mirror.ts";
import { absentSource, type DockerOptions, type DockerSource, dockerSource, engineIdentity } from "./source.ts";
import { parseTemplate } from "./tags-template.ts";

/** What it is handed. */
export type DockerGround = Pick<
  Ground,
  | ("clock" | "random" | "disk" | "net" | "http" | "log" | "processes" | "agent" | "self" | "probes")
  | ("lookup" | "connector")
>;

/** A registry that containers are written to besides. */
interface Mirror {
  /** Another text where it has to begin anew. */
  readonly key: string;
  readonly uri: string;
  readonly work: { start(): void; stop(): Promise<void> };
}

export class DockerPart implements Part {
  readonly rereads = true;
  readonly probes: readonly Probe[];
  readonly background: NonNullable<Part["background"]> = {
    start: () => {
      this.#runs = true;
      for (const { work } of this.#mirrors) work.start();
    },
    stop: async () => {
      this.#runs = false;
      await Promise.all([...this.#mirrors.map(({ work }) => work.stop()), this.#forwarding?.stop()]);
    },
  };
  readonly #ground: DockerGround;
  #config: DockerConfig;
  #looking: Looking;
  #docker: DockerSource | undefined;
  #source: Source | undefined;
  #probe: Probe<ExecDetail>;
  #forwarding: Forwarding | undefined;
  #mirrors: readonly Mirror[] = [];
  #runs = false;

  constructor(config: DockerConfig, looking: Looking, ground: DockerGround) {
    this.#ground = ground;
    this.#config = config;
    this.#looking = looking;
    this.#probe = this.#probeOf(looking);
    const run: Probe["run"] = (detail, ...rest) => this.#probe.run(detail as ExecDetail, ...rest);
    this.probes = [{ ...this.#probe, run } as Probe];
    this.#follow();
    this.#forwarding = this.#forwardingOf();
    this.#mirrors = this.#mirrorsOf([]);
  }

  get source(): Source | undefined {
    return this.#source;
  }

  states(): readonly SourceState[] {
    return this.#forwarding === undefined ? [] : connectStates(this.#forwarding.told(), this.#ground.lookup);
  }

  async answers(service: string): Promise<readonly Told[]> {
    return this.#forwarding === undefined ? [] : connectAnswers(service, this.#forwarding.told(), this.#ground.lookup);
  }

  /** What stays is not touched: engines that are reached as before keep their connections, ports in containers stay open. */
  async reload(read?: { readonly raw: unknown }): Promise<void> {
    if (read === undefined) return;
    const config = configure(read.raw);
    if (isDeepStrictEqual(config, this.#config)) return;
    const looking = await lookingOf(config, this.#ground);
    const before = this.#looking;
    this.#config = config;
    this.#looking = looking;
    if (connectionsOf(looking) !== connectionsOf(before)) this.#probe = this.#probeOf(looking);
    this.#follow();
    await Promise.all([this.#forward(), this.#mirror()]);
  }

  #probeOf({ places, why }: Looking): Probe<ExecDetail> {
    // Checks inside containers can be registered also where there is no engine; they are critical and say why.
    const { http } = this.#ground;
    return execProbe(
      http,
      places.flatMap(({ endpoints }) => endpoints),
      ...(why === "" ? [] : [why]),
    );
  }

  /** Brings the source to the configuration. */
  #follow(): void {
    const [main, ...others] = this.#engines();
    if (main === undefined) {
      this.#docker = undefined;
      this.#source = this.#config.enabled === false ? undefined : absentSource(this.#looking.why);
      return;
    }
    const options: DockerOptions = { ...main, others };
    if (this.#docker === undefined)
      this.#docker = dockerSource(options, {
        ...this.#ground,
        log: this.#ground.log.part("docker"),
        running: (containers) => this.#forwarding?.follow(containers),
      });
    else this.#docker.retell(options);
    this.#source = this.#docker;
  }

  #engines(): readonly EngineOptions[] {
    const config = this.#config;
    const { self, clock, net, processes, probes } = this.#ground;
    const tags = parseTemplate(config.tags);
    const name = config.name === "" ? undefined : parseTemplate(config.name);
    const own = config.hostname || processes.hostname();

    /** The first part of IDs: this host's name for its own main engine, the engine's for others, told apart where they have one name. */
    const hostnameOf = (place: Place, main: boolean, info: EngineInfo): string => {
      if (place.config.hostname) return place.config.hostname;
      if (place.name === "" || main) return own;
      return info.hostname === "" || info.hostname === processes.hostname() ? `${own}-${place.name}` : info.hostname;
    };
    return this.#looking.places.map((place, i) => ({
      name: place.name,
      endpoints: place.endpoints,
      connection: connectionOf(place),
      optional: place.optional,
      deregister: config.deregister,
      async translation(info, meanwhile): Promise<TranslateOptions> {
        const far = place.endpoints.map(farHost).find((host) => host !== undefined);
        const ip = place.config.ip || config.ip;
        const hostname = hostnameOf(place, i === 0 && far === undefined, info);
        const to = (hostIp: string): TranslateOptions => ({
          ip,
          internal: config.internal,
          explicit: config.explicit,
          useIpFromLabel: config.useIpFromLabel,
          tags: (container) => tags(container.raw),
          ...(name === undefined ? {} : { name: (container) => name(container.raw) }),
          portSuffix: config.portSuffix,
          compat: config.compat,
          hostname,
          hostIp,
          ...(far === undefined ? {} : { remote: true }),
          ...(place.name === "" ? {} : { engine: engineIdentity(place.name, info.id) }),
          scripts: self.scripts.fromApi,
          probes,
          nodeAddress: self.advertiseAddress,
        });
        // Where the address is given, no resolver is asked.
        if (ip !== "") return to(ip);
        // What another host publishes is reached at that host.
        const [asked, advertised] = [far ?? own, far ?? self.advertiseAddress];
        const guessed = (address: string): void => meanwhile(to(address));
        return to(await hostAddressSoon(net, clock, asked, advertised, config.compat, guessed));
      },
    }));
  }

  #forwardingOf(): Forwarding | undefined {
    const { connect } = this.#config;
    if (connect === false || this.#docker === undefined) return undefined;
    return new Forwarding({
      ...this.#ground,
      log: this.#ground.log.part("connect"),
      sockets: systemNamespaceSockets,
      domain: this.#ground.self.domain,
      images: connect === "images",
    });
  }

  /** Brings the ports in containers to the configuration. */
  async #forward(): Promise<void> {
    const before = this.#forwarding;
    if (before === undefined) {
      this.#forwarding = this.#forwardingOf();
      this.#forwarding?.follow(this.#docker?.running() ?? []);
    } else if (this.#config.connect !== false && this.#docker !== undefined)
      before.retell(this.#config.connect === "images");
    else {
      this.#forwarding = undefined;
      await before.stop();
    }
  }

  /** Brings the registries besides to the configuration. */
  async #mirror(): Promise<void> {
    const before = this.#mirrors;
    const now = this.#mirrorsOf(before);
    this.#mirrors = now;
    const ended = before.filter((one) => !now.includes(one));
    await Promise.all(ended.map(({ work }) => work.stop()));
    for (const { uri } of ended)
      if (!now.some((one) => one.uri === uri))
        this.#ground.log
          .part("docker")
          .warn(`docker.backends: ${uri} is written to no more; what was written stays there`);
    if (this.#runs) for (const one of now) if (!before.includes(one)) one.work.start();
  }

  #mirrorsOf(before: readonly Mirror[]): readonly Mirror[] {
    const { enabled: _, connect: __, backends, ...flags } = this.#config;
    const [main] = this.#looking.places;
    if (main === undefined) return [];
    return backends.map((one): Mirror => {
      const key = JSON.stringify([one, flags, connectionOf(main), main.optional]);
      const same = before.find((each) => each.key === key);
      if (same !== undefined) return same;
      const template = parseTemplate(flags.tags);
      const hostname = flags.hostname || this.#ground.processes.hostname();
      const { endpoints, optional } = main;
      return {
        ...{ key, uri: one.uri },
        work: mirrors([one], { flags: this.#config, template, endpoints, hostname, optional }, !this.#ground.self.dev, {
          ...this.#ground,
          log: this.#ground.log.part("docker"),
        }),
      };
    });
  }
}

function connectionOf({ endpoints, config }: Place): string {
  const reached = endpoints.map(({ spelling, base, socketPath, tls }) => [
    spelling,
    base,
    socketPath,
    tls !== undefined,
  ]);
  return JSON.stringify([reached, config.certPath, config.tlsVerify]);
}

function connectionsOf({ places, why }: Looking): string {
  return JSON.stringify([places.map(connectionOf), why]);
}
