// The wrapper's line to the agent: one long POST whose body states, whose answer acknowledges; connected again and again until closed.
import { PassThrough } from "node:stream";
import type { Clock } from "../../base/clock.ts";
import { messageOf } from "../../base/error.ts";
import type { Http, HttpResponse } from "../../base/http.ts";
import { jitter, type Random } from "../../base/random.ts";
import type { Status } from "../../model/check.ts";
import type { Line, Reply, Statement } from "./statement.ts";

export interface AgentAddress {
  /** `http://host:port`. */
  readonly base: string;
  readonly socketPath?: string;
  readonly token?: string;
  /** As the user gave it, for messages. */
  readonly shown: string;
}

export interface LinkMachine {
  readonly clock: Clock;
  readonly random: Random;
  readonly http: Pick<Http, "request">;
}

/** What became of the line, for people. */
export type LinkEvent =
  | { readonly event: "connected" }
  | { readonly event: "away"; readonly text: string }
  | { readonly event: "refused"; readonly text: string };

const RECONNECT_FIRST_MS = 50;
const RECONNECT_SLOWEST_MS = 1000;
/** An agent that refuses will go on refusing, until somebody changes something. */
const REFUSED_SLOWEST_MS = 30_000;

/** Keeps the agent told. Nothing here throws: a program runs with or without an agent. */
export class Link {
  private readonly machine: LinkMachine;
  private readonly to: AgentAddress;
  private readonly tell: (event: LinkEvent) => void;
  private readonly over = new AbortController();
  private readonly running: Promise<void>;
  private body: PassThrough | undefined;
  private last: string | undefined;
  private count = 0;
  private takenCount = 0;
  private connected = false;
  private waiting: { readonly n: number; readonly done: (taken: boolean) => void }[] = [];
  private nudge: (() => void) | undefined;

  constructor(machine: LinkMachine, to: AgentAddress, tell: (event: LinkEvent) => void) {
    this.machine = machine;
    this.to = to;
    this.tell = tell;
    this.running = this.run();
  }

  /** States the whole; the last statement is repeated after each reconnect. */
  state(state: Statement): number {
    const n = ++this.count;
    this.last = this.line({ n, state });
    if (this.body === undefined) this.nudge?.();
    else this.body.write(this.last);
    return n;
  }

  /** Pushes a check's result; lost while the agent is away. */
  report(check: string, status: Status, output: string): void {
    this.body?.write(this.line({ n: ++this.count, report: { check, status, output } }));
  }

  /** Says that the program ended; resolves when the agent's list has it, or after `timeoutMs`. */
  async gone(died: boolean, text: string, timeoutMs: number): Promise<void> {
    if (this.body === undefined) return;
    const n = ++this.count;
    this.last = undefined;
    this.body.write(this.line({ n, gone: { died, text } }));
    await this.taken(n, timeoutMs);
  }

  /** True when the agent's list has taken over the n-th line; false when no agent is there, or after `timeoutMs`. */
  taken(n: number, timeoutMs: number): Promise<boolean> {
    if (this.takenCount >= n) return Promise.resolve(true);
    if (!this.connected) return Promise.resolve(false);
    return new Promise((resolve) => {
      const entry = {
        n,
        done: (taken: boolean): void => {
          timer.cancel();
          this.waiting = this.waiting.filter((one) => one !== entry);
          resolve(taken);
        },
      };
      const timer = this.machine.clock.after(timeoutMs, () => entry.done(false), true);
      this.waiting.push(entry);
    });
  }

  async close(): Promise<void> {
    this.body?.end();
    this.over.abort(new Error("the wrapper ends"));
    await this.running;
  }

  private line(line: Line): string {
    return `${JSON.stringify(line)}\n`;
  }

  private async run(): Promise<void> {
    const { random } = this.machine;
    let pauseMs = RECONNECT_FIRST_MS;
    while (!this.over.signal.aborted) {
      if (this.last === undefined) {
        await this.pause(undefined, true);
        continue;
      }
      const end = await this.once();
      if (this.over.signal.aborted) return;
      if (end === "listened") pauseMs = RECONNECT_FIRST_MS;
      await this.pause(jitter(pauseMs, 0.2, random), end === "refused");
      pauseMs = Math.min(pauseMs * 2, end === "refused" ? REFUSED_SLOWEST_MS : RECONNECT_SLOWEST_MS);
    }
  }

  /** Waits for so long (undefined = for ever), for the end, and with `forNews` for a new statement. */
  private async pause(ms: number | undefined, forNews: boolean): Promise<void> {
    await new Promise<void>((resolve) => {
      const done = (): void => {
        timer?.cancel();
        this.over.signal.removeEventListener("abort", done);
        this.nudge = undefined;
        resolve();
      };
      const timer = ms === undefined ? undefined : this.machine.clock.after(ms, done, true);
      if (forNews) this.nudge = done;
      this.over.signal.addEventListener("abort", done, { once: true });
    });
  }

  /** One connection from its beginning to its end. */
  private async once(): Promise<"listened" | "refused" | "away"> {
    const body = new PassThrough();
    // The connection's end is told by the answer.
    body.on("error", () => {});
    body.write(this.last);
    this.body = body;
    let end = "away" as "listened" | "refused" | "away";
    try {
      const response = await this.machine.http.request({
        url: `${this.to.base}/v1/trilith/run`,
        method: "POST",
        headers: {
          "content-type": "application/x-ndjson",
          ...(this.to.token === undefined ? {} : { "x-consul-token": this.to.token }),
        },
        body,
        headTimeoutMs: 10_000,
        bodyTimeoutMs: 0,
        signal: this.over.signal,
        ...(this.to.socketPath === undefined ? {} : { socketPath: this.to.socketPath }),
      });
      if (response.status !== 200) {
        end = "refused";
        this.tell({ event: "refused", text: await refusal(response) });
        return end;
      }
      end = "listened";
      this.connected = true;
      this.tell({ event: "connected" });
      await this.listen(response, (text) => {
        end = "refused";
        this.tell({ event: "refused", text });
      });
      if (end === "listened" && !this.over.signal.aborted) this.tell({ event: "away", text: "the connection ended" });
    } catch (error) {
      if (end !== "refused" && !this.over.signal.aborted) this.tell({ event: "away", text: messageOf(error) });
    } finally {
      this.connected = false;
      this.body = undefined;
      body.destroy();
      for (const { done } of this.waiting) done(false);
    }
    return end;
  }

  /** Reads replies to their end. */
  private async listen(response: HttpResponse, refused: (text: string) => void): Promise<void> {
    let rest = "";
    response.body.setEncoding("utf8");
    for await (const chunk of response.body as AsyncIterable<string>) {
      rest += chunk;
      for (let end = rest.indexOf("\n"); end !== -1; end = rest.indexOf("\n")) {
        const reply = JSON.parse(rest.slice(0, end)) as Reply;
        rest = rest.slice(end + 1);
        if ("error" in reply) refused(reply.error);
        else {
          this.takenCount = Math.max(this.takenCount, reply.taken);
          for (const { n, done } of this.waiting) if (n <= this.takenCount) done(true);
        }
      }
    }
  }
}

async function refusal(response: HttpResponse): Promise<string> {
  const text = (await response.text(1 << 16).catch(() => "")).trim();
  if (response.status === 404) return "it does not know `trilith run` (404): is it a Trilith agent?";
  return text === "" ? `it answered with status ${response.status}` : text;
}
