// Small faithful models of Minidisc's Go and Python implementations, faults included: what stands in for them in mixed fleets.
import { createServer as createHttpServer, type IncomingMessage, request, type Server } from "node:http";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

const PORT = 28_004;

export interface ModelService {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly addrPort: string;
}

/** One process of an original implementation. */
export interface Model {
  readonly role: () => "leader" | "delegate" | "dead";
  start(): Promise<void>;
  stop(): void;
}

interface Answered {
  readonly status: number;
  readonly body: string;
}

/** One request on a connection of its own. Rejects for any transport error, and after `timeoutMs`. */
function ask(
  at: string,
  path: string,
  timeoutMs: number,
  body?: string,
  headers: Record<string, string> = {},
): Promise<Answered> {
  return new Promise((resolve, reject) => {
    const sent = request(
      `http://${at}${path}`,
      {
        agent: false,
        method: body === undefined ? "GET" : "POST",
        headers: body === undefined ? headers : { "Content-Length": String(Buffer.byteLength(body)), ...headers },
        ...(timeoutMs === 0 ? {} : { signal: AbortSignal.timeout(timeoutMs) }),
      },
      (response) => {
        const chunks: Buffer[] = [];
        response.on("data", (chunk: Buffer) => chunks.push(chunk));
        response.on("error", reject);
        response.on("end", () => resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString() }));
      },
    );
    sent.on("error", reject);
    sent.end(body);
  });
}

const bound = (server: Server | ReturnType<typeof createServer>, host: string, port: number): Promise<number> =>
  new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, () => {
      server.off("error", reject);
      resolve((server.address() as AddressInfo).port);
    });
  });

const GO = { "User-Agent": "Go-http-client/1.1", "Accept-Encoding": "gzip" };

/** Go: drops a delegate for good after any error, skips the next one then, and knows only that *some* leader lives. */
export class GoModel implements Model {
  readonly #ip: string;
  readonly #services: readonly ModelService[];
  #delegates: string[] = [];
  #server: Server | undefined;
  #at = "";
  #role: "leader" | "delegate" | "dead" = "dead";
  #over = false;

  constructor(ip: string, services: readonly ModelService[]) {
    this.#ip = ip;
    this.#services = services;
  }

  role = (): "leader" | "delegate" | "dead" => this.#role;

  async start(): Promise<void> {
    if (await this.#begin()) void this.#watch();
    else void this.#retry();
  }

  stop(): void {
    this.#over = true;
    this.#close();
  }

  #close(): void {
    this.#role = "dead";
    this.#server?.close();
    this.#server?.closeAllConnections();
    this.#server = undefined;
  }

  async #retry(): Promise<void> {
    await sleep(10_000);
    if (this.#over) return;
    if (await this.#begin()) void this.#watch();
    else void this.#retry();
  }

  /** Leads or becomes a delegate. False after a failed try; its listener is leaked then, as Go's is. */
  async #begin(): Promise<boolean> {
    const server = createHttpServer((request, response) => void this.#answer(request, response));
    this.#server = server;
    this.#delegates = [];
    try {
      await bound(server, this.#ip, PORT);
      this.#role = "leader";
      return true;
    } catch {
      const port = await bound(server, this.#ip, 0);
      this.#at = `${this.#ip}:${port}`;
    }
    const body = JSON.stringify({ addrPort: this.#at });
    const headers = { ...GO, "Content-Type": "application/json" };
    const reply = await ask(`${this.#ip}:${PORT}`, "/add-delegate", 1_000, body, headers).catch(() => undefined);
    if (reply?.status !== 200) return false;
    this.#role = "delegate";
    return true;
  }

  async #watch(): Promise<void> {
    while (!this.#over && this.#role === "delegate") {
      await sleep(5_000);
      if (this.#over) return;
      try {
        await ask(`${this.#ip}:${PORT}`, "/ping", 1_000, undefined, GO);
      } catch {
        this.#close();
        if (!(await this.#begin())) return void this.#retry();
      }
    }
  }

  async #list(): Promise<readonly unknown[]> {
    const all: unknown[] = [...this.#services];
    // Ranging over a slice that is shortened on the way: the one behind a dead delegate is skipped.
    for (let i = 0; i < this.#delegates.length; i++) {
      const delegate = this.#delegates[i] as string;
      try {
        const { body } = await ask(delegate, "/services", 2_000, undefined, GO);
        all.push(...(JSON.parse(body) as unknown[]));
      } catch {
        this.#delegates = this.#delegates.filter((each) => each !== delegate);
      }
    }
    return all;
  }

  async #answer(request: IncomingMessage, response: import("node:http").ServerResponse): Promise<void> {
    const path = (request.url ?? "/").split("?")[0];
    const end = (status: number): void => void response.writeHead(status, { "Content-Length": 0 }).end();
    if (path === "/ping") return end(200);
    if (path === "/services") {
      if (request.method !== "GET") return end(405);
      const text = JSON.stringify(await this.#list());
      response.writeHead(200, {
        "Content-Type": "application/json; charset=utf-8",
        "Content-Length": Buffer.byteLength(text),
      });
      return void response.end(text);
    }
    if (path !== "/add-delegate") return void response.writeHead(404).end("404 page not found\n");
    if (request.method !== "POST") return end(405);
    const chunks: Buffer[] = [];
    for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
    let told: unknown;
    try {
      told = (JSON.parse(Buffer.concat(chunks).toString()) as { addrPort?: unknown }).addrPort;
    } catch {
      return end(400);
    }
    const [, ip, port] = /^([\d.]+):(\d+)$/.exec(String(told)) ?? [];
    if (port === undefined || Number(port) > 65_535) return end(400);
    if (ip !== this.#ip) return end(403);
    if (!this.#delegates.includes(String(told))) this.#delegates.push(String(told));
    end(200);
  }
}

/** Python: one connection after another, duplicates kept, one bad delegate breaks every reply, no timeouts towards delegates. */
export class PythonModel implements Model {
  readonly #ip: string;
  readonly #services: readonly ModelService[];
  #delegates: string[] = [];
  #server: ReturnType<typeof createServer> | undefined;
  readonly #sockets = new Set<Socket>();
  #at = "";
  #role: "leader" | "delegate" | "dead" = "dead";
  #over = false;
  #turn: Promise<void> = Promise.resolve();

  constructor(ip: string, services: readonly ModelService[]) {
    this.#ip = ip;
    this.#services = services;
  }

  role = (): "leader" | "delegate" | "dead" => this.#role;

  async start(): Promise<void> {
    if (await this.#begin()) void this.#watch();
    else void this.#retry();
  }

  stop(): void {
    this.#over = true;
    this.#close();
  }

  #close(): void {
    this.#role = "dead";
    this.#server?.close();
    for (const socket of this.#sockets) socket.destroy();
    this.#server = undefined;
  }

  async #retry(): Promise<void> {
    await sleep(10_000);
    if (this.#over) return;
    this.#close();
    if (await this.#begin()) void this.#watch();
    else void this.#retry();
  }

  async #begin(): Promise<boolean> {
    const server = createServer((socket) => {
      this.#sockets.add(socket);
      socket.once("close", () => this.#sockets.delete(socket));
      socket.on("error", () => {});
      // Single-threaded: nobody is answered before the connection in front has ended.
      this.#turn = this.#turn.then(() => this.#serve(socket)).catch(() => void socket.destroy());
    });
    this.#server = server;
    this.#delegates = [];
    this.#turn = Promise.resolve();
    try {
      await bound(server, this.#ip, PORT);
      this.#role = "leader";
      return true;
    } catch {
      this.#at = `${this.#ip}:${await bound(server, this.#ip, 0)}`;
    }
    const body = JSON.stringify({ addrPort: this.#at }).replace(":", ": ");
    const reply = await ask(`${this.#ip}:${PORT}`, "/add-delegate", 2_000, body).catch(() => undefined);
    if (reply?.status !== 200) return false;
    this.#role = "delegate";
    return true;
  }

  async #watch(): Promise<void> {
    while (!this.#over && this.#role === "delegate") {
      try {
        await ask(`${this.#ip}:${PORT}`, "/ping", 500);
      } catch {
        this.#close();
        if (!(await this.#begin())) return void this.#retry();
        continue;
      }
      await sleep(5_000);
    }
  }

  async #serve(socket: Socket): Promise<void> {
    // Its client may have given up while it waited for its turn.
    if (socket.destroyed) return;
    const text = await new Promise<string>((resolve) => {
      let got = "";
      socket.on("close", () => resolve(got));
      socket.on("data", (chunk: Buffer) => {
        got += chunk.toString("latin1");
        const head = got.indexOf("\r\n\r\n");
        const length = Number(/^content-length: *(\d+)/im.exec(got.slice(0, head))?.[1] ?? 0);
        if (head >= 0 && got.length >= head + 4 + length) resolve(got);
      });
    });
    const [line = "", ...rest] = text.split("\r\n");
    const [method, path] = line.split(" ");
    const reply = (status: string, body = "", type = ""): void => {
      if (socket.destroyed) return;
      const head = `HTTP/1.0 ${status}\r\nServer: BaseHTTP/0.6 Python/3.11.7\r\n${type === "" ? "" : `Content-type: ${type}\r\n`}\r\n`;
      socket.end(head + body);
    };
    if (method === "GET" && path === "/ping") return reply("200 OK");
    if (method === "GET" && path === "/services") {
      const all: unknown[] = [...this.#services];
      for (const delegate of [...this.#delegates]) {
        try {
          const { body } = await ask(delegate, "/services", 0);
          for (const each of JSON.parse(body) as ModelService[]) all.push({ ...each, labels: { ...each.labels } });
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== "ECONNREFUSED") return void socket.destroy();
          this.#delegates.splice(this.#delegates.indexOf(delegate), 1);
        }
      }
      return reply("200 OK", JSON.stringify(all), "application/json");
    }
    if (method === "POST" && path === "/add-delegate") {
      let told: { addrPort?: string };
      try {
        told = JSON.parse(rest.at(-1) ?? "") as typeof told;
      } catch {
        return reply("400 Bad payload");
      }
      if (told.addrPort === undefined) return void socket.destroy();
      this.#delegates.push(told.addrPort);
      return reply("200 OK");
    }
    reply(method === "GET" || method === "POST" ? "404 Path not found" : "501 Unsupported method");
  }
}
