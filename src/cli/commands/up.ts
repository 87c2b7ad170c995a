// `trilith up server|client`: prints what a host needs to run an agent (systemd unit, docker run line, compose file), or starts it.
import { dirname, extname } from "node:path";
import { fileURLToPath } from "node:url";
import { systemDisk } from "../../base/disk.ts";
import { codeOf, InputError, TrilithError } from "../../base/error.ts";
import { systemNet } from "../../base/net.ts";
import { systemProcesses } from "../../base/process.ts";
import { type Command, collect, type Io } from "../io.ts";
import { composeText, dockerText, dockerWords, type Format, planHost, unitText, type Wishes } from "../up.ts";

interface Options extends Wishes {
  readonly format: string;
  readonly image?: string;
  readonly start?: boolean;
  readonly force?: boolean;
  readonly root: string;
}

const OUTPUT_BYTES = 64 << 10;

/** Runs a command of the system's. @throws TrilithError with its own words */
async function must(words: readonly string[], io: Io, input?: string): Promise<void> {
  let ended: Awaited<ReturnType<typeof systemProcesses.run>>;
  try {
    ended = await systemProcesses.run(words, {
      signal: io.signal,
      keepBytes: OUTPUT_BYTES,
      ...(input === undefined ? {} : { input }),
    });
  } catch (error) {
    if (codeOf(error) !== "not-found") throw error;
    throw new TrilithError("not-found", `${words[0]} is not on this host`, error);
  }
  const said = Buffer.from(ended.output).toString("utf8").trim();
  if (ended.exitCode !== 0)
    throw new TrilithError(
      "unavailable",
      `${words.slice(0, 3).join(" ")} … failed: ${said === "" ? `exit status ${ended.exitCode}` : said}`,
    );
  if (said !== "") io.out(`${said}\n`);
}

async function existing(path: string): Promise<string | undefined> {
  try {
    return await systemDisk.readText(path);
  } catch (error) {
    if (codeOf(error) === "not-found") return undefined;
    throw error;
  }
}

async function up(role: string, options: Options, io: Io): Promise<void> {
  const { format, image = "" } = options;
  if (format !== "systemd" && format !== "docker" && format !== "compose")
    throw new InputError("--format", `"${format}": expected systemd, docker or compose`);
  if (format !== "systemd" && image === "")
    throw new InputError("--image", "needed for containers: an image whose entry point is trilith");
  const plan = planHost(role, options, systemNet.interfaces(), format satisfies Format);
  if (format === "docker") {
    if (!options.start) return io.out(dockerText(plan, image));
    return await must(dockerWords(plan, image), io);
  }
  if (format === "compose") {
    const text = composeText(plan, image);
    if (!options.start) return io.out(text);
    return await must(
      ["docker", "compose", "--project-name", plan.name.toLowerCase(), "--file", "-", "up", "--detach"],
      io,
      text,
    );
  }
  const node = await systemProcesses.procLink("self/exe").catch(() => undefined);
  const main = fileURLToPath(new URL(`../main${extname(import.meta.url)}`, import.meta.url));
  const text = unitText(plan, node === undefined ? [main] : [node, main]);
  if (!options.start) return io.out(text);
  const path = `${options.root}/etc/systemd/system/${plan.name}.service`;
  const there = await existing(path);
  if (there !== undefined && there !== text && !options.force)
    throw new TrilithError("conflict", `${path} is there already and says something else; --force replaces it`);
  await systemDisk.makeFolder(dirname(path));
  await systemDisk.replace(path, text, 0o644);
  io.out(`wrote ${path}\n`);
  if (options.root !== "") return;
  await must(["systemctl", "daemon-reload"], io);
  await must(["systemctl", "enable", "--now", `${plan.name}.service`], io);
}

export const command: Command = {
  name: "up",
  summary: "server | client: print what a host needs to run an agent, or start it",
  define(parser, io, done) {
    parser
      .argument("<role>", "server or client")
      .option("--format <format>", "systemd, docker or compose", "systemd")
      .option("--image <image>", "docker, compose: an image whose entry point is trilith")
      .option("--start", "install and start it instead of printing it")
      .option("--force", "with --start: replace a unit with other contents")
      .option(
        "--root <folder>",
        "with --start: a folder to put before the unit's path, starting nothing (for another system's files)",
        "",
      )
      .option("--name <name>", "the name of the unit or container", "trilith")
      .option("--node <name>", "this node's name (default: the hostname)")
      .option("--advertise <address>", "the address at which others reach this host (default: guessed, and shown)")
      .option("--client <address>", "where HTTP and DNS listen (default 127.0.0.1)")
      .option("--datacenter <name>", "the datacenter")
      .option("--etcd <urls>", "servers: the members of the etcd that they share, separated by commas")
      .option("--etcd-prefix <prefix>", "the prefix of all its keys")
      .option("--bootstrap-expect <number>", "servers: how many there will be; more than one needs --etcd")
      .option("--join <url>", "clients: a server, http://host:8500 (repeatable)", collect)
      .option("--retry-join <host>", "clients: Consul's spelling of --join (repeatable)", collect)
      .option("--recursor <address>", "a DNS server for all other names; system = this host's (repeatable)", collect)
      .option("--dns-bridge [interface]", "answer containers on port 53 of all their bridges, or of this one")
      .option("--connect", "docker, compose: with the rights to enter other containers, which connect.PORT labels need")
      .option("--data-dir <folder>", "where the agent keeps its data", "/var/lib/trilith")
      .option("--docker-socket <path>", "the Docker daemon's socket", "/var/run/docker.sock")
      .option("--no-docker", "ignore containers")
      .option(
        "--no-host-network",
        "docker, compose: give it a network of its own, with ports published on this host's loopback",
      )
      .action(async (role: string, options: Options) => {
        await up(role, { ...options, root: options.root.replace(/\/+$/, "") }, io);
        done(0);
      });
  },
};
