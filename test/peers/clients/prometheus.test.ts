// Prometheus 2.55 with consul_sd_configs against a whole agent: targets come with their labels, are scraped, turn critical, move and go.
import { readFile, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { buildGo, haveGo } from "../../support/clients.ts";
import { type RunningAgent, startAgent } from "../../support/ground.ts";
import { eventually, freePort, ownFolder, startProgram } from "../../support/peers.ts";

// Debian's Prometheus is built without consul_sd; its module has replacements, which only a main module may have, so they are repeated here.
const GO_MOD = `module trilith.test/prometheus

go 1.22.0

require github.com/prometheus/prometheus v0.55.1

replace (
	k8s.io/klog => github.com/simonpasquier/klog-gokit v0.3.0
	k8s.io/klog/v2 => github.com/simonpasquier/klog-gokit/v3 v3.5.0
)
`;

interface Target {
  readonly scrapePool: string;
  readonly health: string;
  readonly discoveredLabels: Readonly<Record<string, string>>;
}

const there = await haveGo();

describe.runIf(there)("Prometheus", { timeout: 120_000 }, () => {
  const undo: (() => unknown)[] = [];
  let agent: RunningAgent;
  let address: string;
  let scraped: Server;
  let log: string;

  beforeAll(async () => {
    const folder = await ownFolder("prometheus");
    undo.push(() => folder.remove());
    const main = "github.com/prometheus/prometheus/cmd/prometheus";
    const program = await buildGo(folder.path, "prometheus", { goMod: GO_MOD, main });
    agent = await startAgent({ nodeLabels: { rack: "r1" } });
    undo.push(() => agent.stop());
    scraped = createServer((_, response) => response.end("up_and_well 1\n"));
    await new Promise<void>((resolve) => scraped.listen(0, "127.0.0.1", resolve));
    undo.push(() => new Promise((resolve) => scraped.close(resolve).closeAllConnections()));

    const server = new URL(agent.url).host;
    const job = (name: string, more: string): string =>
      `- job_name: ${name}\n  scrape_interval: 1s\n  consul_sd_configs:\n  - server: ${server}\n    refresh_interval: 1s\n${more}`;
    const config = join(folder.path, "prometheus.yml");
    await writeFile(
      config,
      `scrape_configs:\n${[
        job("web", "    services: [web]\n"),
        job("tagged", "    tags: [blue, v1]\n    node_meta: {rack: r1}\n"),
        job("all", "    allow_stale: false\n"),
      ].join("")}`,
    );
    address = `127.0.0.1:${await freePort()}`;
    log = join(folder.path, "log");
    const words = ["--config.file", config, "--storage.tsdb.path", join(folder.path, "data")];
    const prometheus = await startProgram([program, ...words, "--web.listen-address", address], log);
    undo.push(() => prometheus.stop());
  }, 600_000);
  afterAll(async () => {
    for (const step of undo.reverse()) await step();
  });

  async function targets(pool: string): Promise<readonly Target[]> {
    const answer = await fetch(`http://${address}/api/v1/targets?state=active&scrapePool=${pool}`);
    const { data } = (await answer.json()) as { data: { activeTargets: Target[] } };
    return data.activeTargets;
  }
  const put = async (path: string, body?: object): Promise<void> => {
    const answer = await fetch(`${agent.url}${path}`, { method: "PUT", body: JSON.stringify(body) ?? null });
    expect(answer.status, await answer.text()).toBe(200);
  };
  const port = (): number => (scraped.address() as { port: number }).port;

  // One life of one service: Prometheus looks every five seconds whether something changed.
  it("finds a service that comes, with all labels, and scrapes it; sees it turn critical, lose a tag and move; loses it when it goes", async () => {
    await eventually("Prometheus is ready", async () => (await fetch(`http://${address}/-/ready`)).ok);
    await fetch(`${agent.url}/v1/agent/service/deregister/web-1`, { method: "PUT" });
    await eventually("it knows nothing of a try before", async () => (await targets("web")).length === 0);
    await put("/v1/agent/service/register", {
      ...{ ID: "web-1", Name: "web", Tags: ["blue", "v1"], Address: "127.0.0.1", Port: port() },
      Meta: { version: "1.2", "odd-key": "x" },
      TaggedAddresses: { lan: { Address: "127.0.0.1", Port: port() } },
      Check: { CheckID: "life", TTL: "1h", Status: "passing" },
    });
    const [target] = await eventually("a target", async () => {
      const found = await targets("web");
      return found.length === 1 && found[0]?.health === "up" && found;
    });
    expect(target?.discoveredLabels).toEqual({
      __address__: `127.0.0.1:${port()}`,
      __meta_consul_address: "127.0.0.1",
      __meta_consul_dc: "dc1",
      __meta_consul_health: "passing",
      __meta_consul_metadata_consul_version: "1.19.2",
      __meta_consul_metadata_rack: "r1",
      __meta_consul_node: "alpha",
      __meta_consul_service: "web",
      __meta_consul_service_address: "127.0.0.1",
      __meta_consul_service_id: "web-1",
      __meta_consul_service_metadata_odd_key: "x",
      __meta_consul_service_metadata_version: "1.2",
      __meta_consul_service_port: String(port()),
      __meta_consul_tagged_address_lan: "127.0.0.1",
      __meta_consul_tagged_address_lan_ipv4: "127.0.0.1",
      __meta_consul_tagged_address_wan: "127.0.0.1",
      __meta_consul_tagged_address_wan_ipv4: "127.0.0.1",
      __meta_consul_tags: ",blue,v1,",
      __metrics_path__: "/metrics",
      __scheme__: "http",
      __scrape_interval__: "1s",
      __scrape_timeout__: "1s",
      job: "web",
    });
    await eventually("found by tags and node metadata", async () => (await targets("tagged")).length === 1);
    const names = async (): Promise<string> =>
      (await targets("all"))
        .map(({ discoveredLabels }) => discoveredLabels["__meta_consul_service"])
        .sort()
        .join();
    await eventually("all services", async () => (await names()) === "consul,web");

    await put("/v1/agent/check/fail/life");
    await eventually("critical", async () =>
      (await targets("web")).some((target) => target.discoveredLabels["__meta_consul_health"] === "critical"),
    );
    await put("/v1/agent/service/register", {
      ...{ ID: "web-1", Name: "web", Tags: ["blue"], Address: "127.0.0.2", Port: 9 },
      Check: { CheckID: "life", TTL: "1h" },
    });
    await eventually("moved", async () =>
      (await targets("web")).some((target) => target.discoveredLabels["__address__"] === "127.0.0.2:9"),
    );
    await eventually("not found by tags any more", async () => (await targets("tagged")).length === 0);

    await put("/v1/agent/service/deregister/web-1");
    await eventually("no target", async () => (await targets("web")).length === 0);
    await eventually("only the agent itself", async () => (await targets("all")).length === 1);
    expect(await readFile(log, "utf8")).not.toMatch(
      /component="discovery manager.*level=(error|warn)|level=(error|warn).*discovery/,
    );
    expect(agent.errors).toEqual([]);
  });
});
