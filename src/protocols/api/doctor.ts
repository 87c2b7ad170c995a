// The doctor: what this agent is, whether its parts are well, and what somebody should look at.
import { messageOf, TrilithError } from "../../base/error.ts";
import type { Table } from "../../model/record.ts";
import type { ApiGround } from "./server.ts";
import { type DoctorJson, overrideJson, time } from "./shapes.ts";

/** How long the store may take to answer before it counts as away. */
const STORE_MS = 2_000;
const COUNTED: Readonly<Record<string, Table>> = {
  nodes: "node",
  services: "service",
  checks: "check",
  keys: "kv",
  sessions: "session",
};
const COMPLAINTS = 20;
/** DNS on the bridges of containers. */
const CONTAINERS = "dns-containers";

/** Looks at everything; takes at most as long as the store may. */
export async function diagnose(ground: ApiGround, signal: AbortSignal): Promise<DoctorJson> {
  const { agent, clock, directory, lookup, self, sources } = ground;
  const [trip, trouble] = await Promise.all([askStore(ground, signal), ground.dataTrouble()]);
  const view = directory.view();
  const held = lookup.held();
  const states = sources();
  const complaints = agent.complaints();
  const unwell = states.flatMap(({ name: source, entries = [] }) =>
    entries.filter(({ ok }) => !ok).map(({ name, text }) => ({ source, name, text })),
  );
  // What is wrong with a whole entry is told with its source.
  const rest = complaints.filter(
    ({ from, about }) => !unwell.some(({ source, name }) => source === from && name === about),
  );
  const overrides = agent.overrides().map(overrideJson);
  const warnings: string[] = [];
  if (trip.error !== undefined) warnings.push(`the store cannot be reached: ${trip.error}`);
  if (trouble !== undefined) warnings.push(`nothing can be written, registrations are refused: ${trouble.message}`);
  if (!view.fresh)
    warnings.push(
      `answers are the last ones known good, as of ${time(view.asOfMs)}: the store behind the directory is away`,
    );
  for (const { name, ok, text } of states)
    if (!ok && !unwell.some(({ source }) => source === name)) warnings.push(`source ${name}: ${text}`);
  for (const { name: source } of states) {
    const its = unwell.filter((one) => one.source === source);
    for (const { name, text } of its.slice(0, COMPLAINTS)) warnings.push(`source ${source}: ${name}: ${text}`);
    if (its.length > COMPLAINTS) warnings.push(`source ${source}: ${its.length - COMPLAINTS} more like these`);
  }
  for (const { service, text } of held)
    warnings.push(`service "${service}" is held by the sharp-drop guard: ${text}; trilith release ${service} ends it`);
  for (const { from, about, text } of rest.slice(0, COMPLAINTS))
    warnings.push(text.startsWith(about) ? `${from}: ${text}` : `${from}: ${about}: ${text}`);
  if (rest.length > COMPLAINTS) warnings.push(`${rest.length - COMPLAINTS} more complaints of sources`);
  const notes: string[] = [];
  for (const { for: target, set, by, note } of overrides)
    if (note !== undefined)
      notes.push(`the override for "${target}" (${set.join(" ")}; by ${by}) changes nothing: ${note}`);
  // Whoever has containers answered has asked for that.
  for (const [name, where] of self.listening)
    for (const place of name === CONTAINERS ? [] : where.split(", "))
      if (!/^(127\.|\[::1\]|localhost|unix:|\/)/.test(place))
        notes.push(`${name.replace("-more", "")} listens on ${place}, where other hosts can reach it`);
  if (self.dev) notes.push("nothing is kept on disk (development mode): a restart forgets everything");
  return {
    self: {
      version: self.version,
      node: self.node,
      nodeId: self.nodeId,
      datacenter: self.datacenter,
      domain: self.domain,
      advertiseAddress: self.advertiseAddress,
      bindAddress: self.bindAddress,
      startedAt: time(self.startedAtMs),
      upMs: Math.max(0, Math.round(clock.now() - self.startedAtMs)),
      dev: self.dev,
      compat: self.compat,
      scripts: self.scripts,
    },
    listening: Object.fromEntries(self.listening),
    sources: states.map(({ name, ok, text }) => {
      const entries = unwell.filter(({ source }) => source === name);
      return {
        ...{ name, ok, text },
        ...(entries.length === 0 ? {} : { unwell: entries.map((one) => ({ name: one.name, text: one.text })) }),
      };
    }),
    store: {
      reachable: trip.error === undefined,
      ...trip,
      writable: trip.error === undefined && trouble === undefined,
      fresh: view.fresh,
      asOf: time(view.asOfMs),
      index: view.index,
      counts: Object.fromEntries(Object.entries(COUNTED).map(([name, table]) => [name, view.count(table)])),
    },
    held: held.map(({ service, sinceMs, text, instances }) => ({ service, since: time(sinceMs), text, instances })),
    complaints,
    overrides,
    warnings,
    notes,
  };
}

/** A linearizable read, timed. */
async function askStore(
  { clock, directory }: ApiGround,
  signal: AbortSignal,
): Promise<{ readonly roundTripMs?: number; readonly error?: string }> {
  const limit = new AbortController();
  const timer = clock.after(STORE_MS, () =>
    limit.abort(new TrilithError("timeout", `it did not answer within ${STORE_MS} ms`)),
  );
  const beganMs = clock.monotonic();
  try {
    await directory.barrier(AbortSignal.any([signal, limit.signal]));
    return { roundTripMs: Math.round((clock.monotonic() - beganMs) * 1000) / 1000 };
  } catch (error) {
    signal.throwIfAborted();
    return { error: messageOf(error) };
  } finally {
    timer.cancel();
  }
}
