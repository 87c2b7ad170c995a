// A container as this folder sees it: what `GET /containers/<id>/json` said, checked and narrowed to what is used.
import { TrilithError } from "../../base/error.ts";
import type { Labels } from "../../model/node.ts";

/** One host port that Docker published for a container port. */
export interface Binding {
  /** "" counts as 0.0.0.0. */
  readonly hostIp: string;
  /** "" where Docker names none. */
  readonly hostPort: string;
}

/** A network a container is attached to. */
export interface Attachment {
  readonly name: string;
  readonly id: string;
  /** "" = no IPv4 address. */
  readonly ipv4: string;
  readonly ipv4PrefixLength: number;
  /** "" = no global IPv6 address. */
  readonly ipv6: string;
  readonly ipv6PrefixLength: number;
  /** "bridge", "overlay", "macvlan" …; absent where the engine was not asked. */
  readonly driver?: string;
}

/** What Docker's own HEALTHCHECK says. */
interface Health {
  /** "none" where the container has no HEALTHCHECK. */
  readonly status: "none" | "starting" | "healthy" | "unhealthy";
  /** What the last probe printed. */
  readonly output: string;
}

/** A container. Ports are spelt as Docker does: "80/tcp". */
export interface Container {
  readonly id: string;
  /** Without the slash in front. */
  readonly name: string;
  /** As given to `docker run`: name, name:tag, name@digest or an image ID. */
  readonly image: string;
  readonly env: readonly string[];
  /** Without a prototype. */
  readonly labels: Labels;
  /** The image's own. Absent where nobody asked or the image is not there any more; a text says why they are not known. */
  readonly imageLabels?: Labels | string;
  readonly exposedPorts: readonly string[];
  /** Undefined bindings: exposed, not published. */
  readonly ports: ReadonlyMap<string, readonly Binding[] | undefined>;
  readonly networkMode: string;
  /** The address on the default bridge; "" elsewhere. */
  readonly ipAddress: string;
  readonly networks: readonly Attachment[];
  /** True while its process runs; false between two attempts of a restart policy. */
  readonly running: boolean;
  readonly paused: boolean;
  /** It was told to stop and still runs: a state of Podman's, which tells no signals. */
  readonly stopping: boolean;
  readonly exitCode: number;
  /** The number of its first process as the engine's host counts; 0 where there is none. */
  readonly pid: number;
  readonly startedAt: string;
  readonly health: Health;
  /** The number of the signal that asks it to stop; 15 unless configured. */
  readonly stopSignal: number;
  /** How long `docker stop` waits before it kills. */
  readonly stopTimeoutMs: number;
  /** The whole answer, for tag templates. */
  readonly raw: unknown;
}

/** The first twelve digits of a container's ID, as Docker shows it. */
export function shortId(id: string): string {
  return id.slice(0, 12);
}

/** For people: "web (3f2a41c09b7e)". */
export function describe(container: { readonly id: string; readonly name: string }): string {
  return container.name === "" ? shortId(container.id) : `${container.name} (${shortId(container.id)})`;
}

/** First started, first served. */
export function byStart(a: Container, b: Container): number {
  return a.startedAt === b.startedAt ? (a.id < b.id ? -1 : 1) : a.startedAt < b.startedAt ? -1 : 1;
}

type Json = Readonly<Record<string, unknown>>;

function object(value: unknown): Json {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Json) : {};
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function count(value: unknown): number {
  return typeof value === "number" && Number.isFinite(value) ? value : 0;
}

/** Docker's signal numbers on Linux [signal(7)]; real-time signals are counted from 34. */
const SIGNALS: Readonly<Record<string, number>> = {
  HUP: 1,
  INT: 2,
  QUIT: 3,
  ILL: 4,
  TRAP: 5,
  ABRT: 6,
  IOT: 6,
  BUS: 7,
  FPE: 8,
  KILL: 9,
  USR1: 10,
  SEGV: 11,
  USR2: 12,
  PIPE: 13,
  ALRM: 14,
  TERM: 15,
  STKFLT: 16,
  CHLD: 17,
  CLD: 17,
  CONT: 18,
  STOP: 19,
  TSTP: 20,
  TTIN: 21,
  TTOU: 22,
  URG: 23,
  XCPU: 24,
  XFSZ: 25,
  VTALRM: 26,
  PROF: 27,
  WINCH: 28,
  IO: 29,
  POLL: 29,
  PWR: 30,
  SYS: 31,
  RTMIN: 34,
  RTMAX: 64,
};
const SIGKILL = 9;
const SIGTERM = 15;

/** The number of a signal spelt "SIGTERM", "term", "15" or "RTMIN+3"; undefined for anything else. */
export function signalNumber(spelling: string): number | undefined {
  if (/^\d{1,2}$/.test(spelling)) return Number(spelling);
  const name = spelling.toUpperCase().replace(/^SIG/, "");
  const [, base, sign, offset] = /^(RTMIN|RTMAX)([+-])(\d{1,2})$/.exec(name) ?? [];
  if (base !== undefined) return (SIGNALS[base] ?? 0) + (sign === "-" ? -1 : 1) * Number(offset);
  return Object.hasOwn(SIGNALS, name) ? SIGNALS[name] : undefined;
}

/** True for the signals by which Docker ends this container: its stop signal, and SIGKILL. */
export function isStopSignal(container: Container, signal: number): boolean {
  return signal === container.stopSignal || signal === SIGKILL;
}

function readLabels(config: Json): Labels {
  const labels: Record<string, string> = Object.create(null);
  for (const [key, value] of Object.entries(object(config["Labels"]))) labels[key] = text(value);
  return labels;
}

/** The labels in an image's inspect answer. */
export function readImageLabels(raw: unknown): Labels {
  return readLabels(object(object(raw)["Config"]));
}

const DEFAULT_STOP_TIMEOUT_MS = 10_000;

function readHealth(state: Json): Health {
  const health = object(state["Health"]);
  const status = text(health["Status"]);
  if (status !== "starting" && status !== "healthy" && status !== "unhealthy") return { status: "none", output: "" };
  const log: unknown = health["Log"];
  const last = object(Array.isArray(log) ? log.at(-1) : undefined);
  return { status, output: text(last["Output"]) };
}

function readNetworks(settings: Json): Attachment[] {
  const found: Attachment[] = [];
  for (const [name, value] of Object.entries(object(settings["Networks"]))) {
    const network = object(value);
    found.push({
      name,
      id: text(network["NetworkID"]),
      ipv4: text(network["IPAddress"]),
      ipv4PrefixLength: count(network["IPPrefixLen"]),
      ipv6: text(network["GlobalIPv6Address"]),
      ipv6PrefixLength: count(network["GlobalIPv6PrefixLen"]),
    });
  }
  // Docker's own order is that of a Go map: none.
  return found.sort((a, b) => (a.name < b.name ? -1 : 1));
}

function readPorts(settings: Json): Map<string, readonly Binding[] | undefined> {
  const found = new Map<string, readonly Binding[] | undefined>();
  for (const [port, value] of Object.entries(object(settings["Ports"]))) {
    const bindings = Array.isArray(value) ? value.map(object) : [];
    found.set(
      port,
      bindings.length === 0
        ? undefined
        : bindings.map((binding) => ({ hostIp: text(binding["HostIp"]), hostPort: text(binding["HostPort"]) })),
    );
  }
  return found;
}

/**
 * Reads an inspect answer (any Engine API version; also the shortened ones of the recordings).
 * @throws TrilithError `damaged` where it is no container at all: no ID, no Config, no HostConfig, or a State that does not say whether it runs
 */
export function readContainer(raw: unknown): Container {
  const top = object(raw);
  const id = text(top["Id"]);
  const missing =
    id === ""
      ? "Id"
      : ["Config", "HostConfig", "NetworkSettings"].find((key) => typeof top[key] !== "object" || top[key] === null);
  if (missing !== undefined)
    throw new TrilithError(
      "damaged",
      `Docker's answer is not a container: "${missing}" is missing or of the wrong type`,
    );
  const state = object(top["State"]);
  if (top["State"] !== undefined && typeof state["Running"] !== "boolean")
    throw new TrilithError("damaged", `Docker's answer does not say whether container ${shortId(id)} is running`);
  const config = object(top["Config"]);
  const settings = object(top["NetworkSettings"]);
  const env: unknown = config["Env"];
  const networkMode = text(object(top["HostConfig"])["NetworkMode"]);
  const networks = readNetworks(settings);
  // Podman 4 says of such a container that it does not run, though its process does.
  const stopping = state["Status"] === "stopping";
  return {
    id,
    name: text(top["Name"]).replace(/^\//, ""),
    image: text(config["Image"]),
    env: Array.isArray(env) ? env.filter((item) => typeof item === "string") : [],
    labels: readLabels(config),
    exposedPorts: Object.keys(object(config["ExposedPorts"])),
    ports: readPorts(settings),
    networkMode,
    // Docker 29 says it only per network.
    ipAddress: text(settings["IPAddress"]) || (networks.find(({ name }) => name === "bridge")?.ipv4 ?? ""),
    networks,
    // Docker counts a container that waits for its next attempt as running.
    running: stopping || (state["Running"] !== false && state["Restarting"] !== true && state["Dead"] !== true),
    paused: state["Paused"] === true,
    stopping,
    exitCode: count(state["ExitCode"]),
    pid: count(state["Pid"]),
    startedAt: text(state["StartedAt"]),
    health: readHealth(state),
    stopSignal: signalNumber(text(config["StopSignal"])) ?? SIGTERM,
    stopTimeoutMs:
      typeof config["StopTimeout"] === "number" ? Math.max(0, config["StopTimeout"]) * 1000 : DEFAULT_STOP_TIMEOUT_MS,
    raw,
  };
}
