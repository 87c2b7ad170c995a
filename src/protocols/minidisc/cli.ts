// `trilith md`: Minidisc's command line (list, find, advertise) by a peer of this process; no agent is needed.
import { systemClock } from "../../base/clock.ts";
import { systemDisk } from "../../base/disk.ts";
import { InputError } from "../../base/error.ts";
import { createHttp } from "../../base/http.ts";
import { callbackLog } from "../../base/log.ts";
import { hostPort, systemNet } from "../../base/net.ts";
import { systemRandom } from "../../base/random.ts";
import { createLocalApi, type LocalApi } from "../../base/tailnet.ts";
import { labelsOf } from "../../model/label-tags.ts";
import type { Labels } from "../../model/node.ts";
import { readServicesFile, sameAddress } from "./cli/services-file.ts";
import { createPeer, type Found, type Offer, type Peer } from "./peer.ts";
import { readProxy } from "./setup.ts";

/** Where the tailnet is. */
export interface MdOptions {
  /** tailscaled's unix socket; its usual place unless told. */
  readonly socket?: string;
  /** tailscaled's SOCKS5 proxy, as host:port, for userspace networking. */
  readonly proxy?: string;
}

/** What the commands write to and read from. */
export interface MdIo {
  out(text: string): void;
  err(text: string): void;
  stdin(): Promise<Uint8Array>;
  readonly signal: AbortSignal;
  /** Text from outside as one line that cannot steer a terminal. */
  printable(text: string): string;
}

/** Blanks between columns. */
const PADDING = 3;
/** How often it is looked at whether the state of advertising has changed. */
const LOOK_MS = 500;

async function withPeer<T>(
  options: MdOptions,
  io: MdIo,
  work: (peer: Peer, localApi: LocalApi) => Promise<T>,
): Promise<T> {
  const proxy = options.proxy === undefined ? undefined : readProxy(options.proxy);
  if (options.proxy !== undefined && proxy === undefined)
    throw new InputError("--proxy", `"${options.proxy}": expected host:port, such as localhost:1055`);
  const http = createHttp();
  const localApi = createLocalApi(http, options.socket);
  const peer = createPeer({
    clock: systemClock,
    random: systemRandom,
    net: systemNet,
    http,
    log: callbackLog((level, _part, text) => {
      // What is not advertised is told as a state.
      if (level === "error") io.err(`${io.printable(text)}\n`);
    }),
    localApi,
    ...(proxy === undefined ? {} : { proxy }),
  });
  try {
    return await work(peer, localApi);
  } finally {
    await peer.stop();
    await http.close();
  }
}

const placeOf = ({ address, port }: Found): string => hostPort(address, port);

/** One cell: `{ env=prod, zone=eu }`, in the order of these texts as md has it ("a-b=1" before "a=1"), `{}` without any. */
export function labelCell(
  { labels, tags }: Pick<Found, "labels" | "tags">,
  printable: (text: string) => string,
): string {
  const all = Object.entries(labelsOf(labels, tags))
    .map(([key, value]) => `${key}=${value}`)
    .sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  return all.length === 0 ? "{}" : `{ ${all.map(printable).join(", ")} }`;
}

/** Every cell padded to the widest of its column and three blanks more, the last one as well. */
function aligned(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, [...cell].length);
  const padded = (cell: string, i: number): string => cell + " ".repeat((widths[i] ?? 0) - [...cell].length + PADDING);
  return rows.map((row) => `${row.map(padded).join("")}\n`).join("");
}

/**
 * `md list`: all services of the tailnet, this host's first.
 * @returns how many there are
 * @throws TrilithError where there is no tailnet
 */
export function mdList(options: MdOptions, io: MdIo): Promise<number> {
  return withPeer(options, io, async (peer) => {
    const { services } = await peer.list({ once: true, signal: io.signal });
    if (services.length === 0) io.err("No advertised services found\n");
    io.out(aligned(services.map((one) => [`* ${io.printable(one.name)}`, placeOf(one), labelCell(one, io.printable)])));
    return services.length;
  });
}

/**
 * `md find`: address and port of the first service that is called so and has all of the labels.
 * @returns false where there is none
 * @throws TrilithError where there is no tailnet
 */
export function mdFind(name: string, labels: Labels, options: MdOptions, io: MdIo): Promise<boolean> {
  return withPeer(options, io, async (peer) => {
    const [first] = await peer.find(name, labels, { once: true, signal: io.signal });
    if (first === undefined) io.err("No matching service found\n");
    else io.out(`${placeOf(first)}\n`);
    return first !== undefined;
  });
}

/**
 * `md advertise`: what a file ("-": standard input) says, until the signal; then it is withdrawn.
 * @param unreadCode the exit code for a file that cannot be read at all
 * @returns the exit code: 0 when it was ended, 1 for a file that cannot be taken
 */
export async function mdAdvertise(file: string, options: MdOptions, io: MdIo, unreadCode: number): Promise<number> {
  const shown = file === "-" ? "standard input" : file;
  const text = await (file === "-"
    ? io.stdin().then((bytes) => Buffer.from(bytes).toString())
    : systemDisk.readText(file));
  const read = await readServicesFile(text, shown);
  if ("mistakes" in read) {
    for (const mistake of read.mistakes) io.err(`${io.printable(mistake)}\n`);
    return read.unread ? unreadCode : 1;
  }
  return await withPeer(options, io, async (peer, localApi) => {
    const twice = await twiceHere(read.offers, localApi, io.signal);
    if (twice !== undefined) {
      io.err(
        `${shown}: two services are at ${twice}, which is this host's own address; an address can be one service only\n`,
      );
      return 1;
    }
    const advertised = await peer.advertise(read.offers);
    await telling(peer, io);
    advertised.stop();
    return 0;
  });
}

/** Tells on standard error what becomes of it, until the signal. */
async function telling(peer: Peer, io: MdIo): Promise<void> {
  let told = "";
  while (!io.signal.aborted) {
    const { ok, text, role, tailnet } = peer.state();
    // Who else is online is no news here.
    const news = ok && role !== undefined ? `${role.role} ${tailnet?.own.ipv4}` : text;
    if (news !== told) io.err(`${ok ? "Advertising: " : "Not advertised yet: "}${io.printable(text)}\n`);
    told = news;
    await systemClock.sleep(LOOK_MS, io.signal).catch(() => {});
  }
}

/**
 * `:80` and `<own address>:80` in one file; undefined where there are none. Where tailscaled does not answer nobody knows: what is advertised
 * later is what the file says.
 */
async function twiceHere(
  offers: readonly Offer[],
  localApi: LocalApi,
  signal: AbortSignal,
): Promise<string | undefined> {
  const own = (await localApi.status(signal).catch(() => undefined))?.own.ipv4;
  return own === undefined ? undefined : sameAddress(offers, own);
}
