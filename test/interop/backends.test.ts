// Backend lists with real load balancers: Apache and nginx include the list that hosts POSTed themselves into, and serve through it.
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, it } from "vitest";
import { startAgent } from "../support/ground.ts";
import { eventually, freePort, havePrograms, ownFolder, startProgram } from "../support/peers.ts";

const exec = promisify(execFile);
const able = await havePrograms("nginx", "apache2", "curl");

describe.runIf(able)("a list in", () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let agent: Awaited<ReturnType<typeof startAgent>>;
  let list: string;
  const servers: Server[] = [];
  const ports = new Map<string, number>();

  beforeAll(async () => {
    folder = await ownFolder("backends");
    agent = await startAgent({ protocols: { backends: { port: 0 } } });
    list = `http://${agent.trilith.self.listening.get("backends")}/proxy`;
    for (const name of ["a", "b"]) {
      const server = createServer((_request, response) => response.end(name));
      await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
      servers.push(server);
      ports.set(name, (server.address() as AddressInfo).port);
    }
  });
  afterAll(async () => {
    for (const server of servers) server.close();
    await agent?.stop();
    await folder?.remove();
  });

  const served = async (port: number, times: number): Promise<string> => {
    const answers = [];
    for (let i = 0; i < times; i++)
      answers.push((await exec("curl", ["-s", "-m", "5", `http://127.0.0.1:${port}/`])).stdout);
    return [...new Set(answers)].sort().join();
  };
  /** Takes the list into the file, as a timer of the operator's would. */
  const fetched = async (suffix: string, file: string): Promise<void> => {
    await exec("curl", ["-sf", "-o", file, `${list}/backends.${suffix}`]);
  };

  /** Both register, or one takes itself back; what stood in the list before does not matter. */
  const both = async (): Promise<void> => {
    for (const [name, port] of ports) await exec("curl", ["-sf", "-X", "POST", `${list}/backend/${name}?port=${port}`]);
  };
  const withoutB = (): Promise<unknown> => exec("curl", ["-sf", "-X", "DELETE", `${list}/backend/b`]);

  it("nginx, before and after one takes itself back", async () => {
    const port = await freePort();
    const file = join(folder.path, "members.nginx");
    await both();
    await fetched("nginx", file);
    const conf = join(folder.path, "nginx.conf");
    const at = (name: string): string => join(folder.path, name);
    await writeFile(
      conf,
      `daemon off; master_process on; pid ${at("nginx.pid")}; error_log stderr; user root;
events {}
http {
  access_log off;
  client_body_temp_path ${at("t1")}; proxy_temp_path ${at("t2")}; fastcgi_temp_path ${at("t3")}; uwsgi_temp_path ${at("t4")}; scgi_temp_path ${at("t5")};
  upstream web { include ${file}; }
  server { listen 127.0.0.1:${port}; location / { proxy_pass http://web; } }
}`,
    );
    const nginx = await startProgram(["nginx", "-c", conf, "-e", "stderr"], at("nginx.log"));
    try {
      await eventually("both are served", async () => (await served(port, 6)) === "a,b");
      await withoutB();
      await fetched("nginx", file);
      process.kill(Number(readFileSync(at("nginx.pid"), "utf8")), "SIGHUP");
      // Workers that are on their way out still take connections for a moment.
      await eventually("only a is served", async () => (await served(port, 20)) === "a");
    } finally {
      await nginx.stop();
    }
  });

  it("Apache, before and after one comes back", async () => {
    const port = await freePort();
    const file = join(folder.path, "members.apache");
    const at = (name: string): string => join(folder.path, name);
    await mkdir(at("apache"), { recursive: true });
    await both();
    await withoutB();
    await fetched("apache", file);
    const modules = [
      "mpm_event",
      "authz_core",
      "proxy",
      "proxy_http",
      "proxy_balancer",
      "lbmethod_byrequests",
      "slotmem_shm",
    ];
    const conf = at("apache.conf");
    await writeFile(
      conf,
      `ServerRoot ${at("apache")}
ServerName localhost
Listen 127.0.0.1:${port}
PidFile ${at("apache.pid")}
DefaultRuntimeDir ${at("apache")}
ErrorLog /dev/stderr
${modules.map((name) => `LoadModule ${name}_module /usr/lib/apache2/modules/mod_${name}.so`).join("\n")}
<Proxy balancer://web>
  Include ${file}
</Proxy>
ProxyPass / balancer://web/
`,
    );
    const apache = await startProgram(["apache2", "-f", conf, "-DFOREGROUND"], at("apache.log"));
    try {
      await eventually("a is served", async () => (await served(port, 4)) === "a");
      await exec("curl", ["-sf", "-X", "POST", "-d", `${ports.get("b")}`, `${list}/backend/b`]);
      await fetched("apache", file);
      process.kill(Number(readFileSync(at("apache.pid"), "utf8")), "SIGUSR1");
      await eventually("both are served", async () => (await served(port, 6)) === "a,b");
    } finally {
      await apache.stop();
    }
  });
});
