// Registrator's translation, as a pure function: what Docker says about a container → what is registered, and what could not be.
import { messageOf } from "../../base/error.ts";
import type { CheckSpec } from "../../model/check.ts";
import type { Registration } from "../../model/instance.ts";
import { buildCheck, type CheckOptions } from "../../wire/service-check.ts";
import {
  combineTags,
  labelsOf,
  type Metadata,
  nameComplaint,
  portsSpokenOf,
  serviceMetadata,
  wordsOf,
} from "../../wire/service-env.ts";
import { type AddressOptions, addressesOf, addressOf, EVERYWHERE, type Port } from "./addresses.ts";
import { type Binding, type Container, describe, shortId } from "./inspect.ts";

/** How to translate: by Registrator's flags and what goes beyond them. */
export interface TranslateOptions extends CheckOptions, AddressOptions {
  /** `-explicit`: only what has a name. */
  readonly explicit: boolean;
  /** `-tags`: renders the further tags for a container (a comma list). @throws Error where the template does not fit the container */
  readonly tags: (container: Container) => string;
  /** Exactly as Registrator: tags of one list reversed, no further addresses, no HEALTHCHECK. */
  readonly compat: boolean;
  /** The host part of IDs. */
  readonly hostname: string;
  /** Renders the name of containers that give none, instead of the image's. @throws Error as `tags` */
  readonly name?: (container: Container) => string;
  /** False = a container with several ports gets no `-port` behind its name. */
  readonly portSuffix?: boolean;
  /** The engine, as part of the identity, where an agent follows several. */
  readonly engine?: string;
}

export interface Complaint {
  readonly about: string;
  readonly text: string;
}

export interface Translation {
  readonly registrations: readonly Registration[];
  readonly complaints: readonly Complaint[];
}

/** The id of the check that carries a container's HEALTHCHECK for a service. */
export function healthCheckId(serviceId: string): string {
  return `docker-health:${serviceId}`;
}

/** What Go's templates print for a label that is not there; nobody wants it for a tag or a name. */
const NO_VALUE = "<no value>";
const ON_HOST: ReadonlySet<string> = new Set(["bridge", "default", "host", ""]);

/**
 * Translates one container. `other` finds the container whose network another one shares (`--net container:x`), by ID or name.
 * The order of registrations is that of the ports. Source: Registrator 7.4.0, bridge/bridge.go `add` and `newService`.
 */
export function translate(
  container: Container,
  options: TranslateOptions,
  other: (idOrName: string) => Container | undefined = () => undefined,
): Translation {
  const complaints: Complaint[] = [];
  const registrations: Registration[] = [];
  const about = `container ${describe(container)}`;
  const all = portsOf(container);
  const ports = all.filter((port) => options.internal || port.hostPort !== "");
  complaints.push(...misdirected(container, all, ports).map((text) => ({ about, text })));
  if (ports.length === 0) return { registrations, complaints };
  const isGroup = ports.length > 1;
  const written = rendered(options.tags, "tags of the -tags template", container, (text) =>
    complaints.push({ about, text }),
  );
  const forcedTags = options.compat ? written : written.replaceAll(NO_VALUE, "");
  const defaultName =
    (options.name === undefined
      ? ""
      : rendered(options.name, "name of the template docker.name", container, (text) =>
          complaints.push({ about, text }),
        )
          .replaceAll(NO_VALUE, "")
          .trim()) || imageName(container.image);
  const taken = new Set<string>();
  for (const port of ports) {
    const services = servicesOf(container, port, { isGroup, forcedTags, defaultName }, options, other, (text) =>
      complaints.push({ about: `${about}, port ${port.exposed}/${port.protocol}`, text }),
    );
    for (const registration of services) {
      if (taken.has(registration.id)) {
        complaints.push({
          about: `${about}, port ${port.exposed}/${port.protocol}`,
          text: `not registered: another port of the container has the ID "${registration.id}" already; give each its own by SERVICE_${port.exposed}_ID`,
        });
        continue;
      }
      taken.add(registration.id);
      registrations.push(registration);
    }
  }
  return { registrations, complaints };
}

/** What is said about ports that are not there, or about none that can be reached. */
function misdirected(container: Container, all: readonly Port[], usable: readonly Port[]): readonly string[] {
  const texts: string[] = [];
  const numbers = [...new Set(all.map(({ exposed }) => exposed))].join(", ");
  const spoken = portsSpokenOf(container.env, container.labels);
  for (const [port, key] of spoken)
    if (!all.some(({ exposed }) => exposed === port))
      texts.push(
        `${key} is about port ${port}, ${
          numbers === "" ? "but the container has none" : `which is not one of the container's own (${numbers})`
        }; right would be the number inside the container`,
      );
  const { values } = serviceMetadata(container.env, container.labels, "");
  const names = (values.get("name") ?? "") !== "" || (values.get("names") ?? "") !== "";
  if (usable.length === 0 && names && (values.get("ignore") ?? "") === "")
    texts.push(
      numbers === ""
        ? "not registered: it has a SERVICE_NAME, but no port; right would be EXPOSE in its image, or -p"
        : `not registered: it has a SERVICE_NAME, but none of its ports (${numbers}) is published; right would be docker run -p or -P, or the setting docker.internal`,
    );
  return texts;
}

/** All ports: the exposed ones as if published under their own number (host networking), overlaid by what Docker published. */
function portsOf(container: Container): Port[] {
  const all = new Map<string, readonly Binding[] | undefined>();
  for (const port of container.exposedPorts) all.set(port, [{ hostIp: "0.0.0.0", hostPort: port.split("/")[0] ?? "" }]);
  for (const [port, bindings] of container.ports) all.set(port, bindings);
  const attached = ON_HOST.has(container.networkMode)
    ? undefined
    : (container.networks.find(({ name }) => name === container.networkMode) ??
      container.networks.find(({ id }) => id !== "" && id === container.networkMode));
  return [...all]
    .map(([spelling, bindings]): Port => {
      const [exposed = "", protocol = "tcp"] = spelling.split("/");
      const [first] = bindings ?? [];
      const hostIp = first === undefined || EVERYWHERE.has(first.hostIp) ? "0.0.0.0" : first.hostIp;
      return {
        exposed,
        protocol,
        // On a network of its own a container is reached at its address there, with the host's port all the same.
        hostIp: ON_HOST.has(container.networkMode) ? hostIp : (attached?.ipv4 ?? ""),
        hostPort: first?.hostPort ?? "",
      };
    })
    .sort((a, b) => Number(a.exposed) - Number(b.exposed) || rank(a.protocol) - rank(b.protocol));
}

function rank(protocol: string): number {
  return ["tcp", "udp"].indexOf(protocol) >>> 0;
}

function rendered(
  template: (container: Container) => string,
  which: string,
  container: Container,
  complain: (text: string) => void,
): string {
  try {
    return template(container);
  } catch (error) {
    complain(`registered without the ${which}: ${messageOf(error)}`);
    return "";
  }
}

/** What holds for all ports of a container. */
interface Shared {
  readonly isGroup: boolean;
  readonly forcedTags: string;
  readonly defaultName: string;
}

/**
 * The names of a port, the main one first: SERVICE_NAME, then those of SERVICE_NAMES (a comma list; unknown to Registrator, whose `compat`
 * leaves it a label). Undefined where a name has to be given and none is.
 */
function namesOf(
  { values, fromPort }: Metadata,
  port: Port,
  { isGroup, defaultName }: Shared,
  options: TranslateOptions,
): readonly string[] | undefined {
  const suffix = (key: string): string =>
    isGroup && options.portSuffix !== false && !fromPort.has(key) ? `-${port.exposed}` : "";
  const main = values.get("name") ?? "";
  const further = options.compat
    ? []
    : combineTags([values.get("names") ?? ""], false).map((name) => `${name.trim()}${suffix("names")}`);
  if (main === "" && further.length === 0 && options.explicit) return undefined;
  if (main === "" && further.length > 0) return [...new Set(further)];
  return [...new Set([`${main || defaultName}${suffix("name")}`, ...further])];
}

/** What one port comes to: a service for each of its names, of which the further ones stand as the first one's checks stand. */
function servicesOf(
  container: Container,
  port: Port,
  shared: Shared,
  options: TranslateOptions,
  other: (idOrName: string) => Container | undefined,
  complain: (text: string) => void,
): Registration[] {
  const metadata = serviceMetadata(container.env, container.labels, port.exposed);
  const get = (key: string): string => metadata.values.get(key) ?? "";
  if (get("ignore") !== "") return [];
  const [name, ...further] = namesOf(metadata, port, shared, options) ?? [];
  if (name === undefined) return [];
  const generatedId = `${options.hostname}:${container.name}:${port.exposed}${port.protocol === "udp" ? ":udp" : ""}`;
  const id = get("id") || generatedId;
  if ([name, id, ...further].some((text) => text.includes("\u0000"))) {
    complain("not registered: its name or ID holds a NUL character");
    return [];
  }
  for (const one of [name, ...further]) {
    const fault = nameComplaint(one);
    if (fault !== undefined) complain(fault);
  }
  const address = addressOf(container, port, options, other, complain);
  const number = Number(options.internal ? port.exposed : port.hostPort);
  const tags = combineTags([get("tags"), shared.forcedTags, port.protocol === "udp" ? "udp" : ""], options.compat);
  const attributes = new Map(metadata.values);
  for (const key of options.compat ? ["name", "id", "tags"] : ["name", "names", "id", "tags"]) attributes.delete(key);

  const checks: CheckSpec[] = [];
  const check = buildCheck(
    { containerId: container.id, exposedPort: port.exposed, address, port: number, attributes },
    options,
    complain,
  );
  if (check !== undefined) checks.push(check);
  const health = options.compat ? undefined : healthCheck(container, id, name);
  if (health !== undefined) checks.push(health);

  const addresses = options.compat ? [] : addressesOf(container, port, address, number, options);
  const engine = options.engine === undefined ? "" : `@${options.engine}`;
  const identity = `${container.id}:${port.exposed}/${port.protocol}`;
  const main: Registration = {
    id,
    name,
    tags,
    labels: labelsOf(attributes, complain),
    address,
    port: number,
    ...(addresses.length > 1 ? { addresses } : {}),
    checks,
    foreignId: `${identity}${engine}`,
    aka: [container.name, container.id],
    words: wordsOf(container.env, container.labels, port.exposed),
    text: `container ${container.name} (${shortId(container.id)}), port ${port.exposed}/${port.protocol}`,
  };
  return [
    main,
    ...further.map((another) => ({
      ...main,
      id: `${id}:${another}`,
      name: another,
      checks: checks.length === 0 ? [] : [aliasOf(id)],
      foreignId: `${identity}=${another}${engine}`,
    })),
  ];
}

/** A check that stands as those of another service stand. */
function aliasOf(service: string): CheckSpec {
  return {
    id: "",
    name: "",
    notes: "",
    kind: "alias",
    detail: { node: "", service },
    intervalMs: 0,
    timeoutMs: 0,
  };
}

/** The last path element of the image up to its first colon. */
function imageName(image: string): string {
  const path = image.replace(/\/+$/, "");
  return path.slice(path.lastIndexOf("/") + 1).split(":")[0] ?? "";
}

/** Docker's own HEALTHCHECK as a pushed check: critical until Docker says healthy for the first time. */
function healthCheck(container: Container, serviceId: string, name: string): CheckSpec | undefined {
  if (container.health.status === "none") return undefined;
  return {
    id: healthCheckId(serviceId),
    name: `Docker health of '${name}'`,
    notes: "",
    kind: "none",
    detail: undefined,
    intervalMs: 0,
    timeoutMs: 0,
    initial: container.health.status === "healthy" ? "passing" : "critical",
  };
}
