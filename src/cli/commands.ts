// The table of commands: what each does in one line, and the file that is loaded when it is meant.
import type { Command } from "./io.ts";

/** What a command does, in one line, and the file to load when it is meant. */
export type Entry = readonly [summary: string, load: () => Promise<{ readonly command: Command }>];

/** Every command under the heading that `trilith help` lists it by. */
export const GROUPS: Readonly<Record<string, Readonly<Record<string, Entry>>>> = {
  "Running an agent": {
    agent: ["run an agent on this host", () => import("./commands/agent.ts")],
    up: [
      "server | client: a systemd unit, docker run line or compose file for an agent",
      () => import("./commands/up.ts"),
    ],
    dns: ["setup: make docker, resolved or dnsmasq on this host ask the agent", () => import("./commands/dns.ts")],
    doctor: ["is this agent healthy, what did it find, what is wrong?", () => import("./commands/doctor.ts")],
    monitor: ["the agent's log as it is written", () => import("./commands/monitor.ts")],
    reload: ["make the agent read its configuration and service files again", () => import("./commands/reload.ts")],
    validate: ["check configuration and service files, without an agent", () => import("./commands/validate.ts")],
    leave: ["take this node out of the directory and stop the agent", () => import("./commands/leave.ts")],
  },
  "Registering services": {
    run: ["run a program and register the ports it listens on", () => import("./commands/run.ts")],
    announce: ["register a service that is already running", () => import("./commands/announce.ts")],
    register: ["register a service on the agent, by flags or from a file", () => import("./commands/register.ts")],
    deregister: ["take a service out", () => import("./commands/deregister.ts")],
    override: ["replace what a service's source says about it, or hide it", () => import("./commands/override.ts")],
    maint: [
      "take this host or a service out of answers for a while, or put it back",
      () => import("./commands/maint.ts"),
    ],
  },
  "Finding services": {
    find: ["where is a service? addresses and ports of its healthy instances", () => import("./commands/find.ts")],
    list: ["list all services", () => import("./commands/list.ts")],
    why: ["explain why a service is found, or not", () => import("./commands/why.ts")],
    wait: ["wait until a service is there: at the agent, or on the LAN", () => import("./commands/wait.ts")],
    release: ["end the sharp-drop guard's hold on a service", () => import("./commands/release.ts")],
  },
  "Connecting programs": {
    hook: ["run a program that reaches services by name, port included", () => import("./commands/hook.ts")],
    proxy: ["make ports of this host stand for services", () => import("./commands/proxy.ts")],
  },
  "Files for other programs": {
    render: [
      "keep files up to date: load balancers' configuration, or any by templates",
      () => import("./commands/render.ts"),
    ],
  },
  "Keys, locks and events": {
    kv: ["get | put | delete | export | import keys", () => import("./commands/kv.ts")],
    lock: ["run a command while holding a lock or a slot of a semaphore", () => import("./commands/lock.ts")],
    watch: ["print what is in the directory, or run a program on each change", () => import("./commands/watch.ts")],
    event: ["tell all hosts, or some, that something happened", () => import("./commands/event.ts")],
    exec: ["run a command on all hosts, or some, whose agents allow it", () => import("./commands/exec.ts")],
  },
  "On a LAN or a tailnet, without an agent": {
    browse: ["list services on the LAN, as avahi-browse does", () => import("./commands/browse.ts")],
    publish: ["announce a service on the LAN while this runs", () => import("./commands/publish.ts")],
    resolve: [
      "look up a LAN host's address by its name, or the other way round",
      () => import("./commands/resolve.ts"),
    ],
    md: ["list | find | advertise on the tailnet, as Minidisc's md does", () => import("./commands/md.ts")],
  },
  "For users of Consul and Registrator": {
    services: ["register | deregister", () => import("./commands/services.ts")],
    catalog: ["datacenters | nodes | services", () => import("./commands/catalog.ts")],
    members: ["the agents that share this directory", () => import("./commands/members.ts")],
    info: ["the agent's figures", () => import("./commands/info.ts")],
    rtt: ["how long it takes between two nodes", () => import("./commands/rtt.ts")],
    join: ["how agents come together", () => import("./commands/join.ts")],
    "force-leave": ["remove the node of an agent that is gone for good", () => import("./commands/force-leave.ts")],
    snapshot: ["save | restore | inspect the directory's whole contents", () => import("./commands/snapshot.ts")],
    operator: ["raft | autopilot | usage", () => import("./commands/operator.ts")],
    config: ["read | write | list | delete configuration entries", () => import("./commands/config.ts")],
    debug: ["gather what is needed to look into a fault", () => import("./commands/debug.ts")],
    keygen: ["a random key of 32 bytes", () => import("./commands/keygen.ts")],
    keyring: ["gossip encryption keys (there is no gossip)", () => import("./commands/keyring.ts")],
    acl: ["access control (there is none, as in a Consul with ACLs off)", () => import("./commands/acl.ts")],
    login: ["get a token (there is no access control)", () => import("./commands/login.ts")],
    logout: ["give a token back (there is no access control)", () => import("./commands/logout.ts")],
    registrator: [
      "Registrator's command line: containers into consul, etcd, zookeeper …",
      () => import("./commands/registrator.ts"),
    ],
  },
  "This program": {
    completion: ["bash | zsh | fish: complete commands, flags and names", () => import("./commands/completion.ts")],
    link: ["let this program go by another one's name: avahi-browse, consul, md …", () => import("./commands/link.ts")],
    version: ["print the version", () => import("./commands/version.ts")],
  },
};

/** Every command by its name. */
export const COMMANDS: Readonly<Record<string, Entry>> = Object.fromEntries(
  Object.values(GROUPS).flatMap(Object.entries<Entry>),
);
