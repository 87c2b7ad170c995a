// /v1/event: user events are fired and listed; a list can be waited for by the last event's ID.
import { codeOf, messageOf } from "../../../base/error.ts";
import type { UserEvent } from "../../../model/event.ts";
import { Waiting } from "../blocking.ts";
import type { Call, Reply, Row } from "../call.ts";
import { Refusal } from "../errors.ts";
import { ownDatacenterOnly, readDatacenter, readWait } from "../options.ts";
import { parseUint } from "../query.ts";

const VERSION = 1;

function encodeEvent(event: UserEvent, time: number): unknown {
  const { payload } = event;
  return {
    ID: event.id,
    Name: event.name,
    Payload:
      payload.length === 0
        ? null
        : Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength).toString("base64"),
    NodeFilter: event.nodeFilter,
    ServiceFilter: event.serviceFilter,
    TagFilter: event.tagFilter,
    Version: VERSION,
    LTime: time,
  };
}

async function fire(call: Call): Promise<Reply> {
  const { suffix: name, query, ground } = call;
  if (name === "") throw new Refusal(400, "Missing name");
  const payload = await call.body();
  ownDatacenterOnly(readDatacenter(call, "none"));
  try {
    const fired = await ground.events.fire({
      name,
      payload,
      nodeFilter: query.get("node"),
      serviceFilter: query.get("service"),
      tagFilter: query.get("tag"),
    });
    // Consul does not know the time yet when it answers.
    return { json: encodeEvent(fired, 0) };
  } catch (error) {
    const code = codeOf(error);
    if (code !== "invalid" && code !== "too-large") throw error;
    throw new Refusal(500, messageOf(error));
  }
}

/** Consul's index of a list of events: the two halves of the last one's UUID, laid over each other; 1 for an empty list. */
function indexOf(events: readonly UserEvent[]): bigint {
  const last = events.at(-1);
  if (last === undefined) return 1n;
  const digits = last.id.replaceAll("-", "");
  return BigInt(`0x${digits.slice(0, 16)}`) ^ BigInt(`0x${digits.slice(16)}`);
}

async function list(call: Call): Promise<Reply> {
  const { query, ground } = call;
  const waitMs = readWait(call);
  const index = query.get("index") === "" ? ({ ok: true, value: 0n } as const) : parseUint(query.get("index"));
  if (!index.ok) throw new Refusal(400, "Invalid index");
  const name = query.get("name");
  const read = (): readonly UserEvent[] =>
    name === "" ? ground.events.list() : ground.events.list().filter((event) => event.name === name);
  let events = read();
  if (index.value > 0n) {
    const waiting = new Waiting(call, waitMs);
    try {
      for (;;) {
        const view = ground.directory.view();
        events = read();
        // The indexes have no order: another one is another list.
        if (index.value !== indexOf(events) || waiting.over) break;
        await waiting.until([ground.events.scope], view);
      }
    } finally {
      waiting.end();
    }
  }
  return {
    json: events.map((event) => encodeEvent(event, event.time)),
    headers: { "X-Consul-Index": String(indexOf(events)) },
  };
}

export const eventRows: readonly Row[] = [
  { pattern: "/v1/event/fire/", methods: ["PUT"], endpoint: fire },
  { pattern: "/v1/event/list", methods: ["GET"], endpoint: list },
];
