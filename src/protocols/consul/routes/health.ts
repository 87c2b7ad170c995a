// /v1/health: checks by node, service and state; services with their nodes and checks.
import type { View } from "../../../contracts/directory.ts";
import type { Resident } from "../../../model/instance.ts";
import { type Entry, keyOf, type Scope, scope } from "../../../model/record.ts";
import { answerQuery, type Manner } from "../blocking.ts";
import type { Call, Reply, Row } from "../call.ts";
import { nearestFirst } from "../coordinates.ts";
import { drainChecks, encodeCheck, encodeCheckOf, encodeResident } from "../encode.ts";
import { Refusal } from "../errors.ts";
import { readOptions } from "../options.ts";
import { parseBool } from "../query.ts";
import { checkShape, residentShape } from "../shapes.ts";
import * as index from "../told-index.ts";
import { chosen, hasMeta, meshed, namedBy, nearOf, nodeMeta, readQueryFilter } from "./choose.ts";

const MANNER: Manner = { tellConsistency: true, headersOnError: true };
/** A service's health is streamed to its waiters, and its errors are bare. */
const STREAMED: Manner = { tellConsistency: true, streams: true, cacheable: true };

const byId = (a: Entry<"check">, b: Entry<"check">): number => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0);

/** The checks below a prefix of the table's keys, in their order; those that tell of drains are among them. */
function* checksIn(view: View, prefix?: string): Generator<Entry<"check">, void> {
  const drains = Array.from(view.list("service", prefix)).flatMap(drainChecks);
  const after = (a: Entry<"check">, b: Entry<"check">): boolean =>
    keyOf.check(a.node, a.id) > keyOf.check(b.node, b.id);
  drains.sort((a, b) => (after(a, b) ? 1 : -1));
  let next = 0;
  for (const check of view.list("check", prefix)) {
    for (let drain = drains[next]; drain !== undefined && after(check, drain); drain = drains[++next]) yield drain;
    yield check;
  }
  yield* drains.slice(next);
}

function nodeChecks(call: Call): Promise<Reply> {
  const node = namedBy(call, "node name", MANNER);
  const wanted = readQueryFilter(call, checkShape, MANNER);
  return answerQuery(call, MANNER, (view) => ({
    index: index.checks(call, view, scope.node(node)),
    waitOn: [scope.node(node)],
    reply: {
      json: Array.from(checksIn(view, keyOf.ofNode(node)), (check) => encodeCheckOf(view, check)).filter(wanted),
    },
  }));
}

function serviceChecks(call: Call): Promise<Reply> {
  const service = namedBy(call, "service name", MANNER);
  const near = nearOf(call);
  const wanted = readQueryFilter(call, checkShape, MANNER);
  const meta = nodeMeta(call.query);
  return answerQuery(call, MANNER, (view) => {
    const rows: unknown[] = [];
    let node = "";
    let own: { check: Entry<"check">; row: unknown }[] = [];
    // Residents come node by node; within a node Consul orders checks by their ID, whatever instance they belong to.
    const flush = (): void => {
      for (const { row } of own.sort((a, b) => byId(a.check, b.check))) rows.push(row);
      own = [];
    };
    for (const resident of nearestFirst(view, near, view.residents(service), (one) => one.node.name)) {
      if (!hasMeta(resident.node.labels, meta)) continue;
      if (resident.node.name !== node) flush();
      node = resident.node.name;
      for (const check of [...resident.checks, ...drainChecks(resident.instance)])
        if (check.serviceId === resident.instance.id) own.push({ check, row: encodeCheck(check, resident.instance) });
    }
    flush();
    return {
      index: index.serviceChecks(call, view, service, meta !== undefined),
      waitOn: [scope.checksOf(service)],
      reply: { json: rows.filter(wanted) },
    };
  });
}

function state(call: Call): Promise<Reply> {
  const wantedState = namedBy(call, "check state", MANNER);
  const near = nearOf(call);
  const wanted = readQueryFilter(call, checkShape, MANNER);
  const meta = nodeMeta(call.query);
  return answerQuery(call, MANNER, (view) => {
    const rows: unknown[] = [];
    for (const check of nearestFirst(view, near, Array.from(checksIn(view)), ({ node }) => node)) {
      const shown = check.foreign?.["ShownStatus"] ?? check.status;
      if (wantedState !== "any" && shown !== wantedState) continue;
      if (meta !== undefined && !hasMeta(view.get("node", check.node.toLowerCase())?.labels ?? {}, meta)) continue;
      const row = encodeCheckOf(view, check);
      if (wanted(row)) rows.push(row);
    }
    return { index: view.at("checks"), waitOn: ["checks"], reply: { json: rows } };
  });
}

interface Found {
  readonly residents: readonly Resident[];
  readonly waitOn: readonly Scope[];
}

/** Answers with the healthy, or all, of what `find` finds. */
function residents(call: Call, manner: Manner, find: (view: View, name: string) => Found): Promise<Reply> {
  const name = namedBy(call, "service name", manner);
  const { query } = call;
  let passingOnly = false;
  if (query.has("passing")) {
    const asked = query.get("passing") === "" ? true : parseBool(query.get("passing"));
    if (asked === undefined) {
      readOptions(call, manner.enterprise);
      throw new Refusal(400, "Invalid value for ?passing");
    }
    passingOnly = asked;
  }
  const near = nearOf(call);
  // Nothing is imported from peers.
  const ofPeer = query.get("peer") !== "";
  // What is sorted, or completed by configuration entries, is not streamed.
  const streams = manner.streams === true && near === "" && !query.has("merge-central-config");
  const told = { ...manner, streams };
  const wanted = readQueryFilter(call, residentShape, told);
  return answerQuery(call, told, (view) => {
    const { residents: all, waitOn } = find(view, name);
    const found = nearestFirst(view, near, chosen(ofPeer ? [] : all, query), (one) => one.node.name);
    const rows = passingOnly ? passing(found, call.ground.self.compat === "consul") : found;
    return {
      index: index.health(call, view, waitOn, all.length > 0),
      waitOn,
      reply: { json: rows.map(encodeResident).filter(wanted) },
    };
  });
}

/** Those with all checks passing; as Consul does it (`swap`), the last one takes the place of one that is left out. */
function passing(all: readonly Resident[], swap: boolean): readonly Resident[] {
  const well = ({ instance, checks }: Resident): boolean =>
    instance.draining !== true && checks.every((check) => check.status === "passing");
  if (!swap) return all.filter(well);
  const rows = [...all];
  for (let i = 0; i < rows.length; ) {
    if (well(rows[i] as Resident)) {
      i++;
      continue;
    }
    const last = rows.pop() as Resident;
    if (i < rows.length) rows[i] = last;
  }
  return rows;
}

function service(call: Call): Promise<Reply> {
  return residents(call, STREAMED, (view, name) => ({
    residents: view.residents(name),
    waitOn: [scope.service(name)],
  }));
}

function connect(call: Call): Promise<Reply> {
  return residents(call, STREAMED, (view, name) => meshed(view, name, scope.service));
}

/** Ingress gateways that lead to a service: none is configured here. */
function ingress(call: Call): Promise<Reply> {
  return residents(call, { ...STREAMED, streams: false }, (_, name) => ({
    residents: [],
    waitOn: [scope.service(name)],
  }));
}

const GET = ["GET"] as const;
export const healthRows: readonly Row[] = [
  { pattern: "/v1/health/node/", methods: GET, endpoint: nodeChecks },
  { pattern: "/v1/health/checks/", methods: GET, endpoint: serviceChecks },
  { pattern: "/v1/health/state/", methods: GET, endpoint: state },
  { pattern: "/v1/health/service/", methods: GET, endpoint: service },
  { pattern: "/v1/health/connect/", methods: GET, endpoint: connect },
  { pattern: "/v1/health/ingress/", methods: GET, endpoint: ingress },
];
