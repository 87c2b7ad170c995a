// Prepared queries as Consul's JSON has them: from a body to what is kept, and back.
import type { PreparedAnswer, PreparedEntry } from "../../contracts/prepared.ts";
import type { PreparedRequest } from "../../model/prepared.ts";
import { type Decoder, flag, integer, list, map, record, text } from "./decode.ts";
import { encodeResident } from "./encode.ts";

interface TargetBody {
  readonly Peer?: string;
  readonly Datacenter?: string;
}
interface FailoverBody {
  readonly NearestN?: number;
  readonly Datacenters?: readonly string[];
  readonly Targets?: readonly TargetBody[];
}
interface ServiceBody {
  readonly Service?: string;
  readonly SamenessGroup?: string;
  readonly Failover?: FailoverBody;
  readonly OnlyPassing?: boolean;
  readonly IgnoreCheckIDs?: readonly string[];
  readonly Near?: string;
  readonly Tags?: readonly string[];
  readonly NodeMeta?: Readonly<Record<string, string>>;
  readonly ServiceMeta?: Readonly<Record<string, string>>;
  readonly Connect?: boolean;
  readonly Peer?: string;
}
interface TemplateBody {
  readonly Type?: string;
  readonly Regexp?: string;
  readonly RemoveEmptyTags?: boolean;
}

/** POST /v1/query, PUT /v1/query/ID */
export interface QueryBody {
  readonly ID?: string;
  readonly Name?: string;
  readonly Session?: string;
  readonly Token?: string;
  readonly Template?: TemplateBody;
  readonly Service?: ServiceBody;
  readonly DNS?: { readonly TTL?: string };
  readonly CreateIndex?: number;
  readonly ModifyIndex?: number;
}

export const queryBody: Decoder<QueryBody> = record<QueryBody>("PreparedQuery", {
  ID: text,
  Name: text,
  Session: text,
  Token: text,
  Template: record<TemplateBody>("QueryTemplateOptions", { Type: text, Regexp: text, RemoveEmptyTags: flag }),
  Service: record<ServiceBody>("ServiceQuery", {
    Service: text,
    SamenessGroup: text,
    Failover: record<FailoverBody>("QueryFailoverOptions", {
      NearestN: integer,
      Datacenters: list(text),
      Targets: list(record<TargetBody>("QueryFailoverTarget", { Peer: text, Datacenter: text })),
    }),
    OnlyPassing: flag,
    IgnoreCheckIDs: list(text),
    Near: text,
    Tags: list(text),
    NodeMeta: map(text),
    ServiceMeta: map(text),
    Connect: flag,
    Peer: text,
  }),
  DNS: record<{ readonly TTL?: string }>("QueryDNSOptions", { TTL: text }),
  CreateIndex: integer,
  ModifyIndex: integer,
});

/** What a body asks to be kept. */
export function requestOf({ Name, Session, Token, Template, Service = {}, DNS }: QueryBody): PreparedRequest {
  const { Failover = {} } = Service;
  return {
    name: Name ?? "",
    session: Session ?? "",
    token: Token ?? "",
    ...((Template?.Type ?? "") === ""
      ? {}
      : {
          template: {
            type: Template?.Type ?? "",
            pattern: Template?.Regexp ?? "",
            removeEmptyTags: Template?.RemoveEmptyTags ?? false,
          },
        }),
    service: {
      service: Service.Service ?? "",
      onlyPassing: Service.OnlyPassing ?? false,
      near: Service.Near ?? "",
      connect: Service.Connect ?? false,
      peer: Service.Peer ?? "",
      ...given("tags", Service.Tags),
      ...given("ignoreChecks", Service.IgnoreCheckIDs),
      ...given("nodeLabels", Service.NodeMeta),
      ...given("labels", Service.ServiceMeta),
      failover: {
        nearest: Failover.NearestN ?? 0,
        ...given("datacenters", Failover.Datacenters),
        ...given(
          "targets",
          Failover.Targets?.map(({ Peer, Datacenter }) => ({
            ...given("peer", Peer),
            ...given("datacenter", Datacenter),
          })),
        ),
      },
    },
    ttl: DNS?.TTL ?? "",
  };
}

function given<K extends string, V>(key: K, value: V | undefined): Partial<Record<K, V>> {
  return value === undefined ? {} : ({ [key]: value } as Record<K, V>);
}

/** A query as Consul shows it. Lists and maps that were never given are null. */
export function encodeQuery(query: PreparedEntry): unknown {
  const { service, template } = query;
  const { failover } = service;
  return {
    ID: query.id,
    Name: query.name,
    Session: query.session,
    Token: query.token,
    Template: {
      Type: template?.type ?? "",
      Regexp: template?.pattern ?? "",
      RemoveEmptyTags: template?.removeEmptyTags ?? false,
    },
    Service: {
      Service: service.service,
      SamenessGroup: "",
      Failover: {
        NearestN: failover.nearest,
        Datacenters: failover.datacenters ?? null,
        Targets:
          failover.targets?.map(({ peer, datacenter }) => ({ Peer: peer ?? "", Datacenter: datacenter ?? "" })) ?? null,
      },
      OnlyPassing: service.onlyPassing,
      IgnoreCheckIDs: service.ignoreChecks ?? null,
      Near: service.near,
      Tags: service.tags ?? null,
      NodeMeta: service.nodeLabels ?? null,
      ServiceMeta: service.labels ?? null,
      Connect: service.connect,
      Peer: service.peer,
    },
    DNS: { TTL: query.ttl },
    CreateIndex: query.createIndex,
    ModifyIndex: query.modifyIndex,
  };
}

/** What came of a query, as Consul shows it. */
export function encodeAnswer({ service, ttl, endpoints, datacenter, peer, failovers }: PreparedAnswer): object {
  return {
    Service: service,
    Nodes: endpoints.map(({ resident }) => encodeResident(resident)),
    DNS: { TTL: ttl },
    Datacenter: datacenter,
    PeerName: peer,
    Failovers: failovers,
  };
}
