// Minidisc on a real tailnet: programs, command lines and agents on three nodes see each other; leaders die, nodes go down and come back, others are mixed in.
import { readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { eventually, havePrograms, ownFolder, type startProgram } from "../support/peers.ts";
import { program } from "../support/program.ts";
import { haveTailnet, startTailnet, type Tailnet, type TailnetNode } from "../support/tailnet.ts";

const here = (await haveTailnet()) && (await havePrograms("dig", "curl"));
const support = resolve(import.meta.dirname, "../support");
/** Where tailscaled is as a node sees it. */
const SOCKET = "/var/run/tailscale/tailscaled.sock";

/** Set to measure: so many takeovers, the times on standard output. */
const runs = Number(process.env["TRILITH_TAKEOVERS"] ?? 3);

interface Seen {
  readonly atMs: number;
  readonly services: readonly {
    readonly name: string;
    readonly at: string;
    readonly labels: Readonly<Record<string, string>>;
    readonly fresh: boolean;
  }[];
}

describe.skipIf(!here)("Minidisc on a real tailnet", { timeout: 240_000 }, () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let net: Tailnet;
  let nodes: readonly [TailnetNode, TailnetNode, TailnetNode];
  const running = new Set<Awaited<ReturnType<typeof startProgram>>>();
  let logs = 0;

  async function start(
    node: TailnetNode,
    command: readonly string[],
    env: Readonly<Record<string, string>> = {},
  ): Promise<{
    readonly pid: number;
    readonly log: () => string;
    end(signal?: NodeJS.Signals): Promise<number | null>;
  }> {
    const file = join(folder.path, `program-${logs++}.log`);
    const started = await node.start(command, file, env);
    running.add(started);
    return {
      pid: started.pid,
      log: () => readFileSync(file, "utf8"),
      async end(signal = "SIGTERM") {
        running.delete(started);
        await started.stop(signal);
        return started.ended;
      },
    };
  }
  type Running = Awaited<ReturnType<typeof start>>;

  /** A program that advertises by the library's peer, or a model of an original implementation. */
  async function advertising(
    node: TailnetNode,
    kind: "trilith" | "go" | "python",
    ...words: string[]
  ): Promise<Running> {
    const script = join(support, "minidisc-process.ts");
    const command = [process.execPath, "--import", "tsx", script, kind, node.address, SOCKET, ...words];
    const started = await start(node, command);
    await eventually("it has its role", () => started.log().includes('"role"'));
    return started;
  }

  async function watching(node: TailnetNode): Promise<{ readonly seen: () => Seen[]; readonly program: Running }> {
    const started = await start(node, [
      process.execPath,
      "--import",
      "tsx",
      join(support, "minidisc-watch.ts"),
      SOCKET,
    ]);
    const seen = (): Seen[] =>
      started
        .log()
        .split("\n")
        .slice(0, -1)
        .map((line) => JSON.parse(line) as Seen);
    await eventually("it sees something", () => seen().length > 0);
    return { seen, program: started };
  }
  const namesOf = (seen: Seen | undefined): string =>
    (seen?.services ?? [])
      .filter(({ fresh }) => fresh)
      .map(({ name }) => name)
      .sort()
      .join(" ");

  const md = async (node: TailnetNode, ...words: readonly string[]): Promise<string> =>
    (await node.run([process.execPath, program, "md", ...words, "--compat"])).output;

  beforeAll(async () => {
    folder = await ownFolder("tailnet-peers");
    net = await startTailnet(folder.path);
    nodes = net.nodes as unknown as typeof nodes;
  }, 600_000);
  /** As it began, also after a test that did not come to its end. */
  beforeEach(async () => {
    for (const node of nodes) await node.mend();
    await eventually(
      "all others are online",
      async () => Object.values((await nodes[0].status()).Peer ?? {}).every(({ Online }) => Online),
      60_000,
    );
  }, 180_000);
  afterEach(async () => {
    for (const one of [...running]) await one.stop("SIGKILL");
    running.clear();
  });
  afterAll(async () => {
    await net?.stop();
    await folder?.remove();
  });

  test("md list, find and advertise on three nodes", async () => {
    const [n1, n2, n3] = nodes;
    const files = readFileSync(join(support, "../golden/minidisc/cli/configs.yaml"), "utf8").split(/^(?=services:)/m);
    const advertised: Running[] = [];
    for (const [i, [node, text]] of (
      [
        [n1, files[1]],
        [n1, files[0]],
        [n2, files[2]],
        [
          n3,
          "services: [{name: cache, address: ':6379', labels: {lang: py}}, {name: web, address: ':8080', labels: {env: prod}}]",
        ],
      ] as const
    ).entries()) {
      const file = join(folder.path, `${i}.yaml`);
      await writeFile(file, text ?? "");
      const one = await start(node, [process.execPath, program, "md", "advertise", file]);
      await eventually("it advertises", () => one.log().includes("Advertising:"));
      advertised.push(one);
    }
    const recorded = readFileSync(join(support, "../golden/minidisc/cli/md-list-find.txt"), "utf8");
    const lines = /n1, through cat -A\n([\s\S]*?)\$ md/.exec(recorded)?.[1]?.replace(/\$$/gm, "");
    // A leader may hear of its delegate's list a moment after the delegate has its answer.
    await eventually("all are listed as recorded", async () => {
      expect(await md(n1, "list")).toBe(lines);
      return true;
    });
    expect((await md(n2, "list")).split("\n")[0]).toMatch(/^\* foobar {6}100\.64\.0\.99:42 /);
    expect(await md(n3, "find", "web")).toBe("100.64.0.3:8080\n");
    expect(await md(n3, "find", "web", "env=staging")).toBe("100.64.0.1:8081\n");
    expect(await md(n3, "find", "nosuch")).toBe("No matching service found\n");
    for (const one of advertised) expect(await one.end("SIGINT")).toBe(0);
    await eventually("nothing is left", async () => (await md(n2, "list")) === "No advertised services found\n");
  });

  test("a killed leader's delegates are listed again at once, as another node sees it", async () => {
    const [n1, n2] = nodes;
    const { seen } = await watching(n2);
    const times: number[] = [];
    const alive = new Map<string, Running>();
    const listed = (names: Iterable<string>): string => [...names].sort().join(" ");
    for (let n = 0; n < 3; n++) alive.set(`s${n}`, await advertising(n1, "trilith", `s${n}:${8000 + n}`));
    await eventually("all three", () => namesOf(seen().at(-1)) === listed(alive.keys()));
    for (let n = 3; n < 3 + runs; n++) {
      // Who of them holds the port.
      const { output } = await n1.run(["ss", "-Hltnp", "sport = :28004"]);
      const [name = "", leader] = [...alive].find(([, { pid }]) => output.includes(`pid=${pid},`)) ?? [];
      if (leader === undefined) throw new Error(`none of them leads: ${output}`);
      alive.delete(name);
      const wanted = listed(alive.keys());
      const killedMs = Date.now();
      await leader.end("SIGKILL");
      const back = await eventually(`${wanted} are listed`, () =>
        seen().find((one) => one.atMs >= killedMs && namesOf(one) === wanted),
      );
      times.push(back.atMs - killedMs);
      alive.set(`s${n}`, await advertising(n1, "trilith", `s${n}:${8000 + n}`));
      await eventually("all three", () => namesOf(seen().at(-1)) === listed(alive.keys()));
    }
    const median = times.toSorted((a, b) => a - b)[times.length >> 1];
    console.log(
      `takeovers seen by another node: ${times.join(", ")} ms; median ${median}, worst ${Math.max(...times)}`,
    );
    // At once: the original implementations notice by their pings, after five seconds and more.
    expect(median).toBeLessThan(5_000);
  });

  test("tailscale down and up, and a killed tailscaled, are survived by what is advertised", async () => {
    const [n1, n2, n3] = nodes;
    const { seen } = await watching(n2);
    await advertising(n1, "trilith", "up:8000");
    await advertising(n1, "trilith", "too:8001");
    await advertising(n3, "trilith", "other:8000");
    const all = (): boolean => namesOf(seen().at(-1)) === "other too up";
    await eventually("all", all, 60_000);

    await n1.tailscale("down");
    await eventually(
      "what is on the first node is not fresh any more",
      () => namesOf(seen().at(-1)) === "other",
      60_000,
    );
    await n1.up();
    const upMs = Date.now();
    await eventually("all again", all, 60_000);
    console.log(`listed elsewhere again ${Date.now() - upMs} ms after "tailscale up"`);
    await eventually(
      "all are listed",
      async () => (await md(n3, "list")).split("\n").filter((line) => line !== "").length === 3,
    );

    await n1.killDaemon();
    await eventually("offline", () => namesOf(seen().at(-1)) === "other", 60_000);
    await n1.startDaemon();
    const startedMs = Date.now();
    await eventually("all once more", all, 60_000);
    console.log(`and ${Date.now() - startedMs} ms after the start of a tailscaled that was killed`);
  });

  test("agents: what a peer advertises is found over DNS and HTTP, and what an agent has is on the tailnet", async () => {
    const [n1, n2, n3] = nodes;
    const { seen } = await watching(n2);
    await advertising(n1, "trilith", "peered:8123");
    const agents: Running[] = [];
    for (const node of [n2, n3])
      agents.push(
        await start(node, [process.execPath, program, "agent", "-dev", `-node=${node.name}`, "-docker-host=off"]),
      );
    const ask = (node: TailnetNode, ...command: string[]): Promise<string> =>
      node.run(command).then(({ output }) => output);
    await eventually("DNS", async () =>
      (await ask(n3, "dig", "@127.0.0.1", "-p", "8600", "peered.service.consul", "SRV", "+short")).includes(" 8123 "),
    );
    expect((await ask(n3, "dig", "@127.0.0.1", "-p", "8600", "peered.service.consul", "+short")).trim()).toBe(
      "100.64.0.1",
    );
    const found = JSON.parse(await ask(n3, "curl", "-s", "http://127.0.0.1:8500/v1/health/service/peered?passing")) as {
      Service: { Address: string; Port: number };
    }[];
    expect(found.map(({ Service }) => [Service.Address, Service.Port])).toEqual([["100.64.0.1", 8123]]);

    // The other way: registered at the second node's agent, seen by peers and by the third node's agent.
    await ask(
      n2,
      process.execPath,
      program,
      "register",
      "--name=agented",
      "--port=9999",
      "--tag=v2",
      "--meta=env=prod",
    );
    await eventually("seen by a peer", () =>
      seen()
        .at(-1)
        ?.services.some(({ name, at }) => name === "agented" && at === "100.64.0.2:9999"),
    );
    await eventually("seen by the other agent", async () =>
      (await ask(n3, "dig", "@127.0.0.1", "-p", "8600", "agented.service.consul", "+short")).includes("100.64.0.2"),
    );
    await eventually("found by md", async () => (await md(n1, "find", "agented", "env=prod")) === "100.64.0.2:9999\n");
    expect(await md(n1, "list")).toMatch(/^\* agented +100\.64\.0\.2:9999 +\{ env=prod, v2=true \} +$/m);
    const doctor = await ask(n3, process.execPath, program, "doctor");
    expect(doctor).toMatch(/minidisc/);

    // The agent's node goes: its services leave the others' answers.
    await agents[0]?.end("SIGTERM");
    await eventually("withdrawn", async () => (await md(n1, "find", "agented")) === "No matching service found\n");
  });

  test("mixed with models of the Go and Python implementation", async () => {
    const [n1, n2, n3] = nodes;
    await advertising(n2, "trilith", "t1:8001");
    const { seen } = await watching(n3);
    const leader = await advertising(n1, "go", "g1:8001");
    await advertising(n1, "trilith", "t2:8002");
    await advertising(n1, "python", "p1:8003");
    const all = (): Promise<boolean> =>
      md(n3, "list").then((out) => ["g1", "t1", "t2", "p1"].every((name) => out.includes(`* ${name} `)));
    await eventually("all of every kind are listed", all, 40_000);
    await eventually("and followed", () => namesOf(seen().at(-1)) === "g1 p1 t1 t2", 40_000);
    // The end of the Go program that led: the delegates of other kinds are listed again, and stay, over the originals' pings.
    const killedMs = Date.now();
    await leader.end("SIGKILL");
    const back = await eventually(
      "the delegates are listed again",
      () => seen().find((one) => one.atMs >= killedMs && namesOf(one) === "p1 t1 t2"),
      40_000,
    );
    console.log(`a Go leader's delegates are listed again, as another node sees it, after ${back.atMs - killedMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 6_500));
    expect(namesOf(seen().at(-1))).toBe("p1 t1 t2");
  });

  test("gRPC by minidisc://: servers on two nodes, a caller on the third, no agent", async () => {
    const [n1, n2, n3] = nodes;
    const script = (name: string): string[] => [process.execPath, "--import", "tsx", join(support, name)];
    const ports: string[] = [];
    for (const node of [n1, n2]) {
      const server = await start(node, [...script("grpc-server.ts"), node.address, "who", "env=prod"], {
        TS_SOCKET: SOCKET,
      });
      ports.push(await eventually("its port", () => /^\d+\n/.exec(server.log())?.[0].trim()));
    }
    const call = (target: string): Promise<string> =>
      n3.run([...script("grpc-once.ts"), target, "127.0.0.1:1"], { TS_SOCKET: SOCKET }).then(({ output }) => output);
    expect(ports).toContain(await call("minidisc://who?env=prod"));
    expect(ports).toContain(await call("trilith://who"));
    expect(await call("minidisc://who?env=staging")).toContain('service "who" env=staging: there is none');
  });

  test("userspace networking: others are found through tailscaled's proxy; why nothing can be advertised is said", async () => {
    const [n1, , n3] = nodes;
    await advertising(n1, "trilith", "beyond:8000");
    await n3.killDaemon("SIGTERM");
    await n3.startDaemon({ userspace: true });
    await eventually("running", async () => (await n3.status()).BackendState === "Running", 60_000);
    // undici tells on standard error that its SOCKS is young.
    await eventually("found", async () =>
      (await md(n3, "find", "beyond", "--proxy=localhost:1055")).endsWith("100.64.0.1:8000\n"),
    );
    const file = join(folder.path, "userspace.yaml");
    await writeFile(file, "services: [{name: in, address: ':1'}]");
    const trying = await start(n3, [process.execPath, program, "md", "advertise", file]);
    await eventually("it says why", () => /^Not advertised yet: .*userspace networking/m.test(trying.log()));
    expect(await trying.end("SIGTERM")).toBe(0);
  });
});
