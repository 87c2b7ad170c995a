// A published group: its services as records, its name and the names after conflicts, and what its owner is told.
import { InputError, TrilithError } from "../../../base/error.ts";
import { checkName, MAX_LABEL_BYTES, type Name, nameFromText } from "../../../wire/dns/index.ts";
import type { Group, Published, PublishOptions, PublishState, Service } from "../engine.ts";
import type { Link } from "./link.ts";
import {
  domainOf,
  HOST_TTL_S,
  instanceLabel,
  listName,
  nameKey,
  nextInstanceName,
  OTHER_TTL_S,
  typeLabels,
} from "./names.ts";
import { type Owned, owned } from "./records.ts";
import type { Spec } from "./standing.ts";

/** What a group needs of the engine. */
export interface GroupHub {
  hostName(): Name;
  hostSettled(): boolean;
  /** True where another group of this engine has an instance of this name. */
  isTaken(key: string, by: PublishedGroup): boolean;
  /** Brings the group's claim into line. */
  sync(group: PublishedGroup): void;
  isSettled(group: PublishedGroup): boolean;
  /** The claim says goodbye and is over; resolves when that is sent. */
  withdraw(group: PublishedGroup): Promise<void>;
}

interface Prepared {
  readonly service: Service;
  readonly type: Name;
  readonly domain: Name;
  readonly host: Name | undefined;
}

export class PublishedGroup implements Published, Omit<Spec, "patienceMs"> {
  readonly sharedOnHost = false;
  readonly #hub: GroupHub;
  readonly #options: PublishOptions;
  #name: string;
  #services: readonly Prepared[];
  #state: PublishState = "probing";
  #told: string | undefined;
  #waiting: { resolve: (name: string) => void; reject: (error: Error) => void }[] = [];
  #withdrawn: Promise<void> | undefined;

  /** @throws InputError as `Mdns.publish` */
  constructor(group: Group, options: PublishOptions, hub: GroupHub) {
    this.#hub = hub;
    this.#options = options;
    instanceLabel(group.name);
    this.#name = group.name;
    this.#services = group.services.map(prepare);
    this.#findName();
  }

  get name(): string {
    return this.#name;
  }

  get state(): PublishState {
    return this.#state;
  }

  /** The names of its instances as keys. */
  keys(): string[] {
    return this.#services.map(({ type, domain }) => nameKey([instanceLabel(this.#name), ...type, ...domain]));
  }

  established(): Promise<string> {
    if (this.#state === "established") return Promise.resolve(this.#name);
    if (this.#state === "withdrawn") return Promise.reject(this.#over());
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  update(services: readonly Service[]): void {
    const prepared = services.map(prepare);
    if (this.#state === "withdrawn") throw this.#over();
    this.#services = prepared;
    this.#findName();
    this.#hub.sync(this);
  }

  withdraw(): Promise<void> {
    if (this.#withdrawn === undefined) {
      this.#state = "withdrawn";
      for (const { reject } of this.#waiting) reject(this.#over());
      this.#waiting = [];
      this.#withdrawn = this.#hub.withdraw(this);
    }
    return this.#withdrawn;
  }

  records(link: Link): Owned[] {
    const records = new Map<string, Owned>();
    const add = (record: Owned): void => {
      if (!records.has(record.id)) records.set(record.id, record);
    };
    const label = instanceLabel(this.#name);
    for (const { service, type, domain, host } of this.#services) {
      if (service.family !== undefined && service.family !== link.family) continue;
      if (service.interface !== undefined && service.interface !== link.interface) continue;
      const list = [...type, ...domain];
      const instance = [label, ...list];
      const target = host ?? this.#hub.hostName();
      const strings = service.txt === undefined || service.txt.length === 0 ? [new Uint8Array(0)] : service.txt;
      add(owned(list, { kind: "PTR", target: instance }, OTHER_TTL_S, false));
      add(owned(instance, { kind: "TXT", strings }, OTHER_TTL_S, true));
      add(owned(instance, { kind: "SRV", priority: 0, weight: 0, port: service.port, target }, HOST_TTL_S, true));
      for (const subtype of service.subtypes ?? [])
        add(owned(listName(service.type, subtype, domain), { kind: "PTR", target: instance }, OTHER_TTL_S, false));
      add(owned(["_services", "_dns-sd", "_udp", ...domain], { kind: "PTR", target: list }, OTHER_TTL_S, false));
    }
    return [...records.values()];
  }

  conflict(): void {
    if (this.#options.rename === false) {
      this.#collide();
      return;
    }
    this.#rename(nextInstanceName(this.#name));
    this.#findName();
    this.#hub.sync(this);
  }

  changed(): void {
    if (this.#state === "withdrawn") return;
    const settled =
      this.#hub.isSettled(this) && (this.#hub.hostSettled() || this.#services.every(({ host }) => host !== undefined));
    this.#state = settled ? "established" : "probing";
    if (!settled) return;
    for (const { resolve } of this.#waiting) resolve(this.#name);
    this.#waiting = [];
    if (this.#told === this.#name) return;
    this.#told = this.#name;
    this.#options.changed?.({ kind: "established", name: this.#name });
  }

  /** Goes on to names that no other group of this engine has. */
  #findName(): void {
    while (this.keys().some((key) => this.#hub.isTaken(key, this))) {
      if (this.#options.rename === false) throw new TrilithError("conflict", `"${this.#name}" is published already`);
      this.#rename(nextInstanceName(this.#name));
    }
  }

  #rename(to: string): void {
    const from = this.#name;
    this.#name = to;
    this.#told = undefined;
    this.#options.changed?.({ kind: "renamed", from, to });
  }

  #collide(): void {
    const name = this.#name;
    const error = new TrilithError("conflict", `somebody else on the LAN has the name "${name}"`);
    for (const { reject } of this.#waiting) reject(error);
    this.#waiting = [];
    void this.withdraw();
    this.#options.collision?.(name);
  }

  #over(): TrilithError {
    return new TrilithError("stopped", `"${this.#name}" is withdrawn`);
  }
}

function prepare(service: Service): Prepared {
  const type = typeLabels(service.type);
  const domain = domainOf(service.domain, `service ${service.type}, domain`);
  if (!Number.isInteger(service.port) || service.port < 0 || service.port > 65_535)
    throw new InputError("", `service ${service.type}: the port ${service.port} is no number from 0 to 65535`);
  // Whatever name a conflict leads to, it fits.
  checkName(["x".repeat(MAX_LABEL_BYTES), ...type, ...domain]);
  for (const subtype of service.subtypes ?? []) checkName(listName(service.type, subtype, domain));
  const txt = service.txt ?? [];
  let bytes = 0;
  for (const text of txt) {
    if (text.length > 255)
      throw new InputError("", `service ${service.type}: a TXT string has ${text.length} bytes; 255 are allowed`);
    bytes += 1 + text.length;
  }
  if (bytes > MOST_TXT_BYTES)
    throw new InputError(
      "",
      `service ${service.type}: the TXT strings take ${bytes} bytes; ${MOST_TXT_BYTES} are allowed`,
    );
  let host: Name | undefined;
  if (service.host !== undefined)
    try {
      host = nameFromText(service.host);
    } catch (error) {
      throw new InputError("", `service ${service.type}: "${service.host}" is no host name`, error);
    }
  return { service, type, domain, host };
}

/** A packet of 9000 bytes is the largest there is [RFC 6762 §17]; RFC 6763 §6.2 wants far less. */
const MOST_TXT_BYTES = 8192;
