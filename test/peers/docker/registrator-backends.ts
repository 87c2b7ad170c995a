// The recorded backend cases of Registrator, with a real dockerd, etcd, ZooKeeper and a Trilith agent's key-value store.
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { systemClock } from "../../../src/base/clock.ts";
import { openZooKeeper, type ZooKeeper } from "../../../src/base/zookeeper.ts";
import { backendExpectations } from "../../golden/registrator-expectations.ts";
import { type Docker, startDocker } from "../../support/docker.ts";
import { type EtcdNode, startEtcd } from "../../support/etcd.ts";
import { triedBefore } from "../../support/own-name.ts";
import { eventually, havePrograms } from "../../support/peers.ts";
import { type RunningAgent, startAgent } from "../../support/program.ts";
import { becomes, type Case, casesOf, filler, type Running, startRegistrator } from "../../support/registrator.ts";
import { haveZooKeeper, startZooKeeper, type ZooKeeperServer } from "../../support/zookeeper.ts";

const run = promisify(execFile);
const present = (await havePrograms("dockerd", "docker", "iptables", "etcd", "curl")) && (await haveZooKeeper());

/** Lines that people read; the rest are Go's libraries'. */
const TOLD = /^(added|removed|refreshed|Using|Connecting|Forcing|Listening|Syncing)/;

type Row = Readonly<Record<string, unknown>>;

/** A backend as a test sees it. */
interface Peer {
  readonly address: string;
  /** Everything that is stored, as the recording writes it. */
  stored(): Promise<readonly Row[]>;
  wipe(): Promise<void>;
}

describe.runIf(present)("recorded backends", () => {
  let docker: Docker;
  let etcd: EtcdNode;
  let zookeeper: ZooKeeperServer;
  let eye: ZooKeeper;
  let agent: RunningAgent;
  let peers: Readonly<Record<string, Peer>>;
  let fill: (text: string) => Promise<string>;

  beforeAll(async () => {
    [docker, etcd, zookeeper, agent] = await Promise.all([
      startDocker("registrator"),
      startEtcd(["--enable-v2=true"]),
      startZooKeeper(),
      startAgent(["-dev"]),
    ]);
    eye = await openZooKeeper({ servers: zookeeper.address, sessionTimeoutMs: 20_000, clock: systemClock });
    fill = await filler(docker);
    const v2 = (path: string): string => `${etcd.endpoint}/v2/keys${path}`;
    const etcdPeer: Peer = {
      address: etcd.endpoint.replace("http://", ""),
      async stored() {
        const answer = (await (await fetch(v2("/?recursive=true"))).json()) as { node: Node };
        return leaves(answer.node);
      },
      async wipe() {
        for (const top of ["/services", "/skydns"]) await fetch(v2(`${top}?recursive=true`), { method: "DELETE" });
      },
    };
    peers = {
      etcd: etcdPeer,
      skydns2: etcdPeer,
      consulkv: {
        address: agent.url.replace("http://", ""),
        async stored() {
          const answer = await fetch(`${agent.url}/v1/kv/?recurse`);
          if (answer.status === 404) return [];
          const rows = (await answer.json()) as { Key: string; Value: string; Flags: number; Session?: string }[];
          return rows.map(({ Key, Value, Flags, Session }) => ({
            key: Key,
            value: Buffer.from(Value, "base64").toString(),
            flags: Flags,
            session: Session ?? null,
          }));
        },
        wipe: async () => void (await fetch(`${agent.url}/v1/kv/?recurse`, { method: "DELETE" })),
      },
      zookeeper: {
        address: zookeeper.address,
        stored: () => walk(eye, ""),
        async wipe() {
          for (const { path } of [...(await walk(eye, ""))].reverse()) await eye.remove(String(path));
        },
      },
    };
  });
  beforeEach(async (context) => {
    if (triedBefore(context)) await docker.clear();
  });
  afterAll(async () => {
    await eye?.close();
    await Promise.all([docker?.remove(), etcd?.remove(), zookeeper?.remove(), agent?.stop()]);
  });

  it("all have an expectation", () => {
    expect(Object.keys(backendExpectations).sort()).toEqual(
      casesOf("backend")
        .map(({ name }) => name)
        .sort(),
    );
  });

  it("consul:// to a Trilith agent: ten started and ten killed at once, nothing missing and nothing stale", async () => {
    const registrator = await startRegistrator([agent.url.replace("http", "consul")], docker.host);
    const registered = async (): Promise<string[]> =>
      Object.keys((await (await fetch(`${agent.url}/v1/agent/services`)).json()) as object);
    try {
      const names = Array.from({ length: 10 }, (_, i) => `m${i}`);
      await Promise.all(
        names.map((name) =>
          docker.docker("run", "-d", "--name", name, "-p", "80", "-e", "SERVICE_NAME=burst", "bbexp1"),
        ),
      );
      const wanted = await fill(names.map((name) => `{hostname}:${name}:80`).join());
      await becomes(
        "all are registered",
        async () => wanted,
        async () => (await registered()).sort().join(),
        20_000,
      );
      await docker.docker("kill", ...names);
      await becomes(
        "none is left",
        async () => "",
        async () => (await registered()).join(),
        20_000,
      );
      await docker.docker("rm", ...names);
    } finally {
      await registrator.stop();
      await registrator.remove();
    }
  });

  for (const recorded of casesOf("backend"))
    it(
      `${recorded.name}: ${backendExpectations[recorded.name] === "same" ? "same" : "differs"}`,
      () => play(recorded),
      90_000,
    );

  async function play(recorded: Case): Promise<void> {
    const expectation = backendExpectations[recorded.name];
    const peer = peers[recorded.backend ?? ""];
    if (peer === undefined || expectation === undefined) throw new Error(`${recorded.name}: no such backend`);
    await peer.wipe();
    const address = (text: string): string => text.replace(/127\.0\.0\.1:\d+/g, peer.address);
    const words = [...(recorded.flags ?? []), address(recorded.uri ?? "")];
    const registrator = await startRegistrator(words, docker.host);
    let logged = 0;
    try {
      for (const [i, { step, cmd, stored, log }] of (recorded.steps ?? []).entries()) {
        if (step.includes("stopped by SIGTERM")) await registrator.stop("SIGTERM");
        else await act(registrator, recorded, step, cmd ?? undefined, address);
        const { stored: instead, also } = expectation === "same" ? {} : expectation;
        const wanted = [...(instead?.[step] ?? stored ?? []), ...(also?.[step] ?? [])];
        // What was deleted by hand comes back with the next resync, perhaps before anybody looks.
        if (stored !== undefined && step !== "key deleted by hand")
          await becomes(
            `${recorded.name}, ${step}`,
            async () => shown(JSON.parse(await fill(address(JSON.stringify(wanted)))) as Row[]),
            async () => shown(await peer.stored()),
            30_000,
          );
        // The log's own words, in any order, each as often as it was recorded; where better, those of the beginning only.
        const told = (log ?? []).filter((line) => (expectation === "same" || i === 0 ? TOLD.test(line) : false));
        for (const line of new Set(told)) {
          const want = await fill(address(line));
          const times = told.filter((one) => one === line).length;
          await becomes(
            `${recorded.name}, ${step}: "${want}" in the log`,
            async () => `${times} times`,
            async () => {
              const count = registrator
                .log()
                .slice(logged)
                .filter((one) => one === want).length;
              return count >= times ? `${times} times` : registrator.log().join("\n");
            },
            15_000,
          );
        }
        logged = registrator.log().length;
      }
    } finally {
      await registrator.stop("SIGKILL");
      const ids = (await docker.docker("ps", "-aq")).split("\n").filter((id) => id !== "");
      if (ids.length > 0) await docker.docker("rm", "-f", ...ids);
      await registrator.remove();
    }
  }

  async function act(
    registrator: Running,
    recorded: Case,
    step: string,
    cmd: string | undefined,
    address: (text: string) => string,
  ): Promise<void> {
    if (cmd === undefined) {
      if (!/exit|TTL/.test(step)) return;
      // Nothing is to happen: an event after the one that is ignored shows that it was seen.
      await docker.docker("wait", "c0");
      await docker.docker("run", "-d", "--name", "marker", "-p", "80", "-e", "SERVICE_NAME=marker", "bbexp1");
      const marked = (what: string) => async () =>
        registrator.log().some((line) => line.startsWith(what) && line.includes(":marker:"));
      await eventually("the marker is added", marked("added"));
      await docker.docker("rm", "-f", "marker");
      await eventually("the marker is removed", marked("removed"));
      if (recorded.backend === "etcd")
        await fetch(`${etcd.endpoint}/v2/keys/services/marker?dir=true`, { method: "DELETE" });
      return;
    }
    if (cmd.startsWith("SIGSTOP")) registrator.signal("SIGSTOP");
    else if (cmd.startsWith("SIGCONT")) registrator.signal("SIGCONT");
    else if (cmd.startsWith("zk-down")) {
      await zookeeper.stop("SIGKILL");
      await zookeeper.start();
    } else await run("sh", ["-c", await fill(address(cmd.replace(/^docker/, `docker -H ${docker.host}`)))]);
  }
});

interface Node {
  readonly key?: string;
  readonly value?: string;
  readonly dir?: boolean;
  readonly ttl?: number;
  readonly nodes?: readonly Node[];
}

function leaves({ key, value, dir, ttl, nodes }: Node): Row[] {
  if (dir !== true) return [{ key, value, ...(ttl === undefined ? {} : { ttl }) }];
  const below = (nodes ?? []).flatMap(leaves);
  return below.length === 0 && key !== undefined ? [{ key, dir: true }] : below;
}

async function walk(zk: ZooKeeper, path: string): Promise<readonly Row[]> {
  const rows: Row[] = [];
  for (const name of [...((await zk.children(path || "/")) ?? [])].sort()) {
    const below = `${path}/${name}`;
    if (below === "/zookeeper") continue;
    const znode = await zk.get(below);
    if (znode === undefined) continue;
    const ephemeral = znode.stat.owner !== "";
    rows.push({ path: below, data: znode.data.toString(), ephemeral }, ...(await walk(zk, below)));
  }
  return rows;
}

/** One row a line, in order; a TTL counts as there or not, versions and access lists do not count. */
function shown(rows: readonly Row[]): string {
  return rows
    .map(({ ttl, version: _, acl: __, ...row }) =>
      JSON.stringify({ ...row, ...(ttl === undefined ? {} : { ttl: "some" }) }),
    )
    .sort()
    .join("\n");
}
