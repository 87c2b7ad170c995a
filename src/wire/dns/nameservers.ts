// Name servers and how they are asked: one after the other, by UDP and, where an answer is cut, by TCP; who does not answer is asked last for a while.
import type { Clock } from "../../base/clock.ts";
import type { Disk } from "../../base/disk.ts";
import { messageOf, TrilithError } from "../../base/error.ts";
import { Limits } from "../../base/limits.ts";
import type { Log } from "../../base/log.ts";
import { hostPort, type Net } from "../../base/net.ts";
import { type Random, shuffle } from "../../base/random.ts";
import { ipBytes, ipText } from "./address.ts";
import { HEADER_BYTES, OPCODE, RCODE } from "./constants.ts";
import { decodeMessage } from "./decode.ts";
import { encodeMessage } from "./encode.ts";
import type { Message, Question } from "./message.ts";
import { sameName } from "./name.ts";

/** A server to ask; "system" stands for the nameservers of the system's resolv.conf. */
export type Nameserver = "system" | { readonly host: string; readonly port: number };

export interface NameserverParts {
  readonly servers: readonly Nameserver[];
  readonly strategy: "sequential" | "random";
  /** One server has so long to answer. */
  readonly timeoutMs: number;
  readonly resolvConf: string;
  readonly net: Pick<Net, "exchange" | "connect">;
  readonly disk: Pick<Disk, "readText">;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** True for a place where this very program listens: it is never asked. */
  isOwn(host: string, port: number): boolean;
}

/** What goes along with a question. */
export interface AskFlags {
  readonly checkingDisabled: boolean;
  readonly dnssecOk: boolean;
}

/** What came over the wire, as bytes and read. */
export interface Reply {
  readonly packet: Uint8Array;
  readonly message: Message;
}

/** A server that did not answer is asked last for so long. */
const BENCH_MS = 10_000;
/** What we take over UDP: what no path breaks into fragments [DNS flag day 2020]. */
const OFFERED_BYTES = 1232;
/** The system's servers are looked up again after so long. */
const SYSTEM_MS = 5_000;
const MOST_SYSTEM_SERVERS = 3;
const WARN_EVERY_MS = 60_000;

/** The nameservers of a resolv.conf; zones (`fe80::1%eth0`) are left out, since they mean nothing to our sockets' addresses. */
function nameserversOf(resolvConf: string): string[] {
  const found: string[] = [];
  for (const line of resolvConf.split("\n")) {
    const [word, address = ""] = line.trim().split(/\s+/);
    if (word === "nameserver" && ipBytes(address) !== undefined && !found.includes(address)) found.push(address);
  }
  return found.slice(0, MOST_SYSTEM_SERVERS);
}

/** Several servers that know the same names. Nothing is kept of what they say. */
export class Nameservers {
  readonly #parts: NameserverParts;
  readonly #limits: Limits;
  /** How often it was stopped: what was begun before is not gone on with. */
  #stops = 0;
  #stopped: Error = new TrilithError("stopped", "not asked any more");
  /** Until when a server is asked last, by its place. */
  readonly #benched = new Map<string, number>();
  readonly #warnedMs = new Map<string, number>();
  #system: { readonly servers: readonly string[]; readonly readMs: number } | undefined;

  constructor(parts: NameserverParts) {
    this.#parts = parts;
    this.#limits = new Limits(parts.clock);
  }

  /** Ends everything under way with this reason; what is asked later is answered again. */
  stop(reason: Error): void {
    this.#stops++;
    this.#stopped = reason;
    this.#limits.end(reason);
  }

  /**
   * The first answer that is one: NOERROR or NXDOMAIN. Waits for every server's time in turn at most.
   * @param over "udp": over TCP where an answer is cut; "tcp": over nothing else
   * @throws TrilithError `unavailable` where no server gave an answer (the text says what each said); the reason of `stop`
   */
  async ask(question: Question, flags: AskFlags, over: "udp" | "tcp" = "udp"): Promise<Reply> {
    const said: string[] = [];
    const life = this.#stops;
    for (const server of await this.#servers()) {
      this.#goOn(life);
      const place = hostPort(server.host, server.port);
      try {
        const answer = await this.#askOne(server, question, flags, over);
        this.#benched.delete(place);
        const { rcode } = answer.message;
        if (rcode === RCODE.NOERROR || rcode === RCODE.NXDOMAIN) return answer;
        said.push(`${place} said ${rcodeText(rcode)}`);
      } catch (error) {
        this.#goOn(life);
        // Who does not speak TCP may answer otherwise.
        if (over === "udp") this.#benched.set(place, this.#parts.clock.monotonic() + BENCH_MS);
        said.push(`${place}: ${messageOf(error)}`);
      }
    }
    const text = said.length === 0 ? "there is no server to ask" : said.join("; ");
    this.warn(text, `a name was not resolved: ${text}`);
    throw new TrilithError("unavailable", text);
  }

  /** @throws the reason of `stop` */
  #goOn(life: number): void {
    if (life !== this.#stops) throw this.#stopped;
  }

  /** The servers in the order in which they are asked now. */
  async #servers(): Promise<readonly { readonly host: string; readonly port: number }[]> {
    const { servers, strategy, random, clock, isOwn } = this.#parts;
    const all: { host: string; port: number }[] = [];
    for (const one of servers)
      for (const server of one === "system"
        ? (await this.#systemServers()).map((host) => ({ host, port: 53 }))
        : [one]) {
        if (isOwn(server.host, server.port)) {
          if (one !== "system")
            this.warn(
              `own ${server.host}`,
              `the recursor ${hostPort(server.host, server.port)} is this agent itself: not asked`,
            );
        } else if (!all.some(({ host, port }) => host === server.host && port === server.port)) all.push(server);
      }
    if (strategy === "random") shuffle(all, random);
    const nowMs = clock.monotonic();
    const benched = (server: { host: string; port: number }): boolean =>
      (this.#benched.get(hostPort(server.host, server.port)) ?? 0) > nowMs;
    return [...all.filter((server) => !benched(server)), ...all.filter(benched)];
  }

  async #systemServers(): Promise<readonly string[]> {
    const { clock, disk, resolvConf } = this.#parts;
    const nowMs = clock.monotonic();
    if (this.#system === undefined || nowMs - this.#system.readMs >= SYSTEM_MS) {
      let servers = this.#system?.servers ?? [];
      try {
        servers = nameserversOf(await disk.readText(resolvConf));
      } catch (error) {
        this.warn("resolv.conf", `the system's nameservers are not known: ${messageOf(error)}`);
      }
      this.#system = { servers, readMs: nowMs };
    }
    return this.#system.servers;
  }

  /** Asks over UDP twice within the server's time (packets get lost), over TCP where the answer is cut or that is wanted. */
  async #askOne(
    server: { readonly host: string; readonly port: number },
    question: Question,
    flags: AskFlags,
    over: "udp" | "tcp",
  ): Promise<Reply> {
    const { timeoutMs } = this.#parts;
    let edns = true;
    for (let tries = 1; over === "udp"; tries++) {
      const query = this.#query(question, flags, edns);
      try {
        const answer = await this.#within(tries === 1 ? timeoutMs / 2 : timeoutMs - timeoutMs / 2, (signal) =>
          this.#overUdp(server, query, question, signal),
        );
        // A server from before EDNS [RFC 6891 §7].
        if (edns && answer.message.rcode === RCODE.FORMERR && tries === 1) {
          edns = false;
          continue;
        }
        if (!answer.message.truncated) return answer;
        break;
      } catch (error) {
        if (tries === 1 && error === TIME_IS_UP) continue;
        throw error === TIME_IS_UP ? new TrilithError("timeout", `no answer within ${timeoutMs} ms`) : error;
      }
    }
    const query = this.#query(question, flags, edns);
    try {
      return await this.#within(timeoutMs, (signal) => this.#overTcp(server, query, question, signal));
    } catch (error) {
      throw error === TIME_IS_UP ? new TrilithError("timeout", `no answer over TCP within ${timeoutMs} ms`) : error;
    }
  }

  async #overUdp(
    server: { readonly host: string; readonly port: number },
    query: Uint8Array,
    question: Question,
    signal: AbortSignal,
  ): Promise<Reply> {
    let message: Message | undefined;
    const packet = await this.#parts.net.exchange(server, query, signal, (reply) => {
      message = answerTo(reply, query, question);
      return message !== undefined;
    });
    return { packet, message: message as Message };
  }

  async #overTcp(
    server: { readonly host: string; readonly port: number },
    query: Uint8Array,
    question: Question,
    signal: AbortSignal,
  ): Promise<Reply> {
    const socket = await this.#parts.net.connect(server, signal);
    try {
      const packet = await new Promise<Uint8Array>((resolve, reject) => {
        let got: Buffer = Buffer.alloc(0);
        socket.on("data", (chunk: Buffer) => {
          got = Buffer.concat([got, chunk]);
          if (got.length >= 2 && got.length >= 2 + got.readUInt16BE(0))
            resolve(got.subarray(2, 2 + got.readUInt16BE(0)));
        });
        socket.once("error", reject);
        socket.once("close", () =>
          reject(new TrilithError("unavailable", "the connection was closed without an answer")),
        );
        signal.addEventListener("abort", () => reject(signal.reason), { once: true });
        socket.write(Buffer.concat([Buffer.from([query.length >> 8, query.length & 255]), query]));
      });
      const message = answerTo(packet, query, question);
      if (message === undefined) throw new TrilithError("invalid", "something else than an answer came over TCP");
      return { packet, message };
    } finally {
      socket.destroy();
    }
  }

  #query(question: Question, { checkingDisabled, dnssecOk }: AskFlags, edns: boolean): Uint8Array {
    const [high = 0, low = 0] = this.#parts.random.bytes(2);
    return encodeMessage({
      id: (high << 8) | low,
      response: false,
      opcode: OPCODE.QUERY,
      authoritative: false,
      truncated: false,
      recursionDesired: true,
      recursionAvailable: false,
      authenticData: false,
      checkingDisabled,
      rcode: 0,
      questions: [question],
      answers: [],
      authorities: [],
      additionals: [],
      ...(edns ? { edns: { udpBytes: OFFERED_BYTES, version: 0, dnssecOk, options: [] } } : {}),
    });
  }

  /** Does something for at most `ms`; rejects with `TIME_IS_UP` then, and with the reason when everything stops. */
  #within<T>(ms: number, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    return this.#limits.within(ms, () => TIME_IS_UP, work);
  }

  /** Once a minute for each matter: whoever asks decides how often it comes up. */
  warn(about: string, text: string): void {
    const nowMs = this.#parts.clock.monotonic();
    if (nowMs - (this.#warnedMs.get(about) ?? Number.NEGATIVE_INFINITY) < WARN_EVERY_MS) return;
    if (this.#warnedMs.size >= 100) this.#warnedMs.clear();
    this.#warnedMs.set(about, nowMs);
    this.#parts.log.warn(text);
  }
}

const TIME_IS_UP = new TrilithError("timeout", "no answer in time");

/** The message of a packet that answers the query, and is no forgery as far as one can tell [RFC 5452 §4]; else undefined. */
function answerTo(packet: Uint8Array, query: Uint8Array, asked: Question): Message | undefined {
  if (packet.length < HEADER_BYTES || packet[0] !== query[0] || packet[1] !== query[1]) return undefined;
  let message: Message;
  try {
    message = decodeMessage(packet);
  } catch {
    return undefined;
  }
  const [question] = message.questions;
  if (!message.response || message.opcode !== OPCODE.QUERY) return undefined;
  // A server that could not read the question cannot repeat it.
  if (question === undefined) return message.rcode === RCODE.FORMERR ? message : undefined;
  return question.type === asked.type && question.class === asked.class && sameName(question.name, asked.name)
    ? message
    : undefined;
}

function rcodeText(rcode: number): string {
  return Object.entries(RCODE).find(([, code]) => code === rcode)?.[0] ?? `response code ${rcode}`;
}

/** `192.0.2.1`, `192.0.2.1:5353`, `[2001:db8::1]:53`, `2001:db8::1` or "system"; undefined for anything else. */
export function nameserverOf(text: string): Nameserver | undefined {
  if (text === "system") return "system";
  const whole = ipBytes(text);
  if (whole !== undefined) return { host: ipText(whole), port: 53 };
  const match = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d{1,5}))?$/.exec(text);
  const address = ipBytes(match?.[1] ?? match?.[2] ?? "");
  const port = Number(match?.[3] ?? 53);
  return address === undefined || port < 1 || port > 65_535 ? undefined : { host: ipText(address), port };
}
