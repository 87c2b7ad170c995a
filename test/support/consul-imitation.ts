// A stand-in for a real Consul server: the endpoints that a client host needs, each answer shaped by the recorded one of Consul 1.19.2.
import { readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { freePort } from "./peers.ts";

type Json = Record<string, unknown>;
const expected = (scenario: string, step: string): unknown => {
  const url = new URL(`../conformance/consul/expected/${scenario}.json`, import.meta.url);
  return (JSON.parse(readFileSync(url, "utf8")) as { steps: Record<string, { json: unknown }> }).steps[step]?.json;
};
/** Answers as recorded; what is not overwritten stays as Consul said it. */
const NODE = (expected("catalog-query", "nodes") as Json[])[1] as Json;
const RESIDENT = (expected("health-query", "service") as Json[])[0] as Json;
const SERVICE = RESIDENT["Service"] as Json;
const CHECK = (RESIDENT["Checks"] as Json[])[1] as Json;
const PAIR = (expected("kv-basic", "get") as Json[] | undefined)?.[0] ?? {
  LockIndex: 0,
  Key: "",
  Flags: 0,
  Value: null,
  CreateIndex: 0,
  ModifyIndex: 0,
};

interface Placed {
  readonly json: Json;
  index: number;
}

/** Fields that Consul's own decoder knows; others are refused as a real one refuses them. */
const KNOWN: Readonly<Record<string, ReadonlySet<string>>> = {
  Node: new Set([...Object.keys(NODE), "PeerName", "Locality"]),
  Service: new Set([
    ...Object.keys(SERVICE),
    ...["Kind", "ID", "Service", "Tags", "Meta", "Port", "Address", "SocketPath", "TaggedAddresses", "Weights"],
    ...["EnableTagOverride", "Locality"],
  ]),
  Check: new Set(
    ["Node", "CheckID", "Name", "Status", "Notes", "Output", "ServiceID", "ServiceName", "ServiceTags", "Type"].concat([
      "ExposedPort",
      "Definition",
      "CreateIndex",
      "ModifyIndex",
    ]),
  ),
};

/** One server that stands for a whole cluster. */
export class ImitatedConsul {
  readonly #nodes = new Map<string, Placed>();
  readonly #services = new Map<string, Placed & { readonly node: string }>();
  readonly #checks = new Map<string, Placed & { readonly node: string }>();
  readonly #kv = new Map<string, Placed>();
  readonly #sessions = new Map<string, { readonly json: Json; timer?: NodeJS.Timeout; readonly ttlMs: number }>();
  readonly #tables = { nodes: 1, services: 1, checks: 1, kv: 1 };
  #index = 10;
  /** Another one after each restored snapshot: those who wait are told then. */
  #epoch = 0;
  #waiting = new Set<() => void>();
  #server: Server | undefined;
  readonly #sessionMs: number;
  /** Paths that a real Consul does not have, as they were asked for. */
  readonly strange: string[] = [];
  /** Requests by method and first words of the path. */
  readonly counts = new Map<string, number>();
  port = 0;

  /** `sessionMs`: sessions end so long after they were renewed last, whatever their TTL (a real one takes ten seconds and more). */
  constructor(sessionMs: number) {
    this.#sessionMs = sessionMs;
    this.#begin();
  }

  /** What a server knows of itself. */
  #begin(): void {
    this.#putNode({ Node: "alpha", ID: "adf4238a-882b-9ddc-4a9d-5b6758e4159e", Address: "127.0.0.1" });
    this.#putService("alpha", { ID: "consul", Service: "consul", Port: 8300 });
    this.#putCheck({ Node: "alpha", CheckID: "serfHealth", Name: "Serf Health Status", Status: "passing" });
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** On the port that it had before, which nobody else takes meanwhile. */
  async start(): Promise<void> {
    this.port ||= await freePort();
    this.#server = createServer((request, response) => void this.#serve(request, response));
    const server = this.#server;
    await new Promise<void>((resolve, reject) => server.once("error", reject).listen(this.port, "127.0.0.1", resolve));
  }

  async stop(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    this.#wake();
    for (const { timer } of this.#sessions.values()) clearTimeout(timer);
    if (server === undefined) return;
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    server.closeAllConnections();
    await closed;
  }

  /** As a snapshot of an empty server is restored into it: its content is gone and its numbers go back. */
  restoreEmpty(): void {
    for (const map of [this.#nodes, this.#services, this.#checks, this.#kv]) map.clear();
    for (const { timer } of this.#sessions.values()) clearTimeout(timer);
    this.#sessions.clear();
    this.#index = 10;
    Object.assign(this.#tables, { nodes: 1, services: 1, checks: 1, kv: 1 });
    this.#begin();
    this.#epoch++;
    this.#wake();
  }

  #wake(): void {
    for (const wake of [...this.#waiting]) wake();
  }

  #move(...tables: ("nodes" | "services" | "checks" | "kv")[]): number {
    this.#index++;
    for (const table of tables) this.#tables[table] = this.#index;
    this.#wake();
    return this.#index;
  }

  #place<T extends Placed>(map: Map<string, T>, key: string, json: Json, extra: Omit<T, "json" | "index">): Json {
    const before = map.get(key)?.json;
    const { CreateIndex: _c, ModifyIndex: _m, ...old } = before ?? {};
    const { CreateIndex: _d, ModifyIndex: _n, ...now } = json;
    // What changes nothing moves nothing.
    if (before !== undefined && JSON.stringify(old) === JSON.stringify(now)) return before;
    const index = this.#index + 1;
    const placed = { ...now, CreateIndex: before?.["CreateIndex"] ?? index, ModifyIndex: index };
    map.set(key, { ...extra, json: placed, index } as unknown as T);
    this.#move(
      map === (this.#nodes as unknown) ? "nodes" : map === (this.#services as unknown) ? "services" : "checks",
    );
    return placed;
  }

  #putNode(given: Json): Json {
    const { ModifyIndex: _, CreateIndex: __, ...rest } = given;
    const json = { ...NODE, TaggedAddresses: null, Meta: null, ID: "", ...rest, Datacenter: "dc1" };
    return this.#place(this.#nodes, String(given["Node"]).toLowerCase(), json, {});
  }

  #putService(node: string, given: Json): Json {
    const json = { ...SERVICE, Tags: [], Meta: null, Address: "", TaggedAddresses: undefined, ...given };
    return this.#place(this.#services, `${node.toLowerCase()}\n${given["ID"]}`, json, { node });
  }

  #putCheck(given: Json): Json {
    const node = String(given["Node"]);
    const service = this.#services.get(`${node.toLowerCase()}\n${given["ServiceID"] ?? ""}`)?.json;
    const json = {
      ...CHECK,
      Output: "",
      Notes: "",
      ServiceID: "",
      ...given,
      ServiceName: service?.["Service"] ?? "",
      ServiceTags: service?.["Tags"] ?? [],
    };
    return this.#place(this.#checks, `${node.toLowerCase()}\n${given["CheckID"]}`, json, { node });
  }

  /** As an administrator or another program would do it. */
  register(node: string, address: string, service?: Json, checks: readonly Json[] = []): void {
    this.#putNode({ Node: node, Address: address });
    if (service !== undefined) this.#putService(node, service);
    for (const check of checks) this.#putCheck({ Node: node, ...check });
  }

  deregister(node: string, serviceId?: string): void {
    const at = node.toLowerCase();
    if (serviceId === undefined) this.#nodes.delete(at);
    for (const [key, { json }] of this.#checks)
      if (key.startsWith(`${at}\n`) && (serviceId === undefined || json["ServiceID"] === serviceId))
        this.#checks.delete(key);
    for (const key of this.#services.keys())
      if (key.startsWith(`${at}\n`) && (serviceId === undefined || key === `${at}\n${serviceId}`))
        this.#services.delete(key);
    this.#move("nodes", "services", "checks");
  }

  /** What stands in the catalog. */
  node(name: string): Json | undefined {
    return this.#nodes.get(name.toLowerCase())?.json;
  }
  service(node: string, id: string): Json | undefined {
    return this.#services.get(`${node.toLowerCase()}\n${id}`)?.json;
  }
  check(node: string, id: string): Json | undefined {
    return this.#checks.get(`${node.toLowerCase()}\n${id}`)?.json;
  }
  get index(): number {
    return this.#index;
  }
  /** How many blocking queries wait. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** As the leader does: a node with serfHealth that is no member is taken out. */
  #reconcile(): void {
    for (const { json } of [...this.#checks.values()])
      if (json["CheckID"] === "serfHealth" && json["Node"] !== "alpha") this.deregister(String(json["Node"]));
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "/", "http://consul");
    const path = decodeURIComponent(url.pathname);
    const query = url.searchParams;
    const what = `${request.method} ${path.split("/").slice(0, 4).join("/")}`;
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks);
    const send = (status: number, value: unknown, index?: number): void => {
      const text = typeof value === "string" ? value : JSON.stringify(value);
      response.writeHead(status, {
        Vary: "Accept-Encoding",
        "X-Consul-Default-Acl-Policy": "allow",
        "Content-Type": typeof value === "string" ? "text/plain; charset=utf-8" : "application/json",
        ...(index === undefined
          ? {}
          : {
              "X-Consul-Index": String(index),
              "X-Consul-Knownleader": "true",
              "X-Consul-Lastcontact": "0",
              "X-Consul-Query-Backend": "blocking-query",
            }),
      });
      response.end(text);
    };
    const block = async (index: () => number): Promise<void> => {
      const after = Number(query.get("index") ?? 0);
      const end = Date.now() + Number.parseInt(query.get("wait") ?? "300", 10) * 1000;
      const epoch = this.#epoch;
      while (
        epoch === this.#epoch &&
        after > 0 &&
        index() <= after &&
        Date.now() < end &&
        this.#server !== undefined &&
        !response.destroyed
      )
        await new Promise<void>((resolve) => {
          const wake = (): void => {
            clearTimeout(timer);
            this.#waiting.delete(wake);
            resolve();
          };
          const timer = setTimeout(wake, Math.min(1000, end - Date.now()));
          this.#waiting.add(wake);
        });
    };
    const answer = async (index: () => number, value: () => unknown): Promise<void> => {
      await block(index);
      send(200, value(), index());
    };
    const tables = this.#tables;
    try {
      if (request.method === "GET" && path === "/v1/catalog/nodes")
        return await answer(
          () => tables.nodes,
          () => [...this.#nodes.values()].map(({ json }) => json),
        );
      if (request.method === "GET" && path === "/v1/catalog/services")
        return await answer(
          () => tables.services,
          () => {
            const found: Record<string, string[]> = {};
            for (const { json } of this.#services.values()) {
              const tags = new Set([
                ...(found[String(json["Service"])] ?? []),
                ...((json["Tags"] as string[] | null) ?? []),
              ]);
              found[String(json["Service"])] = [...tags].sort();
            }
            return found;
          },
        );
      if (request.method === "GET" && path === "/v1/health/state/any")
        return await answer(
          () => tables.checks,
          () => [...this.#checks.values()].map(({ json }) => json),
        );
      if (request.method === "GET" && path.startsWith("/v1/health/service/"))
        return await answer(
          () => Math.max(tables.services, tables.checks, tables.nodes),
          () => this.#residents(path.slice("/v1/health/service/".length), query.has("passing")),
        );
      if (path.startsWith("/v1/kv/"))
        return await this.#keys(request.method ?? "", path.slice(7), query, body, send, block);
      if (request.method === "PUT" && path === "/v1/session/create") {
        const given = JSON.parse(body.toString() || "{}") as Json;
        if (given["Node"] !== undefined && this.node(String(given["Node"])) === undefined)
          return send(500, "Missing node registration");
        const id = crypto.randomUUID();
        this.#sessions.set(id, { json: { ...given, ID: id }, ttlMs: this.#sessionMs });
        this.#renew(id);
        return send(200, { ID: id });
      }
      if (request.method === "PUT" && path.startsWith("/v1/session/renew/")) {
        const id = path.slice("/v1/session/renew/".length);
        if (!this.#sessions.has(id)) return send(404, `Session id '${id}' not found`);
        this.#renew(id);
        return send(200, [this.#sessions.get(id)?.json]);
      }
      if (request.method === "PUT" && path === "/v1/txn")
        return this.#transact(JSON.parse(body.toString()) as Json[], send);
      this.strange.push(`${request.method} ${path}`);
      send(404, "Invalid URL path: not a recognized HTTP API endpoint\n");
    } catch (error) {
      if (!response.headersSent) send(500, String(error));
    }
  }

  #residents(service: string, passing: boolean): unknown[] {
    const found: unknown[] = [];
    for (const { node, json } of this.#services.values()) {
      if (String(json["Service"]).toLowerCase() !== service.toLowerCase()) continue;
      const checks = [...this.#checks.values()].filter(
        (check) =>
          check.node.toLowerCase() === node.toLowerCase() &&
          (check.json["ServiceID"] === "" || check.json["ServiceID"] === json["ID"]),
      );
      if (passing && checks.some((check) => check.json["Status"] !== "passing")) continue;
      found.push({ Node: this.node(node), Service: json, Checks: checks.map((check) => check.json) });
    }
    return found;
  }

  #renew(id: string): void {
    const session = this.#sessions.get(id);
    if (session === undefined) return;
    clearTimeout(session.timer);
    session.timer = setTimeout(() => {
      this.#sessions.delete(id);
      for (const [key, { json }] of this.#kv) if (json["Session"] === id) this.#kv.delete(key);
      this.#move("kv");
    }, session.ttlMs);
  }

  async #keys(
    method: string,
    key: string,
    query: URLSearchParams,
    body: Buffer,
    send: (status: number, value: unknown, index?: number) => void,
    block: (index: () => number) => Promise<void>,
  ): Promise<void> {
    if (method === "GET") {
      await block(() => this.#tables.kv);
      const found = [...this.#kv].filter(([each]) => (query.has("recurse") ? each.startsWith(key) : each === key));
      if (found.length === 0) return send(404, "", this.#tables.kv);
      if (query.has("raw")) return send(200, Buffer.from(String(found[0]?.[1].json["Value"]), "base64").toString());
      return send(
        200,
        found.map(([, { json }]) => json),
        this.#tables.kv,
      );
    }
    const before = this.#kv.get(key)?.json;
    if (method === "DELETE") {
      this.#kv.delete(key);
      this.#move("kv");
      return send(200, true);
    }
    const holder = query.get("acquire");
    if (holder !== null) {
      if (!this.#sessions.has(holder)) return send(500, `raft apply failed: invalid session "${holder}"`);
      if (before?.["Session"] !== undefined && before["Session"] !== holder) return send(200, false);
    }
    const index = this.#move("kv");
    const session = holder ?? before?.["Session"];
    this.#kv.set(key, {
      index,
      json: {
        ...PAIR,
        Key: key,
        Value: body.toString("base64"),
        ...(session === undefined ? {} : { Session: session }),
        CreateIndex: before?.["CreateIndex"] ?? index,
        ModifyIndex: index,
      },
    });
    send(200, true);
  }

  /** All or nothing, with Consul's refusals. */
  #transact(operations: readonly Json[], send: (status: number, value: unknown) => void): void {
    const errors: { OpIndex: number; What: string }[] = [];
    const apply: (() => Json | undefined)[] = [];
    const nodes = new Set(this.#nodes.keys());
    const plan = (operation: Json): string | undefined => {
      const [kind = "", spec] = Object.entries(operation)[0] as [string, Json];
      const json = spec[kind] as Json;
      const unknown = Object.keys(json).filter((name) => KNOWN[kind]?.has(name) !== true);
      if (unknown.length > 0) return `unknown field ${unknown.join(", ")}`;
      const node = String(kind === "Service" ? spec["Node"] : json["Node"]);
      const id = kind === "Node" ? "" : `\n${json[kind === "Service" ? "ID" : "CheckID"]}`;
      const held = (kind === "Node" ? this.#nodes : kind === "Service" ? this.#services : this.#checks).get(
        node.toLowerCase() + id,
      );
      const verb = String(spec["Verb"]);
      const name = kind.toLowerCase();
      if (!["set", "cas", "delete", "delete-cas"].includes(verb)) return `unknown ${name} operation: ${verb}`;
      const about = kind === "Node" ? `node "${node}"` : `${name} "${id.slice(1)}" on node "${node}"`;
      if (verb.endsWith("cas") && (held?.index ?? 0) !== (json["ModifyIndex"] ?? 0))
        return `failed to ${verb === "cas" ? "set" : "delete"} ${about}, index is stale`;
      if (kind === "Service" && (json["Service"] ?? "") === "")
        return "Must provide service name (Service.Service) when service ID is provided";
      if (verb.startsWith("delete")) {
        apply.push(() => {
          if (kind === "Node") this.deregister(node);
          else if (kind === "Service") this.deregister(node, id.slice(1));
          else {
            this.#checks.delete(node.toLowerCase() + id);
            this.#move("checks");
          }
          return undefined;
        });
        return undefined;
      }
      if (kind === "Node") nodes.add(node.toLowerCase());
      else if (!nodes.has(node.toLowerCase())) return "Missing node registration";
      const { ModifyIndex: _, CreateIndex: __, ...given } = json;
      apply.push(() => ({
        [kind]:
          kind === "Node"
            ? this.#putNode(given)
            : kind === "Service"
              ? this.#putService(node, given)
              : this.#putCheck(given),
      }));
      return undefined;
    };
    for (const [OpIndex, operation] of operations.entries()) {
      const What = plan(operation);
      if (What !== undefined) errors.push({ OpIndex, What });
    }
    if (errors.length > 0) {
      send(409, { Results: null, Errors: errors });
      return;
    }
    const results = apply.flatMap((each) => each() ?? []);
    this.#reconcile();
    send(200, { Results: results, Errors: null });
  }
}
