// What this process sent itself and hears again, since a group's members hear each other on one host.
import type { Clock } from "../../../base/clock.ts";
import type { Link } from "./link.ts";

const KEPT_MS = 2000;

interface Sent {
  readonly link: Link;
  readonly text: string;
  readonly untilMs: number;
  /** Heard where it was sent: what comes there again is another stack's, which happens to say the same. */
  heard: boolean;
}

export class Echoes {
  readonly #clock: Clock;
  #sent: Sent[] = [];

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  sent(link: Link, bytes: Uint8Array): void {
    this.#forget();
    this.#sent.push({ link, text: textOf(bytes), untilMs: this.#clock.monotonic() + KEPT_MS, heard: false });
  }

  /** True for what was sent there; and for what was sent on another interface that leads to the same network. */
  has(link: Link, bytes: Uint8Array): boolean {
    this.#forget();
    const text = textOf(bytes);
    let elsewhere = false;
    for (const sent of this.#sent) {
      if (sent.text !== text) continue;
      if (sent.link === link && !sent.heard) {
        sent.heard = true;
        return true;
      }
      elsewhere = elsewhere || sent.link.interface !== link.interface;
    }
    return elsewhere;
  }

  #forget(): void {
    const now = this.#clock.monotonic();
    let gone = 0;
    while (gone < this.#sent.length && (this.#sent[gone] as Sent).untilMs < now) gone++;
    if (gone > 0) this.#sent = this.#sent.slice(gone);
  }
}

function textOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1");
}
