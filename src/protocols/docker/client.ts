// The Docker Engine API as far as it is needed: list, inspect, events, over a unix socket or TCP.
import type { Clock } from "../../base/clock.ts";
import { codeOf, messageOf, TrilithError } from "../../base/error.ts";
import type { Http, HttpResponse } from "../../base/http.ts";
import type { Labels } from "../../model/node.ts";
import { hasConnectLabels } from "./connect/labels.ts";
import type { Endpoint } from "./endpoint.ts";
import { type Happening, readEvents } from "./events.ts";
import { type Attachment, type Container, readContainer, readImageLabels, shortId } from "./inspect.ts";

/** A line of the container list: which one, and everything whose change calls for a new look at it, as one text. */
interface Listed {
  readonly id: string;
  readonly fingerprint: string;
}

/** One connection to an engine. All methods throw TrilithErrors that name the endpoint; what is no answer of an engine is `damaged`. */
export interface Engine {
  /** The running (and paused) containers. */
  list(): Promise<readonly Listed[]>;
  /** A container by ID or name; undefined where the engine says that there is none. */
  inspect(id: string): Promise<Container | undefined>;
  /** Resolves when the engine has begun to report; ends when the engine ends it, throws for junk. */
  events(): Promise<AsyncIterable<Happening>>;
  /** Who it is. */
  info(): Promise<EngineInfo>;
  /** "Docker 20.10.24", once it has answered; "Docker" before. */
  name(): string;
  /** False for Podman, once it has answered: its events tell no signals, only its list shows that a container is being stopped. */
  tellsSignals(): boolean;
}

/** What an engine says about itself. */
export interface EngineInfo {
  /** The same for as long as its data is: Docker's own ID; Podman, whose ID is another one with every answer, is known by host and folder. */
  readonly id: string;
  /** Its host's name. */
  readonly hostname: string;
}

/** What Podman's service calls itself. */
const PODMAN = "Libpod";

/** The whole answer has to be there after so long: an answer that drips for ever is none. */
const DEADLINE_MS = 15_000;
const LIST_MAX_BYTES = 32 << 20;
const INSPECT_MAX_BYTES = 4 << 20;
const INFO_MAX_BYTES = 4 << 20;
const NETWORK_MAX_BYTES = 4 << 20;
const IMAGE_MAX_BYTES = 4 << 20;
/** Images whose labels are remembered; an image never changes. */
const IMAGES_KEPT = 1024;
/** Networks that every engine has, on one host each. */
const OWN_NETWORKS: ReadonlySet<string> = new Set(["bridge", "host", "none", "podman"]);
/** More networks than an engine can have at a time; those that went are forgotten with the rest. */
const DRIVERS_KEPT = 4096;

/** The events that may change what is registered; everything else (exec, attach, top …) is not even sent. */
const FILTERS = JSON.stringify({
  type: ["container", "network"],
  event: [
    "start",
    "die",
    "died",
    "kill",
    "pause",
    "unpause",
    "rename",
    "update",
    "destroy",
    "remove",
    "health_status",
    "connect",
    "disconnect",
  ],
});

type Json = Readonly<Record<string, unknown>>;

function parseJson(text: string, what: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new TrilithError("damaged", `${what}: the answer is not JSON (${messageOf(error)})`, error);
  }
}

/** The `message` of Docker's error answers; "" for answers that are not Docker's. */
function refusal(text: string): string {
  try {
    const said = (JSON.parse(text) as Json | null)?.["message"];
    return typeof said === "string" ? said : "";
  } catch {
    return "";
  }
}

function fingerprint(line: Json): string {
  const settings = line["NetworkSettings"] as Json | undefined;
  const health = /\((?:health: )?(\w+)\)/.exec(String(line["Status"] ?? ""))?.[1] ?? "";
  return JSON.stringify([line["Names"], line["State"], line["Ports"], line["Labels"], settings?.["Networks"], health]);
}

/** Speaks to the engine at an endpoint until the signal, which ends whatever is under way. */
export function createEngine(endpoint: Endpoint, http: Http, clock: Clock, signal: AbortSignal): Engine {
  let name = "Docker";
  const at = `Docker at ${endpoint.spelling}`;
  const underWay = new Set<AbortController>();
  signal.addEventListener(
    "abort",
    () => {
      for (const one of underWay) one.abort(signal.reason);
    },
    { once: true },
  );

  const send = async (path: string, until: AbortSignal, endless: boolean): Promise<HttpResponse> => {
    const tls = await endpoint.tls?.();
    const answer = await http.request({
      url: endpoint.base + path,
      ...(endpoint.socketPath === undefined ? {} : { socketPath: endpoint.socketPath }),
      ...(tls === undefined ? {} : { tls }),
      signal: until,
      headTimeoutMs: DEADLINE_MS,
      bodyTimeoutMs: endless ? 0 : DEADLINE_MS,
    });
    const [, program, version] = /^([A-Za-z-]+)\/([\w.+~-]+)/.exec(String(answer.headers["server"] ?? "")) ?? [];
    if (program !== undefined) name = `${program} ${version}`;
    return answer;
  };

  /** A whole answer within the deadline. */
  const ask = async (path: string, maxBytes: number): Promise<{ readonly status: number; readonly text: string }> => {
    signal.throwIfAborted();
    const limit = new AbortController();
    underWay.add(limit);
    const late = new TrilithError("timeout", `${at} did not answer GET ${path} within ${DEADLINE_MS} ms`);
    const timer = clock.after(DEADLINE_MS, () => limit.abort(late));
    try {
      const answer = await send(path, limit.signal, false);
      return { status: answer.status, text: await answer.text(maxBytes) };
    } catch (error) {
      if (limit.signal.aborted) throw limit.signal.reason;
      throw new TrilithError(codeOf(error), `${at}: ${messageOf(error)}`, error);
    } finally {
      timer.cancel();
      underWay.delete(limit);
    }
  };

  const drivers = new Map<string, string>();
  /** The drivers of the networks: which one it is decides from where addresses on it can be reached. A network's driver never changes. */
  const withDrivers = async (networks: readonly Attachment[]): Promise<readonly Attachment[]> =>
    await Promise.all(
      networks.map(async (network) => {
        if (OWN_NETWORKS.has(network.name) || network.id === "") return network;
        let driver = drivers.get(network.id);
        if (driver === undefined) {
          const { status, text } = await ask(`/networks/${encodeURIComponent(network.id)}`, NETWORK_MAX_BYTES);
          // Gone meanwhile, or nothing that this engine tells: its addresses count on this host only.
          if (status !== 200) return network;
          const said = (parseJson(text, `${at}, network ${network.name}`) as Json | null)?.["Driver"];
          driver = typeof said === "string" ? said : "";
          if (drivers.size >= DRIVERS_KEPT) drivers.clear();
          drivers.set(network.id, driver);
        }
        return { ...network, driver };
      }),
    );

  const unexpected = (path: string, status: number, text: string): TrilithError => {
    const said = refusal(text) || text.slice(0, 200).replace(/\s+/g, " ");
    return new TrilithError(
      status >= 500 ? "unavailable" : "damaged",
      `${at} answered GET ${path} with ${status}: ${said}`,
    );
  };

  const images = new Map<string, Labels>();
  /** The labels of an image; undefined where it is not there any more: whoever removed it while its container runs knew it. */
  const labelsOfImage = async (id: string): Promise<Labels | undefined> => {
    const known = images.get(id);
    if (known !== undefined) return known;
    const path = `/images/${encodeURIComponent(id)}/json`;
    const { status, text } = await ask(path, IMAGE_MAX_BYTES);
    if (status === 404) return undefined;
    if (status !== 200) throw unexpected(path, status, text);
    const labels = readImageLabels(parseJson(text, `${at}, image ${id}`));
    if (images.size >= IMAGES_KEPT) images.clear();
    images.set(id, labels);
    return labels;
  };
  /** Whether labels are the container's or its image's matters for those that let it reach something. No answer costs the container nothing else. */
  const withImage = async (container: Container): Promise<Container> => {
    const id = (container.raw as Json)["Image"];
    if (typeof id !== "string" || id === "" || !hasConnectLabels(container.labels)) return container;
    try {
      const imageLabels = await labelsOfImage(id);
      return imageLabels === undefined ? container : { ...container, imageLabels };
    } catch (error) {
      signal.throwIfAborted();
      return { ...container, imageLabels: messageOf(error) };
    }
  };

  return {
    name: () => name,
    tellsSignals: () => !name.startsWith(PODMAN),
    async list() {
      const { status, text } = await ask("/containers/json", LIST_MAX_BYTES);
      if (status !== 200) throw unexpected("/containers/json", status, text);
      const lines = parseJson(text, `${at}, container list`);
      const isLine = (line: unknown): line is Json => typeof (line as Json | null)?.["Id"] === "string";
      if (!Array.isArray(lines) || !lines.every(isLine))
        throw new TrilithError("damaged", `${at}: the container list is not a list of containers`);
      return lines.map((line) => ({ id: String(line["Id"]), fingerprint: fingerprint(line) }));
    },
    async inspect(id) {
      const path = `/containers/${encodeURIComponent(id)}/json`;
      const { status, text } = await ask(path, INSPECT_MAX_BYTES);
      // Only Docker's own words prove that a container is gone: a proxy's 404 page does not.
      if (status === 404 && /no such container/i.test(text) && text.trimStart().startsWith("{")) return undefined;
      if (status !== 200) throw unexpected(path, status, text);
      const container = readContainer(parseJson(text, `${at}, container ${shortId(id)}`));
      if (container.id !== id)
        throw new TrilithError(
          "damaged",
          `${at} was asked for container ${shortId(id)} and answered with ${shortId(container.id)}`,
        );
      return { ...(await withImage(container)), networks: await withDrivers(container.networks) };
    },
    async info() {
      const { status, text } = await ask("/info", INFO_MAX_BYTES);
      if (status !== 200) throw unexpected("/info", status, text);
      const said = parseJson(text, `${at}, info`) as Json | null;
      const word = (key: string): string => (typeof said?.[key] === "string" ? said[key] : "");
      const id = name.startsWith(PODMAN) ? `${word("Name")}${word("DockerRootDir")}` : word("ID");
      return { id, hostname: word("Name") };
    },
    async events() {
      const path = `/events?filters=${encodeURIComponent(FILTERS)}`;
      const answer = await send(path, signal, true);
      if (answer.status !== 200) {
        const text = await answer.text(1 << 20).catch(messageOf);
        throw unexpected("/events", answer.status, text);
      }
      return readEvents(answer.body, at);
    },
  };
}
