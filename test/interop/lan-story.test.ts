// The story of one LAN: the front end drops a file into Avahi's folder, back ends that came up earlier wait for it and POST themselves, and Apache serves through the list.
import type { ChildProcess } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type AvahiHost, type AvahiLan, haveAvahiLan, startAvahiLan } from "../support/avahi-lan.ts";
import { eventually, havePrograms, startProgram } from "../support/peers.ts";
import { program } from "../support/program.ts";

const possible = (await haveAvahiLan()) && (await havePrograms("curl", "apache2", "ip"));
if (!existsSync(program)) throw new Error(`${program} is missing: npm run build`);

const trilith = `${process.execPath} ${program}`;
/** What a back end runs at boot. Only how it waits for the front end differs. */
const provision = (wait: string): string => `
set -eu
${wait}
mac=$(cat /sys/class/net/eth0/address)
curl -sf -o /dev/null -w '%{http_code} ' -X POST http://$master_ip/proxy/backend/$mac
echo "$mac at $master_ip"
`;
const WITH_WAIT = `master_ip=$(${trilith} wait _http._tcp --name master --timeout 60s --format '{address}')`;
const WITH_BROWSE = `
master_ip=
while [ -z "$master_ip" ]; do
  master_ip=$(${trilith} browse -rptf _http._tcp | awk -F';' '$1 == "=" && $3 == "IPv4" && $4 == "master" { print $8; exit }')
done`;
const MASTER = `<?xml version="1.0" standalone='no'?>
<!DOCTYPE service-group SYSTEM "avahi-service.dtd">
<service-group>
  <name>master</name>
  <service><type>_http._tcp</type><port>80</port></service>
</service-group>
`;
const MODULES = [
  "mpm_event",
  "authz_core",
  "proxy",
  "proxy_http",
  "proxy_balancer",
  "lbmethod_byrequests",
  "slotmem_shm",
];

describe.runIf(possible)("front end and back ends on one LAN", () => {
  let lan: AvahiLan;
  const ends: (() => Promise<unknown>)[] = [];
  beforeEach(async () => {
    lan = await startAvahiLan("a", "b", "c", "d");
  });
  afterEach(async () => {
    for (const end of ends.splice(0).reverse()) await end();
    await lan?.close();
  });

  /** What a back end serves, and what it runs at boot. */
  async function backEnd(
    host: AvahiHost,
    wait: string,
  ): Promise<{ readonly said: () => string; stop(): Promise<void> }> {
    const serve = `require("http").createServer((_, r) => r.end("${host.name}")).listen(8000)`;
    const server = await startProgram(host.command(process.execPath, "-e", serve), join(host.folder, "server.log"));
    const script: ChildProcess = host.spawn("bash", "-c", provision(wait));
    let said = "";
    for (const stream of [script.stdout, script.stderr])
      stream?.on("data", (chunk) => {
        said += chunk;
      });
    ends.push(
      () => server.stop("SIGKILL"),
      async () => void script.kill("SIGKILL"),
    );
    return { said: () => said, stop: server.stop };
  }

  it("is found, is joined, and serves through its list; a back end that dies is out of it", async () => {
    const [front, client] = [lan.host("a"), lan.host("d")];
    const [waits, browses] = [await backEnd(lan.host("b"), WITH_WAIT), await backEnd(lan.host("c"), WITH_BROWSE)];

    // The front end comes up: Avahi as the distribution has it, and an agent that keeps the list.
    const daemon = await front.avahi();
    const at = (name: string): string => join(front.folder, name);
    const backends = { address: "0.0.0.0", port: 80, backend_port: 8000 };
    await writeFile(at("trilith.json"), JSON.stringify({ protocols: { backends } }));
    const flags = ["--dev", "--docker-host", "off", "--environ", "off", "--config-file", at("trilith.json")];
    const agent = await startProgram(front.command(process.execPath, program, "agent", ...flags), at("agent.log"));
    ends.push(() => agent.stop("SIGKILL"));
    const list = async (suffix: string): Promise<string> =>
      (await front.run("curl", "-sf", `http://127.0.0.1/proxy/backends.${suffix}`)).out;
    await eventually(
      "the list is served",
      async () => (await front.run("curl", "-sf", "http://127.0.0.1/proxy/backends")).exitCode === 0,
    );
    expect([waits.said(), browses.said()]).toEqual(["", ""]);
    await daemon.serviceFile("master.service", MASTER);

    const come = (backEnd: { said: () => string }, mac: string) =>
      eventually("it has joined", () => backEnd.said() === `201 ${mac} at 10.77.0.10\n`, 40_000).catch(
        (error: Error) => {
          throw new Error(`${error.message}: ${backEnd.said()}`);
        },
      );
    await come(waits, "02:00:00:00:77:0b");
    await come(browses, "02:00:00:00:77:0c");
    await eventually("both are in the list", async () => (await list("txt")) === "10.77.0.11:8000\n10.77.0.12:8000\n");

    // Apache serves through the list.
    const members = at("members.conf");
    const fetched = async (): Promise<void> => writeFile(members, await list("apache"));
    await mkdir(at("apache"));
    await fetched();
    await writeFile(
      at("apache.conf"),
      `ServerRoot ${at("apache")}
ServerName localhost
Listen 8080
PidFile ${at("apache.pid")}
DefaultRuntimeDir ${at("apache")}
ErrorLog /dev/stderr
${MODULES.map((name) => `LoadModule ${name}_module /usr/lib/apache2/modules/mod_${name}.so`).join("\n")}
<Proxy balancer://web>
  Include ${members}
</Proxy>
ProxyPass / balancer://web/
`,
    );
    const apache = await startProgram(
      front.command("apache2", "-f", at("apache.conf"), "-DFOREGROUND"),
      at("apache.log"),
    );
    ends.push(() => apache.stop());
    const served = async (): Promise<string> => {
      const answers = new Set<string>();
      for (let i = 0; i < 6; i++)
        answers.add((await client.run("curl", "-s", "-m", "5", "http://10.77.0.10:8080/")).out);
      return [...answers].sort().join();
    };
    await eventually("both are served", async () => (await served()) === "b,c");

    await waits.stop();
    await eventually("a dead one is out of the list", async () => (await list("txt")) === "10.77.0.12:8000\n", 40_000);
    await fetched();
    process.kill(Number(readFileSync(at("apache.pid"), "utf8")), "SIGUSR1");
    await eventually("only the other one is served", async () => (await served()) === "c");
  }, 180_000);
});
