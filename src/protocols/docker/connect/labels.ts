// Connectable's labels: connect.6379=redis and connect[6379]=redis, read as ports of the container's loopback and the services behind them.
import { messageOf } from "../../../base/error.ts";
import type { Labels } from "../../../model/node.ts";
import { type NamedQuery, queryFromText, textOfQuery } from "../../../model/service-name.ts";

/** A port of a container's loopback that stands for a service. */
export interface ConnectPort {
  readonly protocol: "tcp" | "udp";
  readonly port: number;
  readonly query: NamedQuery;
  /** The service in its shortest spelling; the same for the same service. */
  readonly service: string;
}

/** The ports of one container, lowest first, and what is wrong with the others. */
export interface ConnectLabels {
  readonly ports: readonly ConnectPort[];
  readonly faults: readonly string[];
}

/** "6379", "53/udp". */
export function portText({ protocol, port }: Pick<ConnectPort, "protocol" | "port">): string {
  return protocol === "tcp" ? String(port) : `${port}/${protocol}`;
}

const KEY = /^connect(?:\.(?<dotted>\d.*)|\[(?<inBrackets>\d[^\]]*)\])$/;
/** One word where a port should be: meant for us, but for those of the images, which are of whoever made them. */
const NO_PORT =
  /^connect(?:\.(?<dotted>[a-z][a-z0-9-]*(?:\/(?:tcp|udp))?)|\[(?<inBrackets>[a-z][a-z0-9-]*(?:\/(?:tcp|udp))?)\])$/i;
const PORT = /^(?<number>\d{1,5})(?:\/(?<protocol>tcp|udp))?$/;
const PORT_MAX = 65_535;
const EXPECTED = `expected a port from 1 to ${PORT_MAX}, the one that programs in the container connect to, "/udp" behind it for UDP: connect.6379=redis, connect.53/udp=dns`;
const portOf = (match: RegExpExecArray | null): string | undefined =>
  match?.groups?.["dotted"] ?? match?.groups?.["inBrackets"];

/** True where a container asks for anything at all. */
export function hasConnectLabels(labels: Labels): boolean {
  for (const key in labels) if (key.startsWith("connect") && (KEY.test(key) || NO_PORT.test(key))) return true;
  return false;
}

/**
 * Reads a container's labels. What is not spelt `connect.DIGIT…` or `connect[DIGIT…]` is somebody else's, though one word in the place of the port is
 * told (`connect.http`). What stands in `imageLabels`, too, is the image's: whoever made that must not choose what is
 * reached from here.
 */
export function readConnectLabels(labels: Labels, domain: string, imageLabels: Labels = {}): ConnectLabels {
  const ports = new Map<string, ConnectPort & { readonly key: string }>();
  const faults: string[] = [];
  // In a fixed order: of two labels for one port the first one counts.
  for (const key of Object.keys(labels).sort()) {
    const given = portOf(KEY.exec(key));
    const word = portOf(NO_PORT.exec(key));
    const isImages = Object.hasOwn(imageLabels, key) && imageLabels[key] === labels[key];
    if (word !== undefined && !isImages) faults.push(`label ${key}: "${word}" is no port: ${EXPECTED}`);
    if (given === undefined) continue;
    if (isImages) {
      faults.push(`label ${key} is the image's own: it counts with "docker": {"connect": "images"}`);
      continue;
    }
    const { number, protocol = "tcp" } = PORT.exec(given)?.groups ?? {};
    const port = Number(number);
    if (!(port >= 1 && port <= PORT_MAX)) {
      faults.push(`label ${key}: "${given}" is no port: ${EXPECTED}`);
      continue;
    }
    try {
      const query = queryFromText(labels[key] ?? "", domain, `label ${key}`);
      const read = { protocol: protocol as "tcp" | "udp", port, query, service: textOfQuery(query, domain), key };
      const other = ports.get(portText(read));
      if (other === undefined) ports.set(portText(read), read);
      else if (other.service !== read.service)
        faults.push(`label ${key}: port ${portText(read)} is ${other.service} by label ${other.key} already`);
    } catch (error) {
      faults.push(messageOf(error));
    }
  }
  const sorted = [...ports.values()].sort((a, b) => a.port - b.port || (a.protocol < b.protocol ? -1 : 1));
  return { ports: sorted.map(({ key: _, ...port }) => port), faults };
}
