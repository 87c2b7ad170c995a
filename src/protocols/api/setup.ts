// Trilith's own HTTP API under /v1/trilith/: find, list, why, doctor, follow, release, drain and override, for the command line and the library.
import { InputError } from "../../base/error.ts";
import { JOIN_PREFIX } from "../../contracts/join.ts";
import { defineProtocol, type Protocol } from "../../contracts/protocol.ts";
import { createJoinHandler, JOIN_NEEDS } from "./join.ts";
import { createHandler, NEEDS as OWN_NEEDS } from "./server.ts";

type Needs = (typeof OWN_NEEDS)[number] | (typeof JOIN_NEEDS)[number];
const NEEDS: readonly Needs[] = [...OWN_NEEDS, ...JOIN_NEEDS];

/** Under `protocols.api` of the settings. */
export interface ApiConfig {
  readonly off: boolean;
  /** Writes from other hosts need it; without one they are refused. */
  readonly token?: string;
}

export const PREFIX = "/v1/trilith/";

export const api: Protocol<ApiConfig, Needs> = defineProtocol({
  name: "api",
  needs: NEEDS,
  configure(raw): ApiConfig {
    if (raw === undefined || raw === true) return { off: false };
    if (raw === false) return { off: true };
    if (typeof raw !== "object" || raw === null || Array.isArray(raw))
      throw new InputError(
        "api",
        `expected an object such as {"token": "…"}, or false, but got ${JSON.stringify(raw)}`,
      );
    const unknown = Object.keys(raw).find((key) => key !== "token");
    if (unknown !== undefined) throw new InputError(`api.${unknown}`, 'unknown key; the only one is "token"');
    const { token } = raw as { token?: unknown };
    if (token === undefined) return { off: false };
    if (typeof token !== "string" || token === "")
      throw new InputError("api.token", `expected a text that is not empty, but got ${JSON.stringify(token)}`);
    return { off: false, token };
  },
  setup(config, ground) {
    if (config.off) return undefined;
    let { token } = config;
    const now = (): string | undefined => token;
    return {
      routes: [
        { prefix: PREFIX, handle: createHandler(PREFIX, now, ground) },
        { prefix: JOIN_PREFIX, handle: createJoinHandler(now, ground) },
      ],
      rereads: true,
      async reload(read) {
        if (read !== undefined) token = api.configure(read.raw).token;
      },
    };
  },
});
