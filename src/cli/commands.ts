// The table of commands: what each does in one line, and the file that is loaded when it is meant.
import type { Command } from "./io.ts";

/** What a command does, in one line, and the file to load when it is meant. */
export type Entry = readonly [summary: string, load: () => Promise<{ readonly command: Command }>];

/** Every command under the heading that `trilith help` lists it by. */
export const GROUPS: Readonly<Record<string, Readonly<Record<string, Entry>>>> = {
  "An agent, and what it does for this host": {
    agent: ["run an agent on this host", () => import("./commands/agent.ts")],
    up: [
      "server | client: systemd unit, docker run line or compose file of an agent",
      () => import("./commands/up.ts"),
    ],
    dns: ["setup: have docker, resolved or dnsmasq on this host ask the agent", () => import("./commands/dns.ts")],
    doctor: ["is this agent well, what did it find, what is wrong?", () => import("./commands/doctor.ts")],
    monitor: ["the agent's log as it is written", () => import("./commands/monitor.ts")],
    reload: ["have the agent read its configuration and service files again", () => import("./commands/reload.ts")],
    validate: ["check configuration and service files, without an agent", () => import("./commands/validate.ts")],
    leave: ["take this node out of the directory and stop the agent", () => import("./commands/leave.ts")],
  },
  "Services come in": {
    run: ["run a program; what it listens on is a service", () => import("./commands/run.ts")],
    announce: ["register a service that runs already", () => import("./commands/announce.ts")],
    register: ["register a service on the agent, by flags or from a file", () => import("./commands/register.ts")],
    deregister: ["take a service out", () => import("./commands/deregister.ts")],
    override: [
      "say something about a service in place of its source, or hide it",
      () => import("./commands/override.ts"),
    ],
    maint: ["take this host or a service out of answers for a while, and back", () => import("./commands/maint.ts")],
  },
  "Services are found": {
    find: ["where is a service? addresses and ports of its healthy instances", () => import("./commands/find.ts")],
    list: ["which services are there?", () => import("./commands/list.ts")],
    why: ["why is a service found, or not?", () => import("./commands/why.ts")],
    wait: ["until a service is there: at the agent, or on the LAN", () => import("./commands/wait.ts")],
    release: ["end the sharp-drop guard's hold on a service", () => import("./commands/release.ts")],
  },
  "Programs are connected": {
    hook: ["run a program that reaches services by name, port included", () => import("./commands/hook.ts")],
    proxy: ["ports of this host that stand for services", () => import("./commands/proxy.ts")],
  },
  "Keys, locks, events": {
    kv: ["get | put | delete | export | import keys", () => import("./commands/kv.ts")],
    lock: ["run a command while holding a lock or a place of a semaphore", () => import("./commands/lock.ts")],
    watch: ["print what is in the directory, or run a program on each change", () => import("./commands/watch.ts")],
    event: ["tell all hosts, or some, that something happened", () => import("./commands/event.ts")],
    exec: ["run a command on all hosts, or some, whose agents allow it", () => import("./commands/exec.ts")],
  },
  "On a LAN or a tailnet, without an agent": {
    browse: ["which services are on the LAN? as avahi-browse tells it", () => import("./commands/browse.ts")],
    publish: ["announce a service on the LAN while this runs", () => import("./commands/publish.ts")],
    resolve: ["the address of a host on the LAN, or its name", () => import("./commands/resolve.ts")],
    md: ["list | find | advertise on the tailnet, as Minidisc's md does", () => import("./commands/md.ts")],
  },
  "By Consul's and Registrator's words": {
    services: ["register | deregister", () => import("./commands/services.ts")],
    catalog: ["datacenters | nodes | services", () => import("./commands/catalog.ts")],
    members: ["the agents that share this directory", () => import("./commands/members.ts")],
    info: ["the agent's figures", () => import("./commands/info.ts")],
    rtt: ["how long it takes between two nodes", () => import("./commands/rtt.ts")],
    join: ["how agents come together", () => import("./commands/join.ts")],
    "force-leave": ["take out the node of an agent that is gone for good", () => import("./commands/force-leave.ts")],
    snapshot: ["save | restore | inspect the directory's whole content", () => import("./commands/snapshot.ts")],
    operator: ["raft | autopilot | usage", () => import("./commands/operator.ts")],
    config: ["read | write | list | delete configuration entries", () => import("./commands/config.ts")],
    debug: ["gather what a person who looks for a fault wants to see", () => import("./commands/debug.ts")],
    keygen: ["a random key of 32 bytes", () => import("./commands/keygen.ts")],
    keyring: ["keys of a gossip: there is none", () => import("./commands/keyring.ts")],
    acl: ["access control: there is none, as with a Consul that has it off", () => import("./commands/acl.ts")],
    login: ["get a token: there is no access control", () => import("./commands/login.ts")],
    logout: ["give a token back: there is no access control", () => import("./commands/logout.ts")],
    registrator: [
      "Registrator's command line: containers into consul, etcd, zookeeper …",
      () => import("./commands/registrator.ts"),
    ],
  },
  "This program": {
    completion: ["bash | zsh | fish: complete commands, flags and names", () => import("./commands/completion.ts")],
    link: [
      "have this program go by another one's name: avahi-browse, consul, md …",
      () => import("./commands/link.ts"),
    ],
    version: ["print the version", () => import("./commands/version.ts")],
  },
};

/** Every command by its name. */
export const COMMANDS: Readonly<Record<string, Entry>> = Object.fromEntries(
  Object.values(GROUPS).flatMap(Object.entries<Entry>),
);
