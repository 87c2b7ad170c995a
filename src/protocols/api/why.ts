// Why a service is found, or not: everything that this agent knows about a name.
import { nearestName } from "../../base/nearest-name.ts";
import type { HeldCheck } from "../../contracts/agent.ts";
import type { Resident } from "../../model/instance.ts";
import type { Query } from "../../model/query.ts";
import { idOfKey, keyOf, nodeOfKey, scope } from "../../model/record.ts";
import type { ApiGround } from "./server.ts";
import { type GoneJson, heldJson, instanceJson, type KnownHere, overrideJson, time, type WhyJson } from "./shapes.ts";

const GONE = 32;
const SIMILAR = 10;

/** Puts it together. Aborted, it rejects with the signal's reason. */
export async function whyOf(ground: ApiGround, query: Query, signal: AbortSignal): Promise<WhyJson> {
  const { agent, directory, lookup, self } = ground;
  const { service: name } = query;
  const answer = lookup.resolveNow(query);
  const lower = name.toLowerCase();
  const mentions = (text: string): boolean => text.toLowerCase().includes(lower);
  const here = createHere(ground);
  const verdicts = lookup.explain(query);
  const overrides = agent
    .overrides()
    .filter(
      ({ for: target, matches }) =>
        target.toLowerCase() === lower ||
        matches.some(
          ({ id, service }) =>
            service.toLowerCase() === lower ||
            id.toLowerCase() === lower ||
            verdicts.some(({ resident }) => resident.instance.id === id),
        ),
    );
  const answers = await ground.answers(name, signal);
  return {
    service: name,
    node: self.node,
    known: answer.known,
    fresh: answer.fresh,
    ageMs: Math.round(answer.ageMs),
    ...heldJson(answer.held),
    ...(answer.panic === true ? { panic: true } : {}),
    instances: verdicts.map((verdict) => instanceJson(verdict, here(verdict.resident))),
    recent: agent.history(name).map(({ atMs, id, text }) => ({ at: time(atMs), id, text })),
    gone: goneOf(ground, lower),
    complaints: agent.complaints().filter(({ about, text }) => mentions(about) || mentions(text)),
    overrides: overrides.map(overrideJson),
    answers,
    similar: answer.known ? [] : similarNames([...directory.view().serviceNames()], lower),
  };
}

/** What is known of an instance because it is this host's, or because this host is a witness of it. */
function createHere({ agent, self }: ApiGround): (resident: Resident) => KnownHere | undefined {
  const own = self.node.toLowerCase();
  const outside = new Map(agent.outside().map((held) => [keyOf.service(held.instance.node, held.instance.id), held]));
  return ({ instance }) => {
    if (instance.node.toLowerCase() === own)
      return { checks: agent.checks(), words: agent.services().get(instance.id)?.asked?.words };
    const held = outside.get(keyOf.service(instance.node, instance.id));
    if (held === undefined) return undefined;
    return {
      checks: new Map<string, HeldCheck>(held.checks.map((check) => [check.check.id, check])),
      words: held.asked.words,
    };
  };
}

/** The graves of a service, newest first. */
function goneOf({ directory }: ApiGround, service: string): readonly GoneJson[] {
  const wanted = scope.service(service);
  const found: GoneJson[] = [];
  for (const { scopes, gone, why: reason, modifyIndex } of directory.view().list("grave")) {
    if (!scopes.includes(wanted)) continue;
    const about = {
      index: modifyIndex,
      ...(reason === undefined
        ? {}
        : { at: time(reason.atMs), code: reason.code, text: reason.text, confirmed: reason.confirmed }),
    };
    const services = (gone ?? []).filter(({ table }) => table === "service");
    // Of several services removed in one go the directory no longer knows which instance was whose.
    if (services.length === 0 || scopes.filter((each) => each.startsWith("service:")).length > 1) found.push(about);
    else for (const { key } of services) found.push({ node: nodeOfKey(key), id: idOfKey(key), ...about });
  }
  return found.sort((a, b) => b.index - a.index).slice(0, GONE);
}

function similarNames(names: readonly string[], asked: string): string[] {
  const nearest = nearestName(asked, names);
  const others = names.filter((name) => {
    const lower = name.toLowerCase();
    return name !== nearest && (lower.includes(asked) || asked.includes(lower));
  });
  return [...(nearest === undefined ? [] : [nearest]), ...others].slice(0, SIMILAR);
}
