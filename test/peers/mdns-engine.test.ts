// The mDNS engine beside real Avahi daemons on a LAN of namespaces: each sees, resolves and gives way to the other.
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { removeServiceFiles } from "../support/avahi-agent.ts";
import { type AvahiDaemon, type AvahiHost, type AvahiLan, haveAvahiLan, startAvahiLan } from "../support/avahi-lan.ts";
import type { Command } from "../support/mdns-host.ts";
import { eventually, havePrograms } from "../support/peers.ts";

const script = fileURLToPath(new URL("../support/mdns-host.ts", import.meta.url));
const possible = (await haveAvahiLan()) && (await havePrograms("dig"));

interface Event {
  readonly event: string;
  readonly kind?: string;
  readonly why?: string;
  readonly name?: string;
  readonly host?: string;
  readonly atMs?: number;
  readonly places?: readonly unknown[];
  readonly found?: Record<string, unknown> & { readonly name: string; readonly family: number };
}

interface Running {
  readonly events: Event[];
  tell(command: Command): void;
  /** Waits for an event. */
  hears(what: string, test: (event: Event) => boolean, timeoutMs?: number): Promise<Event>;
  stop(): Promise<void>;
  kill(): Promise<void>;
}

const ends: (() => Promise<unknown>)[] = [];

async function engine(host: AvahiHost, hostName?: string): Promise<Running> {
  const child = host.spawn(
    process.execPath,
    "--import",
    import.meta.resolve("tsx"),
    script,
    ...(hostName === undefined ? [] : [hostName]),
  );
  const events: Event[] = [];
  const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
  let errors = "";
  child.stderr?.on("data", (chunk) => {
    errors += chunk;
  });
  createInterface(child.stdout as NodeJS.ReadableStream).on("line", (line) => events.push(JSON.parse(line)));
  const running: Running = {
    events,
    tell: (command) => void child.stdin?.write(`${JSON.stringify(command)}\n`),
    hears: (what, test, timeoutMs) =>
      eventually(what, () => events.find(test), timeoutMs).catch((error: Error) => {
        throw new Error(`${error.message}\n${errors}\n${events.map((e) => JSON.stringify(e)).join("\n")}`);
      }),
    async stop() {
      running.tell({ do: "stop" });
      await ended;
    },
    async kill() {
      child.kill("SIGKILL");
      await ended;
    },
  };
  ends.push(running.kill);
  await running.hears("the engine runs", ({ event }) => event === "started");
  return running;
}

/** A daemon for the running test. */
async function startAvahi(host: AvahiHost, conf?: Readonly<Record<string, string>>): Promise<AvahiDaemon> {
  const daemon = await host.avahi(conf);
  ends.push(() => daemon.stop());
  return daemon;
}

/** What avahi-browse prints until it has all for now. */
async function avahiBrowse(host: AvahiHost, ...flags: string[]): Promise<string[]> {
  const { out } = await host.run("avahi-browse", "-p", "-t", ...flags);
  return out.split("\n").filter((line) => line !== "");
}

/** A running avahi-browse: the lines it has printed, each with its time. */
function watching(host: AvahiHost, type: string): { readonly lines: { atMs: number; line: string }[] } {
  const child = host.spawn("avahi-browse", "-p", "-k", type);
  const lines: { atMs: number; line: string }[] = [];
  createInterface(child.stdout as NodeJS.ReadableStream).on("line", (line) => lines.push({ atMs: Date.now(), line }));
  ends.push(async () => void child.kill());
  return { lines };
}

describe.skipIf(!possible)("beside Avahi", { timeout: 120_000 }, () => {
  let lan: AvahiLan;
  beforeAll(async () => {
    lan = await startAvahiLan("a", "b", "c");
  });
  afterEach(async () => {
    for (const end of ends.splice(0).reverse()) await end();
    for (const name of ["b", "c"]) await removeServiceFiles(lan.host(name));
    await lan.host("c").link(true);
  });
  afterAll(() => lan?.close());

  it("is seen and resolved by Avahi, follows updates, and is gone with its goodbye", async () => {
    const b = lan.host("b");
    // Packets whose time to live is not 255 are dropped.
    await startAvahi(b, { "check-response-ttl": "yes" });
    const watch = watching(b, "_http._tcp");
    const started = Date.now();
    const ours = await engine(lan.host("c"));
    const begin = Date.now();
    ours.tell({
      do: "publish",
      name: "Küche 1.2",
      services: [{ type: "_http._tcp", subtypes: ["_printer"], port: 8080, txt: ["path=/x", "v=1"] }],
    });
    const lines = await eventually("Avahi resolves it", async () => {
      const list = await avahiBrowse(b, "-r", "_http._tcp");
      return list.filter((line) => line.startsWith("=;eth0;")).length === 2 && list;
    });
    const first = await eventually("a browser sees it", () =>
      watch.lines.find(({ line }) => line.startsWith("+;eth0;")),
    );
    console.log(
      `seen by Avahi ${first.atMs - begin} ms after publish, ${first.atMs - started} ms after the start of a program`,
    );
    expect(
      lines
        .filter((line) => line.startsWith("="))
        .map((line) => line.replace(/10\.77\.0\.12|fd77::c/, "ADDRESS"))
        .sort(),
    ).toEqual([
      '=;eth0;IPv4;K\\195\\188che\\0321\\.2;Web Site;local;host-c.local;ADDRESS;8080;"v=1" "path=/x"',
      '=;eth0;IPv6;K\\195\\188che\\0321\\.2;Web Site;local;host-c.local;ADDRESS;8080;"v=1" "path=/x"',
    ]);
    await eventually("its subtype, too", async () => (await avahiBrowse(b, "_printer._sub._http._tcp")).length === 2);
    expect((await b.run("avahi-resolve", "-4", "-n", "host-c.local")).out).toBe("host-c.local\t10.77.0.12\n");
    expect((await b.run("avahi-resolve", "-a", "10.77.0.12")).out).toBe("10.77.0.12\thost-c.local\n");
    ours.tell({ do: "update", name: "Küche 1.2", services: [{ type: "_http._tcp", port: 8081, txt: ["v=2"] }] });
    await eventually("Avahi sees the update", async () =>
      (await avahiBrowse(b, "-r", "_http._tcp")).some((line) => line.endsWith(';8081;"v=2"')),
    );
    const goodbye = Date.now();
    ours.tell({ do: "withdraw", name: "Küche 1.2" });
    const gone = await eventually("a browser sees the goodbye", () =>
      watch.lines.find(({ line }) => line.startsWith("-;eth0;")),
    );
    console.log(`gone from Avahi ${gone.atMs - goodbye} ms after the withdrawal`);
    await eventually("it is gone from Avahi", async () => (await avahiBrowse(b, "_http._tcp")).length === 0);
  });

  it("sees and resolves what Avahi has, and its goodbye", async () => {
    const b = lan.host("b");
    const avahi = await startAvahi(b);
    const ours = await engine(lan.host("c"));
    ours.tell({ do: "browse", type: "_ipp._tcp" });
    ours.tell({ do: "types" });
    ours.tell({ do: "resolve", name: "Printer", type: "_ipp._tcp" });
    await avahi.serviceFile("p.service", xml("Printer", "_ipp._tcp", 631, ["rp=q", "a=1"]));
    const found = await ours.hears(
      "it is resolved",
      ({ event, kind, found: f }) => event === "resolve" && kind === "resolved" && f?.family === 4,
    );
    expect(found.found).toMatchObject({
      host: "host-b.local",
      port: 631,
      txt: ["rp=q", "a=1"],
      interface: "eth0",
      local: false,
    });
    await ours.hears(
      "both families",
      ({ event, kind, found: f }) => event === "browse" && kind === "add" && f?.family === 6,
    );
    await ours.hears(
      "the type",
      ({ event, kind, found: f }) => event === "types" && kind === "add" && f?.["type"] === "_ipp._tcp",
    );
    await avahi.serviceFile("p.service", undefined);
    await ours.hears(
      "it is gone",
      ({ event, kind, why }) => event === "browse" && kind === "remove" && why === "goodbye",
    );
  });

  it("takes another name where Avahi has it, and Avahi where we have it", async () => {
    const b = lan.host("b");
    const avahi = await startAvahi(b);
    await avahi.serviceFile("dup.service", xml("Dup", "_http._tcp", 1, []));
    await eventually("Avahi has it", async () => (await avahiBrowse(b, "_http._tcp")).length > 0);
    const ours = await engine(lan.host("c"), "host-b");
    ours.tell({ do: "publish", name: "Dup", services: [{ type: "_http._tcp", port: 2 }] });
    const event = await ours.hears("another name", ({ kind, name }) => kind === "established" && name === "Dup #2");
    expect(event.host).toBe("host-b-2.local");
    ours.tell({ do: "publish", name: "Ours", services: [{ type: "_http._tcp", port: 3 }] });
    await ours.hears("ours", ({ kind, name }) => kind === "established" && name === "Ours");
    await avahi.serviceFile("ours.service", xml("Ours", "_http._tcp", 4, []));
    await eventually("Avahi gives way", async () =>
      (await avahiBrowse(b, "-r", "_http._tcp")).some((line) => line.startsWith("=;eth0;IPv4;Ours\\032\\0352;")),
    );
  });

  it("ends with two names where both want one at the same moment", async () => {
    const b = lan.host("b");
    const avahi = await startAvahi(b);
    const ours = await engine(lan.host("c"));
    const wanted = ["Sim 1", "Sim 2", "Sim 3"];
    for (const [port, name] of wanted.entries())
      ours.tell({ do: "publish", name, services: [{ type: "_http._tcp", port: port * 1000 }] });
    for (const [i, name] of wanted.entries())
      await avahi.serviceFile(`sim${i}.service`, xml(name, "_http._tcp", 1500, []));
    await eventually("each name is there twice, once with its number", async () => {
      const owners = new Map<string, string>();
      for (const line of await avahiBrowse(b, "-r", "_http._tcp")) {
        const [kind, , family, name = "", , , host = ""] = line.split(";");
        if (kind === "=" && family === "IPv4") owners.set(name, host);
      }
      return wanted.every((name) => {
        const escaped = name.replace(" ", "\\032");
        const hosts = new Set([owners.get(escaped), owners.get(`${escaped}\\032\\0352`)]);
        return hosts.has("host-b.local") && hosts.has("host-c.local");
      });
    });
  });

  it("shares a host and its name with an avahi-daemon without a fight, and leaves it its name", async () => {
    const b = lan.host("b");
    const c = lan.host("c");
    const near = await startAvahi(c);
    await startAvahi(b);
    await near.serviceFile("near.service", xml("Near", "_http._tcp", 1, []));
    await eventually("Avahi has it", async () => (await avahiBrowse(b, "_http._tcp")).length > 0);
    const ours = await engine(c);
    ours.tell({ do: "browse", type: "_http._tcp" });
    ours.tell({ do: "publish", name: "Beside", services: [{ type: "_http._tcp", port: 2 }] });
    const event = await ours.hears("established", ({ kind }) => kind === "established");
    expect(event.host).toBe("host-c.local");
    const near2 = await ours.hears(
      "the neighbour's",
      ({ event: e, kind, found }) => e === "browse" && kind === "add" && found?.name === "Near",
    );
    expect(near2.found).toMatchObject({ local: true });
    const both = (list: readonly string[]): boolean =>
      ["Near", "Beside"].every((name) =>
        list.some((line) => line.startsWith(`=;eth0;IPv4;${name};`) && line.includes(";host-c.local;")),
      );
    await eventually("both are seen from afar", async () => both(await avahiBrowse(b, "-r", "_http._tcp")));
    await eventually("and by the neighbour", async () => both(await avahiBrowse(c, "-r", "_http._tcp")));
    await ours.stop();
    await eventually("ours is gone", async () =>
      (await avahiBrowse(b, "_http._tcp")).every((line) => !line.includes("Beside")),
    );
    expect((await b.run("avahi-resolve", "-4", "-n", "host-c.local")).out).toBe("host-c.local\t10.77.0.12\n");
  });

  it("leaves what is sent to the host alone to an avahi-daemon that starts after it", async () => {
    const [b, c] = [lan.host("b"), lan.host("c")];
    const ours = await engine(c);
    ours.tell({ do: "publish", name: "First", services: [{ type: "_http._tcp", port: 2 }] });
    await ours.hears("established", ({ kind }) => kind === "established");
    const near = await startAvahi(c);
    await startAvahi(b);
    await near.serviceFile("near.service", xml("Near", "_http._tcp", 1, []));
    await eventually("both are seen from afar, on the same host", async () => {
      const list = await avahiBrowse(b, "-r", "_http._tcp");
      const on = (name: string): boolean =>
        list.some((line) => line.startsWith(`=;eth0;IPv4;${name};`) && line.includes(";host-c.local;"));
      return on("First") && on("Near");
    });
    await eventually("avahi-daemon answers what is sent to it alone", async () => {
      const { out } = await b.run(
        "dig",
        "+short",
        "+time=1",
        "+tries=1",
        "-p",
        "5353",
        "@10.77.0.12",
        "_http._tcp.local",
        "PTR",
      );
      return out.includes("Near._http._tcp.local.");
    });
    expect(ours.events.filter(({ kind }) => kind === "renamed")).toEqual([]);
  });

  it("probes again and announces when its cable was out", async () => {
    const [b, c] = [lan.host("b"), lan.host("c")];
    await startAvahi(b);
    const ours = await engine(c);
    ours.tell({ do: "browse", type: "_http._tcp" });
    await c.link(false);
    ours.tell({ do: "publish", name: "Back", services: [{ type: "_http._tcp", port: 2 }] });
    await eventually("it notices", () => {
      ours.tell({ do: "places" });
      return ours.events.some(({ event, places }) => event === "places" && places?.length === 0);
    });
    expect(await avahiBrowse(b, "_http._tcp")).toEqual([]);
    await c.link(true);
    await eventually("Avahi sees it", async () => (await avahiBrowse(b, "_http._tcp")).length === 2);
  });

  it("keeps what a killed Avahi had until its time is over, and is kept when killed itself", async () => {
    const b = lan.host("b");
    const avahi = await startAvahi(b);
    const ours = await engine(lan.host("c"));
    ours.tell({ do: "browse", type: "_http._tcp" });
    await avahi.serviceFile("k.service", xml("Killed", "_http._tcp", 1, []));
    await ours.hears("it is there", ({ kind, found }) => kind === "add" && found?.name === "Killed");
    await avahi.stop("SIGKILL");
    await avahi.serviceFile("k.service", undefined);
    await startAvahi(b);
    ours.tell({ do: "publish", name: "Ours", services: [{ type: "_http._tcp", port: 2 }] });
    await eventually("Avahi sees ours", async () =>
      (await avahiBrowse(b, "_http._tcp")).some((line) => line.includes("Ours")),
    );
    expect(ours.events.filter(({ event, kind }) => event === "browse" && kind === "remove")).toEqual([]);
    await ours.kill();
    expect((await avahiBrowse(b, "_http._tcp")).some((line) => line.includes("Ours"))).toBe(true);
  });
});

function xml(name: string, type: string, port: number, txt: readonly string[]): string {
  const records = txt.map((text) => `<txt-record>${text}</txt-record>`).join("");
  return `<?xml version="1.0" standalone='no'?><!DOCTYPE service-group SYSTEM "avahi-service.dtd">
<service-group><name>${name}</name><service><type>${type}</type><port>${port}</port>${records}</service></service-group>\n`;
}
