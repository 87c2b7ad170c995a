// Names that are not ours: asked of recursors that answer, cut, lie, fail, stay silent or are gone; real unbound and dnsmasq among them.
import { writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { applySetup, planSetup } from "../../src/protocols/dns/cli.ts";
import { CLASS, type DnsRecord, decodeMessage, encodeMessage, nameFromText, RCODE } from "../../src/wire/dns/index.ts";
import { nodeChange, serviceChange } from "../support/directory.ts";
import { queryPacket } from "../support/dns.ts";
import { startDns, type Told, type ToldRecursor, toldRecursor } from "../support/dns-peers.ts";
import { world } from "../support/lookup.ts";
import { eventually, freePort, havePrograms, ownFolder, startProgram } from "../support/peers.ts";

const haveDig = await havePrograms("dig");
const undo: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (let step = undo.pop(); step !== undefined; step = undo.pop()) await step();
});

const a = (name: string, address: string, ttlS = 60): DnsRecord => ({
  name: nameFromText(name),
  class: CLASS.IN,
  ttlS,
  data: { kind: "A", address },
});
const soa = (name: string, ttlS: number): DnsRecord => ({
  name: nameFromText(name),
  class: CLASS.IN,
  ttlS,
  data: {
    kind: "SOA",
    primary: nameFromText(`ns.${name}`),
    mailbox: nameFromText(`hostmaster.${name}`),
    serial: 1,
    refreshS: 1,
    retryS: 1,
    expireS: 1,
    minTtlS: ttlS,
  },
});
/** Every name is at 198.51.100.1. */
const friendly: Told = ({ questions }) =>
  questions[0]?.type === 1
    ? { answers: [{ ...a("x", "198.51.100.1"), name: questions[0].name }] }
    : { authorities: [soa("example.org", 30)] };

async function told(tell: Told): Promise<ToldRecursor> {
  const recursor = await toldRecursor(tell);
  undo.push(() => recursor.stop());
  return recursor;
}

async function started(...args: Parameters<typeof startDns>): ReturnType<typeof startDns> {
  const running = await startDns(...args);
  undo.push(() => running.stop());
  return running;
}

async function directory(): ReturnType<typeof world> {
  const here = await world();
  await here.directory.write([
    nodeChange("n1", "192.0.2.1", { external: true }),
    serviceChange("n1", "w1", "web", { port: 81 }),
    serviceChange("n1", "far", "far", { address: "www.example.org", port: 80 }),
    serviceChange("n1", "printer", "printer", { address: "printer.local", port: 80 }),
  ]);
  return here;
}

describe.runIf(haveDig)("recursion", () => {
  it("answers names that are not ours from a recursor, keeps them for their TTL, and says that it can", async () => {
    const recursor = await told(friendly);
    const agent = await started(await directory(), { recursors: [recursor.place] });
    const first = await agent.dig("WWW.Example.org");
    expect(first).toMatch(/flags: qr rd ra;/);
    expect(first).toMatch(/WWW\.Example\.org\.\s+60\s+IN\s+A\s+198\.51\.100\.1/);
    expect(await agent.short("+tcp", "www.example.ORG")).toEqual(["198.51.100.1"]);
    expect(await agent.dig("www.example.org", "AAAA")).toMatch(/status: NOERROR[\s\S]*ANSWER: 0, AUTHORITY: 1/);
    expect(await agent.dig("www.example.org", "AAAA")).toContain("status: NOERROR");
    expect(recursor.asked).toEqual(["udp www.example.org 1", "udp www.example.org 28"]);
    // Both the long way and the short one say so for names of ours.
    for (let i = 0; i < 2; i++) expect(await agent.dig("web.service.consul")).toMatch(/flags: qr aa rd ra;/);
    expect(await agent.dig("+norecurse", "www.example.org")).toContain("status: REFUSED");
  });

  it("follows addresses that are names, with the service's TTL", async () => {
    const recursor = await told(friendly);
    const agent = await started(await directory(), { recursors: [recursor.place], serviceTtlMs: { far: 7000 } });
    const answer = await agent.dig("far.service.consul");
    expect(answer).toMatch(/far\.service\.consul\.\s+7\s+IN\s+CNAME\s+www\.example\.org\./);
    expect(answer).toMatch(/www\.example\.org\.\s+7\s+IN\s+A\s+198\.51\.100\.1/);
    expect(answer).toMatch(/flags: qr aa rd ra;/);
    expect(await agent.dig("far.service.consul", "SRV")).toMatch(
      /SRV\s+1 1 80 www\.example\.org\.[\s\S]*www\.example\.org\.\s+7\s+IN\s+A\s+198\.51\.100\.1/,
    );
    const without = await started(await directory(), {});
    expect(await without.short("far.service.consul")).toEqual(["www.example.org."]);
  });

  it("never asks others about names of ours, of this host or of this network", async () => {
    const recursor = await told(friendly);
    const here = await directory();
    const agent = await started(here, { recursors: [recursor.place], altDomain: "lan.example" });
    for (const name of [
      "nobody.service.consul",
      "consul",
      "service.consul",
      "x.y.z.consul",
      "nobody.service.lan.example",
      "nobody.node.dc9.consul",
      "web",
      "printer.local",
      "something.onion",
      "a.invalid",
      "localhost",
      "me.localhost",
    ])
      await agent.dig(name, "A");
    await agent.dig("-x", "192.0.2.1");
    await agent.dig("-x", "127.0.0.1");
    await agent.dig("-x", "169.254.1.1");
    await agent.dig("1.2.0.192.in-addr.arpa", "TXT");
    await agent.dig("web.service.consul", "MX");
    await agent.dig("printer.service.consul");
    expect(recursor.asked).toEqual([]);
    expect(await agent.short("me.localhost")).toEqual(["127.0.0.1"]);
    expect(await agent.dig("printer.local")).toContain("status: NXDOMAIN");
    await agent.dig("-x", "198.51.100.77");
    expect(recursor.asked).toEqual(["udp 77.100.51.198.in-addr.arpa 12"]);
  });

  it("asks as Consul does where its behaviour is asked for", async () => {
    const recursor = await told(friendly);
    const agent = await started(await directory(), { recursors: [recursor.place] }, { compat: "consul" });
    expect(await agent.dig("+noedns", "far.service.consul")).toMatch(
      /flags: qr aa rd ra;[\s\S]*CNAME\s+www\.example\.org\.[\s\S]*www\.example\.org\.\s+0\s+IN\s+A/,
    );
    expect(await agent.short("router")).toEqual(["198.51.100.1"]);
    expect(await agent.short("+norecurse", "printer.local")).toEqual(["198.51.100.1"]);
    expect(await agent.dig("nobody.service.consul")).toMatch(/status: NXDOMAIN[\s\S]*flags: qr aa rd ra;/);
    expect(recursor.asked).toEqual(["udp www.example.org 1", "udp router 1", "udp printer.local 1"]);
  });

  it("refuses askers from networks that were not named, and says that it cannot", async () => {
    const recursor = await told(friendly);
    const agent = await started(await directory(), { recursors: [recursor.place], recursionFrom: ["192.0.2.0/24"] });
    const refused = await agent.dig("www.example.org");
    expect(refused).toContain("status: REFUSED");
    expect(refused).toMatch(/flags: qr rd;/);
    expect(await agent.dig("web.service.consul")).toMatch(/flags: qr aa rd;/);
    expect(recursor.asked).toEqual([]);
  });

  it("asks the next one where one fails, refuses, is gone or stays silent; and says SERVFAIL at the end", async () => {
    const failing = await told(() => ({ rcode: RCODE.SERVFAIL }));
    const refusing = await told(() => ({ rcode: RCODE.REFUSED }));
    const silent = await told(() => undefined);
    const good = await told(friendly);
    const gone = await toldRecursor(friendly);
    await gone.stop();
    for (const strategy of ["sequential", "random"]) {
      const agent = await started(await directory(), {
        recursors: [failing.place, gone.place, refusing.place, silent.place, good.place],
        recursorStrategy: strategy,
        recursorTimeoutMs: 400,
      });
      expect(await agent.short(`${strategy}.example.org`)).toEqual(["198.51.100.1"]);
    }
    // In their order, and a silent one is asked twice since packets get lost.
    expect(silent.asked.filter((line) => line.includes("sequential"))).toHaveLength(2);
    const helpless = await started(await directory(), {
      recursors: [failing.place, gone.place],
      recursorTimeoutMs: 400,
    });
    expect(await helpless.dig("www.example.org")).toMatch(/status: SERVFAIL[\s\S]*flags: qr rd ra;/);
    expect(helpless.lines.join("\n")).toMatch(/warn a name was not resolved: 127\.0\.0\.1:\d+ said SERVFAIL; 127/);
    expect(helpless.lines.join("\n")).not.toMatch(/^error/m);
  });

  it("asks a server that was silent last for a while", async () => {
    const silent = await told(() => undefined);
    const good = await told(friendly);
    const agent = await started(await directory(), { recursors: [silent.place, good.place], recursorTimeoutMs: 300 });
    expect(await agent.short("one.example.org")).toEqual(["198.51.100.1"]);
    expect(await agent.short("two.example.org")).toEqual(["198.51.100.1"]);
    expect(silent.asked).toEqual(["udp one.example.org 1", "udp one.example.org 1"]);
  });

  it("turns to TCP for what was cut, and cuts for its own askers", async () => {
    const big = await told(({ questions }, transport) => {
      const { name } = questions[0]!;
      return transport === "udp"
        ? { truncated: true }
        : { answers: Array.from({ length: 200 }, (_, i) => ({ ...a("x", `198.51.100.${i}`), name })) };
    });
    const agent = await started(await directory(), { recursors: [big.place] });
    expect(await agent.dig("+ignore", "+bufsize=512", "big.example.org")).toMatch(/flags: qr tc rd ra;/);
    expect(await agent.short("big.example.org")).toHaveLength(200);
    expect(big.asked).toEqual(["udp big.example.org 1", "tcp big.example.org 1"]);
  });

  it("takes only answers to its own question", async () => {
    const forger = await told((query) => {
      const [question] = query.questions;
      const lie = { ...query, response: true, answers: [{ ...a("x", "203.0.113.66"), name: question!.name }] };
      return {
        ...friendly(query, "udp"),
        raw: [
          encodeMessage({ ...lie, id: query.id ^ 1 }),
          encodeMessage({ ...lie, questions: [{ ...question!, name: nameFromText("other.example.org") }] }),
          encodeMessage({ ...lie, questions: [{ ...question!, type: 28 }] }),
          encodeMessage({ ...lie, response: false }),
          Uint8Array.from(encodeMessage(lie).subarray(0, 20)),
          new Uint8Array(3),
        ],
      };
    });
    const agent = await started(await directory(), { recursors: [forger.place] });
    expect(await agent.short("www.example.org")).toEqual(["198.51.100.1"]);
  });

  it("asks equal questions once while they are under way", async () => {
    let release = (): void => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    const slow = await told(async (query) => {
      await held;
      return friendly(query, "udp");
    });
    const agent = await started(await directory(), { recursors: [slow.place], recursorTimeoutMs: 20_000 });
    const answers = Promise.all(
      ["www.example.org", "WWW.example.org", "www.EXAMPLE.org"].map((name) => agent.short(name)),
    );
    await eventually("all have asked", () =>
      agent.metrics.read().some(({ labels, value }) => labels["outcome"] === "joined" && value === 2),
    );
    release();
    expect(await answers).toEqual([["198.51.100.1"], ["198.51.100.1"], ["198.51.100.1"]]);
    expect(slow.asked).toEqual(["udp www.example.org 1"]);
  });

  it("notices that a recursor is itself, or asks it back", async () => {
    const port = await freePort();
    const agent = await started(await directory(), { port, recursors: [`127.0.0.1:${port}`] });
    expect(await agent.dig("www.example.org")).toContain("status: SERVFAIL");
    expect(agent.lines.join("\n")).toContain(`the recursor 127.0.0.1:${port} is this agent itself: not asked`);
    // A forwarder whose own server is the agent.
    const folder = await ownFolder("dns-loop");
    undo.push(() => folder.remove());
    const forwarderPort = await freePort();
    const back = await started(await directory(), {
      recursors: [`127.0.0.1:${forwarderPort}`],
      recursorTimeoutMs: 3000,
    });
    const forwarder = await startDnsmasq(folder.path, forwarderPort, [`server=127.0.0.1#${back.port}`]);
    undo.push(() => forwarder.stop());
    expect(await back.dig("once.upon.example.org")).toContain("status: SERVFAIL");
    expect(back.lines.join("\n")).toContain("questions such as");
  });

  it("asks for hundreds of names at once, and takes no harm from more than it can", async () => {
    const recursor = await told(friendly);
    const silent = await told(() => undefined);
    const agent = await started(await directory(), { recursors: [recursor.place], recursorCacheBytes: 100_000 });
    const helpless = await started(await directory(), { recursors: [silent.place], recursorTimeoutMs: 1500 });
    const warnings: Error[] = [];
    const onWarning = (warning: Error): void => void warnings.push(warning);
    process.on("warning", onWarning);
    undo.push(async () => void process.off("warning", onWarning));
    const rcodes = await askMany(agent.port, 400);
    expect(rcodes).toEqual({ [RCODE.NOERROR]: 400 });
    // What waits for nobody is refused, the rest gives up in time.
    expect(await askMany(helpless.port, 1300)).toEqual({ [RCODE.SERVFAIL]: 1300 });
    expect(warnings).toEqual([]);
  });

  it("ends what is under way when it stops", async () => {
    const silent = await told(() => undefined);
    const agent = await startDns(await directory(), { recursors: [silent.place], recursorTimeoutMs: 60_000 });
    const asking = agent.dig("+time=1", "www.example.org").catch(() => "given up");
    await eventually("it was asked", () => silent.asked.length > 0);
    await agent.stop();
    await asking;
  });
});

/** Asks for so many names at once over TCP; how often each response code came. */
function askMany(port: number, count: number): Promise<Record<number, number>> {
  return new Promise((resolve, reject) => {
    const rcodes: Record<number, number> = {};
    let answers = 0;
    // A hundred on each connection, which is as many as one may have under way.
    for (let first = 0; first < count; first += 100) {
      const socket = connect(port, "127.0.0.1", () => {
        for (let i = first; i < Math.min(count, first + 100); i++) {
          const packet = queryPacket(`n${i}.example.org`, {}, i);
          socket.write(Buffer.concat([Buffer.from([packet.length >> 8, packet.length & 255]), packet]));
        }
      });
      socket.once("error", reject);
      let got = Buffer.alloc(0);
      let mine = 0;
      socket.on("data", (chunk: Buffer) => {
        got = Buffer.concat([got, chunk]);
        while (got.length >= 2 && got.length >= 2 + got.readUInt16BE(0)) {
          const { rcode } = decodeMessage(got.subarray(2, 2 + got.readUInt16BE(0)));
          got = got.subarray(2 + got.readUInt16BE(0));
          rcodes[rcode] = (rcodes[rcode] ?? 0) + 1;
          answers++;
          if (++mine === Math.min(100, count - first)) socket.destroy();
          if (answers === count) resolve(rcodes);
        }
      });
    }
  });
}

const haveServers = haveDig && (await havePrograms("unbound", "dnsmasq"));

async function startDnsmasq(folder: string, port: number, lines: readonly string[]): ReturnType<typeof startProgram> {
  const config = join(folder, `dnsmasq-${port}.conf`);
  await writeFile(
    config,
    [
      "no-resolv",
      "no-hosts",
      "user=root",
      "bind-interfaces",
      "listen-address=127.0.0.1",
      `port=${port}`,
      `pid-file=${folder}/dnsmasq-${port}.pid`,
      ...lines,
      "",
    ].join("\n"),
  );
  return await startProgram(
    ["dnsmasq", "--keep-in-foreground", `--conf-file=${config}`],
    join(folder, `dnsmasq-${port}.txt`),
  );
}

async function startUnbound(folder: string, port: number, lines: readonly string[]): ReturnType<typeof startProgram> {
  const config = join(folder, `unbound-${port}.conf`);
  await writeFile(
    config,
    `server:
  interface: 127.0.0.1
  port: ${port}
  username: ""
  chroot: ""
  directory: "${folder}"
  pidfile: "${folder}/unbound-${port}.pid"
  use-syslog: no
  do-not-query-localhost: no
${lines.map((line) => `  ${line}\n`).join("")}remote-control:
  control-enable: no
`,
  );
  return await startProgram(["unbound", "-d", "-c", config], join(folder, `unbound-${port}.txt`));
}

describe.runIf(haveServers)("real recursors", () => {
  it("dnsmasq as `trilith dns setup` wires it asks the agent for the domain and nobody else's names", async () => {
    const folder = await ownFolder("dns-wired");
    undo.push(() => folder.remove());
    const agent = await started(await directory());
    const plan = await planSetup({ target: "dnsmasq", domain: "consul", port: agent.port, root: folder.path });
    await applySetup(plan);
    const port = await freePort();
    const dnsmasq = await startDnsmasq(folder.path, port, ["stop-dns-rebind", `conf-file=${plan.file.path}`]);
    undo.push(() => dnsmasq.stop());
    const asked = (name: string): Promise<string> => agent.dig("-p", String(port), name);
    await eventually("dnsmasq answers", async () => (await asked("web.service.consul")).includes("192.0.2.1"));
    expect(await asked("nobody.service.consul")).toContain("status: NXDOMAIN");
    expect(await asked("www.example.org")).toContain("status: REFUSED");
  });

  it("unbound and dnsmasq resolve for us; one killed, the other takes over", async () => {
    const folder = await ownFolder("dns-recursors");
    undo.push(() => folder.remove());
    const [unboundPort, dnsmasqPort] = [await freePort(), await freePort()];
    const many = Array.from({ length: 120 }, (_, i) => `local-data: "many.example.org. 30 IN A 198.51.100.${i}"`);
    const unbound = await startUnbound(folder.path, unboundPort, [
      'local-zone: "example.org." static',
      'local-data: "example.org. 60 IN SOA ns.example.org. h.example.org. 1 2 3 4 20"',
      'local-data: "www.example.org. 30 IN A 198.51.100.7"',
      `local-data: 'naptr.example.org. 30 IN NAPTR 1 2 "s" "SIP+D2U" "" _sip._udp.example.org.'`,
      'local-data: "text.example.org. 30 IN TXT unbound"',
      ...many,
    ]);
    undo.push(() => unbound.stop());
    const dnsmasq = await startDnsmasq(folder.path, dnsmasqPort, [
      "address=/www.example.org/198.51.100.8",
      "txt-record=text.example.org,dnsmasq",
      "local=/example.org/",
    ]);
    undo.push(() => dnsmasq.stop());
    const agent = await started(await directory(), {
      recursors: [`127.0.0.1:${unboundPort}`, `127.0.0.1:${dnsmasqPort}`],
      recursorTimeoutMs: 1500,
    });
    await eventually("unbound answers", async () => (await agent.short("text.example.org", "TXT"))[0] === '"unbound"');
    expect(await agent.short("www.example.org")).toEqual(["198.51.100.7"]);
    expect(await agent.short("many.example.org")).toHaveLength(120);
    expect(await agent.short("naptr.example.org", "NAPTR")).toEqual(['1 2 "s" "SIP+D2U" "" _sip._udp.example.org.']);
    const none = await agent.dig("none.example.org");
    expect(none).toMatch(/status: NXDOMAIN[\s\S]*example\.org\.\s+20\s+IN\s+SOA/);
    await unbound.stop("SIGKILL");
    // What is kept is still told; the rest comes from the other.
    expect(await agent.short("www.example.org")).toEqual(["198.51.100.7"]);
    expect(await agent.short("other.www.example.org")).toEqual(["198.51.100.8"]);
    await dnsmasq.stop();
    expect(await agent.dig("third.www.example.org")).toContain("status: SERVFAIL");
  });
});
