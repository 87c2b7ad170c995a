// Those who follow this process's list: each gets every new line, and signs of life between.
import type { Clock, Timer } from "../../base/clock.ts";
import type { ServerResponse } from "../../base/http.ts";

/** One that does not read is let go when so much waits for it. */
const MOST_WAITING_BYTES = 1 << 20;

/** More than that do not follow one host. */
const MOST = 4096;

export class Streams {
  readonly #clock: Pick<Clock, "after">;
  readonly #line: () => string;
  readonly #open = new Map<ServerResponse, { told: string; beat: Timer }>();

  /** `line` is the line that is true now, with its line feed. */
  constructor(clock: Pick<Clock, "after">, line: () => string) {
    this.#clock = clock;
    this.#line = line;
  }

  add(response: ServerResponse, beatMs: number): void {
    if (this.#open.size >= MOST) return void response.destroy();
    const beat = (): void => {
      this.#write(response, "\n");
      one.beat = this.#clock.after(beatMs, beat);
    };
    const one = { told: this.#line(), beat: this.#clock.after(beatMs, beat) };
    this.#open.set(response, one);
    response.once("close", () => {
      one.beat.cancel();
      this.#open.delete(response);
    });
    response.on("error", () => response.destroy());
    this.#write(response, one.told);
  }

  /** Tells everybody who was not told yet. */
  tell(): void {
    if (this.#open.size === 0) return;
    const line = this.#line();
    for (const [response, one] of this.#open) {
      if (one.told === line) continue;
      one.told = line;
      this.#write(response, line);
    }
  }

  end(): void {
    for (const response of [...this.#open.keys()]) response.destroy();
  }

  #write(response: ServerResponse, text: string): void {
    if (response.writableLength > MOST_WAITING_BYTES) response.destroy();
    else response.write(text);
  }
}
