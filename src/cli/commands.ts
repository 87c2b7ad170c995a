// The table of commands: what each does in one line, and the file that is loaded when it is meant.
import type { Command } from "./io.ts";

/** Every command with what it does in one line, and the file to load when it is meant. */
export const COMMANDS: Readonly<
  Record<string, readonly [summary: string, load: () => Promise<{ readonly command: Command }>]>
> = {
  agent: ["run an agent on this host", () => import("./commands/agent.ts")],
  run: [
    "run a program and register what it listens on: trilith run --name web -- cmd…",
    () => import("./commands/run.ts"),
  ],
  hook: [
    "run a program that reaches services by name, port included: trilith hook -- curl http://web.service.consul/",
    () => import("./commands/hook.ts"),
  ],
  proxy: [
    "ports of this host that stand for services: trilith proxy 6379=redis 53/udp=dns",
    () => import("./commands/proxy.ts"),
  ],
  announce: [
    "register what runs already: trilith announce --name web --port 80 --pid $MAINPID",
    () => import("./commands/announce.ts"),
  ],
  find: ["where is a service? addresses and ports of its healthy instances", () => import("./commands/find.ts")],
  list: ["which services are there?", () => import("./commands/list.ts")],
  why: ["why is a service found, or not?", () => import("./commands/why.ts")],
  wait: [
    "until something is there: trilith wait web, trilith wait _http._tcp --name master --timeout 60s",
    () => import("./commands/wait.ts"),
  ],
  browse: [
    "which services are on the LAN? avahi-browse's flags and lines, without a daemon",
    () => import("./commands/browse.ts"),
  ],
  publish: [
    "announce a service on the LAN while this runs: trilith publish NAME _http._tcp 8080 [key=value…]",
    () => import("./commands/publish.ts"),
  ],
  resolve: [
    "the address of a host on the LAN, or its name: trilith resolve -n host-a.local",
    () => import("./commands/resolve.ts"),
  ],
  link: [
    "have this program go by another one's name: trilith link avahi-browse, consul, md …",
    () => import("./commands/link.ts"),
  ],
  doctor: ["is this agent well, what did it find, what is wrong?", () => import("./commands/doctor.ts")],
  register: ["register a service on the agent, by flags or from a file", () => import("./commands/register.ts")],
  deregister: ["take a service out", () => import("./commands/deregister.ts")],
  services: ["register | deregister, as Consul spells it", () => import("./commands/services.ts")],
  catalog: ["datacenters | nodes | services", () => import("./commands/catalog.ts")],
  kv: ["get | put | delete | export | import keys", () => import("./commands/kv.ts")],
  lock: ["run a command while holding a lock or a place of a semaphore", () => import("./commands/lock.ts")],
  watch: ["print something of the directory, or run a program on each change", () => import("./commands/watch.ts")],
  event: ["tell all hosts, or some, that something happened", () => import("./commands/event.ts")],
  exec: ["run a command on all hosts, or some, whose agents allow it", () => import("./commands/exec.ts")],
  override: [
    "say something about a service in place of its source: another name, tags, weight, check; or hide it",
    () => import("./commands/override.ts"),
  ],
  release: ["end the sharp-drop guard's hold on a service", () => import("./commands/release.ts")],
  members: ["the agents that share this directory", () => import("./commands/members.ts")],
  maint: ["take this host or a service out of routing for a while, and back", () => import("./commands/maint.ts")],
  monitor: ["the agent's log as it is written", () => import("./commands/monitor.ts")],
  info: ["the agent's own figures", () => import("./commands/info.ts")],
  rtt: ["how long it takes between two nodes", () => import("./commands/rtt.ts")],
  join: ["Consul's verb: how agents come together", () => import("./commands/join.ts")],
  leave: ["take this node out of the directory and stop the agent", () => import("./commands/leave.ts")],
  "force-leave": ["take out the node of an agent that is gone for good", () => import("./commands/force-leave.ts")],
  snapshot: ["save | restore | inspect the directory's whole content", () => import("./commands/snapshot.ts")],
  operator: ["raft | autopilot | usage, as Consul spells it", () => import("./commands/operator.ts")],
  acl: ["access control: there is none, as with a Consul that has it off", () => import("./commands/acl.ts")],
  config: ["read | write | list | delete configuration entries", () => import("./commands/config.ts")],
  debug: ["gather what a person who looks for a fault wants to see", () => import("./commands/debug.ts")],
  keyring: ["keys of a gossip: there is none", () => import("./commands/keyring.ts")],
  login: ["get a token: there is no access control", () => import("./commands/login.ts")],
  logout: ["give a token back: there is no access control", () => import("./commands/logout.ts")],
  keygen: ["a random key of 32 bytes", () => import("./commands/keygen.ts")],
  reload: ["have the agent read its files again", () => import("./commands/reload.ts")],
  registrator: [
    "Registrator's command line: containers into consul, consulkv, etcd, skydns2 or zookeeper",
    () => import("./commands/registrator.ts"),
  ],
  md: ["list | find | advertise services on the tailnet, as Minidisc's md does", () => import("./commands/md.ts")],
  validate: ["check configuration and service files without an agent", () => import("./commands/validate.ts")],
  dns: ["setup: have docker, resolved or dnsmasq on this host ask the agent", () => import("./commands/dns.ts")],
  up: [
    "server | client: the systemd unit, docker run line or compose file of an agent",
    () => import("./commands/up.ts"),
  ],
  completion: [
    "bash | zsh | fish: a script that completes commands, flags and names",
    () => import("./commands/completion.ts"),
  ],
  version: ["print the version", () => import("./commands/version.ts")],
};
