// An address that is published under a host's name, as avahi-publish -a does: claimed, announced, under another name after a conflict.
import { InputError } from "../../../base/error.ts";
import {
  ipBytes,
  labelFromText,
  type Name,
  nameFromText,
  type RecordData,
  reverseName,
  textFromLabel,
} from "../../../wire/dns/index.ts";
import type { HostAddress, PublishEvent } from "../engine.ts";
import { HOST_TTL_S, nameKey, nextHostName, plainText } from "./names.ts";
import { type Owned, owned } from "./records.ts";
import type { Spec } from "./standing.ts";

/** What the whole does for an address. */
export interface AddressHub {
  sync(): void;
  isSettled(): boolean;
  withdraw(): Promise<void>;
  readonly changed: ((event: PublishEvent) => void) | undefined;
}

/** One address and its name; the same at every place, whatever the place's own family. */
export class PublishedAddress implements Omit<Spec, "patienceMs"> {
  readonly sharedOnHost = false;
  readonly #hub: AddressHub;
  readonly #data: RecordData;
  readonly #reverse: Name;
  /** False where it is not wanted, or somebody else speaks for that name. */
  #withReverse: boolean;
  #name: Name;
  /** The name that was told to be established. */
  #told = "";
  #withdrawn: Promise<void> | undefined;

  /** @throws InputError */
  constructor({ name, address, reverse }: HostAddress, hub: AddressHub) {
    const bytes = ipBytes(address);
    if (bytes === undefined) throw new InputError("", `"${address}" is no IP address`);
    try {
      this.#name = nameFromText(name);
    } catch (error) {
      throw new InputError("", `"${name}" is no host name`, error);
    }
    if (this.#name.length < 2)
      throw new InputError("", `"${name}" is no host name: expected one with a domain, such as "${name}.local"`);
    this.#data = bytes.length === 4 ? { kind: "A", address } : { kind: "AAAA", address };
    this.#reverse = reverseName(bytes);
    this.#withReverse = reverse !== false;
    this.#hub = hub;
  }

  get name(): string {
    return plainText(this.#name);
  }

  /** True for the same address, however it is spelt. */
  isAt(address: string): boolean {
    const bytes = ipBytes(address.replace(/%.*$/, ""));
    return bytes !== undefined && nameKey(reverseName(bytes)) === nameKey(this.#reverse);
  }

  records(): Owned[] {
    const address = owned(this.#name, this.#data, HOST_TTL_S, true);
    return this.#withReverse
      ? [address, owned(this.#reverse, { kind: "PTR", target: this.#name }, HOST_TTL_S, true)]
      : [address];
  }

  conflict(key: string): void {
    // No other name makes the address another one.
    if (key === nameKey(this.#reverse)) this.#withReverse = false;
    else {
      const from = this.name;
      const [label = "", ...domain] = this.#name;
      this.#name = [labelFromText(nextHostName(textFromLabel(label))), ...domain];
      this.#hub.changed?.({ kind: "renamed", from, to: this.name });
    }
    this.#hub.sync();
  }

  changed(): void {
    if (this.#withdrawn !== undefined || !this.#hub.isSettled() || this.#told === this.name) return;
    this.#told = this.name;
    this.#hub.changed?.({ kind: "established", name: this.name });
  }

  /** Says goodbye; resolves when it is sent. */
  withdraw(): Promise<void> {
    this.#withdrawn ??= this.#hub.withdraw();
    return this.#withdrawn;
  }
}
