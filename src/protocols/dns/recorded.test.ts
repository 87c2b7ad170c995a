// Consul's recorded DNS answers, replayed on the responder alone: what the kit registers over HTTP is written into a directory here.
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { type World, world } from "../../../test/support/lookup.ts";
import { silentLog } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import type { Status } from "../../model/check.ts";
import { type Change, keyOf } from "../../model/record.ts";
import { createResponder, type Responder } from "./answer.ts";
import { policyOf, readConfig } from "./config.ts";

const KIT = new URL("../../../test/conformance/consul/", import.meta.url);

interface Kit {
  readonly Context: new (vars: object) => { results: Record<string, unknown>; fill<T>(value: T): T };
  normaliseDns(answer: unknown, step: Step, context: object): { readonly dns: unknown };
  compare(
    expected: unknown,
    actual: unknown,
  ): { readonly diffs: readonly string[]; readonly warnings: readonly string[] };
}
interface Wire {
  encodeQuery(query: object, id: number): Buffer;
  decode(bytes: Buffer): { readonly answer: readonly string[] };
}
const kit = (await import(new URL("lib/kit.mjs", KIT).href)) as Kit;
const wire = (await import(new URL("lib/dns.mjs", KIT).href)) as Wire;

interface Question {
  readonly name: string;
  readonly type: string;
  readonly tcp?: boolean;
  readonly rawHex?: string;
  readonly times?: number;
}
interface Step {
  readonly id: string;
  readonly path?: string;
  readonly body?: Registration;
  readonly dns?: Question;
  readonly dnsOrders?: Question;
}
interface Registration {
  readonly Node: string;
  readonly Address: string;
  readonly NodeMeta?: Record<string, string>;
  readonly SkipNodeUpdate?: boolean;
  readonly Service?: {
    readonly ID: string;
    readonly Service: string;
    readonly Tags?: string[];
    readonly Port?: number;
    readonly Address?: string;
    readonly Weights?: { readonly Passing: number; readonly Warning: number };
  };
  readonly Checks?: readonly { CheckID: string; ServiceID?: string; Status: Status }[];
}

const read = (path: string): unknown => JSON.parse(readFileSync(new URL(path, KIT), "utf8"));

function changes(body: Registration): Change[] {
  const { Node: node, Service: service } = body;
  const made: Change[] = [];
  if (body.SkipNodeUpdate !== true)
    made.push({
      op: "put",
      table: "node",
      key: keyOf.node(node),
      value: {
        id: "",
        name: node,
        address: body.Address,
        datacenter: "dc1",
        taggedAddresses: {},
        labels: body.NodeMeta ?? {},
        external: true,
      },
    });
  if (service !== undefined)
    made.push({
      op: "put",
      table: "service",
      key: keyOf.service(node, service.ID),
      value: {
        id: service.ID,
        name: service.Service,
        node,
        tags: service.Tags ?? [],
        labels: {},
        address: service.Address ?? "",
        port: service.Port ?? 0,
        origin: { source: "catalog", authority: "first-hand" },
        ...(service.Weights === undefined
          ? {}
          : { weights: { passing: service.Weights.Passing, warning: service.Weights.Warning } }),
      },
    });
  for (const check of body.Checks ?? [])
    made.push({
      op: "put",
      table: "check",
      key: keyOf.check(node, check.CheckID),
      value: {
        id: check.CheckID,
        node,
        name: "c",
        status: check.Status,
        notes: "",
        output: "",
        serviceId: check.ServiceID ?? "",
        type: "",
      },
    });
  return made;
}

const SELF: Registration = {
  Node: "alpha",
  Address: "127.0.0.1",
  NodeMeta: { "consul-network-segment": "", "consul-version": "1.19.2" },
  Service: { ID: "consul", Service: "consul", Port: 8300 },
};

const CONFIG: Readonly<Record<string, { readonly domain?: string; readonly config: object }>> = {
  "dns-config-ttl": {
    config: {
      serviceTtlMs: { "*": 5000, web: 30_000, "db-*": 77_000 },
      nodeTtlMs: 11_000,
      onlyPassing: true,
      udpAnswerLimit: 2,
      enableTruncate: true,
      enableAdditionalNodeMetaTxt: false,
      soa: { refreshS: 1800, retryS: 300, expireS: 43_200, minTtlS: 9 },
    },
  },
  "dns-config-alt": {
    domain: "sd.internal",
    config: { altDomain: "alt.example", aRecordLimit: 2, disableCompression: true },
  },
};

function responderOf(name: string, { directory, lookup, prepared, clock, metrics }: World): Responder {
  const { domain = "consul", config = {} } = CONFIG[name] ?? {};
  return createResponder({
    policy: policyOf(readConfig(config), true, domain),
    directory,
    lookup,
    prepared,
    clock,
    random: systemRandom,
    log: silentLog,
    metrics,
    self: { node: "alpha", datacenter: "dc1", advertiseAddress: "127.0.0.1" },
  });
}

describe.each([
  "dns-service",
  "dns-node",
  "dns-addresses",
  "dns-zone",
  "dns-limits",
  "dns-config-ttl",
  "dns-config-alt",
])("%s of Consul 1.19.2", async (name) => {
  const scenario = read(`scenarios/${name}.json`) as { readonly steps: readonly Step[] };
  const expected = read(`expected/${name}.json`) as { readonly steps: Readonly<Record<string, object>> };
  const context = new kit.Context({});
  const here = await world({ node: "alpha" });
  await here.directory.write([{ op: "delete", table: "node", key: "home" }, ...changes(SELF)]);
  const responder = responderOf(name, here);
  const ask = (question: Question): unknown => {
    const packet = question.rawHex === undefined ? wire.encodeQuery(question, 7) : Buffer.from(question.rawHex, "hex");
    const answer = responder.respond(packet, { address: "127.0.0.1", tcp: question.tcp === true });
    return answer === undefined ? { noAnswer: true } : wire.decode(Buffer.from(answer));
  };
  for (const step of scenario.steps) {
    if (step.body !== undefined) await here.directory.write(changes(step.body));
    const { dns, dnsOrders } = step;
    if (dns === undefined && dnsOrders === undefined) continue;
    const want = expected.steps[step.id];
    if (dns !== undefined) {
      const actual = kit.normaliseDns(ask(context.fill(dns)), step, context);
      context.results[step.id] = actual;
      it(step.id, () => {
        // The kit lets letter case and extras pass with a warning; here they fail.
        expect(kit.compare(want, actual), JSON.stringify(actual)).toEqual({ diffs: [], warnings: [] });
      });
    }
    if (dnsOrders !== undefined) {
      const orders = Array.from(
        { length: dnsOrders.times ?? 0 },
        () => (ask(dnsOrders) as { answer: string[] }).answer,
      );
      it(step.id, () => {
        expect(new Set(orders.map((order) => order.join())).size).toBeGreaterThan(1);
        expect(new Set(orders.map(([first]) => first)).size).toBeGreaterThan(1);
      });
    }
  }
});
