// The recorded cases replayed against a real dockerd: images and networks as they were, containers as they were started.
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { systemClock } from "../../src/base/clock.ts";
import { systemDisk } from "../../src/base/disk.ts";
import { createHttp } from "../../src/base/http.ts";
import { silentLog } from "../../src/base/log.ts";
import { systemRandom } from "../../src/base/random.ts";
import type { SourceList } from "../../src/contracts/source.ts";
import { parseHost } from "../../src/protocols/docker/endpoint.ts";
import { readContainer } from "../../src/protocols/docker/inspect.ts";
import { dockerSource } from "../../src/protocols/docker/source.ts";
import type { Docker } from "../support/docker.ts";
import { ownName } from "../support/own-name.ts";
import { eventually } from "../support/peers.ts";
import { startRegistry } from "../support/registry.ts";
import { createTrilith, type Trilith } from "../../src/trilith.ts";
import { got, optionsOf, type Recorded, read, type Run, wanted } from "./registrator-cases.ts";
import { expectations } from "./registrator-expectations.ts";
import type { LifeExpectation } from "./registrator-lifecycles.ts";

/** Images by name, with the changes that make them from `bb` (peers/dockerd-up.sh of the recordings). */
const SLEEP = 'CMD ["/bin/sleep","1000000"]';
const IMAGES: Readonly<Record<string, readonly string[]>> = {
  bbenv: ["EXPOSE 80", "ENV SERVICE_NAME=imgname SERVICE_TAGS=imgtag1,imgtag2 SERVICE_FOO=imgfoo", SLEEP],
  "bbenvport:1.0": [
    ...["EXPOSE 80", "EXPOSE 443"],
    "ENV SERVICE_80_NAME=img80 SERVICE_443_NAME=img443 SERVICE_80_TAGS=t80 SERVICE_TAGS=tall",
    SLEEP,
  ],
  bblabel: ["EXPOSE 80", "LABEL SERVICE_NAME=lblname SERVICE_TAGS=lbl1 SERVICE_BAR=lblbar", SLEEP],
  bbcheck: ["EXPOSE 80", "ENV SERVICE_CHECK_HTTP=/health SERVICE_CHECK_INTERVAL=7s", SLEEP],
  bbmany: ["EXPOSE 7000", "EXPOSE 7001", "EXPOSE 7002", "EXPOSE 7003/udp", SLEEP],
  bbsctp: ["EXPOSE 9899/sctp", SLEEP],
};
const TAGS = ["repo.example/team/app:v1.2.3", "localhost:5000/team/app2:2.0", "under_score/na.me-x:latest"];
/** Makes the images and networks of the recordings. */
export async function furnish({ docker }: Docker): Promise<void> {
  for (const [image, changes] of Object.entries(IMAGES)) {
    const id = await docker("create", "bb:latest", "/bin/sleep", "1000000");
    await docker("commit", ...changes.flatMap((change) => ["--change", change]), id, image);
    await docker("rm", id);
  }
  for (const tag of TAGS) await docker("tag", "bbexp1:latest", tag);
  await docker("network", "create", "--subnet", "172.30.7.0/24", "regnet");
  await docker("network", "create", "--subnet", "172.30.8.0/24", "regnet2");
}

/** What a case may be judged by: exactly as recorded, with `compat` where only that gives it. */
export function isReplayed({ name }: Recorded): boolean {
  const expectation = expectations[name];
  return expectation === "same" || expectation === "compat-only";
}

/** The recorded reference for an image that is here: only a registry gives images digests. */
async function byDigest({ docker }: Docker, recorded: string): Promise<string> {
  const registry = await startRegistry();
  try {
    const named = (reference: string): string => reference.replace(/^localhost:\d+/, registry.host);
    const tagged = named("localhost:0/team/dig:1.0");
    await docker("tag", "bbexp1:latest", tagged);
    await docker("push", tagged);
    const digests = JSON.parse(await docker("inspect", "-f", "{{json .RepoDigests}}", tagged)) as string[];
    const digest = digests.find((one) => one.startsWith(named("localhost:0/")))?.split("@")[1] ?? "none";
    return named(recorded).replace(/@sha256:.*/, `@${digest}`);
  } finally {
    await registry.close();
  }
}

async function start(engine: Docker, run: Run): Promise<void> {
  const { docker } = engine;
  const image = run.image.includes("@sha256:")
    ? await byDigest(engine, run.image)
    : run.image.startsWith("sha256:")
      ? await docker("inspect", "-f", "{{.Id}}", "bbexp1")
      : run.image;
  await docker(
    ...["run", "-d", "--name", run.name, ...run.args],
    ...run.env.flatMap((entry) => ["-e", entry]),
    ...Object.entries(run.labels).flatMap(([key, value]) => ["-l", `${key}=${value}`]),
    image,
    ...run.cmd,
  );
}

/**
 * Starts a static case's containers under a source with its flags: what was registered in the end, beside what was recorded with the marks
 * filled in. The containers are removed again, and the list has to be empty then.
 */
export async function replayStatic(
  docker: Docker,
  recorded: Recorded,
): Promise<{ readonly got: unknown; readonly wanted: readonly unknown[] }> {
  const options = optionsOf(recorded, expectations[recorded.name] === "compat-only");
  const http = createHttp();
  let last: SourceList | undefined;
  const source = dockerSource(
    { endpoints: [parseHost(docker.host, "test")], optional: false, translation: async () => options },
    {
      ...{ clock: systemClock, random: systemRandom, disk: systemDisk, http, log: silentLog },
      agent: { report: async () => {} },
    },
  );
  const stop = new AbortController();
  const ended = (async () => {
    for await (const list of source.watch(stop.signal)) last = list;
  })();
  const runs = Array.isArray(recorded.run) ? (recorded.run as Run[]) : [recorded.run as Run];
  try {
    await eventually("the source is there", () => last !== undefined);
    for (const run of runs) await start(docker, run);
    const containers = (JSON.parse(await docker.docker("inspect", ...runs.map(({ name }) => name))) as unknown[]).map(
      readContainer,
    );
    const variants = wanted(recorded, containers);
    const now = (): unknown[] => got(last?.list ?? []);
    const matches = (): boolean => variants.some((one) => JSON.stringify(one) === JSON.stringify(now()));
    // All of them have been read when the source says so: an empty list is an answer, too.
    const count = new RegExp(`, ${runs.length} container`);
    await eventually("all containers are read", () => count.test(source.state().text));
    await eventually("as recorded", matches, 10_000).catch(() => {});
    const result = { got: now(), wanted: variants.find((one) => JSON.stringify(one) === JSON.stringify(now())) ?? variants[0] ?? [] };
    await docker.docker("rm", "-f", ...runs.map(({ name }) => name));
    await eventually("nothing is left", () => last?.list.length === 0);
    return result;
  } finally {
    stop.abort();
    await ended;
    await http.close();
    await docker.docker("rm", "-f", ...runs.map(({ name }) => name)).catch(() => "");
  }
}

/** A recorded life: steps with what was registered after each. */
export interface Life {
  readonly kind: string;
  readonly name: string;
  readonly flags: readonly string[];
  readonly steps: readonly {
    readonly step: string;
    readonly cmd: string | null;
    readonly registered: readonly { readonly ID: string; readonly Service: string; readonly Port: number | string }[] | string;
  }[];
}

export const lives: readonly Life[] = (read("cases.json") as Life[]).filter(({ kind }) => kind === "lifecycle");

const HOSTNAME = "lifehost";
const bare = (id: string): string => id.replace(/^(\{hostname\}|lifehost):/, "");

/** An agent over a life: started, stopped, and asked what it holds. */
class Host {
  readonly #docker: Docker;
  readonly #flags: readonly string[];
  #folder = ownName("life");
  agent: Trilith | undefined;
  constructor(docker: Docker, flags: readonly string[]) {
    this.#docker = docker;
    this.#flags = flags;
  }
  /** A flag's value. */
  #flag(name: string): string {
    const at = this.#flags.indexOf(name);
    return at < 0 ? "" : (this.#flags[at + 1] ?? "");
  }
  async start(life: string, docker = true): Promise<void> {
    const agent = createTrilith({
      node: "life",
      dataDir: `${this.#docker.folder}/${encodeURIComponent(life)}-${this.#folder}`,
      httpPort: -1,
      protocols: {
        process: false,
        file: false,
        dns: { port: -1 },
        docker: docker && {
          ...{ host: this.#docker.host, enabled: true, hostname: HOSTNAME, ip: "192.0.2.1" },
          internal: this.#flags.includes("-internal"),
          tags: this.#flag("-tags"),
          ...(this.#flag("-deregister") === "" ? {} : { deregister: this.#flag("-deregister") }),
        },
      },
    });
    await agent.start();
    this.agent = agent;
    if (docker) await eventually("Docker is read", () => /\d containers?$/.test(agent.sources()[0]?.text ?? ""));
  }
  async stop(): Promise<void> {
    await this.agent?.stop();
    this.agent = undefined;
  }
  /** As if everything on disk were lost. */
  forget(): void {
    this.#folder = ownName("life");
  }
}

/** Replays a life step by step; rejects where a step does not come to what is expected. */
export async function replayLife(docker: Docker, life: Life, expectation: LifeExpectation): Promise<void> {
  const host = new Host(docker, life.flags);
  const differs = expectation === "same" ? undefined : expectation;
  const shell = async (command: string): Promise<void> => {
    await promisify(execFile)("bash", ["-c", command], { env: { ...process.env, DOCKER_HOST: docker.host } });
  };
  const late = life.steps.some(({ cmd }) => /^registrator .*starts?$/.test(cmd ?? "") || /by hand/.test(cmd ?? ""));
  const parallel = (n: number, name: string, ...command: string[]): Promise<unknown> =>
    Promise.all(
      Array.from({ length: n }, (_, i) =>
        docker.docker("run", "-d", "--name", `${name}${i}`, "-P", "-e", "SERVICE_NAME=many", "bbexp1", ...command),
      ),
    );
  try {
    if (differs?.refused !== undefined) {
      const error = await host.start(life.name).catch((reason: unknown) => reason);
      if (!(error instanceof Error) || !error.message.includes(differs.refused))
        throw new Error(`${life.name}: expected to be refused with "${differs.refused}", got ${error}`);
      return;
    }
    if (!late || life.steps.some(({ cmd }) => cmd?.startsWith("SIGTERM"))) await host.start(life.name);
    for (const [i, { cmd, registered }] of life.steps.entries()) {
      const command = cmd ?? "";
      if (/^docker ps -q\w* \| xargs docker kill/.test(command)) await shell(command);
      else if (command.startsWith("20 x docker run")) await parallel(20, "s", "/bin/true");
      else if (command.startsWith("20 docker run")) await parallel(20, "m");
      else if (command.startsWith("docker "))
        // A dockerd that is ended waits for its containers only as long as tests wait for it.
        await shell(command.replaceAll("docker run -d", /dockerd/.test(life.name) ? "docker run -d --stop-timeout 1" : "docker run -d"));
      else if (command.startsWith("SIGTERM to registrator") || /consul-down\.sh$/.test(command)) await host.stop();
      else if (command.startsWith("consul-down.sh")) {
        await host.stop();
        host.forget();
        await host.start(life.name);
      } else if (command.startsWith("registrator ") || command.startsWith("consul-up")) await host.start(life.name);
      else if (command.startsWith("services registered by hand")) {
        await host.start(life.name, false);
        for (const { ID, Service } of registered as Exclude<typeof registered, string>)
          await host.agent?.agent.register("api", {
            ...{ id: `${HOSTNAME}:${bare(ID)}`, name: Service, tags: [], labels: {}, address: "", port: 1, checks: [] },
          });
        await host.stop();
        continue;
      } else if (command.startsWith("deregister web")) await host.agent?.agent.deregister("api", `${HOSTNAME}:c0:80`);
      else if (command.startsWith("p=$(cat")) {
        await docker.stop();
      } else if (command === "" && /dockerd starts/.test(life.steps[i]?.step ?? "")) await docker.start();
      else if (command !== "") throw new Error(`${life.name}, step ${i}: nobody knows how to do "${command}"`);
      const { agent } = host;
      if (agent === undefined) continue;
      const recorded = typeof registered === "string" ? [] : registered;
      const wantedIds = differs?.steps?.[i] ?? recorded.map(({ ID }) => bare(ID));
      const held = (): string[] => [...agent.agent.services().keys()].map(bare).sort();
      const where = `${life.name}, step ${i} (${command}): ${wantedIds.join(", ") || "nothing"} registered`;
      await eventually(where, () => JSON.stringify(held()) === JSON.stringify([...wantedIds].sort())).catch((error: Error) => {
        throw new Error(`${error.message}; instead: ${held().join(", ")}`);
      });
      const aside = (): string[] =>
        [...agent.agent.services().values()].filter(({ instance }) => instance.draining === true).map(({ instance }) => bare(instance.id));
      await eventually(`${where}, aside`, () => JSON.stringify(aside()) === JSON.stringify(differs?.aside?.[i] ?? []));
      if (differs?.steps?.[i] !== undefined) continue;
      // Names and fixed ports are the recording's.
      for (const { ID, Service, Port } of recorded) {
        const one = agent.agent.services().get(`${HOSTNAME}:${bare(ID)}`)?.instance ?? agent.agent.services().get(bare(ID))?.instance;
        if (one?.name !== Service || (typeof Port === "number" && one.port !== Port))
          throw new Error(`${where}: ${ID} is ${one?.name}:${one?.port}, recorded ${Service}:${Port}`);
      }
    }
    if (host.agent === undefined) {
      // Stopping the agent deregistered nothing: it begins with what it had.
      const before = life.steps.at(-1)?.registered;
      await host.start(life.name);
      const held = [...(host.agent as Trilith | undefined)?.agent.services().keys() ?? []].map(bare).sort();
      const ids = (typeof before === "string" ? [] : (before ?? [])).map(({ ID }) => bare(ID)).sort();
      if (JSON.stringify(held) !== JSON.stringify(ids)) throw new Error(`${life.name}: after the stop ${held} stood, not ${ids}`);
    }
  } finally {
    await host.stop();
    await shell("docker ps -aq | xargs -r docker rm -f");
  }
}
