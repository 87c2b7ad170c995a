// The verbs for overrides: setting, undoing, listing them.
import { InputError, TrilithError } from "../../base/error.ts";
import type { IncomingMessage } from "../../base/http.ts";
import { bodyOf, callerOf, isFromHere } from "../../base/requests.ts";
import type { View } from "../../contracts/directory.ts";
import type { ApiGround } from "./server.ts";
import { type OverrideJson, overrideJson } from "./shapes.ts";

const MOST_BYTES = 64 << 10;
const SHAPE = 'expected {"set": ["name=shop", "tags+=v2", …], "by": "who says so"}';

/** Everything that operators said. */
export function overridesOf({ agent }: Pick<ApiGround, "agent">): { readonly overrides: readonly OverrideJson[] } {
  return { overrides: agent.overrides().map(overrideJson) };
}

/** Says something about what is called `name`. @throws TrilithError `invalid`, `too-large` */
export async function overrideOf(
  { agent, clock, directory, self }: Pick<ApiGround, "agent" | "clock" | "directory" | "self">,
  request: IncomingMessage,
  name: string,
): Promise<OverrideJson> {
  const body = await bodyOf(request, clock, MOST_BYTES, `a body of more than ${MOST_BYTES} bytes: ${SHAPE}`);
  let parsed: { readonly set?: unknown; readonly by?: unknown };
  try {
    parsed = JSON.parse(body.toString("utf8")) as typeof parsed;
  } catch (error) {
    throw new InputError("body", `is not JSON: ${SHAPE}`, error);
  }
  const { set, by = "" } = parsed ?? {};
  if (!Array.isArray(set) || !set.every((word) => typeof word === "string") || typeof by !== "string")
    throw new InputError("body", SHAPE);
  const told = overrideJson(await agent.override(name, set, whoOf(by, request)));
  if (told.note === undefined) return told;
  const nodes = nodesWith(directory.view(), told.for);
  const elsewhere = nodes.filter((node) => node !== self.node).slice(0, MOST_NODES);
  const more = [
    ...(nodes.includes(self.node)
      ? ["what is called so on this host registered itself: no source's word is overridden, register it anew"]
      : []),
    ...(elsewhere.length > 0 ? [`there is one on ${elsewhere.join(", ")}: what is said holds on its own host`] : []),
  ];
  return { ...told, note: [told.note, ...more].join("; ") };
}

const MOST_NODES = 5;

/** Nodes on which something is called so. */
function nodesWith(view: View, name: string): readonly string[] {
  const nodes = new Set(view.residents(name).map(({ instance }) => instance.node));
  for (const { id, node } of view.list("service")) if (id === name) nodes.add(node);
  return [...nodes];
}

/** Undoes what was said about what is called `name`. @throws TrilithError `not-found` where nothing was said */
export async function undoOf(
  { agent }: Pick<ApiGround, "agent">,
  name: string,
): Promise<{ readonly for: string; readonly undone: true }> {
  if (await agent.undoOverride(name)) return { for: name, undone: true };
  const stated = agent.overrides().find(({ from, for: target }) => from !== undefined && target === name);
  throw new TrilithError(
    "not-found",
    stated === undefined
      ? `there is no override for "${name}"`
      : `the override for "${name}" stands in ${stated.by}: take it out there`,
  );
}

function whoOf(by: string, request: IncomingMessage): string {
  const name = by.replace(/[\u0000-\u001f\u007f]/g, "").slice(0, 64);
  return `${name === "" ? "somebody" : name} ${isFromHere(request) ? "on this host" : `from ${callerOf(request)}`}`;
}
