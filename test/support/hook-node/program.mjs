// A program that knows nothing of Trilith: does what its arguments say with node:net, http, https, fetch, dns and dgram, and prints what came of it as JSON.
import cluster from "node:cluster";
import dgram from "node:dgram";
import dns, { lookup as named } from "node:dns";
import { lookup as promised } from "node:dns/promises";
import { once } from "node:events";
import http from "node:http";
import http2 from "node:http2";
import https from "node:https";
import { createRequire } from "node:module";
import net, { connect as namedConnect } from "node:net";
import tls from "node:tls";
import { promisify } from "node:util";
import { Worker } from "node:worker_threads";

const [what, host = "web.service.consul", ...more] = process.argv.slice(2);
const require = createRequire(import.meta.url);

const read = async (response) => {
  let text = "";
  for await (const chunk of response) text += chunk;
  return text;
};
const get = (of, options) =>
  new Promise((resolve, reject) => {
    of.get(options, (response) => read(response).then(resolve, reject)).on("error", reject);
  });

const deeds = {
  async everything() {
    const ca = more[0] === undefined ? undefined : require("node:fs").readFileSync(more[0]);
    const seen = {
      lookup: (await promisify(dns.lookup)(host)).address,
      named: await promisify(named)(host, { all: true }),
      promised: (await promised(host, 6)).address,
      common: (await promisify(require("node:dns").lookup)(host, 4)).address,
      http: await get(http, { host, path: "/" }),
      httpNoAgent: await get(http, { host, agent: false }),
      httpAgent: await get(http, { host, agent: new http.Agent({ keepAlive: true, autoSelectFamily: false }) }),
      fetch: await (await fetch(`http://${host}/`)).text(),
      post: await (await fetch(`http://${host}/`, { method: "POST", body: "body" })).text(),
    };
    const socket = namedConnect({ host, port: 1 });
    await once(socket, "connect");
    seen.remote = socket.remoteAddress;
    socket.destroy();
    const byAddress = new net.Socket();
    byAddress.connect(80, seen.lookup);
    await once(byAddress, "connect");
    byAddress.destroy();
    if (ca === undefined) return seen;
    const secure = `secure.service.consul`;
    seen.https = await get(https, { host: secure, ca });
    const other = tls.connect({ host: secure, port: 443, ca, ALPNProtocols: ["h2"] });
    await once(other, "secureConnect");
    seen.tls = [other.authorized, other.alpnProtocol];
    other.destroy();
    const session = http2.connect(`https://${secure}`, { ca });
    const stream = session.request({ ":path": "/" });
    seen.http2 = await read(stream);
    session.close();
    return seen;
  },
  async datagrams() {
    const socket = dgram.createSocket("udp4");
    socket.send("ping", 53, host);
    const [answer] = await once(socket, "message");
    socket.close();
    return String(answer);
  },
  async fetch() {
    return await (await fetch(`http://${host}/`)).text();
  },
  /** By node:net alone. */
  async connected() {
    const socket = net.connect({ host, port: 80, timeout: 5_000 });
    socket.end(`GET / HTTP/1.0\r\nHost: ${host}\r\n\r\n`);
    return (await read(socket.setEncoding("utf8"))).split("\r\n\r\n")[1];
  },
  async secured() {
    return await get(https, {
      host: "secure.service.consul",
      ca: require("node:fs").readFileSync(more[0]),
      agent: false,
    });
  },
  async resolved() {
    return await promised(host).then(
      ({ address }) => address,
      ({ code }) => code,
    );
  },
  async hang() {
    const before = performance.now();
    const seen = [await get(http, { host, agent: false }), performance.now() - before];
    // The one that did not answer is not asked again at once. The quickest of some counts: the machine may have other work.
    const took = [];
    for (let i = 0; i < 3; i++) {
      const then = performance.now();
      await get(http, { host, agent: false });
      took.push(performance.now() - then);
    }
    return [...seen, Math.min(...took)];
  },
  /** Keeps connecting anew, so many at a time, until its input ends. */
  async load() {
    const counts = {};
    const failures = [];
    let over = false;
    process.stdin.resume().once("end", () => {
      over = true;
    });
    const one = async () => {
      while (!over) {
        try {
          const text = await get(http, { host, agent: false, timeout: 5_000 });
          counts[text] = (counts[text] ?? 0) + 1;
        } catch (error) {
          failures.push(String(error));
        }
      }
    };
    process.stdout.write("started\n");
    await Promise.all(Array.from({ length: Number(more[0]) }, one));
    return { counts, failures };
  },
  /** One request for each line of input. */
  async lines() {
    process.stdin.setEncoding("utf8");
    for await (const _ of process.stdin) {
      const answer = await get(http, { host, agent: false }).catch((error) => error.code);
      process.stdout.write(`${JSON.stringify(answer)}\n`);
    }
    return "end";
  },
  async worker() {
    const worker = new Worker(new URL(import.meta.url), { argv: ["fetch", host], stdout: true });
    const text = await read(worker.stdout);
    return JSON.parse(text);
  },
  async cluster() {
    cluster.setupPrimary({ args: ["fetch", host], silent: true });
    const worker = cluster.fork();
    const text = await read(worker.process.stdout);
    return JSON.parse(text);
  },
  async child() {
    const { execFile } = require("node:child_process");
    const { stdout } = await promisify(execFile)(process.execPath, [process.argv[1], "fetch", host]);
    return JSON.parse(stdout);
  },
  /** What a program sees that never asks for a service. */
  async foreign() {
    const failed = (options) =>
      once(net.connect(options), "connect").then(
        () => "connected",
        (error) => [error.stack, error.code, error.address, error.port],
      );
    const port = Number(more[0]);
    return [
      await failed({ host: "127.0.0.1", port: 1 }),
      await failed({ host: "nowhere.invalid", port: 1 }),
      await failed({ path: "/nowhere" }),
      await get(http, { host: "127.0.0.1", port }),
      await promised("127.0.0.1"),
      process.getActiveResourcesInfo().filter((each) => !/Pipe|TTY|TCPSocket/.test(each)),
    ];
  },
};

const result = await deeds[what]();
process.stdout.write(`${JSON.stringify(result)}\n`);
if (cluster.isWorker) process.disconnect();
