// Minidisc's wire: the recorded requests to a leader get the recorded answers, the recorded answers are understood, and we ask as was recorded.
import { readdirSync, readFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../../src/base/clock.ts";
import { createHttp } from "../../src/base/http.ts";
import { systemNet } from "../../src/base/net.ts";
import { systemRandom } from "../../src/base/random.ts";
import { createLocalApi, readStatus, troubleOf } from "../../src/base/tailnet.ts";
import { createPeer, type Peer } from "../../src/protocols/minidisc/peer.ts";
import { type FakeTailscaled, fakeTailscaled, inside, runInTailnet } from "../support/minidisc.ts";
import { eventually, havePrograms, ownFolder } from "../support/peers.ts";

const golden = join(import.meta.dirname, "../golden/minidisc");
const ready = inside || (await havePrograms("unshare", "ip"));
const read = (path: string): string => readFileSync(join(golden, path), "latin1");

/** What counts of a reply: status, the headers that Go's server chose, the body. */
function meant(reply: string): object {
  const [head = "", ...rest] = reply.split("\r\n\r\n");
  const [line = "", ...headers] = head.split("\r\n");
  const picked = headers
    .map((each) => /^([^:]+): *(.*)$/.exec(each))
    .filter((each) => each !== null)
    .map(([, name = "", value = ""]) => [name.toLowerCase(), value] as const)
    .filter(([name]) => ["content-type", "content-length", "x-content-type-options"].includes(name));
  // Node answers an HTTP/1.0 request as an HTTP/1.1 server may [RFC9112-2.3]; Go says 1.0.
  return {
    status: line.replace(/^HTTP\/1\.[01] /, ""),
    headers: Object.fromEntries(picked),
    body: rest.join("\r\n\r\n"),
  };
}

function send(ip: string, bytes: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: ip, port: 28_004 }, () => socket.write(bytes, "latin1"));
    let got = "";
    // What is kept open after its reply has told everything.
    const quiet = setTimeout(() => socket.destroy(), 700);
    socket.on("data", (chunk: Buffer) => {
      got += chunk.toString("latin1");
    });
    socket.on("close", () => {
      clearTimeout(quiet);
      resolve(got);
    });
    socket.on("error", reject);
  });
}

const suite = inside ? describe : (): void => {};

(inside ? (): void => {} : describe.skipIf(!ready))("on a tailnet", () => {
  it("passes", () => runInTailnet(import.meta.filename, 170_000), 180_000);
});

suite("the wire", () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let tailscaled: FakeTailscaled;
  let peer: Peer;
  const http = createHttp();
  const machine = { clock: systemClock, random: systemRandom, net: systemNet, http, statusMs: 300 };

  beforeAll(async () => {
    folder = await ownFolder("minidisc-wire");
    tailscaled = await fakeTailscaled(join(folder.path, "sock"), { name: "mdnode1", ip: "100.64.0.1" });
    peer = createPeer({ ...machine, localApi: tailscaled.path });
    await peer.advertise([
      { name: "web", port: 8080, labels: { zone: "eu", env: "prod" } },
      { name: "db", port: 5432 },
    ]);
    await eventually("the leader", () => peer.state().role?.role === "leader");
  });
  afterAll(async () => {
    await peer.stop();
    await tailscaled.close();
    await http.close();
    await folder.remove();
  });

  const cases = readdirSync(join(golden, "wire/server-go"))
    .filter((name) => name.endsWith(".req"))
    .map((name) => name.slice(0, -4))
    // A new leader tells delegates of the one before by not answering their pings.
    .filter((name) => !name.startsWith("ping-"));

  it.each(cases)("%s is answered as by the Go server", async (name) => {
    const reply = await send("100.64.0.1", read(`wire/server-go/${name}.req`));
    expect(meant(reply)).toEqual(meant(read(`wire/server-go/${name}.resp`)));
  });

  it("answers pings as the Go server, once every delegate of a leader before has noticed", async () => {
    const pings = ["ping-get", "ping-head", "ping-post", "ping-delete", "ping-keepalive"];
    await eventually(
      "an answer",
      async () => (await send("100.64.0.1", read("wire/server-go/ping-get.req"))) !== "",
      20_000,
    );
    for (const name of pings) {
      const reply = await send("100.64.0.1", read(`wire/server-go/${name}.req`));
      expect(meant(reply), name).toEqual(meant(read(`wire/server-go/${name}.resp`)));
    }
  }, 25_000);

  it.each([
    ["GET /services%zz", 400],
    ["GET /%ff", 404],
    ["GET /%73ervices", 200],
    ["GET /services;x", 404],
    ["GET //ping", 404],
    ["GET http://other/services", 200],
    ["OPTIONS *", 200],
    ["GET *", 404],
    ["DELETE /services", 405],
    ["PATCH /add-delegate", 405],
    ["PROPFIND /nope", 404],
  ])("%s is answered with %i, as Go's net/http answers", async (line, status) => {
    const reply = await send("100.64.0.1", `${line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
    expect(reply).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
  });

  it("is no delegate of itself, and takes none from another host", async () => {
    const post = (body: string): Promise<string> =>
      send(
        "100.64.0.1",
        `POST /add-delegate HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`,
      );
    expect(await post('{"addrPort":"100.64.0.1:28004"}')).toMatch(/^HTTP\/1.1 403/);
    expect(await post('{"addrPort":"100.64.0.2:9000"}')).toMatch(/^HTTP\/1.1 403/);
  });

  it.each([
    ["go", "wire/server-go/services-get.resp", 'web 100.64.0.2:8080 {"env":"prod","zone":"eu"}, db 100.64.0.2:5432 {}'],
    [
      "python",
      "wire/server-py/services-get.resp",
      'web 100.64.0.2:9090 {"env":"prod","lang":"py"}, cache 100.64.0.2:6379 {}',
    ],
  ])("understands the recorded reply of %s", async (_, path, expected) => {
    const asked: string[] = [];
    const bytes = read(path).replaceAll("100.64.0.1:", "100.64.0.2:");
    const server = createServer((socket) => {
      socket.once("data", (chunk: Buffer) => {
        asked.push(chunk.toString("latin1"));
        socket.end(bytes, "latin1");
      });
    });
    await new Promise<void>((listening) => server.listen(28_004, "100.64.0.2", listening));
    tailscaled.peers = [{ name: "mdnode2", ip: "100.64.0.2" }];
    const guest = createPeer({ ...machine, localApi: tailscaled.path });
    try {
      const { services } = await guest.list();
      const others = services.filter(({ own }) => !own);
      expect(others.map((s) => `${s.name} ${s.address}:${s.port} ${JSON.stringify(s.labels)}`).join(", ")).toBe(
        expected,
      );
      expect(others.every(({ node }) => node === "mdnode2")).toBe(true);
      // The recorded request of the Go client, up to what a library adds.
      expect(asked[0]).toMatch(/^GET \/services HTTP\/1\.1\r\nhost: 100\.64\.0\.2:28004\r\n/i);
      expect(asked[0]?.endsWith("\r\n\r\n")).toBe(true);
    } finally {
      tailscaled.peers = [];
      await guest.stop();
      await new Promise((closed) => server.close(closed));
    }
  });

  it("drops only the bad entries of a reply, and ignores what is no 200 and redirects", async () => {
    const replies: string[] = [];
    const server = createServer((socket) => {
      socket.once("data", () => socket.end(replies.shift() ?? ""));
    });
    await new Promise<void>((listening) => server.listen(28_004, "100.64.0.2", listening));
    tailscaled.peers = [{ name: "mdnode2", ip: "100.64.0.2" }];
    const guest = createPeer({ ...machine, localApi: tailscaled.path });
    const listed = async (status: string, body: string): Promise<string> => {
      replies.splice(
        0,
        replies.length,
        `HTTP/1.1 ${status}\r\nContent-Length: ${Buffer.byteLength(body)}\r\nLocation: http://100.64.0.1:28004/services\r\nConnection: close\r\n\r\n${body}`,
      );
      return (await guest.list()).services
        .filter(({ own }) => !own)
        .map(({ name }) => name)
        .join();
    };
    try {
      const good = '{"name":"good","labels":{},"addrPort":"100.64.0.2:1"}';
      const bad = [
        "null",
        "1",
        '"x"',
        "[]",
        "{}",
        '{"name":1,"labels":{},"addrPort":"100.64.0.2:1"}',
        '{"name":"a","labels":{"k":1},"addrPort":"100.64.0.2:1"}',
        '{"name":"b","labels":[],"addrPort":"100.64.0.2:1"}',
        '{"name":"c","labels":{},"addrPort":"host:1"}',
        '{"name":"d","labels":{},"addrPort":"100.64.0.2:99999"}',
      ];
      expect(await listed("200 OK", `[${[...bad, good, ...bad].join()}]`)).toBe("good");
      expect(await listed("200 OK", '[{"name":"none","labels":null,"addrPort":"100.64.0.2:1"}]')).toBe("none");
      expect(await listed("302 Found", `[${good}]`)).toBe("");
      expect(await listed("500 Oops", `[${good}]`)).toBe("");
      expect(await listed("200 OK", `{"services":[${good}]}`)).toBe("");
      expect(await listed("200 OK", "hello")).toBe("");
    } finally {
      tailscaled.peers = [];
      await guest.stop();
      await new Promise((closed) => server.close(closed));
    }
  });

  it("asks other hosts as long as somebody follows, and again when somebody does", async () => {
    let asked = 0;
    const server = createServer((socket) => {
      socket.on("error", () => {});
      socket.once("data", () => {
        asked++;
        socket.end("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]");
      });
    });
    await new Promise<void>((listening) => server.listen(28_004, "100.64.0.2", listening));
    tailscaled.peers = [{ name: "mdnode2", ip: "100.64.0.2" }];
    const guest = createPeer({ ...machine, localApi: tailscaled.path, pollMs: 50 });
    try {
      for (let round = 0; round < 2; round++) {
        const before = asked;
        const stop = new AbortController();
        const following = (async () => {
          for await (const _ of guest.follow(stop.signal)) if (stop.signal.aborted) break;
        })();
        await eventually("it is asked again and again", () => asked > before + 3);
        stop.abort();
        await following;
        const then = asked;
        // Ten times the pause between two questions.
        await new Promise((resolve) => setTimeout(resolve, 500));
        expect(asked).toBe(then);
      }
    } finally {
      tailscaled.peers = [];
      await guest.stop();
      await new Promise((closed) => server.close(closed));
    }
  }, 20_000);

  it("asks tailscaled as was recorded, and reads its replies byte for byte", async () => {
    const path = join(folder.path, "recorded");
    const asked: string[] = [];
    let bytes = "";
    const server = createServer((socket) => {
      socket.once("data", (chunk: Buffer) => {
        asked.push(chunk.toString("latin1"));
        socket.end(bytes, "latin1");
      });
    });
    await new Promise<void>((listening) => server.listen(path, listening));
    const api = createLocalApi(http, path);
    try {
      bytes = read("localapi/host-ok.resp");
      const tailnet = await api.status();
      expect(asked[0]).toMatch(/^GET \/localapi\/v0\/status HTTP\/1\.1\r\nhost: local-tailscaled\.sock\r\n/i);
      expect(asked[0]).not.toMatch(/origin/i);
      expect(tailnet).toMatchObject({ state: "Running", own: { name: "mdnode1", ipv4: "100.64.0.1" } });
      expect(tailnet.peers.map(({ name }) => name)).toEqual(["mdnode2", "mdnode3"]);
      bytes = read("localapi/host-other.resp");
      await expect(api.status()).rejects.toThrow(/refuses: status 403, invalid localapi request/);
      bytes = read("localapi/unknown.resp");
      await expect(api.status()).rejects.toThrow(/status 404/);
    } finally {
      await new Promise((closed) => server.close(closed));
    }
  });

  it.each([
    ["running-3nodes", undefined, 2],
    ["running-nopeers", undefined, 0],
    ["peer-forced-offline", undefined, 1],
    ["self-stopped", "is stopped", 2],
    ["needslogin", "needs a login", 0],
  ])("reads the state %s", (name, trouble, online) => {
    const tailnet = readStatus(read(`status/${name}.json`));
    if (trouble === undefined) expect(troubleOf(tailnet, "sock")).toBeUndefined();
    else expect(troubleOf(tailnet, "sock")).toContain(trouble);
    expect(tailnet.peers.filter((each) => each.online).length).toBe(online);
  });
});
