// The commands for the LAN beside Avahi's own, on a LAN of namespaces: the same lines, the same faults, the same exit codes; and waiting.
import type { ChildProcess } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { type AvahiDaemon, type AvahiHost, type AvahiLan, haveAvahiLan, startAvahiLan } from "../support/avahi-lan.ts";
import { eventually, ownFolder } from "../support/peers.ts";
import { type Done, program, runToEnd, startAgent } from "../support/program.ts";

const possible = await haveAvahiLan();
if (!existsSync(program)) throw new Error(`${program} is missing: npm run build`);

let lan: AvahiLan;
let publisher: AvahiHost;
let avahi: AvahiHost;
let ours: AvahiHost;
let daemon: AvahiDaemon;
/** The folder of the links on our host. */
let links: string;
const ends: (() => Promise<unknown>)[] = [];

const trilith = (...words: string[]): string[] => [process.execPath, program, ...words];

interface Running {
  readonly out: () => string;
  readonly err: () => string;
  readonly ended: Promise<number | null>;
  kill(signal: NodeJS.Signals): void;
}

/** A command that goes on. */
function start(host: AvahiHost, ...command: string[]): Running {
  const child: ChildProcess = host.spawn(...command);
  let [out, err] = ["", ""];
  child.stdout?.on("data", (chunk) => {
    out += chunk;
  });
  child.stderr?.on("data", (chunk) => {
    err += chunk;
  });
  const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
  // With its goodbyes: what others have heard of it must not outlive a try.
  ends.push(async () => {
    child.kill("SIGTERM");
    const killer = setTimeout(() => child.kill("SIGKILL"), 10_000);
    await ended;
    clearTimeout(killer);
  });
  return { out: () => out, err: () => err, ended, kill: (signal) => void child.kill(signal) };
}

/** Until the command has said this, and nothing else, on standard error. */
async function told(running: Running, text: string): Promise<void> {
  await eventually(`told: ${text}`, () => {
    expect(running.err()).toBe(text);
    return true;
  });
}

/** Service files of the running test. */
const named = new Set<string>();
async function announce(name: string, xml: string): Promise<void> {
  named.add(name);
  await daemon.serviceFile(name, xml);
}
async function withdraw(name: string): Promise<void> {
  named.delete(name);
  await daemon.serviceFile(name, undefined);
}

const fileOf = (name: string, services: string): string =>
  `<?xml version="1.0" standalone='no'?>\n<!DOCTYPE service-group SYSTEM "avahi-service.dtd">\n<service-group><name replace-wildcards="yes">${name}</name>${services}</service-group>\n`;
const http = (port: number, more = ""): string =>
  `<service><type>_http._tcp</type>${more.includes("<subtype") ? more : ""}<port>${port}</port>${more.includes("<subtype") ? "" : more}</service>`;

const FILES: Readonly<Record<string, string>> = {
  "plain.service": fileOf("plain", http(80)),
  "special.service": fileOf(
    "Grüße. x;y\\z &quot;q&quot; on %h",
    http(
      8080,
      '<txt-record>a=1;2</txt-record><txt-record>q=say "hi" \\ü</txt-record><txt-record value-format="binary-hex">h=0001ff7f</txt-record>',
    ),
  ),
  "sub.service": fileOf("with subtype", http(81, "<subtype>_printer._sub._http._tcp</subtype>")),
  "four.service": fileOf("only four", '<service protocol="ipv4"><type>_ssh._tcp</type><port>22</port></service>'),
  "many.service": fileOf(
    "two types",
    "<service><type>_ipp._tcp</type><port>631</port></service><service><type>_my-own-thing._udp</type><port>9</port></service>",
  ),
};

beforeAll(async () => {
  if (!possible) return;
  lan = await startAvahiLan("a", "b", "c");
  [publisher, avahi, ours] = [lan.host("a"), lan.host("b"), lan.host("c")];
  daemon = await publisher.avahi();
  await avahi.avahi();
  for (const [name, xml] of Object.entries(FILES)) await daemon.serviceFile(name, xml);
  links = join(ours.folder, "bin");
  await mkdir(links);
  for (const name of [
    "avahi-browse",
    "avahi-browse-domains",
    "avahi-publish",
    "avahi-publish-address",
    "avahi-resolve",
  ])
    await symlink(program, join(links, name));
  await eventually("all are seen", async () => {
    const { out } = await avahi.run("avahi-browse", "-artp");
    return out.split("\n").filter((line) => line.startsWith("=")).length === 11;
  });
});

afterEach(async () => {
  for (const end of ends.splice(0)) await end();
  for (const name of named) await daemon.serviceFile(name, undefined);
  named.clear();
});
afterAll(async () => {
  await lan?.close();
});

/** Lines or, for people, blocks of lines, sorted; which address of a host stands in a resolved line is left to chance. */
function blocks(text: string): string[] {
  const plain = text.replace(/fd77::[abc]|fe80::[0-9a-f:]+|10\.77\.0\.1[0-9]/g, "ADDRESS");
  return plain.split(/\n(?! {3}[a-z])/).sort();
}

/** The same command line, by Avahi and by ours under Avahi's name. */
async function both(name: string, words: readonly string[]): Promise<readonly [theirs: Done, ours: Done]> {
  return await Promise.all([avahi.run(name, ...words), ours.run(join(links, name), ...words)]);
}

describe.runIf(possible)("trilith browse", { timeout: 120_000 }, () => {
  it.each([
    "-at",
    "-atp",
    "-art",
    "-ar --terminate --pars --no-db-lookup -d LOCAL.",
    "-artpl",
    "-acp",
    "-rtp _http._tcp",
    "-rtpk _printer._sub._http._tcp",
    "_my-own-thing._udp -rtp",
    "-tp -d example.com _HTTP._tcp.",
    "-t _http",
    "-Dtp",
  ])("avahi-browse %s", async (line) => {
    const [theirs, own] = await both("avahi-browse", line.split(" "));
    expect({ ...own, out: blocks(own.out) }).toEqual({ ...theirs, out: blocks(theirs.out) });
  });

  it("the same faults and texts", async () => {
    const lines = [
      "-t http",
      "-t _http._tcp.local",
      "-t",
      "-t _http._tcp _ssh._tcp",
      "-a -t x",
      "-x",
      "--term --foo",
      "--re=x -a",
      "-d",
      "--help",
      "-V",
      "-bk",
      "-b",
    ];
    const done = await Promise.all(lines.map((line) => both("avahi-browse", line.split(" "))));
    for (const [i, [theirs, own]] of done.entries())
      expect({ ...own, out: blocks(own.out) }, lines[i]).toEqual({ ...theirs, out: blocks(theirs.out) });
  });

  it("sees the same beside an avahi-daemon on its own host", async () => {
    const words = ["-artp"];
    const theirs = await avahi.run("avahi-browse", ...words);
    for (let i = 0; i < 2; i++) {
      const own = await avahi.run(...trilith("browse", ...words));
      expect({ ...own, out: blocks(own.out) }).toEqual({ ...theirs, out: blocks(theirs.out) });
    }
  });

  it("avahi-browse-domains", async () => {
    for (const words of [["-t"], ["-h"], ["x"]]) {
      const [theirs, own] = await both("avahi-browse-domains", words);
      expect(own).toEqual(theirs);
    }
  });

  it("headings and ends with -v, a narrow terminal", async () => {
    const env = ["env", "COLUMNS=60"];
    const theirs = await avahi.run(...env, "avahi-browse", "-vat");
    const own = await ours.run(...env, join(links, "avahi-browse"), "-vat");
    expect(blocks(own.out)).toEqual(blocks(theirs.out));
    const [first, ...rest] = own.err.split("\n");
    expect(first).toBe("Server version: avahi-browse; Host name: host-c.local");
    expect(rest).toEqual(theirs.err.split("\n").slice(1));
  });

  it("tells what comes and goes, and ends cleanly by a signal", async () => {
    const words = ["-p", "_http._tcp"];
    const theirs = start(avahi, "avahi-browse", ...words);
    const own = start(ours, ...trilith("browse", ...words));
    const shows = (text: string): Promise<unknown> =>
      eventually(text, () => own.out().includes(text) && theirs.out().includes(text));
    await shows("+;eth0;IPv6;plain;");
    await announce("new.service", fileOf("new", http(90)));
    await shows("+;eth0;IPv4;new;Web Site;local\n");
    await shows("+;eth0;IPv6;new;Web Site;local\n");
    await withdraw("new.service");
    await shows("-;eth0;IPv4;new;Web Site;local\n");
    await shows("-;eth0;IPv6;new;Web Site;local\n");
    await eventually("both say the same", () => blocks(own.out()).join() === blocks(theirs.out()).join());
    for (const each of [theirs, own]) each.kill("SIGTERM");
    expect([await theirs.ended, await own.ended]).toEqual([0, 0]);
    expect([blocks(own.out()), own.err()]).toEqual([blocks(theirs.out()), theirs.err()]);
  });

  it("what cannot be resolved is told after five seconds", async () => {
    const text = fileOf(
      "nowhere",
      "<service><type>_ftp._tcp</type><host-name>no.local</host-name><port>21</port></service>",
    );
    await announce("nowhere.service", text);
    await eventually("it is there", async () => (await avahi.run("avahi-browse", "-tp", "_ftp._tcp")).out !== "");
    const [[theirs, own], hosts] = await Promise.all([
      both("avahi-browse", ["-rtp", "_ftp._tcp"]),
      both("avahi-resolve", ["-n", "-4", "nobody.local"]),
    ]);
    expect({ ...own, out: blocks(own.out) }).toEqual({ ...theirs, out: blocks(theirs.out) });
    expect(own.err).toContain("Timeout reached");
    expect(hosts[1]).toEqual(hosts[0]);
  });

  it("leaves out this host's own with -l, and shows them without", async () => {
    const own = start(ours, ...trilith("publish", "mine", "_http._tcp", "5"));
    await eventually("established", () => own.err() !== "");
    const [all, foreign] = await Promise.all([
      ours.run(...trilith("browse", "-rtp", "_http._tcp")),
      ours.run(...trilith("browse", "-tpl", "_http._tcp")),
    ]);
    expect(all.out).toMatch(/^=;eth0;IPv4;mine;Web Site;local;host-c.local;[^;]+;5;$/m);
    expect(foreign.out).toContain(";plain;");
    expect(foreign.out).not.toContain(";mine;");
  });
});

describe.runIf(possible)("trilith publish", { timeout: 120_000 }, () => {
  it("the same faults and texts", async () => {
    const lines: readonly string[][] = [
      ["-s", "n".repeat(64), "_http._tcp", "80"],
      ["-s", "bad port", "_http._tcp", "99999"],
      ["-s", "bad port", "_http._tcp", "80x"],
      ["-s", "bad type", "http", "80"],
      ["-s", "-H", "plain", "x", "_http._tcp", "80"],
      ["-s", "-d", "a..b", "x", "_http._tcp", "80"],
      ["-s", "x", "_http._tcp", "80", "y".repeat(256)],
      ["-s", "x", "_http._tcp", "80", ""],
      ["-s", "--subtype=_x", "x", "_http._tcp", "80"],
      ["-s", "x", "_http._tcp"],
      ["x", "_http._tcp", "80"],
      ["-a", "x", "10.1.1.1"],
      ["-a", "x.local"],
      ["-a", "x.local", "10.1.1.1", "y"],
      ["-h"],
      ["-a", "-h"],
      ["-x"],
      ["--dom"],
      ["-V"],
      [],
    ];
    const done = await Promise.all(lines.map((words) => both("avahi-publish", words)));
    for (const [i, [theirs, own]] of done.entries()) expect(own, JSON.stringify(lines[i])).toEqual(theirs);
  });

  it("an address under a name (-a) is found by Avahi both ways, and by name alone with -R; it gives way, and is gone afterwards", async () => {
    const own = start(ours, ...trilith("publish", "-a", "printer.local", "10.77.0.55"));
    const six = start(ours, join(links, "avahi-publish-address"), "six.local", "fd77::55");
    const bare = start(ours, ...trilith("publish", "-aR", "mine.local", ours.ipv4));
    for (const [each, name] of [
      [own, "printer"],
      [six, "six"],
      [bare, "mine"],
    ] as const)
      await told(each, `Established under name '${name}.local'\n`);
    const asked = async (...words: string[]) => (await avahi.run("avahi-resolve", ...words)).out;
    expect(await asked("-n", "printer.local")).toBe("printer.local\t10.77.0.55\n");
    expect(await asked("-a", "10.77.0.55")).toBe("10.77.0.55\tprinter.local\n");
    expect(await asked("-n", "six.local")).toBe("six.local\tfd77::55\n");
    expect(await asked("-a", "fd77::55")).toBe("fd77::55\tsix.local\n");
    expect(await asked("-n", "mine.local")).toBe(`mine.local\t${ours.ipv4}\n`);
    // What Avahi publishes is left alone, and the next name is taken.
    const theirs = start(avahi, "avahi-publish", "-a", "taken.local", "10.77.0.56");
    await told(theirs, "Established under name 'taken.local'\n");
    const late = start(ours, ...trilith("publish", "-a", "taken.local", "10.77.0.57"));
    const said = "Name collision, picking new name 'taken-2.local'.\nEstablished under name 'taken-2.local'\n";
    await told(late, said);
    expect(await asked("-n", "taken.local")).toBe("taken.local\t10.77.0.56\n");
    expect(await asked("-n", "taken-2.local")).toBe("taken-2.local\t10.77.0.57\n");
    for (const each of [own, six, bare, late]) each.kill("SIGINT");
    expect(await Promise.all([own, six, bare, late].map(({ ended }) => ended))).toEqual([0, 0, 0, 0]);
    await eventually("it is gone", async () => (await asked("-n", "printer.local")) === "");
    theirs.kill("SIGINT");
    await theirs.ended;
  });

  it("is seen by Avahi as it was written, and says goodbye", async () => {
    const words = ["Grüße. x;y\\z", "_http._tcp", "0x50", 'k=wert;mit "q"', "=b", "--subtype=_printer._sub._http._tcp"];
    const own = start(ours, ...trilith("publish", ...words));
    await told(own, "Established under name 'Grüße. x;y\\z'\n");
    const ofThatName = (text: string): string[] => blocks(text).filter((line) => line.includes("\\\\z;"));
    const seen = await eventually("Avahi sees it", async () => {
      const { out } = await avahi.run("avahi-browse", "-rtp", "_printer._sub._http._tcp");
      return ofThatName(out).length === 4 && ofThatName(out);
    });
    const name = "Gr\\195\\188\\195\\159e\\.\\032x\\059y\\\\z;Web Site;local";
    const resolved = `${name};host-c.local;ADDRESS;80;"=b" "k=wert;mit \\"q\\""`;
    expect(seen).toEqual(
      [`+;eth0;IPv4;${name}`, `+;eth0;IPv6;${name}`, `=;eth0;IPv4;${resolved}`, `=;eth0;IPv6;${resolved}`].sort(),
    );
    own.kill("SIGTERM");
    expect(await own.ended).toBe(0);
    expect(own.err()).toBe("Established under name 'Grüße. x;y\\z'\nGot SIGTERM, quitting.\n");
    await eventually(
      "it is gone",
      async () => ofThatName((await avahi.run("avahi-browse", "-tp", "_http._tcp")).out).length === 0,
    );
  });

  it("gives way to a name that is taken, as Avahi does", async () => {
    const own = start(ours, ...trilith("publish", "plain", "_http._tcp", "99"));
    const said = "Name collision, picking new name 'plain #2'.\nEstablished under name 'plain #2'\n";
    await told(own, said);
    const theirs = start(avahi, "avahi-publish", "-s", "plain", "_http._tcp", "98");
    await eventually("Avahi gives way, too", () => theirs.err().endsWith("Established under name 'plain #3'\n"));
    for (const each of [own, theirs]) each.kill("SIGINT");
    expect([await own.ended, await theirs.ended]).toEqual([0, 0]);
    expect([own.err().split("\n").at(-2), theirs.err().split("\n").at(-2)]).toEqual([
      "Got SIGINT, quitting.",
      "Got SIGINT, quitting.",
    ]);
  });
});

describe.runIf(possible)("trilith resolve", () => {
  it.each([
    ["-4", "-n", "host-a.local"],
    ["-6", "-n", "HOST-A.local."],
    ["-a", "10.77.0.10"],
    ["-a", "fd77:0::a"],
    ["-n", "plain"],
    ["-a", "10.77.0.300"],
    ["-n"],
    ["--help"],
    [],
  ])("avahi-resolve %s %s %s", async (...words) => {
    const [theirs, own] = await both("avahi-resolve", words);
    expect(own).toEqual(theirs);
  });
});

describe.runIf(possible)("trilith wait, on the LAN", () => {
  it("prints address and port as soon as it is there", async () => {
    const words = ["_http._tcp", "--name", "MASTER", "--label", "ROLE=x", "--timeout", "30s"];
    const waiting = start(ours, ...trilith("wait", ...words));
    await announce("m1.service", fileOf("other", http(1, "<txt-record>role=x</txt-record>")));
    await announce("m2.service", fileOf("master", http(7777, "<txt-record>role=x</txt-record>")));
    expect(await waiting.ended).toBe(0);
    expect([waiting.out(), waiting.err()]).toEqual([`${publisher.ipv4} 7777\n`, ""]);
    const format = await ours.run(...trilith("wait", ...words, "--format", "{name}|{host}|{label.role}"));
    expect(format.out).toBe("master|host-a.local|x\n");
  });

  it("exit code 124 when it does not come, 130 and silence on SIGINT", async () => {
    const late = await ours.run(...trilith("wait", "_nope._tcp", "--timeout", "300ms"));
    expect(late).toEqual({
      exitCode: 124,
      out: "",
      err: "trilith wait: _nope._tcp did not come within 300ms\n",
    });
    const waiting = start(ours, ...trilith("wait", "_nope._tcp"));
    // Its signal handlers are there when it has begun to ask.
    await eventually("it asks", async () => (await ours.run("ss", "-uln")).out.includes(":5353"));
    waiting.kill("SIGINT");
    expect(await waiting.ended).toBe(130);
    expect([waiting.out(), waiting.err()]).toEqual(["", ""]);
  });

  it("says what is wrong with what it is given", async () => {
    for (const [words, says] of [
      [["_http._tcp", "--tag", "x"], "the LAN knows no tags"],
      [["web", "--name", "x"], "--name: is for instances on the LAN"],
      [["web", "--format", "{addr}"], '"{addr}" is not known; {address}'],
      [["web", "--timeout", "soon"], '--timeout: "soon": expected a duration'],
    ] as const) {
      const { exitCode, err } = await runToEnd(trilith("wait", ...words));
      expect([exitCode, err]).toEqual([2, expect.stringContaining(says)]);
    }
  });
});

describe("trilith wait, at the agent", () => {
  it("prints address and port as soon as an instance that fits is healthy", async () => {
    const agent = await startAgent([]);
    try {
      const waiting = agent.trilith(["wait", "web", "--tag", "main", "--label", "env=qa", "--timeout", "30s"]);
      await agent.trilith(["register", "--name", "web", "--id", "w1", "--port", "1", "--address", "192.0.2.4"]);
      const flags = ["--port", "8080", "--address", "192.0.2.5", "--tag", "main", "--meta", "env=qa"];
      await agent.trilith(["register", "--name", "web", "--id", "w2", ...flags]);
      expect(await waiting).toEqual({ exitCode: 0, out: "192.0.2.5 8080\n", err: "" });
      const late = await agent.trilith(["wait", "db", "--timeout", "200ms"]);
      expect(late).toEqual({ exitCode: 124, out: "", err: "trilith wait: db did not come within 200ms\n" });
    } finally {
      await agent.stop();
    }
  });

  it("waits for an agent that is not there, and says so", async () => {
    const { exitCode, err } = await runToEnd(
      trilith("wait", "web", "--timeout", "700ms", "--http-addr", "127.0.0.1:1"),
    );
    expect(exitCode).toBe(124);
    const [first, second] = err.split("\n");
    expect(first).toMatch(/no agent answers at 127\.0\.0\.1:1\b.*; waiting for it$/);
    expect(second).toMatch(/web did not come within 700ms: no agent answers/);
  });
});

describe("trilith link", () => {
  it("makes a link that acts by its name, shows it, and takes it away", async () => {
    const folder = await ownFolder("link");
    try {
      const path = join(folder.path, "avahi-browse");
      const link = (...words: string[]): Promise<Done> => runToEnd(trilith("link", ...words, "--dir", folder.path));
      expect(await link("avahi-browse", "consul")).toMatchObject({ exitCode: 0, err: "" });
      expect((await runToEnd([path, "-V"])).out).toBe("avahi-browse 0.8\n");
      expect((await runToEnd([join(folder.path, "consul"), "version"])).out).toContain("rilith");
      expect((await link("avahi-browse")).out).toBe(`${path} is there already\n`);
      expect((await link()).out).toBe(`${path}\n${join(folder.path, "consul")}\n`);
      expect((await link("avahi-browse", "--remove")).out).toBe(`${path} is gone\n`);
      expect((await link("avahi-browse", "--remove")).out).toBe(`${path} is not there\n`);
      // What is somebody else's stays.
      await writeFile(path, "mine");
      for (const words of [["avahi-browse"], ["avahi-browse", "--remove"]])
        expect(await link(...words)).toMatchObject({ exitCode: 1, err: expect.stringContaining("stays") });
      expect(await readFile(path, "utf8")).toBe("mine");
      expect(await link("ls")).toMatchObject({ exitCode: 2, err: expect.stringContaining('"ls" is nothing') });
    } finally {
      await folder.remove();
    }
  });
});
