// An imitation of Docker's engine on a unix socket, whose containers, events and answers a test decides.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { systemDisk } from "../../src/base/disk.ts";
import type { createHttp, IncomingMessage, ServerResponse } from "../../src/base/http.ts";
import type { Listening } from "../../src/base/net.ts";

const golden = join(import.meta.dirname, "../golden/registrator/inspect/port-fixed.json");
const sample = JSON.parse(readFileSync(golden, "utf8")) as Record<string, unknown>;

/** Answers one request. */
export type Answer = (response: ServerResponse) => void;

/** An engine whose containers and answers a test decides. */
export class FakeEngine {
  readonly containers = new Map<string, Record<string, unknown>>();
  readonly streams = new Set<ServerResponse>();
  readonly asked: string[] = [];
  /** What it says it is. */
  server = "Docker/20.10.24 (linux)";
  list: Answer | undefined;
  /** What drives a network, by its ID. */
  readonly drivers: Map<string, string> = new Map();
  /** The labels of images, by ID, and what else is said of every image. */
  readonly images: Map<string, Readonly<Record<string, string>>> = new Map();
  image: Answer | undefined;
  readonly askedImages: string[] = [];
  inspect: ((id: string, honest: Answer) => Answer) | undefined;
  events: Answer | undefined;
  #server: Listening | undefined;
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  async start(http: ReturnType<typeof createHttp>): Promise<void> {
    this.#server = await http.serve({ path: this.path }, (request, response) => this.#answer(request, response));
  }
  async stop(): Promise<void> {
    await this.#server?.close();
    await systemDisk.remove(this.path);
  }
  add(name: string, port: number, change: (raw: Record<string, Record<string, unknown>>) => void = () => {}): string {
    const raw = structuredClone(sample) as Record<string, Record<string, unknown>> & Record<string, unknown>;
    const id = Buffer.from(name.padEnd(32, "-")).toString("hex");
    Object.assign(raw, { Id: id, Name: `/${name}` });
    raw["NetworkSettings"] = {
      ...raw["NetworkSettings"],
      Ports: { "80/tcp": [{ HostIp: "0.0.0.0", HostPort: String(port) }] },
    };
    change(raw);
    this.containers.set(id, raw);
    return id;
  }
  tell(event: unknown): void {
    for (const stream of this.streams) stream.write(typeof event === "string" ? event : `${JSON.stringify(event)}\n`);
  }
  happens(action: string, id: string, attributes: Record<string, string> = {}): void {
    this.tell({ Type: "container", Action: action, Actor: { ID: id, Attributes: attributes } });
  }
  drop(): void {
    for (const stream of this.streams) stream.destroy();
  }
  #answer(request: IncomingMessage, response: ServerResponse): void {
    const path = (request.url ?? "").split("?")[0] ?? "";
    response.setHeader("Server", this.server);
    if (path === "/events") {
      if (this.events !== undefined) {
        this.events(response);
        return;
      }
      this.streams.add(response);
      response.on("close", () => this.streams.delete(response));
      response.writeHead(200, { "content-type": "application/json" }).flushHeaders();
      return;
    }
    if (path === "/info") {
      json(200, { ID: "AAAA:BBBB", Name: "enginehost" })(response);
      return;
    }
    if (path === "/containers/json") {
      if (this.list !== undefined) {
        this.list(response);
        return;
      }
      json(
        200,
        [...this.containers.values()]
          .filter((raw) => (raw["State"] as { Running: boolean }).Running)
          .map(({ Id, Name }) => ({ Id, Names: [Name], State: "running" })),
      )(response);
      return;
    }
    if (path.startsWith("/images/")) {
      const id = decodeURIComponent(path.slice("/images/".length).replace(/\/json$/, ""));
      this.askedImages.push(id);
      const labels = this.images.get(id);
      const found =
        labels === undefined
          ? json(404, { message: `No such image: ${id}` })
          : json(200, { Config: { Labels: labels } });
      (this.image ?? found)(response);
      return;
    }
    if (path.startsWith("/networks/")) {
      const driver = this.drivers.get(path.slice("/networks/".length));
      json(driver === undefined ? 404 : 200, { Driver: driver })(response);
      return;
    }
    const id = /^\/containers\/(\w+)\/json$/.exec(path)?.[1] ?? "";
    this.asked.push(id);
    const raw = this.containers.get(id);
    const honest = raw === undefined ? json(404, { message: `No such container: ${id}` }) : json(200, raw);
    (this.inspect?.(id, honest) ?? honest)(response);
  }
}

/** An answer in JSON. */
export const json =
  (status: number, body: unknown): Answer =>
  (response) =>
    void response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
