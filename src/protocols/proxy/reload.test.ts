// Another configuration of the proxy while the agent runs: ports whose mapping stays never close, who is connected stays so, and no magic address changes.
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { afterEach, expect, it } from "vitest";
import { ask, serve } from "../../../test/support/connect.ts";
import { startAgent } from "../../../test/support/ground.ts";
import { eventually, freePort } from "../../../test/support/peers.ts";

const ends: (() => Promise<unknown> | unknown)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

/** A server that says a word to everybody, and then echoes. */
async function saying(word: string): Promise<number> {
  const server = await serve((socket) => {
    socket.write(word);
    socket.on("data", (bytes) => socket.write(bytes));
    socket.on("end", () => socket.end());
  });
  ends.push(() => server.close());
  return server.port;
}

/** A connection that stays; `echo` resolves when what it says comes back. */
async function staying(port: number, host = "127.0.0.1") {
  const socket: Socket = connect({ port, host });
  ends.push(() => socket.destroy());
  let closed = false;
  socket.on("close", () => {
    closed = true;
  });
  const [greeting] = (await once(socket, "data")) as [Buffer];
  return {
    greeting: String(greeting),
    async echo(text: string): Promise<void> {
      if (closed) throw new Error("it was closed");
      socket.write(text);
      expect(String(((await once(socket, "data")) as [Buffer])[0])).toBe(text);
    },
  };
}

/** An agent with services at these ports, and what changes its proxies. */
async function changing(first: object, services: Readonly<Record<string, number>>) {
  let proxy = first;
  const more = { consul: { prometheus: true } };
  const made = await startAgent(
    { protocols: { proxy, ...more } },
    { reread: async () => ({ protocols: { proxy, ...more } }) },
  );
  ends.push(() => made.stop());
  const { trilith } = made;
  for (const [name, port] of Object.entries(services))
    await fetch(`${made.url}/v1/catalog/register`, {
      ...{ method: "PUT" },
      body: JSON.stringify({
        ...{ Node: "far", Address: "127.0.0.3" },
        Service: { ID: name, Service: name, Port: port, Address: "127.0.0.1" },
      }),
    });
  const become = async (next: object): Promise<void> => {
    proxy = next;
    await trilith.reload();
  };
  const proxies = async (): Promise<readonly { name: string; total: number; draining: boolean }[]> =>
    ((await (await fetch(`${made.url}/v1/trilith/proxies`)).json()) as { proxies: never[] }).proxies;
  const states = (): readonly string[] =>
    trilith.sources().flatMap(({ name, ok, text }) => (name === "proxy" ? [`${ok} ${text}`] : []));
  const open = (port: number): Promise<unknown> =>
    eventually(`port ${port} is open`, async () => (await ask(port).catch(() => "")) !== "");
  return { made, trilith, become, proxies, states, open };
}

it("opens, closes and turns ports, and leaves those alone whose mapping stays", async () => {
  const [web, db] = [await saying("web"), await saying("db")];
  const [a, b, c, d] = [await freePort(), await freePort(), await freePort(), await freePort()];
  const listen = { [a]: "web", [b]: "web", [c]: "web" };
  const { become, proxies, states, open } = await changing({ listen, magic: false }, { web, db });
  for (const port of [a, b, c]) await open(port);
  const [first, second, third] = [await staying(a), await staying(b), await staying(c)];
  const before = (await proxies()).find(({ name }) => name === `${a}=web`)?.total ?? 0;
  // Nobody who comes is turned away in the meantime.
  let [asked, refused, over] = [0, 0, false];
  const asking = (async () => {
    while (!over) {
      asked++;
      if ((await ask(a).catch(() => "refused")) !== "web") refused++;
    }
  })();
  // The first only learns of another time to end, for all of them; the second is another service, the third goes, and one comes.
  await become({
    listen: { [a]: "web", [b]: "db", [d]: { service: "db", policy: "first" } },
    drain: "3s",
    magic: false,
  });
  expect(await ask(b)).toBe("db");
  expect(await ask(d)).toBe("db");
  await expect(ask(c)).rejects.toThrow(/ECONNREFUSED/);
  // By header: another option of a port that stays.
  await become({ listen: { [a]: "web", [b]: { service: "db", proxy_protocol: 1 }, [d]: "db" }, magic: false });
  expect(await ask(b)).toMatch(/^dbPROXY TCP4 127\.0\.0\.1 /);
  over = true;
  await asking;
  expect([asked > 2, refused]).toEqual([true, 0]);
  for (const one of [first, second, third]) {
    expect(one.greeting).toBe("web");
    await one.echo("still there");
  }
  const now = (await proxies()).filter(({ draining }) => !draining);
  expect(now.map(({ name }) => name).sort()).toEqual([`${a}=web`, `${b}=db`, `${d}=db`].sort());
  expect(now.find(({ name }) => name === `${a}=web`)?.total).toBeGreaterThan(before);
  // What is wrong leaves what stood.
  await expect(become({ listen: { [a]: "web", redis: "1" }, magic: false })).rejects.toThrow("proxy.listen.redis");
  await expect(become({ listen: { [a]: "web.service.example" }, magic: false })).rejects.toThrow("this agent's domain");
  expect([await ask(a), await ask(d)]).toEqual(["web", "db"]);
  await become({ listen: { [web]: "db" }, magic: false });
  expect(states()).toEqual([expect.stringMatching(`^false 127\\.0\\.0\\.1:${web} cannot be had: `)]);
});

it("turns a port of UDP to another service at once", async () => {
  const echoing = async (word: string): Promise<number> => {
    const socket = createSocket("udp4");
    ends.push(() => new Promise<void>((resolve) => socket.close(() => resolve())));
    socket.on("message", (_bytes, { port, address }) => socket.send(word, port, address));
    socket.bind(0, "127.0.0.1");
    await once(socket, "listening");
    return socket.address().port;
  };
  const port = await freePort();
  const [one, two] = [await echoing("one"), await echoing("two")];
  const mute = createSocket("udp4").bind(0, "127.0.0.1");
  ends.push(() => new Promise<void>((resolve) => mute.close(() => resolve())));
  await once(mute, "listening");
  const services = { one, two, mute: mute.address().port };
  const { become } = await changing({ listen: { [`${port}/udp`]: "one" }, magic: false }, services);
  const heard = async (): Promise<string> => {
    const socket = createSocket("udp4");
    try {
      const answer = once(socket, "message", { signal: AbortSignal.timeout(2_000) });
      socket.send("?", port, "127.0.0.1");
      return String(((await answer) as [Buffer])[0]);
    } finally {
      socket.close();
    }
  };
  await eventually("it answers", async () => (await heard().catch(() => "")) === "one");
  await become({ listen: { [`${port}/udp`]: "two" }, magic: false });
  expect(await heard()).toBe("two");
  // Also where somebody waits for an answer that never comes, as with logs and statistics.
  await become({ listen: { [`${port}/udp`]: "mute" }, magic: false });
  const said = once(mute, "message");
  const client = createSocket("udp4");
  ends.push(() => client.close());
  client.send("?", port, "127.0.0.1");
  await said;
  await become({ listen: { [`${port}/udp`]: "one" }, magic: false });
  expect(await heard()).toBe("one");
});

it("listens at magic addresses for all, for those that were asked for, or for none; who is connected stays so", async () => {
  const [web, db] = [await saying("web"), await saying("db")];
  const { made, trilith, become, states } = await changing({ magic: false }, { web, db });
  const asks = (name: string): Promise<Response> => fetch(`${made.url}/v1/trilith/magic/${name}`);
  expect((await asks("web")).status).not.toBe(200);
  await become({});
  expect((await asks("web")).status).toBe(200);
  const [webAt, dbAt] = ["web", "db"].map((service) => trilith.magic.of({ service }).v4) as [string, string];
  const connected = await staying(web, webAt);
  await expect(ask(db, "", dbAt)).rejects.toThrow(/ECONNREFUSED/);
  let [refused, over] = [0, false];
  const asking = (async () => {
    while (!over) if ((await ask(web, "", webAt).catch(() => "refused")) !== "web") refused++;
  })();
  const further = await freePort();
  await become({ magic: true });
  expect(await ask(db, "", dbAt)).toBe("db");
  await become({ magic: true, ports: { db: [further] } });
  expect(await ask(further, "", dbAt)).toBe("db");
  // Back: what was asked for is still there, and nothing else.
  await become({ ports: { web: [further] } });
  await expect(ask(db, "", dbAt)).rejects.toThrow(/ECONNREFUSED/);
  expect(await ask(further, "", webAt)).toBe("web");
  over = true;
  await asking;
  expect(refused).toBe(0);
  await become({ magic: false });
  await expect(ask(web, "", webAt)).rejects.toThrow(/ECONNREFUSED/);
  await connected.echo("still there");
  expect([states(), trilith.magic.doors]).toEqual([[], undefined]);
  await become({});
  await eventually("it is back", async () => (await ask(web, "", webAt).catch(() => "")) === "web");
  expect(["web", "db"].map((service) => trilith.magic.of({ service }).v4)).toEqual([webAt, dbAt]);
});
