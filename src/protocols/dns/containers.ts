// DNS for containers: listens on the addresses of their bridges, for as long as those are there, and says what to do where it may not.
import type { Timer } from "../../base/clock.ts";
import type { Disk } from "../../base/disk.ts";
import { codeOf, messageOf } from "../../base/error.ts";
import { hostPort } from "../../base/net.ts";
import type { Listener } from "../../contracts/protocol.ts";
import type { SourceHealth } from "../../contracts/source.ts";
import { bridgesAmong, type LocalAddress, localAddresses, type WantedBridges } from "./bridges.ts";
import { Crowd } from "./crowd.ts";
import type { Network } from "./networks.ts";
import { listenOn, type ServerParts } from "./server.ts";

export interface ContainerParts extends Omit<ServerParts, "hosts"> {
  readonly bridges: WantedBridges;
  readonly disk: Pick<Disk, "readText">;
  readonly procNet: string;
  /** True for an address that the main listener has at that port already. */
  covered(address: string): boolean;
}

/** Containers' networks as they are now; the same list while nothing changed. */
export interface Containers {
  readonly listener: Listener;
  networks(): readonly Network[];
  /** Which bridges are answered, and why others are not. */
  state(): SourceHealth;
}

/** Bridges are looked for this often: there is no portable way of being told. */
const LOOK_EVERY_MS = 1_000;
/** An address that could not be listened on is tried again after so long. */
const TRY_AGAIN_MS = 10_000;

interface Open {
  readonly text: string;
  close(): Promise<void>;
}

/** See the first line. */
export function createContainers(parts: ContainerParts): Containers {
  const { clock, log, net, disk, port, bridges, procNet, covered } = parts;
  const open = new Map<string, Open>();
  const tryAgainMs = new Map<string, number>();
  /** Why an address could not be listened on at the last try. */
  const refused = new Map<string, string>();
  let networks: readonly Network[] = [];
  let signature = "";
  let timer: Timer | undefined;
  let looking: Promise<void> = Promise.resolve();
  let running = false;
  const crowd = new Crowd(clock, log);

  const openOne = async ({ name, address }: LocalAddress): Promise<void> => {
    if ((tryAgainMs.get(address) ?? 0) > clock.monotonic()) return;
    try {
      const pair = await listenOn(parts, address, port, crowd);
      open.set(address, {
        text: `${hostPort(address, port)} (${name})`,
        close: async () => void (await Promise.all(pair.map((one) => one.close()))),
      });
      tryAgainMs.delete(address);
      refused.delete(address);
      log.info(`answers containers at ${hostPort(address, port)} (${name})`);
    } catch (error) {
      tryAgainMs.set(address, clock.monotonic() + TRY_AGAIN_MS);
      const told = refused.has(address);
      const text = `containers on ${name} get no answers: ${adviceFor(error, hostPort(address, port), port)}`;
      refused.set(address, text);
      if (!told) log.warn(text);
    }
  };

  const look = async (): Promise<void> => {
    const found = bridgesAmong(await localAddresses(net, disk, procNet), bridges);
    const now = found.map(({ name, address, network }) => `${name} ${address}/${network.bits}`).join();
    if (now !== signature) {
      signature = now;
      networks = found.map(({ network }) => network);
    }
    const wanted = new Map(found.filter(({ address }) => !covered(address)).map((one) => [one.address, one]));
    for (const [address, one] of [...open])
      if (!wanted.has(address)) {
        open.delete(address);
        await one.close();
        log.info(`does not answer containers at ${hostPort(address, port)} any more: the address is gone`);
      }
    for (const address of refused.keys()) if (!wanted.has(address)) refused.delete(address);
    for (const [address, one] of wanted) if (running && !open.has(address)) await openOne(one);
  };

  const again = (): void => {
    timer = clock.after(LOOK_EVERY_MS, () => {
      looking = look()
        .catch((error: unknown) => log.error("could not look for containers' bridges", { error: messageOf(error) }))
        .then(() => {
          if (running) again();
        });
    });
  };

  const absent =
    bridges === true
      ? `port ${port} of containers' bridges, none yet`
      : `port ${port} of ${bridges.join(", ")}, not there yet`;

  return {
    networks: () => networks,
    state() {
      const answered = [...open.values()].map(({ text }) => text);
      const texts = [
        ...(answered.length > 0 ? [`answers containers at ${answered.join(", ")}`] : []),
        ...refused.values(),
      ];
      return { ok: refused.size === 0, text: texts.length === 0 ? absent : texts.join("; ") };
    },
    listener: {
      name: "dns-containers",
      async start() {
        if (!running) {
          running = true;
          looking = look();
          await looking;
          if (running) again();
        } else await looking;
        if (open.size > 0) return [...open.keys()].map((address) => hostPort(address, port)).join(", ");
        return absent;
      },
      async stop() {
        running = false;
        parts.responder.stop();
        timer?.cancel();
        timer = undefined;
        await looking.catch(() => undefined);
        const all = [...open.values()];
        open.clear();
        await Promise.all(all.map((one) => one.close()));
      },
    },
  };
}

/** What went wrong when listening at a place, and what can be done about it. */
function adviceFor(error: unknown, place: string, port: number): string {
  switch (codeOf(error)) {
    case "address-in-use":
      return `${place} is taken by another DNS server ("ss -lnup sport = :${port}" shows which). Have it listen on 127.0.0.1 only (dnsmasq: bind-interfaces and listen-address=127.0.0.1; named: listen-on), or let it forward the domain here ("trilith dns setup dnsmasq"). Tried again every ${TRY_AGAIN_MS / 1000} s`;
    case "not-allowed":
      return port < 1024
        ? `port ${port} needs a privilege. Run the agent as root, or run "setcap cap_net_bind_service=+ep" on node, or "sysctl net.ipv4.ip_unprivileged_port_start=${port}"; containers ask port 53 only`
        : messageOf(error);
    default:
      return messageOf(error);
  }
}
