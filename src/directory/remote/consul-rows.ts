// What a Consul's catalog answers, as the records that this side holds of it.
import { type Index, keyOf, type Tables } from "../../model/record.ts";
import { isDrainCheck, type Json, text } from "../../wire/consul-catalog.ts";
import { checkFrom, instanceFrom, nodeFrom } from "./consul-wire.ts";

/** The tables that a Consul has something for. */
export type Mirrored = "node" | "service" | "check" | "alive";

/** One record as this side holds it. */
export interface Held {
  readonly table: Mirrored;
  readonly key: string;
  readonly value: Tables[Mirrored];
  /** The server's own numbers. */
  readonly createIndex: Index;
  readonly serverIndex: Index;
  /** The number that the directory knows it by. */
  readonly modifyIndex: Index;
}

/** A number of an answer; 0 where it is none. */
export const number = (value: unknown): number => (typeof value === "number" ? value : 0);
/** A list of an answer; empty where it is none. */
export const list = (value: unknown): readonly Json[] => (Array.isArray(value) ? (value as Json[]) : []);

function heldOf(table: Mirrored, key: string, value: Tables[Mirrored], raw: Json): Held {
  const serverIndex = number(raw["ModifyIndex"]);
  return { table, key, value, createIndex: number(raw["CreateIndex"]), serverIndex, modifyIndex: serverIndex };
}

export function nodeRow(raw: Json): Held {
  const node = nodeFrom(raw);
  return heldOf("node", keyOf.node(node.name), node, raw);
}

export function checkRow(raw: Json): Held {
  const check = checkFrom(raw);
  return heldOf("check", keyOf.check(check.node, check.id), check, raw);
}

/** `/v1/health/service/NAME`: instances with their own checks and those of their nodes. */
export function* serviceRows(entries: readonly Json[]): Generator<Held> {
  for (const entry of entries) {
    const node = entry["Node"] as Json;
    const service = entry["Service"] as Json;
    const name = text(node["Node"]);
    yield nodeRow(node);
    const checks = list(entry["Checks"]);
    const drain = checks.find(isDrainCheck);
    const instance = instanceFrom(name, service, drain !== undefined);
    const row = heldOf("service", keyOf.service(name, instance.id), instance, service);
    yield { ...row, serverIndex: Math.max(row.serverIndex, number(drain?.["ModifyIndex"])) };
    for (const check of checks) if (check !== drain) yield checkRow(check);
  }
}

/** The keys below `trilith/alive/`: signs of life. */
export function aliveRows(value: unknown): Held[] {
  const rows: Held[] = [];
  for (const pair of list(value)) {
    // A key whose session has ended, or that nobody ever held, is no sign.
    if (text(pair["Session"]) === "") continue;
    try {
      const { node, life } = JSON.parse(Buffer.from(text(pair["Value"]), "base64").toString("utf8")) as Tables["alive"];
      if (typeof node === "string" && typeof life === "string")
        rows.push(heldOf("alive", keyOf.alive(node), { node, life }, pair));
    } catch {
      // Somebody else's key under our name says nothing.
    }
  }
  return rows;
}
