// The commands for the LAN on a simulated one: what they print, when they end, and that nothing of them is left.
import { describe, expect, it } from "vitest";
import { txt, type World, world } from "../../../../test/simulated/mdns-world.ts";
import { TYPE } from "../../../wire/dns/index.ts";
import type { MdnsOptions } from "../engine.ts";
import { browse } from "./browse.ts";
import { getopt } from "./getopt.ts";
import type { Machine, Shell } from "./machine.ts";
import { publish } from "./publish.ts";
import { resolve } from "./resolve.ts";
import { awaitOnLan } from "./wait.ts";

interface Terminal {
  readonly shell: Shell;
  readonly machine: Machine;
  readonly stop: (signal?: string) => void;
  out: string;
  err: string;
}

/** A terminal on a host of its own. */
async function terminal(lan: World, program: string, env: Record<string, string> = {}): Promise<Terminal> {
  const engine = await lan.host("looker", undefined, { brief: true } satisfies Partial<MdnsOptions>);
  const controller = new AbortController();
  const made: Terminal = {
    out: "",
    err: "",
    stop: (signal = "SIGINT") => controller.abort(new Error(`ended by ${signal}`)),
    machine: { clock: lan.clock, mdns: () => engine, isCrowded: async () => false },
    shell: {
      program,
      out: (text) => {
        made.out += text;
      },
      err: (text) => {
        made.err += text;
      },
      env: (name) => env[name],
      signal: controller.signal,
    },
  };
  return made;
}

/** The value of a promise if it comes while time goes on; how long it took. */
async function within<T>(lan: World, ms: number, promise: Promise<T>): Promise<readonly [value: T, tookMs: number]> {
  let done: readonly [T, number] | undefined;
  const from = lan.clock.monotonic();
  void promise.then((value) => {
    done = [value, lan.clock.monotonic() - from];
  });
  for (let waited = 0; waited < ms && done === undefined; waited += 20) await lan.clock.advance(20);
  if (done === undefined) throw new Error(`did not end within ${ms} ms`);
  return done;
}

async function withWeb(lan: World): Promise<void> {
  const host = await lan.host("host-a");
  host.publish({ name: "web one", services: [{ type: "_http._tcp", port: 80, txt: txt("a=1", "b=2") }] });
  await lan.clock.advance(5000);
}

describe("browse", () => {
  it("-t ends after about a second with all there is, -r with what it resolves to", async () => {
    const lan = world();
    await withWeb(lan);
    const at = await terminal(lan, "avahi-browse");
    const [code, tookMs] = await within(lan, 3000, browse(["-artp"], at.shell, at.machine));
    expect([code, at.err]).toEqual([0, ""]);
    const line = ";eth0;IPv4;web\\032one;Web Site;local";
    expect(at.out).toBe(`+${line}\n=${line};host-a.local;10.0.0.1;80;"b=2" "a=1"\n`);
    expect(tookMs).toBeGreaterThanOrEqual(1000);
    expect(tookMs).toBeLessThan(1400);
    // One question for types, one for instances: a second one of each, with all that is known, would keep Avahi from answering whoever asks next.
    const asked = lan.lan.from("10.0.0.2").filter(({ message }) => !message.response);
    expect(asked.flatMap(({ message }) => message.questions.filter(({ type }) => type === TYPE.PTR))).toHaveLength(2);
    await lan.stopAll();
    expect(lan.clock.timers).toBe(0);
  });

  it("one right after another sees everything, though nobody repeats himself to all within a second", async () => {
    const lan = world();
    await withWeb(lan);
    for (let i = 0; i < 3; i++) {
      const at = await terminal(lan, "avahi-browse");
      const running = browse(["-tp", "_http._tcp"], at.shell, at.machine);
      const other = await terminal(lan, "avahi-browse");
      await lan.clock.advance(200);
      await within(lan, 3000, Promise.all([running, browse(["-tp", "_http._tcp"], other.shell, other.machine)]));
      expect([at.out, other.out]).toEqual(Array(2).fill("+;eth0;IPv4;web\\032one;Web Site;local\n"));
    }
    await lan.stopAll();
  });

  it("beside another mDNS stack, which takes what is sent to this host alone, waits for a second answer where there was none", async () => {
    const lan = world();
    await withWeb(lan);
    const engine = await lan.host("crowded");
    const at = await terminal(lan, "avahi-browse");
    const machine = { clock: lan.clock, mdns: () => engine, isCrowded: async () => true };
    // As if it had just been said to all: the first question brings nothing.
    lan.lan.split(["1"], ["2", "3"]);
    const running = browse(["-tp", "_http._tcp"], at.shell, machine);
    await lan.clock.advance(500);
    lan.lan.split();
    const [, tookMs] = await within(lan, 5000, running);
    expect(at.out).toBe("+;eth0;IPv4;web\\032one;Web Site;local\n");
    expect(tookMs).toBeLessThan(1500);
    // Who is answered at once does not wait.
    const again = await lan.host("crowded, too");
    const quick = browse(["-tp", "_http._tcp"], at.shell, { ...machine, mdns: () => again });
    expect((await within(lan, 5000, quick))[1]).toBeLessThanOrEqual(1020);
    await lan.stopAll();
  });

  it("without -t tells what comes and goes until it is stopped; the width is that of COLUMNS", async () => {
    const lan = world();
    const host = await lan.host("host-a");
    const at = await terminal(lan, "trilith browse", { COLUMNS: "60" });
    const running = browse(["-k", "_http._tcp"], at.shell, at.machine);
    await lan.clock.advance(2000);
    expect(at.out).toBe("");
    const published = host.publish({ name: "zwölf", services: [{ type: "_http._tcp", port: 1 }] });
    await lan.clock.advance(3000);
    const line = `   eth0 IPv4 ${"zw__lf".padEnd(25)} _http._tcp           local\n`;
    expect(at.out).toBe(`+${line}`);
    await published.withdraw();
    await lan.clock.advance(2000);
    expect(at.out).toBe(`+${line}-${line}`);
    at.stop("SIGTERM");
    expect((await within(lan, 100, running))[0]).toBe(0);
    expect(at.err).toBe("Got SIGTERM, quitting.\n");
    await lan.stopAll();
  });

  it("gives up a resolution after five seconds, and -t ends then", async () => {
    const lan = world();
    const host = await lan.host("host-a");
    host.publish({ name: "lost", services: [{ type: "_ftp._tcp", port: 21, host: "no.local" }] });
    await lan.clock.advance(5000);
    const at = await terminal(lan, "avahi-browse");
    const [, tookMs] = await within(lan, 8000, browse(["-rtp", "_ftp._tcp"], at.shell, at.machine));
    expect(at.out).toBe("+;eth0;IPv4;lost;FTP File Transfer;local\n");
    expect(at.err).toBe("Failed to resolve service 'lost' of type '_ftp._tcp' in domain 'local': Timeout reached\n");
    expect(tookMs).toBeGreaterThan(4900);
    await lan.stopAll();
  });

  it("-v tells the end of the list, once; -D ends where there are no domains", async () => {
    const lan = world();
    await withWeb(lan);
    const at = await terminal(lan, "avahi-browse");
    await within(lan, 3000, browse(["-vat"], at.shell, at.machine));
    expect(at.out.match(/^: .*$/gm)).toEqual([": Cache exhausted", ": All for now"]);
    expect(at.out.endsWith(": All for now\n")).toBe(true);
    const domains = await terminal(lan, "avahi-browse-domains");
    // Alone on its host it does not wait for what a second question might bring.
    expect(await within(lan, 3000, browse(["-t"], domains.shell, domains.machine))).toEqual([0, 1000]);
    expect(domains.out).toBe("");
    await lan.stopAll();
  });

  it("shows the types that there are, where they are browsed as if they were instances", async () => {
    const lan = world();
    await withWeb(lan);
    const at = await terminal(lan, "avahi-browse");
    await within(lan, 3000, browse(["-tp", "_services._dns-sd._udp"], at.shell, at.machine));
    expect([at.out, at.err]).toEqual(["+;eth0;IPv4;_http;_tcp;local\n", ""]);
    const again = await terminal(lan, "avahi-browse");
    await within(lan, 3000, browse(["-rtp", "_services._dns-sd._udp"], again.shell, again.machine));
    expect(again.err).toBe(
      "Failed to resolve service '_http' of type '_tcp' in domain 'local': Invalid service type\n",
    );
    await lan.stopAll();
  });

  it.each([
    [["-tp", "-d", "", "_http._tcp"], "+;eth0;IPv4;web\\032one;Web Site;local\n", ""],
    // Three bytes are a label, and nobody has such a type.
    [["-t", "_ü._tcp"], "", ""],
    [["-t", "_h ttp._tcp"], "", ""],
    [["-t", "_a._tcp"], "", "avahi_service_browser_new() failed: Invalid service type\n"],
    [["-t", "-d", "a..b", "_http._tcp"], "", "avahi_service_browser_new() failed: Invalid domain name\n"],
    [["-ta", "-d", "a..b"], "", "avahi_service_type_browser_new() failed: Invalid domain name\n"],
    [["-tD", "-d", "x".repeat(70)], "", "avahi_domain_browser_new() failed: Invalid domain name\n"],
  ])("%j, as Avahi has it", async (words, out, err) => {
    const lan = world();
    await withWeb(lan);
    const at = await terminal(lan, "avahi-browse");
    expect((await within(lan, 3000, browse(words, at.shell, at.machine)))[0]).toBe(0);
    expect([at.out, at.err]).toEqual([out, err]);
    await lan.stopAll();
  });

  it("says that there is no network, unless it shall wait for one", async () => {
    const lan = world();
    const at = await terminal(lan, "avahi-browse");
    const offline = async (): Promise<Machine> => {
      const engine = await lan.host("offline", undefined, { interfaces: () => false });
      return { ...at.machine, mdns: () => engine };
    };
    expect(await browse(["-at"], at.shell, await offline())).toBe(1);
    expect(await publish(["x", "_http._tcp", "1"], at.shell, await offline())).toBe(1);
    expect(await resolve(["-n", "x.local"], at.shell, await offline())).toBe(1);
    expect(at.err).toBe("No network interface can be used for multicast DNS\n".repeat(3));
    expect((await within(lan, 3000, browse(["-atf"], at.shell, await offline())))[0]).toBe(0);
    await lan.stopAll();
  });
});

describe("publish", () => {
  it("says under which name it stands, gives way to another, and says goodbye", async () => {
    const lan = world();
    await withWeb(lan);
    const at = await terminal(lan, "trilith publish");
    const running = publish(["web one", "_http._tcp", "0x50", "k=v"], at.shell, at.machine);
    await lan.clock.advance(5000);
    expect(at.err).toBe("Name collision, picking new name 'web one #2'.\nEstablished under name 'web one #2'\n");
    at.stop();
    expect((await within(lan, 3000, running))[0]).toBe(0);
    expect(at.err).toMatch(/Got SIGINT, quitting\.\n$/);
    await lan.clock.advance(2000);
    const looker = await terminal(lan, "avahi-browse");
    await within(lan, 3000, browse(["-atp"], looker.shell, looker.machine));
    expect(looker.out).toBe("+;eth0;IPv4;web\\032one;Web Site;local\n");
    await lan.stopAll();
  });

  it.each([
    ["80", undefined],
    ["0x50", undefined],
    ["0120", undefined],
    [" +80", undefined],
    ["08", "08"],
    ["-1", "-1"],
    ["65536", "65536"],
    ["80x", "80x"],
    ["", undefined],
    [" ", " "],
  ])("reads the port %j as C does", async (port, fault) => {
    const lan = world();
    const at = await terminal(lan, "trilith publish");
    at.stop();
    const code = await publish(["x", "_http._tcp", "--", port], at.shell, at.machine);
    expect([code, at.err.split("\n")[0]]).toEqual(
      fault === undefined ? [0, expect.stringMatching(/^Got/)] : [1, `Failed to parse port number: ${fault}`],
    );
    await lan.stopAll();
  });
});

it("an empty host or domain is none given", async () => {
  const lan = world();
  const at = await terminal(lan, "avahi-publish");
  const running = publish(["-s", "-H", "", "-d", "", "x", "_http._tcp", "80"], at.shell, at.machine);
  await lan.clock.advance(3000);
  expect(at.err).toBe("Established under name 'x'\n");
  const looks = await terminal(lan, "avahi-browse");
  await within(lan, 3000, browse(["-rtp", "_http._tcp"], looks.shell, looks.machine));
  expect(looks.out).toMatch(/^=;eth0;IPv4;x;Web Site;local;looker[^;]*\.local;/m);
  at.stop();
  await within(lan, 3000, running);
  await lan.stopAll();
});

/** What avahi-resolve says of it. */
async function resolved(lan: World, ...words: string[]): Promise<string> {
  const at = await terminal(lan, "avahi-resolve");
  await within(lan, 7000, resolve(words, at.shell, at.machine));
  return at.out + at.err;
}

describe("publish -a", () => {
  it("a name and its address, found both ways by everybody, until it says goodbye", async () => {
    const lan = world();
    const at = await terminal(lan, "trilith publish");
    const running = publish(["-a", "printer.local", "10.0.0.77"], at.shell, at.machine);
    await lan.clock.advance(3000);
    expect(at.err).toBe("Established under name 'printer.local'\n");
    expect(await resolved(lan, "-n", "Printer.local")).toBe("printer.local\t10.0.0.77\n");
    expect(await resolved(lan, "-a", "10.0.0.77")).toBe("10.0.0.77\tprinter.local\n");
    at.stop("SIGTERM");
    expect((await within(lan, 3000, running))[0]).toBe(0);
    expect(at.err).toMatch(/Got SIGTERM, quitting\.\n$/);
    await lan.clock.advance(2000);
    const gone = "Failed to resolve host name 'printer.local': Timeout reached\n";
    expect(await resolved(lan, "-n", "printer.local")).toBe(gone);
    await lan.stopAll();
  });

  it("gives way where the name is somebody's, and leaves a reverse name to whom it belongs", async () => {
    const lan = world();
    await withWeb(lan);
    const at = await terminal(lan, "trilith publish");
    const running = publish(["-a", "host-a.local", "10.0.0.88"], at.shell, at.machine);
    await lan.clock.advance(6000);
    expect(at.err).toBe(
      "Name collision, picking new name 'host-a-2.local'.\nEstablished under name 'host-a-2.local'\n",
    );
    expect(await resolved(lan, "-n", "host-a-2.local")).toBe("host-a-2.local\t10.0.0.88\n");
    expect(await resolved(lan, "-n", "host-a.local")).toBe("host-a.local\t10.0.0.1\n");
    at.stop();
    await within(lan, 3000, running);
    const second = await terminal(lan, "trilith publish");
    const alias = publish(["-a", "alias.local", "10.0.0.1"], second.shell, second.machine);
    await lan.clock.advance(6000);
    expect(second.err).toBe("Established under name 'alias.local'\n");
    expect(await resolved(lan, "-n", "alias.local")).toBe("alias.local\t10.0.0.1\n");
    expect(await resolved(lan, "-a", "10.0.0.1")).toBe("10.0.0.1\thost-a.local\n");
    second.stop();
    await within(lan, 3000, alias);
    await lan.stopAll();
  });

  it("the host's own address only without its reverse name, as with Avahi", async () => {
    const lan = world();
    const at = await terminal(lan, "avahi-publish");
    const own = "10.0.0.1";
    expect(await publish(["-a", "mine.local", own], at.shell, at.machine)).toBe(0);
    expect(at.err).toBe("Failed to add address: Local name collision\n");
    await lan.stopAll();
    const other = world();
    const again = await terminal(other, "avahi-publish-address");
    const running = publish(["-R", "mine.local", own], again.shell, again.machine);
    await other.clock.advance(3000);
    expect(again.err).toBe("Established under name 'mine.local'\n");
    again.stop();
    await within(other, 3000, running);
    await other.stopAll();
  });

  it.each([
    [["-a", "x.local"], 1, "Bad number of arguments"],
    [["-a", "x.local", "10.0.0.7", "y"], 1, "Bad number of arguments"],
    [["-a", "x.local", "nope"], 1, "Failed to parse address: nope"],
    [["-a", "x.local", "fe80::1%eth0"], 1, "Failed to parse address: fe80::1%eth0"],
    [["-a", "x", "10.0.0.7"], 0, "Failed to add address: Invalid host name"],
    [["-a", "x..local", "10.0.0.7"], 0, "Failed to add address: Invalid host name"],
  ])("%j is refused", async (words, code, says) => {
    const lan = world();
    const at = await terminal(lan, "avahi-publish");
    expect([await publish(words as string[], at.shell, at.machine), at.err]).toEqual([code, `${says}\n`]);
    await lan.stopAll();
  });
});

describe("resolve", () => {
  it("names and addresses, there and back; what nobody has after five seconds", async () => {
    const lan = world();
    await withWeb(lan);
    const at = await terminal(lan, "avahi-resolve");
    await within(lan, 7000, resolve(["-n", "HOST-a.local.", "no.local"], at.shell, at.machine));
    expect(at.out).toBe("host-a.local\t10.0.0.1\n");
    expect(at.err).toBe("Failed to resolve host name 'no.local': Timeout reached\n");
    const back = await terminal(lan, "avahi-resolve-address");
    await within(lan, 7000, resolve(["10.0.0.1"], back.shell, back.machine));
    expect(back.out).toBe("10.0.0.1\thost-a.local\n");
    await lan.stopAll();
  });
});

describe("wait", () => {
  it("takes the first instance that fits in name and labels, as soon as it can be reached", async () => {
    const lan = world();
    const host = await lan.host("host-a");
    const at = await terminal(lan, "trilith wait");
    const awaited = { type: "_http._tcp", name: "MASTER", labels: { Role: "x" }, timeoutMs: 60_000 };
    const waiting = awaitOnLan(awaited, at.shell, at.machine);
    const other = [{ type: "_http._tcp", port: 1, txt: txt("role=x") }];
    host.publish({ name: "other", services: other });
    const master = host.publish({ name: "master", services: [{ ...other[0]!, txt: txt("role=y", "role=x") }] });
    await lan.clock.advance(10_000);
    master.update([{ type: "_http._tcp", port: 7777, txt: txt("ROLE=x", "flag") }]);
    const [found] = await within(lan, 3000, waiting);
    expect(found).toEqual({
      name: "master",
      host: "host-a.local",
      address: "10.0.0.1",
      port: 7777,
      labels: new Map([
        ["role", "x"],
        ["flag", ""],
      ]),
    });
    await lan.stopAll();
  });

  it("prefers an IPv4 address, then one without a zone; a link-local one has it", async () => {
    for (const [addresses, expected] of [
      [["fe80::1/64", "fd77::1/64", "10.0.0.9/24"], /^10\.0\.0\.9$/],
      [["fe80::1/64", "fd77::1/64"], /^fd77::1$/],
      [["fe80::1/64"], /^fe80::1%eth0$/],
    ] as const) {
      const lan = world();
      const host = await lan.host("host-a", addresses);
      host.publish({ name: "x", services: [{ type: "_http._tcp", port: 1 }] });
      await lan.clock.advance(5000);
      const own = addresses.map((each) => each.replace("::1", "::2").replace("0.9", "0.8"));
      const engine = await lan.host("looker", own, { brief: true });
      const machine = { clock: lan.clock, mdns: () => engine, isCrowded: async () => false };
      const { signal } = new AbortController();
      const [found] = await within(lan, 4000, awaitOnLan({ type: "_http._tcp", timeoutMs: 9000 }, { signal }, machine));
      expect(found).toMatchObject({ address: expect.stringMatching(expected) });
      await lan.stopAll();
    }
  });

  it("waits a moment for the IPv4 address of what answers by IPv6 first with no other, as Avahi does", async () => {
    for (const [late, expected] of [
      [true, "10.0.0.9"],
      [false, "fd77::9"],
    ] as const) {
      const lan = world();
      const service = { name: "x", services: [{ type: "_http._tcp", port: 1 }] };
      const six = await lan.host("host-a", ["fd77::9/64"], { families: [6] });
      const four = await lan.host("host-a", ["10.0.0.9/24"], { families: [4] });
      six.publish(service);
      if (late) await lan.clock.advance(300);
      if (late) four.publish(service);
      const engine = await lan.host("looker", ["fd77::2/64", "10.0.0.2/24"], { brief: true });
      const machine = { clock: lan.clock, mdns: () => engine, isCrowded: async () => false };
      const { signal } = new AbortController();
      const [found] = await within(lan, 4000, awaitOnLan({ type: "_http._tcp", timeoutMs: 9000 }, { signal }, machine));
      expect(found).toMatchObject({ name: "x", address: expected });
      await lan.stopAll();
      expect(lan.clock.timers).toBe(0);
    }
  });

  it("ends at its time, or when it is stopped", async () => {
    const lan = world();
    const at = await terminal(lan, "trilith wait");
    const waiting = awaitOnLan({ type: "_http._tcp", timeoutMs: 2000 }, at.shell, at.machine);
    expect(await within(lan, 2500, waiting)).toEqual(["timeout", 2000]);
    const again = await terminal(lan, "trilith wait");
    const stopped = awaitOnLan({ type: "_http._tcp", timeoutMs: 2000 }, again.shell, again.machine);
    await lan.clock.advance(100);
    again.stop();
    expect((await within(lan, 100, stopped))[0]).toBe("stopped");
    await lan.stopAll();
    expect(lan.clock.timers).toBe(0);
  });
});

describe("flags as getopt reads them", () => {
  const known = { all: { letter: "a" }, alone: { letter: "" }, domain: { letter: "d", value: true } } as const;
  it.each([
    [["-ad", "x", "w", "--all"], ["all=", "domain=x", "all="], ["w"]],
    [["-dx", "--", "-a"], ["domain=x"], ["-a"]],
    [["--dom=x", "--do", "y", "-"], ["domain=x", "domain=y"], ["-"]],
  ])("%j", (words, flags, rest) => {
    const parsed = getopt(words, known);
    if (typeof parsed === "string") throw new Error(parsed);
    expect([parsed.flags.map(({ name, value }) => `${name}=${value}`), parsed.words]).toEqual([flags, rest]);
  });

  it.each([
    [["--al"], "option '--al' is ambiguous; possibilities: '--all' '--alone'"],
    [["--all=1"], "option '--all' doesn't allow an argument"],
    [["--domain"], "option '--domain' requires an argument"],
    [["-d"], "option requires an argument -- 'd'"],
    [["-ax"], "invalid option -- 'x'"],
    [["--nope=3"], "unrecognized option '--nope'"],
  ])("%j is wrong", (words, says) => {
    expect(getopt(words, known)).toBe(says);
  });
});
