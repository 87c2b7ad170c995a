// Which ports somebody listens at, from the kernel's tables as a process sees them: /proc/PID/net/tcp, tcp6, udp, udp6.

/** TCP's state "listening"; UDP sockets have the one of closed ones [linux include/net/tcp_states.h]. */
const TCP_LISTEN = "0A";

/** The ports in one of the tables; of TCP those that are listened at, of UDP all that are bound. */
export function portsIn(table: string, protocol: "tcp" | "udp"): ReadonlySet<number> {
  const ports = new Set<number>();
  for (const line of table.split("\n").slice(1)) {
    const [, local = "", , state] = line.trim().split(/\s+/);
    const port = Number.parseInt(local.slice(local.lastIndexOf(":") + 1), 16);
    if (Number.isInteger(port) && (protocol === "udp" || state === TCP_LISTEN)) ports.add(port);
  }
  return ports;
}

/** The same of a process's whole namespace, IPv4 and IPv6; empty where it is gone. */
export async function portsTaken(
  proc: (path: string) => Promise<string | undefined>,
  pid: number,
  protocol: "tcp" | "udp",
): Promise<ReadonlySet<number>> {
  const [v4, v6] = await Promise.all([proc(`${pid}/net/${protocol}`), proc(`${pid}/net/${protocol}6`)]);
  return new Set([...portsIn(v4 ?? "", protocol), ...portsIn(v6 ?? "", protocol)]);
}
