// GET /v1/trilith/hook: where the table is; the answer comes when the table holds everything that was acknowledged before the question.
import type { Clock } from "../../base/clock.ts";
import { type Code, codeOf, messageOf, TrilithError } from "../../base/error.ts";
import type { Handler } from "../../base/http.ts";
import type { Log } from "../../base/log.ts";
import { isFromHere, STATUS_OF, sendJson } from "../../base/requests.ts";
import type { Keeper } from "./keeper.ts";

/** Longer than the API's own, so that the agent hands it here. */
export const PREFIX = "/v1/trilith/hook";

/** The answer. */
export interface HookJson {
  /** The table's path, and the folder where programs write what they see. */
  readonly table: string;
  readonly observed: string;
  readonly generation: number;
  /** Names of services and tags. */
  readonly services: number;
  readonly bytes: number;
  /** How long the last writing took, from the first look at the directory to the last byte. */
  readonly tookMs: number;
  /** What keeps some programs from using the table; absent where nothing does. */
  readonly limits?: string;
  /** Why it is still the table of the agent's last run. */
  readonly waiting?: string;
}

/** A first table of many thousands of services takes its time. */
const LIMIT_MS = 10_000;

/** Answers where the table is and how the hook does; a first question waits for the first table. */
export function createHookHandler(parts: {
  readonly clock: Pick<Clock, "after">;
  readonly log: Pick<Log, "debug">;
  readonly keeper: Keeper;
}): Handler {
  const { clock, log, keeper } = parts;
  return async (request, response) => {
    request.resume();
    const path = (request.url ?? "").replace(/\?.*$/, "");
    const gone = new AbortController();
    const alarm = clock.after(LIMIT_MS, () =>
      gone.abort(
        new TrilithError("timeout", "the table is not ready yet: the directory behind this agent is not known"),
      ),
    );
    response.once("close", () => gone.abort(new TrilithError("stopped", "the caller has gone away")));
    try {
      if (path !== PREFIX && path !== `${PREFIX}/`)
        throw new TrilithError("not-found", `nothing is at ${path}: there is ${PREFIX}`);
      if (request.method !== "GET") {
        response.setHeader("allow", "GET");
        return sendJson(response, 405, errorJson("invalid", `${request.method} is not for ${path}: use GET`));
      }
      // The path is of use on this host alone, and the first question makes files.
      if (!isFromHere(request))
        throw new TrilithError(
          "not-allowed",
          "the hook's table is told to programs on this host only (127.0.0.1, a unix socket)",
        );
      await keeper.current(gone.signal);
      const { place, written, tookMs, waiting } = keeper.standing();
      if (place === undefined) throw new TrilithError("stopped", "the agent is stopping");
      const json: HookJson = {
        table: place.file.path,
        observed: place.observed,
        generation: written?.generation ?? 0,
        services: written?.services ?? 0,
        bytes: written?.bytes ?? 0,
        tookMs: Math.round(tookMs * 10) / 10,
        ...(place.limits === undefined ? {} : { limits: place.limits.text }),
        ...(waiting === undefined ? {} : { waiting }),
      };
      sendJson(response, 200, json);
    } catch (error) {
      if (response.destroyed) return;
      log.debug(`the table was asked for: ${messageOf(error)}`);
      sendJson(response, STATUS_OF[codeOf(error)], errorJson(codeOf(error), messageOf(error)));
    } finally {
      alarm.cancel();
    }
  };
}

/** As the rest of the API says it. */
function errorJson(code: Code, message: string): unknown {
  return { error: { code, message } };
}
