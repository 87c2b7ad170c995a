// What a host needs to become a server or a client: a plan, and its text as systemd unit, docker run line or compose file.
import { InputError } from "../base/error.ts";
import type { Interface } from "../base/net.ts";
import { outwardAddresses } from "../base/networks.ts";

export type Format = "systemd" | "docker" | "compose";

/** An agent as it is to run on a host. */
export interface HostPlan {
  readonly role: "server" | "client";
  /** Of the unit, the container and the compose service. */
  readonly name: string;
  /** The words behind `trilith agent`. */
  readonly flags: readonly string[];
  readonly dataDir: string;
  /** The Docker daemon's socket; undefined = the agent looks at no containers. */
  readonly dockerSocket: string | undefined;
  /** Containers: the host's own network. */
  readonly hostNetwork: boolean;
  /** It answers at port 53 of bridges. */
  readonly bridge: boolean;
  /** It listens at the localhost of other containers, as their labels ask. */
  readonly connect: boolean;
  /** What was guessed, and what else it could have been; one line each. */
  readonly notes: readonly string[];
}

/** What was asked for, as flags say it. */
export interface Wishes {
  readonly node?: string;
  readonly advertise?: string;
  readonly datacenter?: string;
  readonly etcd?: string;
  readonly etcdPrefix?: string;
  readonly bootstrapExpect?: string;
  readonly join?: readonly string[];
  readonly retryJoin?: readonly string[];
  readonly client?: string;
  readonly recursor?: readonly string[];
  readonly dnsBridge?: string | true;
  readonly connect?: boolean;
  readonly dataDir: string;
  readonly dockerSocket: string;
  readonly docker: boolean;
  readonly hostNetwork: boolean;
  readonly name: string;
}

/**
 * This host's own address, guessed.
 * @throws InputError where there is none
 */
function guessAddress(interfaces: readonly Interface[]): {
  readonly chosen: Interface;
  readonly others: readonly Interface[];
} {
  const [chosen, ...others] = outwardAddresses(interfaces);
  if (chosen === undefined)
    throw new InputError("--advertise", "this host has no address besides loopback: say which one others reach it at");
  return { chosen, others };
}

/** @throws InputError for what cannot work */
export function planHost(role: string, wishes: Wishes, interfaces: readonly Interface[], format: Format): HostPlan {
  if (role !== "server" && role !== "client") throw new InputError("role", `"${role}": expected server or client`);
  const joins = [...(wishes.join ?? []), ...(wishes.retryJoin ?? [])];
  const expected = wishes.bootstrapExpect === undefined ? 1 : Number(wishes.bootstrapExpect);
  if (!Number.isInteger(expected) || expected < 1)
    throw new InputError("--bootstrap-expect", `"${wishes.bootstrapExpect}": expected a whole number of 1 or more`);
  if (role === "client" && joins.length === 0)
    throw new InputError("--join", "a client host needs to know at least one server: --join http://host:8500");
  if (role === "client" && wishes.etcd !== undefined)
    throw new InputError("--etcd", "a client host asks its servers (--join); with --etcd it is a server");
  if (role === "server" && joins.length > 0)
    throw new InputError("--join", "servers do not join each other: they share one directory in etcd (--etcd)");
  if (expected > 1 && wishes.etcd === undefined)
    throw new InputError("--etcd", `${expected} servers share one directory in etcd: say where it is`);
  if (!/^[A-Za-z0-9][A-Za-z0-9_.-]*$/.test(wishes.name))
    throw new InputError("--name", `"${wishes.name}": expected letters, digits, "_", "." and "-"`);
  for (const [flag, path] of [
    ["--data-dir", wishes.dataDir],
    ["--docker-socket", wishes.dockerSocket],
  ] as const)
    if (!/^\/[^:\r\n]*$/.test(path)) throw new InputError(flag, `"${path}": expected an absolute path without ":"`);
  const hostNetwork = format === "systemd" || wishes.hostNetwork;
  const bridge = wishes.dnsBridge !== undefined;
  if (bridge && !hostNetwork)
    throw new InputError("--dns-bridge", "the bridges are the host's: it cannot go with --no-host-network");
  const connect = wishes.connect === true;
  if (connect && !wishes.docker)
    throw new InputError("--connect", "labels are those of containers: it cannot go with --no-docker");
  const notes: string[] = [];
  let { advertise } = wishes;
  if (advertise === undefined) {
    const { chosen, others } = guessAddress(interfaces);
    advertise = chosen.address;
    const rest = others.map(({ address, name }) => `${address} (${name})`).join(", ");
    notes.push(
      `advertised: ${advertise} (${chosen.name})${rest === "" ? "" : `; this host also has ${rest}`}; --advertise says another`,
    );
  }
  // Inside of a container with a network of its own loopback is reached by nobody; what is published stays on the host's loopback.
  const client = hostNetwork ? wishes.client : "0.0.0.0";
  if (role === "server" && wishes.client === undefined)
    notes.push("HTTP and DNS listen on loopback; client hosts need --client with an address that they reach");
  if (format !== "systemd" && wishes.docker && !connect)
    notes.push("labels connect.PORT of containers count with --connect: it lets this container enter the others");
  const flag = (name: string, value: string | undefined): string[] => (value === undefined ? [] : [`-${name}`, value]);
  const each = (name: string, values: readonly string[] = []): string[] => values.flatMap((value) => flag(name, value));
  const flags = [
    ...(role === "server" ? ["-server"] : []),
    ...(role === "server" && wishes.bootstrapExpect !== undefined ? flag("bootstrap-expect", `${expected}`) : []),
    ...flag("node", wishes.node),
    ...flag("datacenter", wishes.datacenter),
    ...flag("advertise", advertise),
    ...flag("client", client),
    ...flag("etcd", wishes.etcd),
    ...flag("etcd-prefix", wishes.etcdPrefix),
    ...each("join", wishes.join),
    ...each("retry-join", wishes.retryJoin),
    ...each("recursor", wishes.recursor),
    ...(wishes.dnsBridge === undefined
      ? []
      : wishes.dnsBridge === true
        ? ["-dns-bridge"]
        : flag("dns-bridge", wishes.dnsBridge)),
    ...flag("data-dir", wishes.dataDir),
    // Where every program looks for it; in a network of its own the agent sees other addresses than the host's programs do.
    ...flag("hook-table", hostNetwork ? `/run/${wishes.name}/table` : undefined),
    ...flag("docker-host", wishes.docker ? `unix://${wishes.dockerSocket}` : "off"),
  ];
  for (const word of flags)
    if (/[\r\n\0]/.test(word))
      throw new InputError("flags", `${JSON.stringify(word)}: a line break cannot be written down`);
  const { name, dataDir } = wishes;
  return {
    role,
    name,
    flags,
    dataDir,
    dockerSocket: wishes.docker ? wishes.dockerSocket : undefined,
    hostNetwork,
    bridge,
    connect,
    notes,
  };
}

const comments = (lines: readonly string[]): string => lines.map((line) => `# ${line}\n`).join("");

/** One word of a unit's command line [systemd.service(5), "Command lines"; systemd.syntax(7), "Quoting"]. */
function unitWord(word: string): string {
  const text = word.replaceAll("%", "%%").replaceAll("$", "$$$$");
  return /^[A-Za-z0-9_@%+=:,./$-]+$/.test(text) && text !== ";" ? text : `"${text.replace(/[\\"]/g, "\\$&")}"`;
}

/** A unit; `program` are the words that start the program. */
export function unitText(plan: HostPlan, program: readonly string[]): string {
  const docker = plan.dockerSocket === undefined ? "" : " docker.service";
  return `${comments(plan.notes)}[Unit]
Description=Trilith service discovery (${plan.role})
Wants=network-online.target
After=network-online.target${docker}

[Service]
# Up means that it listens. It speaks by systemd-notify: with another User= than root only NotifyAccess=all lets it be heard.
Type=notify
NotifyAccess=all
ExecStart=${[...program, "agent", ...plan.flags].map(unitWord).join(" ")}
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=2
TimeoutStopSec=20
LimitNOFILE=65536
RuntimeDirectory=${plan.name}
# Programs go on with the table while the agent is stopped.
RuntimeDirectoryPreserve=yes
NoNewPrivileges=yes

[Install]
WantedBy=multi-user.target
`;
}

const mounts = ({ name, dataDir, dockerSocket, hostNetwork }: HostPlan): string[] => [
  `${dataDir}:${dataDir}`,
  // The table of hooked programs, for the host's own.
  ...(hostNetwork ? [`/run/${name}:/run/${name}`] : []),
  // Read-only keeps the file from being replaced; what is said over the socket it does not limit.
  ...(dockerSocket === undefined ? [] : [`${dockerSocket}:${dockerSocket}:ro`]),
];
const PUBLISHED = ["127.0.0.1:8500:8500", "127.0.0.1:8600:8600", "127.0.0.1:8600:8600/udp"];

/** What the container may do besides: answer at port 53; see other containers' processes and enter their networks, which AppArmor's profile for containers forbids. */
const rights = ({ bridge, connect }: HostPlan) => ({
  pid: connect ? ["host"] : [],
  capabilities: [...(bridge ? ["NET_BIND_SERVICE"] : []), ...(connect ? ["SYS_ADMIN", "SYS_PTRACE"] : [])],
  security: connect ? ["apparmor=unconfined"] : [],
});

/** The words of a docker run command. */
export function dockerWords(plan: HostPlan, image: string): string[] {
  const { pid, capabilities, security } = rights(plan);
  return [
    ...["docker", "run", "--detach", "--name", plan.name, "--restart", "unless-stopped"],
    ...(plan.hostNetwork ? ["--network", "host"] : PUBLISHED.flatMap((port) => ["--publish", port])),
    ...pid.flatMap((whose) => ["--pid", whose]),
    ...capabilities.flatMap((one) => ["--cap-add", one]),
    ...security.flatMap((one) => ["--security-opt", one]),
    ...mounts(plan).flatMap((mount) => ["--volume", mount]),
    ...[image, "agent", ...plan.flags],
  ];
}

/** Words as a line for a POSIX shell. */
function shellLine(words: readonly string[]): string {
  return words
    .map((word) => (/^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`))
    .join(" ");
}

/** A docker run line, with what was guessed above it. */
export function dockerText(plan: HostPlan, image: string): string {
  return `${comments(plan.notes)}${shellLine(dockerWords(plan, image))}\n`;
}

/** A compose file. */
export function composeText(plan: HostPlan, image: string): string {
  // JSON's texts are YAML's, and compose reads $$ as $.
  const text = (word: string): string => JSON.stringify(word).replaceAll("$", "$$$$");
  const list = (words: readonly string[]): string => words.map((word) => `      - ${text(word)}\n`).join("");
  const lists = (key: string, words: readonly string[]): string =>
    words.length === 0 ? "" : `    ${key}:\n${list(words)}`;
  const { pid, capabilities, security } = rights(plan);
  return [
    comments(plan.notes),
    `services:\n  ${text(plan.name)}:\n    image: ${text(image)}\n    container_name: ${text(plan.name)}\n    restart: unless-stopped\n`,
    plan.hostNetwork ? "    network_mode: host\n" : `    ports:\n${list(PUBLISHED)}`,
    pid.map((whose) => `    pid: ${whose}\n`).join(""),
    lists("cap_add", capabilities),
    lists("security_opt", security),
    lists("volumes", mounts(plan)),
    lists("command", ["agent", ...plan.flags]),
  ].join("");
}
