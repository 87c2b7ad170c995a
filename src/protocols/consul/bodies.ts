// The JSON bodies that requests bring, field by field. Services and checks of the agent are in wire/consul-definition/, which files share.
import { TrilithError } from "../../base/error.ts";
import {
  anything,
  base64,
  type Decoder,
  durationMs,
  type FieldsOf,
  flag,
  integer,
  list,
  map,
  record,
  text,
} from "./decode.ts";

/** PUT /v1/agent/check/update/:id */
export interface CheckUpdateBody {
  readonly Status?: string;
  readonly Output?: string;
}
export const checkUpdateBody: Decoder<CheckUpdateBody> = record<CheckUpdateBody>("checkUpdate", {
  Status: text,
  Output: text,
});

/** An address under a role name. */
export interface ServiceAddressBody {
  readonly Address?: string;
  readonly Port?: number;
}
export interface WeightsBody {
  readonly Passing?: number;
  readonly Warning?: number;
}

/** A service as the catalog takes it. */
export interface NodeServiceBody {
  readonly Kind?: string;
  readonly ID?: string;
  readonly Service?: string;
  readonly Tags?: readonly string[];
  readonly Address?: string;
  readonly TaggedAddresses?: Readonly<Record<string, ServiceAddressBody>>;
  readonly Meta?: Readonly<Record<string, string>>;
  readonly Port?: number;
  readonly SocketPath?: string;
  readonly Weights?: WeightsBody;
  readonly EnableTagOverride?: boolean;
  readonly Locality?: unknown;
  readonly Proxy?: unknown;
  readonly Connect?: unknown;
  readonly PeerName?: string;
  readonly CreateIndex?: number;
  readonly ModifyIndex?: number;
}
const nodeServiceFields: FieldsOf<NodeServiceBody> = {
  Kind: text,
  ID: text,
  Service: text,
  Tags: list(text),
  Address: text,
  TaggedAddresses: map(record<ServiceAddressBody>("ServiceAddress", { Address: text, Port: integer })),
  Meta: map(text),
  Port: integer,
  SocketPath: text,
  Weights: record<WeightsBody>("Weights", { Passing: integer, Warning: integer }),
  EnableTagOverride: flag,
  Locality: anything,
  Proxy: anything,
  Connect: anything,
  PeerName: text,
  CreateIndex: integer,
  ModifyIndex: integer,
};
const nodeServiceBody: Decoder<NodeServiceBody> = record("NodeService", nodeServiceFields);

/** What an external monitor is told about a check; handed back unchanged. */
export interface CheckDefinitionBody {
  readonly HTTP?: string;
  readonly TLSServerName?: string;
  readonly TLSSkipVerify?: boolean;
  readonly Header?: Readonly<Record<string, readonly string[]>>;
  readonly Method?: string;
  readonly Body?: string;
  readonly DisableRedirects?: boolean;
  readonly TCP?: string;
  readonly TCPUseTLS?: boolean;
  readonly UDP?: string;
  readonly H2PING?: string;
  readonly H2PingUseTLS?: boolean;
  readonly OSService?: string;
  readonly Interval?: number;
  readonly Timeout?: number;
  readonly DeregisterCriticalServiceAfter?: number;
  readonly IntervalDuration?: number;
  readonly TimeoutDuration?: number;
  readonly DeregisterCriticalServiceAfterDuration?: number;
  readonly OutputMaxSize?: number;
  readonly ScriptArgs?: readonly string[];
  readonly DockerContainerID?: string;
  readonly Shell?: string;
  readonly GRPC?: string;
  readonly GRPCUseTLS?: boolean;
  readonly AliasNode?: string;
  readonly AliasService?: string;
  readonly TTL?: number;
}
const checkDefinitionBody: Decoder<CheckDefinitionBody> = record<CheckDefinitionBody>(
  "HealthCheckDefinition",
  {
    HTTP: text,
    TLSServerName: text,
    TLSSkipVerify: flag,
    Header: map(list(text)),
    Method: text,
    Body: text,
    DisableRedirects: flag,
    TCP: text,
    TCPUseTLS: flag,
    UDP: text,
    H2PING: text,
    H2PingUseTLS: flag,
    OSService: text,
    Interval: durationMs,
    Timeout: durationMs,
    DeregisterCriticalServiceAfter: durationMs,
    IntervalDuration: durationMs,
    TimeoutDuration: durationMs,
    DeregisterCriticalServiceAfterDuration: durationMs,
    OutputMaxSize: integer,
    ScriptArgs: list(text),
    DockerContainerID: text,
    Shell: text,
    GRPC: text,
    GRPCUseTLS: flag,
    AliasNode: text,
    AliasService: text,
    TTL: durationMs,
  },
  // Consul reads this part by itself, and does not look for unknown fields there.
  { lenient: true },
);

/** A check as the catalog takes it. */
export interface HealthCheckBody {
  readonly Node?: string;
  readonly CheckID?: string;
  readonly Name?: string;
  readonly Status?: string;
  readonly Notes?: string;
  readonly Output?: string;
  readonly ServiceID?: string;
  readonly ServiceName?: string;
  readonly ServiceTags?: readonly string[];
  readonly Type?: string;
  readonly Interval?: string;
  readonly Timeout?: string;
  readonly ExposedPort?: number;
  readonly PeerName?: string;
  readonly Definition?: CheckDefinitionBody;
  readonly CreateIndex?: number;
  readonly ModifyIndex?: number;
}
const healthCheckFields: FieldsOf<HealthCheckBody> = {
  Node: text,
  CheckID: text,
  Name: text,
  Status: text,
  Notes: text,
  Output: text,
  ServiceID: text,
  ServiceName: text,
  ServiceTags: list(text),
  Type: text,
  Interval: text,
  Timeout: text,
  ExposedPort: integer,
  PeerName: text,
  Definition: checkDefinitionBody,
  CreateIndex: integer,
  ModifyIndex: integer,
};
const healthCheckBody: Decoder<HealthCheckBody> = record("HealthCheck", healthCheckFields);

/** PUT /v1/catalog/register */
export interface RegisterBody {
  readonly Datacenter?: string;
  readonly ID?: string;
  readonly Node?: string;
  readonly Address?: string;
  readonly TaggedAddresses?: Readonly<Record<string, string>>;
  readonly NodeMeta?: Readonly<Record<string, string>>;
  readonly Service?: NodeServiceBody;
  readonly Check?: HealthCheckBody;
  readonly Checks?: readonly HealthCheckBody[];
  readonly SkipNodeUpdate?: boolean;
  readonly PeerName?: string;
  readonly Locality?: unknown;
  readonly Token?: string;
  readonly CreateIndex?: number;
  readonly ModifyIndex?: number;
}
export const registerBody: Decoder<RegisterBody> = record<RegisterBody>("RegisterRequest", {
  Datacenter: text,
  ID: text,
  Node: text,
  Address: text,
  TaggedAddresses: map(text),
  NodeMeta: map(text),
  Service: nodeServiceBody,
  Check: healthCheckBody,
  Checks: list(healthCheckBody),
  SkipNodeUpdate: flag,
  PeerName: text,
  Locality: anything,
  Token: text,
  CreateIndex: integer,
  ModifyIndex: integer,
});

/** PUT /v1/catalog/deregister */
export interface DeregisterBody {
  readonly Datacenter?: string;
  readonly Node?: string;
  readonly ServiceID?: string;
  readonly CheckID?: string;
  readonly PeerName?: string;
  readonly Token?: string;
}
export const deregisterBody: Decoder<DeregisterBody> = record<DeregisterBody>("DeregisterRequest", {
  Datacenter: text,
  Node: text,
  ServiceID: text,
  CheckID: text,
  PeerName: text,
  Token: text,
});

/** PUT /v1/session/create */
export interface SessionBody {
  readonly Name?: string;
  readonly Node?: string;
  /** Milliseconds. */
  readonly LockDelay?: number;
  readonly Behavior?: string;
  readonly TTL?: string;
  readonly NodeChecks?: readonly string[];
  readonly ServiceChecks?: readonly { readonly ID?: string; readonly Namespace?: string }[];
  readonly Checks?: readonly string[];
}
/** Numbers below a thousand count seconds, others nanoseconds; so do, as in Consul, texts of less than a microsecond. */
const lockDelayMs: Decoder<number> = (raw, at) => {
  // Neither text nor number: Consul takes it for none at all.
  const ms = typeof raw === "string" || typeof raw === "number" ? durationMs(raw, at) : 0;
  return ms < 1e-3 ? ms * 1e9 : ms;
};
export const sessionBody: Decoder<SessionBody> = record<SessionBody>(
  "Session",
  {
    Name: text,
    Node: text,
    LockDelay: lockDelayMs,
    Behavior: text,
    TTL: text,
    NodeChecks: list(text),
    ServiceChecks: list(
      record<{ readonly ID?: string; readonly Namespace?: string }>(
        "ServiceCheck",
        { ID: text, Namespace: text },
        { lenient: true },
      ),
    ),
    Checks: list(text),
  },
  // Go makes null of a list an empty one, which is not the same as none being given.
  { lenient: true, nulls: { Checks: [], NodeChecks: [] } },
);

const UINT64_MAX = (1n << 64n) - 1n;
/** A number that may be beyond 2^53 and then comes as its digits, 16 or more. */
const uint64: Decoder<bigint> = (raw, at) => {
  const value = BigInt(typeof raw === "string" && /^\d{16,20}$/.test(raw) ? raw : integer(raw, at));
  if (value < 0n || value > UINT64_MAX)
    throw new TrilithError(
      "invalid",
      `json: cannot unmarshal number ${value} into Go struct field ${at} of type uint64`,
    );
  return value;
};
/** An index. */
/** A whole number that is not negative. */
export const uint: Decoder<number> = (raw, at) => Number(uint64(raw, at));

export interface TxnKvBody {
  readonly Verb?: string;
  readonly Key?: string;
  readonly Value?: Uint8Array;
  readonly Flags?: bigint;
  readonly Index?: number;
  readonly Session?: string;
  readonly Namespace?: string;
  readonly Partition?: string;
}
export interface TxnNodeBody {
  readonly ID?: string;
  readonly Node?: string;
  readonly Address?: string;
  readonly Datacenter?: string;
  readonly TaggedAddresses?: Readonly<Record<string, string>>;
  readonly Meta?: Readonly<Record<string, string>>;
  readonly CreateIndex?: number;
  readonly ModifyIndex?: number;
  readonly Partition?: string;
  readonly PeerName?: string;
  readonly Locality?: unknown;
}
interface TxnServiceBody extends NodeServiceBody {
  readonly ContentHash?: string;
  readonly Datacenter?: string;
  readonly Namespace?: string;
  readonly Partition?: string;
}
interface TxnCheckBody extends HealthCheckBody {
  readonly Namespace?: string;
  readonly Partition?: string;
}

/** One operation of PUT /v1/txn: the first that is given counts. */
export interface TxnOpBody {
  readonly KV?: TxnKvBody;
  readonly Node?: { readonly Verb?: string; readonly Node?: TxnNodeBody };
  readonly Service?: { readonly Verb?: string; readonly Node?: string; readonly Service?: NodeServiceBody };
  readonly Check?: { readonly Verb?: string; readonly Check?: HealthCheckBody };
}
export const txnBody: Decoder<readonly TxnOpBody[]> = list(
  record<TxnOpBody>("TxnOp", {
    KV: record<TxnKvBody>("KVTxnOp", {
      Verb: text,
      Key: text,
      Value: base64,
      Flags: uint64,
      Index: uint,
      Session: text,
      Namespace: text,
      Partition: text,
    }),
    Node: record("NodeTxnOp", {
      Verb: text,
      Node: record<TxnNodeBody>("Node", {
        ID: text,
        Node: text,
        Address: text,
        Datacenter: text,
        TaggedAddresses: map(text),
        Meta: map(text),
        CreateIndex: integer,
        ModifyIndex: integer,
        Partition: text,
        PeerName: text,
        Locality: anything,
      }),
    }),
    Service: record("ServiceTxnOp", {
      Verb: text,
      Node: text,
      Service: record<TxnServiceBody>("AgentService", {
        ...nodeServiceFields,
        ContentHash: text,
        Datacenter: text,
        Namespace: text,
        Partition: text,
      }),
    }),
    Check: record("CheckTxnOp", {
      Verb: text,
      Check: record<TxnCheckBody>("HealthCheck", { ...healthCheckFields, Namespace: text, Partition: text }),
    }),
  }),
);
