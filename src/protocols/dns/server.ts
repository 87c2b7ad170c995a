// The DNS on UDP and TCP: one listener for all hosts, the same port number for both transports.
import type { Clock, Timer } from "../../base/clock.ts";
import { codeOf } from "../../base/error.ts";
import { explainListening } from "../../base/listen-error.ts";
import type { Log } from "../../base/log.ts";
import { type Datagrams, hostPort, type Listening, type Net, type Socket } from "../../base/net.ts";
import type { Listener } from "../../contracts/protocol.ts";
import type { Responder } from "./answer.ts";
import { Crowd } from "./crowd.ts";
import type { Places } from "./places.ts";

export interface ServerParts {
  readonly net: Net;
  readonly clock: Clock;
  readonly log: Log;
  readonly responder: Responder;
  readonly hosts: readonly string[];
  /** 0 = any port that is free for both transports. */
  readonly port: number;
  /** A connection without a whole question for so long is closed. */
  readonly tcpIdleMs: number;
  /** Told where it listens. */
  readonly places: Places;
}

/** Bursts wait in the kernel rather than being dropped. */
const RECEIVE_BUFFER_BYTES = 4 << 20;
/** A connection with so many questions for others under way is not read from. */
const MOST_AWAITED = 100;
/** How often a port is looked for that both transports have free. */
const PORT_TRIES = 20;

/** See the first line. */
export function createServer(parts: ServerParts): Listener {
  let open: Promise<{ readonly where: string; readonly listening: readonly (Listening | Datagrams)[] }> | undefined;
  const crowd = new Crowd(parts.clock, parts.log);
  return {
    name: "dns",
    async start() {
      open ??= listenAll(parts, crowd);
      try {
        return (await open).where;
      } catch (error) {
        open = undefined;
        throw error;
      }
    },
    async stop() {
      const closing = open;
      open = undefined;
      if (closing === undefined) return;
      parts.responder.stop();
      const { listening } = await closing.catch(() => ({ listening: [] }));
      await Promise.all(listening.map((one) => one.close()));
    },
  };
}

async function listenAll(
  parts: ServerParts,
  crowd: Crowd,
): Promise<{ where: string; listening: readonly (Listening | Datagrams)[] }> {
  const listening: (Listening | Datagrams)[] = [];
  const places: string[] = [];
  let { port } = parts;
  try {
    for (const host of parts.hosts) {
      const pair = await listenOn(parts, host, port, crowd);
      listening.push(...pair);
      port = pair[0].port;
      places.push(hostPort(host, port));
    }
  } catch (error) {
    await Promise.all(listening.map((one) => one.close()));
    throw explainListening(error, port);
  }
  return { where: places.join(", "), listening };
}

/** TCP and UDP on one port of one host. */
export async function listenOn(
  parts: Omit<ServerParts, "hosts">,
  host: string,
  port: number,
  crowd: Crowd,
): Promise<readonly [Listening, Datagrams]> {
  const { net, responder, places } = parts;
  for (let tries = 1; ; tries++) {
    let open = true;
    const tcp = await net.listen({ host, port }, (socket) => serveConnection(parts, socket, crowd));
    try {
      const udp: Datagrams = await net.datagrams(
        { host, port: tcp.port, receiveBufferBytes: RECEIVE_BUFFER_BYTES },
        (packet, from) => {
          const send = (answer: Uint8Array): void => {
            if (open) udp.send(answer, from.port, from.address);
          };
          const answer = responder.respond(packet, { address: from.address, tcp: false }, send);
          if (answer !== undefined && answer !== "later") send(answer);
        },
      );
      places.add(host, tcp.port);
      const close = (): Promise<void> => {
        open = false;
        places.remove(host, tcp.port);
        return udp.close();
      };
      return [tcp, { ...udp, close }];
    } catch (error) {
      await tcp.close();
      if (port !== 0 || codeOf(error) !== "address-in-use" || tries === PORT_TRIES) throw error;
    }
  }
}

/**
 * Answers the questions of one connection in their order, but what others have to be asked for comes when it is there [RFC 7766 §6.2.1.1];
 * each message is preceded by its length [RFC 1035 §4.2.2].
 */
function serveConnection(parts: Omit<ServerParts, "hosts">, socket: Socket, crowd: Crowd): void {
  const { clock, responder, tcpIdleMs } = parts;
  let awaited = 0;
  crowd.add(socket, () => awaited === 0 && !socket.writableNeedDrain);
  const send = (answer: Uint8Array): boolean => {
    socket.write(Uint8Array.of(answer.length >> 8, answer.length & 255));
    return socket.write(answer);
  };
  const sendLater = (answer: Uint8Array): void => {
    awaited--;
    lastMs = clock.monotonic();
    if (socket.destroyed) return;
    send(answer);
    if (awaited !== MOST_AWAITED - 1) return;
    if (socket.writableNeedDrain) socket.once("drain", goOn);
    else goOn();
  };
  const from = { address: socket.remoteAddress ?? "", tcp: true };
  let waiting: Buffer = Buffer.alloc(0);
  let lastMs = clock.monotonic();
  let timer: Timer;
  // The timer is set anew only when it fires: a busy connection costs no timers.
  const watch = (ms: number): Timer =>
    clock.after(ms, () => {
      const restMs = lastMs + tcpIdleMs - clock.monotonic();
      if (restMs > 0 || awaited > 0) timer = watch(restMs > 0 ? restMs : tcpIdleMs);
      else socket.destroy();
    });
  timer = watch(tcpIdleMs);
  /** Answers what has come in whole, as far as the asker takes answers in; false = the rest waits until it does. */
  const takeIn = (): boolean => {
    let at = 0;
    let room = true;
    socket.cork();
    while (room && awaited < MOST_AWAITED && waiting.length - at >= 2) {
      const end = at + 2 + waiting.readUInt16BE(at);
      if (end > waiting.length) break;
      const answer = responder.respond(waiting.subarray(at + 2, end), from, sendLater);
      at = end;
      lastMs = clock.monotonic();
      crowd.asked(socket);
      if (answer === "later") awaited++;
      else if (answer !== undefined) room = send(answer);
    }
    socket.uncork();
    waiting = waiting.subarray(at);
    return room;
  };
  const goOn = (): void => {
    const room = takeIn();
    if (room && awaited < MOST_AWAITED) {
      socket.resume();
      return;
    }
    // Who does not read answers, or asks for more than others can tell, is not asked for more questions.
    socket.pause();
    if (!room) socket.once("drain", goOn);
  };
  socket.on("data", (chunk: Buffer) => {
    waiting = waiting.length === 0 ? chunk : Buffer.concat([waiting, chunk]);
    goOn();
  });
  // A broken connection is over: "close" follows and cleans up.
  socket.on("error", () => {});
  socket.once("close", () => {
    timer.cancel();
    crowd.remove(socket);
  });
}
