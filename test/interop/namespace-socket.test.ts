// Sockets opened in another network namespace: they are reached there and only there, nobody who was let in is turned away, and the namespace is let go of.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { connect, type Server } from "node:net";
import { afterEach, describe, expect, it, vi } from "vitest";
import { codeOf, TrilithError } from "../../src/base/error.ts";
import { type NamespaceSocket, type OpenedSocket, systemNamespaceSockets } from "../../src/base/namespace-socket.ts";
import { systemTcp } from "../../src/base/tcp.ts";
import { at, serve, testConnector } from "../support/connect.ts";
import { haveLan, type Namespace, namespace } from "../support/lan.ts";
import { eventually, freePort } from "../support/peers.ts";
import { runToEnd } from "../support/program.ts";

const present = await haveLan();
const PORT = 6379;
const V4: NamespaceSocket = { protocol: "tcp", host: "127.0.0.1", port: PORT };
const V6: NamespaceSocket = { protocol: "tcp", host: "::1", port: PORT };
const UDP: NamespaceSocket = { protocol: "udp", host: "127.0.0.1", port: 53 };

/** Says hello to each connection that said something, and closes it; answers datagrams with their own text. */
function greet(opened: OpenedSocket | TrilithError | undefined): void {
  if (opened === undefined || opened instanceof TrilithError) throw opened ?? new Error("nothing was opened");
  // As a proxy does: nothing of what the client says may have been read before.
  if (opened.protocol === "tcp")
    void systemTcp.listen(opened.server, (connection) => {
      const socket = connection.take({
        buffer: () => Buffer.alloc(100),
        read(bytes, buffer) {
          socket?.end(bytes > 0 ? `hello ${Buffer.from(buffer).toString("latin1", 0, bytes)}` : "");
          return true;
        },
      });
      socket?.on("error", () => {});
      socket?.resume();
    });
  else opened.socket.on("message", (text, from) => opened.socket.send(text, from.port, from.address));
}

/** A program that connects again and again until it was greeted `times` times; prints how often it was let in without a greeting. */
const KNOCK = `
const { connect } = require("node:net");
const [host, port, times] = process.argv.slice(1);
let greeted = 0, broken = 0;
(function knock() {
  let text = "", open = false;
  const socket = connect({ host, port: Number(port) });
  socket.on("connect", () => { open = true; socket.write("me"); });
  socket.on("data", (chunk) => { text += chunk; });
  socket.on("error", () => {});
  socket.on("close", () => {
    if (text === "hello me") greeted++;
    else if (open) broken++;
    if (greeted < Number(times) && broken === 0) return void setImmediate(knock);
    console.log(broken);
  });
})();`;

const ASK = `
const socket = require("node:dgram").createSocket("udp4");
const again = setInterval(() => socket.send("who", 53, "127.0.0.1"), 100);
socket.send("who", 53, "127.0.0.1");
socket.on("message", (text) => { clearInterval(again); socket.close(); console.log(String(text)); });`;

const connections = (server: Server): Promise<boolean> =>
  new Promise((resolve, reject) =>
    server.getConnections((error, count) => (error === null ? resolve(count > 0) : reject(error))),
  );

describe.runIf(present)("sockets in another network namespace", () => {
  const opened: OpenedSocket[] = [];
  const spaces: Namespace[] = [];
  const make = async (): Promise<Namespace> => {
    const made = await namespace();
    spaces.push(made);
    return made;
  };
  const open = async (
    at: Namespace,
    ...wanted: NamespaceSocket[]
  ): Promise<readonly (OpenedSocket | TrilithError)[]> => {
    const from = { pid: at.pid, namespace: await systemNamespaceSockets.namespaceOf(at.pid) };
    const answers = await systemNamespaceSockets.open(from, wanted);
    opened.push(...answers.filter((one): one is OpenedSocket => !(one instanceof TrilithError)));
    return answers;
  };
  const close = (): void => {
    for (const one of opened.splice(0)) one.protocol === "tcp" ? one.server.close() : one.socket.close();
  };
  const inside = (at: Namespace, program: string, ...words: string[]): Promise<string> =>
    runToEnd(at.within(process.execPath, "-e", program, ...words)).then(({ out, err }) => out.trim() || err);
  afterEach(async () => {
    close();
    vi.unstubAllEnvs();
    for (const one of spaces.splice(0)) await one.stop();
  });

  it("are reached by IPv4, IPv6 and UDP from there, and not from here", async () => {
    const there = await make();
    for (const one of await open(there, V4, V6, UDP)) greet(one);
    expect(await inside(there, KNOCK, "127.0.0.1", `${PORT}`, "3")).toBe("0");
    expect(await inside(there, KNOCK, "::1", `${PORT}`, "3")).toBe("0");
    expect(await inside(there, ASK)).toBe("who");
    const here = connect({ host: "127.0.0.1", port: PORT });
    await expect(once(here, "connect")).rejects.toThrow(/ECONNREFUSED/);
  });

  it("of this process's own namespace need no rights and no nsenter", async () => {
    vi.stubEnv("PATH", "/nowhere");
    const own = { pid: process.pid, namespace: await systemNamespaceSockets.namespaceOf(process.pid) };
    const port = await freePort();
    const [answer] = await systemNamespaceSockets.open(own, [{ protocol: "tcp", host: "127.0.0.1", port }]);
    greet(answer);
    opened.push(answer as OpenedSocket);
    const socket = connect({ host: "127.0.0.1", port });
    socket.write("you");
    const [text] = await once(socket, "data");
    expect(String(text)).toBe("hello you");
  });

  it("turn nobody away who connects while they are handed over", async () => {
    const there = await make();
    const knocking = [1, 2, 3].map(() => inside(there, KNOCK, "127.0.0.1", `${PORT}`, "20"));
    // While this process is busy the later ones listen in the child, which hands over one at a time.
    const busy = setInterval(() => {
      for (const endMs = performance.now() + 150; performance.now() < endMs; );
    }, 1);
    const [, , answer] = await open(there, V6, UDP, V4).finally(() => clearInterval(busy));
    // What connects before anybody listens is kept.
    await new Promise((resolve) => setTimeout(resolve, 20));
    greet(answer);
    expect(await Promise.all(knocking)).toEqual(["0", "0", "0"]);
  });

  it("keep who was let in for the proxy that listens later", async () => {
    const there = await make();
    const web = await serve((socket) => void socket.once("data", (text) => socket.end(`hello ${text}`)));
    const { connector } = testConnector([at(web.port)]);
    const [answer] = await open(there, V4);
    if (answer === undefined || answer instanceof TrilithError || answer.protocol !== "tcp")
      throw new Error("not opened");
    const knocking = inside(there, KNOCK, "127.0.0.1", `${PORT}`, "3");
    await eventually(
      "somebody was let in",
      () => answer.server.listenerCount("connection") === 1 && connections(answer.server),
    );
    await connector.proxy({ server: answer.server }, { service: "web" });
    expect(await knocking).toBe("0");
    await connector.stop(0);
    await web.close();
  });

  it("say which one is taken, and which address is missing, beside those that work", async () => {
    const there = await make();
    await there.run("sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6");
    greet((await open(there, V4))[0]);
    const [taken, missing, fine] = await open(there, V4, V6, UDP);
    expect(codeOf(taken)).toBe("address-in-use");
    expect(codeOf(missing)).toBe("unsupported");
    expect((missing as Error).message).toContain("there is no address ::1");
    greet(fine);
  });

  it("are refused with the reason: no such process, another namespace by now, no nsenter, no rights", async () => {
    const there = await make();
    const from = { pid: there.pid, namespace: await systemNamespaceSockets.namespaceOf(there.pid) };
    const code = (what: Promise<unknown>): Promise<string> =>
      what.then(
        () => "opened",
        (error) => `${codeOf(error)}: ${error.message}`,
      );
    expect(await code(systemNamespaceSockets.open({ ...from, namespace: "net:[1]" }, [V4]))).toMatch(
      /^not-found: .*not in net:\[1\]/,
    );
    vi.stubEnv("PATH", "/nowhere");
    expect(await code(systemNamespaceSockets.open(from, [V4]))).toMatch(/^unsupported: .*nsenter is missing/);
    vi.unstubAllEnvs();
    await there.stop();
    expect(await code(systemNamespaceSockets.namespaceOf(there.pid))).toMatch(/^not-found/);
    expect(await code(systemNamespaceSockets.open(from, [V4]))).toMatch(/^not-found/);
  });

  it("end with the signal, and nothing of theirs is left", async () => {
    const there = await make();
    const from = { pid: there.pid, namespace: await systemNamespaceSockets.namespaceOf(there.pid) };
    const stop = new AbortController();
    const opening = systemNamespaceSockets.open(from, [V4], stop.signal);
    stop.abort(new TrilithError("stopped", "enough"));
    await expect(opening).rejects.toThrow("enough");
    // The port is free again.
    greet((await open(there, V4))[0]);
  });

  it("let go of the namespace when they are closed", async () => {
    const there = await make();
    const link = `tns${process.pid % 100000}`;
    const made = await runToEnd([
      "ip",
      "link",
      "add",
      link,
      "type",
      "veth",
      "peer",
      "name",
      "x",
      "netns",
      `${there.pid}`,
    ]);
    expect(made).toMatchObject({ exitCode: 0 });
    for (const one of await open(there, V4, V6, UDP)) greet(one);
    const exists = async (): Promise<boolean> => (await runToEnd(["ip", "link", "show", link])).exitCode === 0;
    await there.stop();
    // A cable's other end goes with its namespace, which lives as long as a socket of ours.
    expect(await exists()).toBe(true);
    close();
    await eventually("the namespace is gone", async () => !(await exists()));
  });

  it("need rights, and say so", async () => {
    const there = await make();
    const script = `
      const { systemNamespaceSockets } = await import(${JSON.stringify(new URL("../../src/base/namespace-socket.ts", import.meta.url).href)});
      process.setuid(65534);
      await systemNamespaceSockets.namespaceOf(${there.pid}).then(console.log, (error) => console.log(error.code, error.message));`;
    const child = spawn(process.execPath, ["--import", "tsx", "--input-type=module", "-e", script], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const [out] = await once(child.stdout, "data");
    expect(String(out)).toMatch(/^not-allowed .*runs as root, or with CAP_SYS_ADMIN/);
  });
});
