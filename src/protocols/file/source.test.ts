// Service files on a real folder: what is read, what changes bring, what a mistake does and does not do.
import { mkdir, rename, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { eventually, ownFolder } from "../../../test/support/peers.ts";
import { systemClock } from "../../base/clock.ts";
import { systemDisk } from "../../base/disk.ts";
import { InputError, TrilithError } from "../../base/error.ts";
import { silentLog } from "../../base/log.ts";
import type { CheckRegistration, HeldCheck, HeldService } from "../../contracts/agent.ts";
import type { SourceList } from "../../contracts/source.ts";
import { createFileSource, type FileConfig, type FileMachine, type FileSource } from "./source.ts";

/** Remembers checks as an agent would. */
class Checks {
  readonly held = new Map<string, CheckRegistration>();
  readonly services = new Set<string>();
  calls = 0;
  /** Held back: the check "load" is not durable before this resolves. */
  keeping: Promise<void> | undefined;
  private changes: (() => void)[] = [];
  count = 1;
  readonly agent: FileMachine["agent"] = {
    registerCheck: async (_from, check) => {
      this.calls++;
      if (check.serviceId !== "" && !this.services.has(check.serviceId))
        throw new TrilithError("not-found", `no service ${check.serviceId}`);
      if (check.id === "load") await this.keeping;
      this.held.set(check.id, check);
    },
    deregisterCheck: async (_from, id) => {
      if (!this.held.delete(id)) throw new TrilithError("not-found", "no such check");
    },
    checks: () =>
      new Map(
        [...this.held].map(([id, spec]) => [
          id,
          { spec, check: { serviceId: spec.serviceId, origin: { source: "file" } } } as unknown as HeldCheck,
        ]),
      ),
    services: () => new Map([...this.services].map((id) => [id, {} as HeldService])),
    version: () => this.count,
    changed: (_after, signal) =>
      new Promise((resolve, reject) => {
        this.changes.push(() => resolve(++this.count));
        signal.addEventListener("abort", () => reject(signal.reason));
      }),
  };
  ring(): void {
    for (const change of this.changes.splice(0)) change();
  }
}

let folder: Awaited<ReturnType<typeof ownFolder>>;
let checks: Checks;
let stop: (() => Promise<void>) | undefined;
let lists: SourceList[];
let source: FileSource;

beforeEach(async () => {
  folder = await ownFolder("file");
  checks = new Checks();
  lists = [];
});
afterEach(async () => {
  await stop?.();
  stop = undefined;
  await folder.remove();
});

function start(config: Partial<FileConfig> = {}, scripts = true): void {
  const controller = new AbortController();
  source = createFileSource(
    { paths: [folder.path], consulPaths: [], definitions: [], ...config },
    {
      clock: systemClock,
      disk: systemDisk,
      log: silentLog,
      agent: checks.agent,
      ability: {
        scripts,
        parse: (kind) =>
          kind === "grpc"
            ? undefined
            : (detail) => {
                if (detail["url"] === "bad") throw new InputError("http check: url", '"bad": expected a URL');
                return detail;
              },
      },
    },
  );
  const done = (async () => {
    for await (const list of source.watch(controller.signal)) lists.push(list);
  })();
  stop = async () => {
    controller.abort();
    await done;
  };
}

const file = (name: string): string => join(folder.path, name);
const put = async (name: string, text: string): Promise<void> => {
  await writeFile(`${file(name)}.new`, text);
  await rename(`${file(name)}.new`, file(name));
};
const now = (): SourceList => lists.at(-1) ?? { list: [], authority: "first-hand" };
const names = (): string[] => now().list.map((r) => r.name);
const told = (): string[] =>
  (now().complaints ?? []).map(
    ({ about, text }) => `${about.replace(folder.path, "")} | ${text.replaceAll(folder.path, "")}`,
  );
const until = (what: string, ask: () => boolean): Promise<boolean> => eventually(what, ask, 10_000);

describe("reading", () => {
  it("takes JSON and HCL of a folder in lexical order, blocks and lists", async () => {
    await put("b.json", '{"services": [{"name": "b1", "port": 1}, {"name": "b2"}]}');
    await put("a.hcl", 'service { name = "a1" }\nservice { name = "a2" tags = ["x"] }');
    await put("c.txt", "not mine {");
    start();
    await until("all", () => names().length === 4);
    expect(names()).toEqual(["a1", "a2", "b1", "b2"]);
    expect(now().authority).toBe("first-hand");
    expect(now().list[0]?.text).toBe(`defined in ${file("a.hcl")}:1: service[0]`);
    expect(source.state()).toEqual({ ok: true, text: `4 services in 2 files of ${folder.path}` });
  });

  it("tells of a folder that is not there, as long as it is not", async () => {
    const later = file("later.d");
    start({ paths: [later] });
    await until("it is told", () => source.state().text === `0 services in 0 files of ${later} (nothing is there yet)`);
    await mkdir(later);
    await put("later.d/a.json", '{"service": {"name": "a"}}');
    await until("it is read", () => names().length === 1);
    expect(source.state()).toEqual({ ok: true, text: `1 service in 1 file of ${later}` });
  });

  it("takes what is said about services of other sources, and takes it back", async () => {
    await put("o.json", '{"overrides": [{"for": "web-1", "set": ["name=shop", "hidden"]}]}');
    start();
    await until("it is told", () => (now().overrides ?? []).length === 1);
    expect(now().overrides).toEqual([
      { for: "web-1", set: ["name=shop", "hidden"], by: `${file("o.json")}:1: overrides[0]` },
    ]);
    await put("o.json", '{"override": {"for": "web-1", "set": "weight=x"}}');
    await until("a mistake is told", () => told().length === 1);
    expect(told()[0]).toMatch(/override "weight=x": expected a whole number from 0 to 65535 \(its last good/);
    expect(now().overrides).toHaveLength(1);
    await put("o.json", '{"override": {"for": "web-1", "sets": "weight=1"}}');
    await until("an unknown key is told", () => told()[0]?.includes("unknown key") === true);
    await rm(file("o.json"));
    await until("nothing is left", () => now().overrides === undefined);
  });

  it("passes over what only looks like a file, as validate does, and takes hidden and empty ones", async () => {
    await put(".a.hcl", 'service { name = "hidden" }');
    await put("empty.json", "");
    await mkdir(file("folder.json"));
    await symlink(file("nowhere"), file(".#a.hcl"));
    await put("z.hcl", 'service { name = "z" }');
    start();
    await until("both", () => names().length === 2);
    expect([names(), told()]).toEqual([["hidden", "z"], []]);
    expect(source.state().ok).toBe(true);
  });

  it("sees a new file of a Consul configuration folder on reload", async () => {
    await put("a.hcl", 'datacenter = "dc7"\nservice { name = "a" }');
    start({ paths: [], consulPaths: [folder.path] });
    await until("a", () => names().join() === "a");
    await put("b.hcl", 'service { name = "b" }');
    await source.reload();
    expect(names()).toEqual(["a", "b"]);
    await rm(file("a.hcl"));
    await source.reload();
    expect(names()).toEqual(["b"]);
  });

  it("states an empty list for a folder that is not there, and finds it later", async () => {
    start({ paths: [file("later")] });
    await until("the first list", () => lists.length === 1);
    expect(names()).toEqual([]);
    await mkdir(file("later"));
    await writeFile(file("later/a.hcl"), 'service { name = "a" }');
    await until("a", () => names().includes("a"));
  });

  it("takes inline definitions and the definitions of Consul configuration files", async () => {
    await put("consul.hcl", 'datacenter = "dc7"\nports { dns = 1 }\nservice { name = "c" }');
    start({ paths: [], consulPaths: [file("consul.hcl")], definitions: [{ service: { name: "i" } }] });
    await until("both", () => names().length === 2);
    expect(names()).toEqual(["i", "c"]);
    expect(told()).toEqual([]);
  });
});

describe("changes", () => {
  it("follows new, changed and removed files without stating the same list twice", async () => {
    await put("a.hcl", 'service { name = "a" port = 1 }');
    start();
    await until("a", () => names().join() === "a");
    await put("b.json", '{"service": {"name": "b"}}');
    await until("a and b", () => names().join() === "a,b");
    await put("a.hcl", 'service { name = "a" port = 2 }');
    await until("port 2", () => now().list[0]?.port === 2);
    await rm(file("b.json"));
    await until("b gone", () => names().join() === "a");
    const count = lists.length;
    await put("a.hcl", 'service { name = "a" port = 2 }');
    await put("c.hcl", 'service { name = "c" }');
    await until("c", () => names().join() === "a,c");
    expect(lists.length).toBe(count + 1);
  });

  it("keeps the last good version of a bad file, tells line and key, leaves other files alone", async () => {
    await put("a.hcl", 'service { name = "a" }');
    await put("b.hcl", 'service { name = "b" }');
    start();
    await until("both", () => names().length === 2);
    await put("a.hcl", 'service {\n  name = "a"\n  port = "80"\n}');
    await until("the complaint", () => told().length === 1);
    expect(names()).toEqual(["a", "b"]);
    expect(told()).toEqual([
      '/a.hcl | /a.hcl:3: service.port: must be a whole number, not "80" (its last good version stays in force)',
    ]);
    expect(source.state().ok).toBe(false);
    await put("b.hcl", 'service { name = "b2" }');
    await until("b2", () => names().includes("b2"));
    expect(names()).toEqual(["a", "b2"]);
    await put("a.hcl", 'service { name = "a2" }');
    await until("a2", () => names().includes("a2") && told().length === 0);
    expect(source.state().ok).toBe(true);
  });

  it("does not take a file that is being written for bad or empty", async () => {
    await put("a.hcl", 'service { name = "a" }');
    start();
    await until("a", () => names().join() === "a");
    const whole = 'service { name = "a" }\nservice { name = "b" }\n';
    await writeFile(file("a.hcl"), "");
    await new Promise((resolve) => setTimeout(resolve, 120));
    await writeFile(file("a.hcl"), whole.slice(0, 30));
    await new Promise((resolve) => setTimeout(resolve, 120));
    await writeFile(file("a.hcl"), whole);
    await until("b", () => names().includes("b"));
    expect(lists.map((list) => list.list.map((r) => r.name).join())).toEqual(["a", "a,b"]);
    expect(lists.every((list) => list.complaints?.length === 0)).toBe(true);
  });

  it("takes an emptied file as empty in the end", async () => {
    await put("a.hcl", 'service { name = "a" }');
    start();
    await until("a", () => names().join() === "a");
    await put("a.hcl", "\n");
    await until("nothing", () => names().length === 0);
  });

  it("states the list again on reload, and resolves once it was taken", async () => {
    await put("a.hcl", 'service { name = "a" }\ncheck { id = "disk" name = "Disk" ttl = "1h" }');
    start();
    await until("a and its check", () => names().join() === "a" && checks.held.has("disk"));
    const count = lists.length;
    checks.held.delete("disk");
    await source.reload();
    expect(lists.length).toBe(count + 1);
    expect(checks.held.has("disk")).toBe(true);
  });

  it("answers a reload with everything that is not in force as it stands there, and takes the rest", async () => {
    await put("a.hcl", 'service { name = "a" }');
    await mkdir(file("watched"));
    start({ paths: [file("watched")], consulPaths: [folder.path] });
    await until("a", () => names().join() === "a");
    await put("a.hcl", 'service { name = "a" port = "abc" }');
    await put("b.hcl", 'service { name = "b" }\ncheck { id = "c" name = "C" ttl = "1h" service_id = "nobody" }');
    await put("watched/w.hcl", "service {");
    const told = await source.reload().catch((error: unknown) => error as TrilithError);
    expect(told).toBeInstanceOf(TrilithError);
    const { code, message = "" } = told ?? {};
    expect([code, ...message.replaceAll(folder.path, "").split("; ")]).toEqual([
      "invalid",
      expect.stringMatching(/^\/a\.hcl:1:.*port.*"abc".*\(its last good version stays in force\)$/),
      expect.stringMatching(/^\/watched\/w\.hcl:1:/),
      "check c: no service nobody",
    ]);
    expect(names()).toEqual(["a", "b"]);
    await put("a.hcl", 'service { name = "a" port = 80 }\nservice { id = "b" name = "b" }');
    await put("b.hcl", 'service { name = "b" }');
    await rm(file("watched/w.hcl"));
    // That an ID is there twice looks wrong, but its first owner is in force.
    await source.reload();
    expect(names()).toEqual(["a", "b"]);
  });
});

describe("complaints", () => {
  it.each<[string, string, string]>([
    ["syntax", "service {\n  name = \n}", '/a.hcl | /a.hcl:3:1: expected a value, found "}"'],
    [
      "a name that cannot be asked for",
      '{"service": {"name": "a\\nb"}}',
      '/a.json | /a.json:1: service: Invalid service name "a\\nb": it may not hold control characters or others that cannot be shown',
    ],
    ["no name", 'service { id = "x" }', "/a.hcl | /a.hcl:1: service: Missing service name"],
    [
      "a check without interval",
      'service {\n name = "a"\n check { ttl = "1s" }\n check { tcp = "x:1" }\n}',
      "/a.hcl | /a.hcl:4: service.check[1]: Invalid check: Interval must be > 0 for Script, HTTP, H2PING, TCP, UDP or OSService checks",
    ],
    [
      "a way to ask that nobody has",
      'check {\n name = "g"\n grpc = "x:1"\n interval = "1s"\n}',
      "/a.hcl | /a.hcl:1: check: this agent has no way to run grpc checks",
    ],
    [
      "what the probe refuses",
      'service {\n name = "a"\n check {\n http = "bad"\n interval = "1s" }\n}',
      '/a.hcl | /a.hcl:3: service.check: http check: url: "bad": expected a URL',
    ],
    [
      "a script",
      'service {\n name = "a"\n check { args = ["x"] interval = "1s" }\n}',
      "/a.hcl | /a.hcl:3: service.check: script checks are off on this agent: start it with --enable-local-script-checks (enable_local_script_checks) to allow them in files",
    ],
  ])("%s", async (_, text, complaint) => {
    await put(text.startsWith("{") ? "a.json" : "a.hcl", text);
    await put("b.hcl", 'service { name = "b" }');
    start({}, false);
    await until("the complaint", () => told().length > 0);
    expect(told()).toEqual([complaint]);
    expect(names()).toEqual(["b"]);
  });

  it.each<[string, string, string]>([
    [
      "of a service",
      'service {\n name = "a"\n prot = 1\n}',
      '/a.hcl:3: service.prot: unknown key: did you mean "port"?',
    ],
    [
      "of a service's check",
      'service {\n name = "a"\n check {\n  ttl = "1s"\n  nam = "x"\n }\n}',
      '/a.hcl:5: service.check.nam: unknown key: did you mean "name"?',
    ],
    ["of a check", 'check {\n name = "a"\n tttl = "1s"\n}', '/a.hcl:3: check.tttl: unknown key: did you mean "ttl"?'],
    ["at the top", '\nserivce { name = "z" }', '/a.hcl:2: serivce: unknown key: did you mean "service"?'],
    ["near none", 'whatever = 1\nservice { name = "z" }', "/a.hcl:1: whatever: unknown key"],
  ])("an unknown key %s", async (_, text, complaint) => {
    await put("a.hcl", text);
    start();
    await until("the complaint", () => told().length > 0);
    expect(told()).toEqual([`/a.hcl | ${complaint}`]);
    expect(names()).toEqual([]);
  });

  it("a slip of the pen in a good file changes nothing of the live service", async () => {
    await put("good.json", '{"service":{"name":"good","port":80}}');
    start();
    await until("good", () => names().join() === "good");
    await put("good.json", '{"service":{"name":"good","prot":81}}');
    await until("the complaint", () => told().length > 0);
    expect(told()).toEqual([
      '/good.json | /good.json:1: service.prot: unknown key: did you mean "port"? (its last good version stays in force)',
    ]);
    expect(now().list.map(({ name, port }) => [name, port])).toEqual([["good", 80]]);
    expect(source.state().ok).toBe(false);
  });

  it("name keys given twice and disputed IDs, and take the rest", async () => {
    await put("a.hcl", 'service {\n name = "a"\n port = 1\n port = 2\n}');
    await put("b.hcl", 'service { name = "a" port = 3 }');
    start();
    await until("both", () => names().length === 1);
    expect(now().list[0]?.port).toBe(2);
    expect(told()).toEqual([
      "/a.hcl:4: service.port | given more than once: only the last one counts",
      '/b.hcl:1: service | ignored: there is a service with the ID "a" at /a.hcl:1: service already. Give this one an id of its own',
    ]);
  });
});

describe("checks of their own", () => {
  it("join their service wherever it is defined, or stand for the node", async () => {
    await put("a.hcl", 'check { id = "c" name = "C" service_id = "web-1" ttl = "10s" }');
    await put(
      "b.hcl",
      'service { id = "web-1" name = "web" }\nchecks = [{ name = "load", ttl = "1h", status = "warning" }]',
    );
    start();
    await until("the node check", () => checks.held.has("load"));
    expect(now().list[0]?.checks.map((check) => check.id)).toEqual(["c"]);
    expect(checks.held.get("load")).toMatchObject({ serviceId: "", kind: "ttl", ttlMs: 3_600_000, initial: "warning" });
    await put("b.hcl", 'service { id = "web-1" name = "web" }');
    await until("the node check to go", () => !checks.held.has("load"));
  });

  it("are placed at once with a service that comes while another one is registered", async () => {
    await put("a.hcl", 'check { id = "c" name = "C" service_id = "web-1" ttl = "10s" }');
    await put("b.hcl", 'check { id = "load" name = "Load" ttl = "1h" }');
    start();
    await until("it is missed", () => told().length === 1 && checks.held.has("load"));
    await new Promise((resolve) => setTimeout(resolve, 200));
    let keep = (): void => {};
    checks.keeping = new Promise((resolve) => {
      keep = resolve;
    });
    const { calls } = checks;
    await put("b.hcl", 'check { id = "load" name = "Load" ttl = "2h" }');
    await until("both are tried", () => checks.calls === calls + 2);
    checks.services.add("web-1");
    checks.ring();
    keep();
    await until("it is placed", () => checks.held.has("c"));
  });

  it("wait for a service that somebody else registers", async () => {
    await put("a.hcl", 'check { name = "C" service_id = "api" ttl = "10s" }');
    start();
    await until("a try", () => checks.calls === 1);
    expect(checks.held.has("C")).toBe(false);
    await until("the complaint", () => told().join() === "check C | no service api");
    checks.services.add("api");
    checks.ring();
    await until("the check", () => checks.held.has("C") && told().length === 0);
  });

  it("left behind by an earlier run are taken back", async () => {
    checks.held.set("old", { id: "old", serviceId: "" } as CheckRegistration);
    start();
    await until("old gone", () => !checks.held.has("old"));
  });
});
