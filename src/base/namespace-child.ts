// The program that `namespace-socket.ts` starts inside another network namespace: it opens the sockets, hands them over, and ends.
import type { SendHandle } from "node:child_process";
import { createSocket, type Socket as DatagramSocket } from "node:dgram";
import { readlinkSync } from "node:fs";
import { createServer, type Server } from "node:net";
import type { NamespaceSocket } from "./namespace-socket.ts";

/** What it tells, one message each; `socket` and `early` come with a handle, `early` is a connection that came before its listener was handed over. */
export type ChildSays =
  | { readonly what: "in"; readonly namespace: string }
  | { readonly what: "socket" | "early"; readonly index: number }
  | { readonly what: "failed"; readonly index: number; readonly code: string; readonly message: string }
  | { readonly what: "done" };

function say(message: ChildSays, handle?: SendHandle): Promise<void> {
  return new Promise((resolve, reject) => {
    process.send?.(message, handle, {}, (error) => (error === null ? resolve() : reject(error)));
  });
}

/** Opens one socket. What connects before the other side has it is handed over, too: nobody who was let in is turned away. */
function open(index: number, { protocol, host, port }: NamespaceSocket): Promise<Server | DatagramSocket> {
  return new Promise((resolve, reject) => {
    if (protocol === "udp") {
      const ipv6 = host.includes(":");
      const socket = createSocket({ type: ipv6 ? "udp6" : "udp4", ...(ipv6 ? { ipv6Only: true } : {}) });
      socket.once("error", reject);
      socket.bind({ address: host, port, exclusive: true }, () => resolve(socket));
      return;
    }
    const server = createServer({ pauseOnConnect: true, allowHalfOpen: true }, (socket) => {
      void say({ what: "early", index }, socket).catch(() => socket.destroy());
    });
    server.once("error", reject);
    server.listen({ host, port, exclusive: true, ipv6Only: true }, () => resolve(server));
  });
}

const wanted = JSON.parse(process.argv[2] ?? "[]") as readonly NamespaceSocket[];
// Whoever started it is gone: what it opened has no owner.
process.once("disconnect", () => process.exit(0));
await say({ what: "in", namespace: readlinkSync("/proc/self/ns/net") });
for (const [index, one] of wanted.entries()) {
  try {
    const socket = await open(index, one);
    await say({ what: "socket", index }, socket);
    socket.close();
  } catch (error) {
    const { code = "", message } = error as NodeJS.ErrnoException;
    await say({ what: "failed", index, code, message });
  }
}
await say({ what: "done" });
process.disconnect?.();
