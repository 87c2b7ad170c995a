// An HTTP listener of a protocol's own, beside the agent's.
import type { Handler, Http } from "../base/http.ts";
import { hostPort, type Listening } from "../base/net.ts";
import type { Listener } from "./protocol.ts";

/** Listens where told and hands everything to one handler. A start that failed may be tried again. */
export function httpListener(
  name: string,
  http: Pick<Http, "serve">,
  on: { readonly host: string; readonly port: number },
  handle: Handler,
): Listener {
  let listening: Promise<Listening> | undefined;
  return {
    name,
    place: on,
    async start() {
      listening ??= http.serve(on, handle);
      try {
        const { host, port } = await listening;
        return hostPort(host, port);
      } catch (error) {
        listening = undefined;
        throw error;
      }
    },
    async stop() {
      const running = listening;
      listening = undefined;
      await (await running)?.close();
    },
  };
}
