// Consul's HTTP dialect as a protocol: one route on the agent's HTTP listener, the watches of configuration files, remote execution, and measured coordinates.
import type { Handler } from "../../base/http.ts";
import { defineProtocol, type Protocol } from "../../contracts/protocol.ts";
import { createAsk, createAskOverHttp } from "./ask.ts";
import { NEEDS } from "./call.ts";
import { type ConsulConfig, configure } from "./config.ts";
import { createMeasure } from "./measure.ts";
import { createRemoteExec } from "./remote-exec.ts";
import { rows } from "./routes/index.ts";
import { createHandler } from "./server.ts";
import { tellOf } from "./tell.ts";
import { createWatches } from "./watches.ts";

type Needs = (typeof NEEDS)[number] | "disk" | "http";

export const consul: Protocol<ConsulConfig, Needs> = defineProtocol({
  name: "consul",
  needs: [...NEEDS, "disk", "http"],
  configure,
  setup(config, ground) {
    const { disk, self } = ground;
    let now = config;
    const doorOf = (): { readonly ask: Ask; readonly handle: Handler } => ({
      ask: self.client === true ? createAskOverHttp(ground) : createAsk(rows, now, ground),
      handle: createHandler(rows, now, ground),
    });
    let door = doorOf();
    const ask: Ask = (path, signal) => door.ask(path, signal);
    const watches = createWatches({ ...ground, ask, scripts: self.scripts.fromFiles });
    const works = [
      new Exchanged(
        ({ remoteExec }) => String(remoteExec),
        ({ remoteExec }) => createRemoteExec({ ...ground, wanted: remoteExec }),
      ),
      new Exchanged(
        ({ coordinates, serverPort }) => (coordinates ? `${serverPort}` : ""),
        ({ coordinates, serverPort }) => (coordinates ? createMeasure({ ...ground, port: serverPort }) : undefined),
      ),
    ];
    return {
      routes: [{ prefix: "/", handle: (request, response) => door.handle(request, response) }],
      answers: (service, signal) => tellOf(ask, service, signal),
      background: {
        start: () => {
          watches.replace(now.watches);
          for (const work of works) void work.take(now);
        },
        stop: async () => void (await Promise.all([watches.stop(), ...works.map((work) => work.end())])),
      },
      rereads: true,
      async reload(read) {
        const next = read === undefined ? now : configure(read.raw);
        const { watchPaths } = next;
        const { watchesIn } = await import("./cli.ts");
        const all = watchPaths.length === 0 ? next.watches : await watchesIn(watchPaths, disk);
        now = next;
        door = doorOf();
        watches.replace(all);
        for (const work of works) await work.take(now);
      },
    };
  },
});

type Ask = ReturnType<typeof createAsk>;

/** Work that goes on with one configuration, and ends for another one where that is of any difference to it. */
class Exchanged {
  readonly #textOf: (config: ConsulConfig) => string;
  readonly #make: (config: ConsulConfig) => { start(): void; stop(): Promise<void> } | undefined;
  #text: string | undefined;
  #work: { start(): void; stop(): Promise<void> } | undefined;

  constructor(
    textOf: (config: ConsulConfig) => string,
    make: (config: ConsulConfig) => { start(): void; stop(): Promise<void> } | undefined,
  ) {
    this.#textOf = textOf;
    this.#make = make;
  }

  async take(config: ConsulConfig): Promise<void> {
    const text = this.#textOf(config);
    if (text === this.#text) return;
    // The first begins at once: who stops in the same turn finds it.
    if (this.#work !== undefined) await this.end();
    this.#text = text;
    this.#work = this.#make(config);
    this.#work?.start();
  }

  async end(): Promise<void> {
    const work = this.#work;
    this.#work = undefined;
    this.#text = undefined;
    await work?.stop();
  }
}
