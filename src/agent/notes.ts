// What came and went, and why: a short memory per service name, for "why is it gone?".

export interface Note {
  readonly atMs: number;
  readonly id: string;
  readonly text: string;
}

const PER_SERVICE = 64;
const SERVICES = 2048;

/** Notes by service name, newest first; the names touched longest ago are forgotten when there are too many. */
export class Notes {
  readonly #notes = new Map<string, Note[]>();

  add(service: string, note: Note): void {
    const notes = this.#notes.get(service) ?? [];
    notes.unshift(note);
    notes.length = Math.min(notes.length, PER_SERVICE);
    // A map keeps the order of insertion: the name touched last stands last.
    this.#notes.delete(service);
    this.#notes.set(service, notes);
    if (this.#notes.size <= SERVICES) return;
    const [oldest] = this.#notes.keys();
    if (oldest !== undefined) this.#notes.delete(oldest);
  }

  of(service: string): readonly Note[] {
    return [...(this.#notes.get(service) ?? [])];
  }
}
