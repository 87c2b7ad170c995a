// consul-template 0.39.1 against a whole agent: keys, trees, services, health and nodes are rendered, change, and go; also with de-duplication.
import { readFile, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { buildGo, haveGo } from "../../support/clients.ts";
import { eventually, freePort, ownFolder, startProgram } from "../../support/peers.ts";

const program = resolve(import.meta.dirname, "../../../src/cli/main.ts");

const GO_MOD = `module trilith.test/consul-template

go 1.22

require github.com/hashicorp/consul-template v0.39.1
`;

const TEMPLATE = `title={{ keyOrDefault "site/title" "none" }}
{{ range ls "site/colours" }}colour {{ .Key }}={{ .Value }}
{{ end }}{{ range tree "site" }}tree {{ .Key }}
{{ end }}{{ range services }}service {{ .Name }} {{ .Tags | join "," }}
{{ end }}{{ range service "web" }}server {{ .ID }} {{ .Address }}:{{ .Port }} {{ .Status }}
{{ end }}{{ range service "v1.web|any" }}any {{ .ID }} {{ .Status }}
{{ end }}{{ range nodes }}node {{ .Node }} {{ .Address }}
{{ end }}{{ range datacenters }}datacenter {{ . }}
{{ end }}`;

const there = await haveGo();

describe.runIf(there)("consul-template", { timeout: 120_000 }, () => {
  const undo: (() => unknown)[] = [];
  let url: string;
  let agent: Awaited<ReturnType<typeof startProgram>> | undefined;
  let startAgent: () => Promise<void>;
  let outputs: readonly string[];
  let folder: Awaited<ReturnType<typeof ownFolder>>;

  beforeAll(async () => {
    folder = await ownFolder("consul-template");
    undo.push(() => folder.remove());
    const main = "github.com/hashicorp/consul-template";
    const binary = await buildGo(folder.path, "consul-template", { goMod: GO_MOD, main });
    const port = await freePort();
    url = `http://127.0.0.1:${port}`;
    const words = ["-node=alpha", `-data-dir=${folder.path}/data`, `-http-port=${port}`, "-dns-port=-1"];
    const command = [process.execPath, "--import", "tsx", program, "agent", ...words, "-docker-host=off"];
    startAgent = async () => {
      agent = await startProgram(command, join(folder.path, "agent.log"));
      await eventually("the agent answers", async () => (await fetch(`${url}/v1/status/leader`)).ok);
    };
    await startAgent();
    undo.push(() => agent?.stop());
    const template = join(folder.path, "site.ctmpl");
    await writeFile(template, TEMPLATE);
    // One by itself, and two that share the work by a lock.
    const kinds = [["plain"], ["shared-1", "-dedup"], ["shared-2", "-dedup"]] as const;
    outputs = kinds.map(([name]) => join(folder.path, `${name}.txt`));
    for (const [i, [name, ...words]] of kinds.entries()) {
      const where = ["-consul-addr", new URL(url).host, "-template", `${template}:${outputs[i]}`];
      const log = join(folder.path, `${name}.log`);
      const running = await startProgram([binary, ...where, "-log-level", "debug", ...words], log);
      // It does not end by SIGTERM.
      undo.push(() => running.stop("SIGINT"));
    }
  }, 600_000);
  afterAll(async () => {
    for (const step of undo.reverse()) await step();
  });

  /** As before every test, also where one ended in its middle: the agent is there, and knows nothing. */
  afterEach(async () => {
    if (agent === undefined) await startAgent();
    await fetch(`${url}/v1/agent/service/deregister/web-1`, { method: "PUT" });
    await fetch(`${url}/v1/kv/?recurse`, { method: "DELETE" });
  });

  const put = async (path: string, body?: object | string): Promise<void> => {
    const text = typeof body === "object" ? JSON.stringify(body) : body;
    const answer = await fetch(`${url}${path}`, { method: "PUT", body: text ?? null });
    expect(answer.status, await answer.text()).toBe(200);
  };
  /** Every program comes to write these lines. */
  const rendered = async (...lines: readonly string[]): Promise<void> => {
    const wanted = `${lines.join("\n")}\n`;
    for (const output of outputs) {
      let last = "";
      const written = async (): Promise<boolean> => {
        last = await readFile(output, "utf8").catch(() => "(no file)");
        return last === wanted;
      };
      await eventually(output, written, 30_000).catch(() => expect(`${output}\n${last}`).toBe(`${output}\n${wanted}`));
    }
  };
  const ends = ["node alpha 127.0.0.1", "datacenter dc1"];
  const registerWeb = (): Promise<void> =>
    put("/v1/agent/service/register", {
      ...{ ID: "web-1", Name: "web", Tags: ["v1"], Address: "192.0.2.10", Port: 80 },
      Check: { CheckID: "life", TTL: "1h", Status: "passing" },
    });

  it("renders what is there, and what comes", async () => {
    await rendered("title=none", "service consul ", ...ends);
    await put("/v1/kv/site/title", "Ärger & Co");
    await put("/v1/kv/site/colours/blue", "#00f");
    await put("/v1/kv/site/colours/red", "#f00");
    await registerWeb();
    await rendered(
      ...["title=Ärger & Co", "colour blue=#00f", "colour red=#f00"],
      ...["tree colours/blue", "tree colours/red", "tree title"],
      ...["service consul ", "service web v1", "server web-1 192.0.2.10:80 passing", "any web-1 passing"],
      ...ends,
    );
  });

  it("renders what turns critical, and what goes", async () => {
    await registerWeb();
    await put("/v1/kv/site/title", "w");
    await put("/v1/kv/site/colours/blue", "#00f");
    const before = ["title=w", "colour blue=#00f", "tree colours/blue", "tree title"];
    const web = ["service consul ", "service web v1"];
    await rendered(...before, ...web, "server web-1 192.0.2.10:80 passing", "any web-1 passing", ...ends);
    await put("/v1/agent/check/fail/life");
    await put("/v1/kv/site/title", "x");
    await fetch(`${url}/v1/kv/site/colours?recurse`, { method: "DELETE" });
    await rendered("title=x", "tree title", ...web, "any web-1 critical", ...ends);
    await put("/v1/agent/service/deregister/web-1");
    await fetch(`${url}/v1/kv/site/title`, { method: "DELETE" });
    await rendered("title=none", "service consul ", ...ends);
  });

  it("goes on when the agent was killed and started again", async () => {
    await put("/v1/kv/site/title", "before");
    await rendered("title=before", "tree title", "service consul ", ...ends);
    const killed = agent;
    agent = undefined;
    await killed?.stop("SIGKILL");
    await startAgent();
    await put("/v1/kv/site/title", "after");
    await rendered("title=after", "tree title", "service consul ", ...ends);
  });
});
