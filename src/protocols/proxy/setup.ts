// The protocol "proxy": ports of this host that stand for services, and magic addresses that answer, for programs that have no hook.
import type { Clock } from "../../base/clock.ts";
import { hostPort } from "../../base/net.ts";
import type { SourceState } from "../../contracts/ground.ts";
import { defineProtocol, type Protocol, type Told } from "../../contracts/protocol.ts";
import { textOfQuery } from "../../model/service-name.ts";
import { configureProxy, type ListenRule, type ProxyConfig } from "./config.ts";
import { Doors } from "./magic-doors.ts";
import { createMagicHandler, MAGIC_PREFIX } from "./magic-route.ts";
import { type MissingPort, Ports, portKey, type WantedPort } from "./ports.ts";
import { createStatusHandler, PREFIX } from "./route.ts";

const NEEDS = ["clock", "log", "directory", "lookup", "connector", "magic", "self", "agent", "net"] as const;
const MOST_TOLD = 5;

export const proxy: Protocol<ProxyConfig, (typeof NEEDS)[number]> = defineProtocol({
  name: "proxy",
  needs: NEEDS,
  configure: configureProxy,
  setup(first, { clock, directory, lookup, connector, magic, self, agent, net, ...ground }) {
    const log = ground.log.part("proxy");
    let config = first;
    let rules = config.listen(self.domain);
    const fixed = new Ports({ connector, clock, log });
    const magical = new Ports({ connector, clock, log });
    const doors = new Doors({
      ...{ config: config.magic, directory, lookup, magic, ports: magical, clock, log },
      node: () => agent.node.name,
      interfaces: () => net.interfaces(),
    });
    const ports = keepOpen(() => rules, fixed, clock);
    return {
      routes: [
        { prefix: PREFIX, handle: createStatusHandler(connector) },
        {
          prefix: MAGIC_PREFIX,
          handle: createMagicHandler({
            magic,
            lookup,
            ports: magical,
            doors: () => (config.magic === undefined ? undefined : doors),
          }),
        },
      ],
      background: {
        start() {
          ports.start();
          doors.start();
        },
        async stop() {
          await Promise.all([ports.stop(), doors.stop()]);
        },
      },
      states: () => [
        ...rules.map((rule) => stateOf(rule, fixed, self.domain)),
        ...(config.magic === undefined ? [] : magicStates(magical, doors, magic.range.v4.text)),
      ],
      async answers(service): Promise<readonly Told[]> {
        const isAbout = ({ query }: Pick<WantedPort, "query">): boolean =>
          query.service.toLowerCase() === service.toLowerCase();
        const told = [...fixed.listeners(), ...magical.listeners()].map(({ wanted, listener }): readonly Told[] => {
          if (!isAbout(wanted)) return [];
          const { open, backends } = listener.status();
          const to = wanted.host.startsWith("127.") || wanted.host === "::1" ? "this host" : "who reaches this host";
          const last = backends.map((each) => `${hostPort(each.address, each.port)} (${each.total})`).join(", ");
          const text = `${portKey(wanted)} stands for ${textOfQuery(wanted.query, self.domain)}: ${open} connections open`;
          return [{ to, text: last === "" ? text : `${text}; so far to ${last}` }];
        });
        const missing = [...fixed.missing(), ...magical.missing()].filter(isAbout);
        return [
          ...told.flat(),
          ...missing.map((each) => ({
            to: "nobody",
            text: `${portKey(each)} cannot be had: ${each.text}${hint(each)}`,
          })),
        ];
      },
      rereads: true,
      async reload(read) {
        if (read !== undefined) {
          const now = configureProxy(read.raw);
          rules = now.listen(self.domain);
          config = now;
          await doors.retell(config.magic);
        }
        fixed.retry();
        await Promise.all([ports.look(), doors.retry()]);
      },
    };
  },
});

/** The ports of the configuration, opened as soon as they can be had. */
function keepOpen(
  rules: () => readonly ListenRule[],
  ports: Ports,
  clock: Clock,
): { start(): void; stop(): Promise<void>; look(): Promise<void> } {
  let timer: { cancel(): void } | undefined;
  let turn: Promise<void> = Promise.resolve();
  let stopped = true;
  const look = (): Promise<void> => {
    turn = turn.then(async () => {
      if (stopped) return;
      timer?.cancel();
      await ports.want(rules().map((rule) => ({ ...rule, insist: true })));
      const { retryAtMs } = ports;
      if (retryAtMs !== undefined && !stopped)
        timer = clock.after(Math.max(100, retryAtMs - clock.monotonic()), () => void look());
    });
    return turn;
  };
  return {
    look,
    start() {
      stopped = false;
      void look();
    },
    async stop() {
      stopped = true;
      timer?.cancel();
      await turn;
      timer?.cancel();
      await ports.stop();
    },
  };
}

function stateOf(rule: ListenRule, ports: Ports, domain: string): SourceState {
  const key = portKey(rule);
  const name = "proxy";
  const missing = ports.missing().find((each) => portKey(each) === key);
  if (missing !== undefined) return { name, ok: false, text: `${key} cannot be had: ${missing.text}${hint(missing)}` };
  const open = ports.listeners().find(({ wanted }) => portKey(wanted) === key);
  const service = textOfQuery(rule.query, domain);
  if (open === undefined) return { name, ok: true, text: `${key} for ${service}: not open yet` };
  const { open: now, total, failed, lastFailure } = open.listener.status();
  const failures = failed === 0 ? "" : `, ${failed} in vain: ${lastFailure}`;
  return { name, ok: true, text: `${key} stands for ${service}: ${now} connections open, ${total} so far${failures}` };
}

function magicStates(ports: Ports, doors: Doors, range: string): readonly SourceState[] {
  const name = "proxy";
  const listeners = ports.listeners();
  const services = new Set(listeners.map(({ wanted }) => wanted.query.service)).size;
  const missing = ports.missing();
  // Ports below 1024 without rights, and ports that others have: part of life unless somebody asked for them.
  const wanted = missing.filter(({ insist }) => insist);
  const rest = missing.filter(({ insist }) => !insist);
  const left = doors.left().flatMap(({ service, ports: own }) => own.map(({ port }) => `${service}:${port}`));
  const { beyond } = doors;
  const notes = [
    `${counted(listeners.length, "port")} of ${counted(services, "service")} ${listeners.length === 1 ? "answers" : "answer"}`,
    ...(left.length === 0 ? [] : [`${shortly(left)} left to this host's own instances`]),
    ...(rest.length === 0
      ? []
      : [
          `${rest.length} not to be had (${shortly(rest.map(({ query, port, code }) => `${query.service}:${port} ${code}`))})`,
        ]),
  ];
  // Nobody asked: nothing to tell.
  if (!doors.all && listeners.length + missing.length + left.length + beyond === 0) return [];
  const states: SourceState[] = [{ name, ok: true, text: `magic addresses in ${range}: ${notes.join("; ")}` }];
  for (const each of wanted.slice(0, MOST_TOLD))
    states.push({
      name,
      ok: false,
      text: `${portKey(each)} of ${each.query.service} cannot be had: ${each.text}${hint(each)}`,
    });
  if (wanted.length > MOST_TOLD)
    states.push({ name, ok: false, text: `and ${wanted.length - MOST_TOLD} more ports that cannot be had` });
  if (beyond > 0)
    states.push({ name, ok: false, text: `${beyond} ports more than "proxy.most" allows are not opened` });
  return states;
}

function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}

function shortly(all: readonly string[]): string {
  return all.length > 3 ? `${all.slice(0, 3).join(", ")} …` : all.join(", ");
}

function hint({ code, port }: MissingPort): string {
  return code === "not-allowed" && port < 1024
    ? "; ports below 1024 need CAP_NET_BIND_SERVICE, or sysctl net.ipv4.ip_unprivileged_port_start"
    : "";
}
