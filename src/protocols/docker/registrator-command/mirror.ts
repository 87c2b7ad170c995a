// An agent's containers in other places besides: what Registrator would write, into the backends that its configuration names.
import { InputError, messageOf } from "../../../base/error.ts";
import type { Log } from "../../../base/log.ts";
import type { Processes } from "../../../base/process.ts";
import { openMemory } from "../backends/memory.ts";
import { hasBackend, openBackend } from "../backends/open.ts";
import { parseRegistryUri, type RegistryUri } from "../backends/uri.ts";
import { Writer } from "../backends/writer.ts";
import { type Followed, type FollowMachine, follow, statePath } from "./follow.ts";

/** One place to write to besides. */
export interface MirrorConfig {
  readonly uri: string;
  /** 0 = entries stay until they are removed; else they are refreshed after half of it. */
  readonly ttlSeconds: number;
}

export interface MirrorMachine extends FollowMachine {
  readonly processes: Pick<Processes, "env" | "userName" | "hostname">;
  readonly log: Log;
}

/** Reads a registry URI of the configuration. @throws InputError naming `where` */
export function mirrorUri(text: string, where: string): RegistryUri {
  const uri = parseRegistryUri(text);
  if (uri === undefined || !hasBackend(uri.scheme))
    throw new InputError(
      where,
      `${JSON.stringify(text)}: expected consul://…, consulkv://…, etcd://…, skydns2://host/domain or zookeeper://…`,
    );
  if (uri.scheme === "skydns2" && uri.path.replace(/^\/+/, "") === "")
    throw new InputError(where, `${JSON.stringify(text)}: the domain is missing: skydns2://host/domain`);
  return uri;
}

/** Work for as long as the agent runs: each backend by itself, none holds up the agent or another. `keeps` = remember on disk what was written. */
export function mirrors(
  configured: readonly MirrorConfig[],
  followed: Followed,
  keeps: boolean,
  machine: MirrorMachine,
): { start(): void; stop(): Promise<void> } {
  const { processes, disk } = machine;
  const end = new AbortController();
  let running: Promise<unknown> = Promise.resolve();
  const mirror = async ({ uri: text, ttlSeconds }: MirrorConfig): Promise<void> => {
    const log = machine.log.part("backend");
    const say = (line: string): void => log.info(`${text}: ${line}`);
    let writer: Writer | undefined;
    const env = (name: string): string | undefined => processes.env(name);
    const lost = (): void => writer?.check();
    const backend = openBackend(mirrorUri(text, "docker.backends"), { ...machine, say, env, ttlSeconds, lost });
    if (backend === undefined) return;
    try {
      const memory = await openMemory(keeps ? statePath(processes, text, followed.endpoints) : undefined, disk, say);
      const refreshMs = ttlSeconds * 500;
      writer = new Writer(backend, memory, machine, { say, refreshMs, resyncMs: 0, cleanup: undefined });
      await follow(followed, writer, (line) => log.warn(`${text}: ${line}`), end.signal, machine);
    } catch (error) {
      if (!end.signal.aborted) log.error(`${text}: ${messageOf(error)}`);
    } finally {
      backend.close();
    }
  };
  return {
    start() {
      running = Promise.all(configured.map(mirror));
    },
    async stop() {
      end.abort();
      await running;
    },
  };
}
