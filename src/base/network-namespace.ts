// Which network this process is in, and the address that it speaks from to others: what a program in another network needs to know of this one.
import { fs } from "./lazy-fs.ts";

/** A network namespace, the same for everybody on one kernel until the machine starts anew. */
export interface NetworkNamespace {
  readonly device: bigint;
  readonly inode: bigint;
}

/** This process's own; undefined where the system does not tell (no Linux, no /proc). */
export function ownNetworkNamespace(): NetworkNamespace | undefined {
  try {
    const { dev, ino } = fs().statSync("/proc/self/ns/net", { bigint: true });
    return { device: dev, inode: ino };
  } catch {
    return undefined;
  }
}

/** Documentation's addresses [RFC5737] [RFC3849], which nobody has: routed as the rest of the world is. */
const FAR = { 4: "198.51.100.1", 6: "2001:db8::1" } as const;

/** The address by which this host speaks to the rest of the world, asked of the kernel without sending anything; undefined where there is no way there. */
export function outwardAddress(family: 4 | 6, to: string = FAR[family]): Promise<string | undefined> {
  return new Promise((resolve) => {
    // Loaded only now: programs that only look where they are do without.
    const socket = process.getBuiltinModule("node:dgram").createSocket(family === 4 ? "udp4" : "udp6");
    const end = (found: string | undefined): void => {
      socket.removeAllListeners();
      socket.on("error", () => {});
      socket.close();
      resolve(found);
    };
    socket.once("error", () => end(undefined));
    // Who gives a function is told of failures by it, whatever the types say.
    socket.connect(9, to, (error?: unknown) => end(error ? undefined : socket.address().address));
  });
}
