// Runs a recorded Registrator case: `trilith registrator` as a program of its own beside a real dockerd, its log and what it stores.

import { lookup } from "node:dns/promises";
import { readFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { createHttp } from "../../src/base/http.ts";
import type { Docker } from "./docker.ts";
import { FakeEngine } from "./docker-engine.ts";
import { eventually, ownFolder, startProgram } from "./peers.ts";
import { program } from "./program.ts";

/** One step of a recorded case. */
export interface Step {
  readonly step: string;
  readonly cmd?: string | null;
  readonly log?: readonly string[];
  readonly stored?: readonly Readonly<Record<string, unknown>>[];
}

export interface Case {
  readonly kind: string;
  readonly name: string;
  readonly backend?: string;
  readonly uri?: string;
  readonly flags?: readonly string[];
  readonly args?: readonly string[];
  readonly exit_code?: number | string | null;
  readonly log?: readonly string[];
  readonly steps?: readonly Step[];
}

/** All recorded cases of a kind. */
export function casesOf(kind: string): readonly Case[] {
  const path = join(import.meta.dirname, "../golden/registrator/cases.json");
  return (JSON.parse(readFileSync(path, "utf8")) as readonly Case[]).filter((one) => one.kind === kind);
}

/** A running command line. */
export interface Running {
  /** Lines without the time in front. */
  log(): readonly string[];
  signal(signal: NodeJS.Signals): void;
  stop(signal?: NodeJS.Signals): Promise<void>;
  readonly ended: Promise<number | null>;
  remove(): Promise<void>;
}

/** Starts `trilith registrator`. `state` is the file of its memory, by default one of its own. */
export async function startRegistrator(
  words: readonly string[],
  dockerHost: string,
  env: Readonly<Record<string, string>> = {},
): Promise<Running> {
  const folder = await ownFolder("registrator");
  const file = join(folder.path, "log");
  const running = await startProgram([process.execPath, program, "registrator", ...words], file, {
    DOCKER_HOST: dockerHost,
    TRILITH_REGISTRATOR_STATE: join(folder.path, "state.json"),
    ...env,
  });
  const { pid } = running;
  return {
    log: () =>
      readFileSync(file, "utf8")
        .split("\n")
        .map((line) => line.replace(/^\d{4}\/\d\d\/\d\d \d\d:\d\d:\d\d /, ""))
        .filter((line) => line !== ""),
    signal: (signal) => void process.kill(pid, signal),
    async stop(signal) {
      await running.stop(signal);
    },
    ended: running.ended,
    remove: () => folder.remove(),
  };
}

/** What the host name resolves to, as Registrator asks. */
export async function hostIp(): Promise<string> {
  return (await lookup(hostname(), { family: 4 })).address;
}

/** Fills in a recording's marks: {hostname}, {hostip}, {cid12}, {cid12:name}. */
export async function filler(docker: Docker): Promise<(text: string) => Promise<string>> {
  const ip = await hostIp();
  const ids = new Map<string, string>();
  return async (text) => {
    for (const line of (await docker.docker("ps", "-a", "--no-trunc", "--format", "{{.Names}} {{.ID}}")).split("\n")) {
      const [name = "", id = ""] = line.split(" ");
      ids.set(name, id.slice(0, 12));
    }
    return text
      .replaceAll("{hostname}", hostname())
      .replaceAll("{hostip}", ip)
      .replace(/\{cid12:?([^}]*)\}/g, (_, name: string) => ids.get(name === "" ? "c0" : name) ?? "?");
  };
}

/** Waits until two texts are the same; the last one that was seen stands in the error. */
export async function becomes(
  what: string,
  want: () => Promise<string>,
  see: () => Promise<string>,
  ms: number,
): Promise<void> {
  let wanted = "";
  let seen = "";
  await eventually(
    what,
    async () => {
      wanted = await want();
      seen = await see();
      return wanted === seen;
    },
    ms,
  ).catch(() => {
    throw new Error(`${what}: expected\n${wanted}\nbut it is\n${seen}`);
  });
}

/** An imitated engine, a folder and the programs of one test at a time; `over` ends all of it. */
export interface Scene {
  readonly folder: string;
  readonly engine: FakeEngine;
  /** Starts the program with a memory that outlives it, within the test. */
  start(words: readonly string[], env?: Readonly<Record<string, string>>): Promise<Running>;
  /** Adds a running container whose variables are these. @returns its ID */
  add(name: string, port: number, env?: readonly string[]): string;
  die(id: string): void;
  over(): Promise<void>;
}

/** Makes the scene of one test. */
export async function openScene(): Promise<Scene> {
  const folder = await ownFolder("registrator-test");
  const serving = createHttp();
  const engine = new FakeEngine(join(folder.path, "docker.sock"));
  await engine.start(serving);
  const running: Running[] = [];
  return {
    folder: folder.path,
    engine,
    async start(words, env = {}) {
      const one = await startRegistrator(words, `unix://${engine.path}`, {
        TRILITH_REGISTRATOR_STATE: join(folder.path, "state.json"),
        ...env,
      });
      running.push(one);
      return one;
    },
    add(name, port, env = ["SERVICE_NAME=web"]) {
      const id = engine.add(name, port, (raw) => {
        raw["Config"] = { ...raw["Config"], Env: env, Hostname: name };
      });
      engine.happens("start", id);
      return id;
    },
    die(id) {
      engine.containers.delete(id);
      engine.happens("die", id, { exitCode: "0" });
    },
    async over() {
      for (const one of running) {
        await one.stop("SIGKILL");
        await one.remove();
      }
      await engine.stop();
      await serving.close();
      await folder.remove();
    },
  };
}
