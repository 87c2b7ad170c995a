// The part of etcd's v3 protocol that is spoken here: messages as types, and as descriptors that turn them into bytes and back.
import type { MethodDefinition, PackageDefinition } from "@grpc/proto-loader";

// Field numbers from etcd's API reference (etcd.io/docs/v3.4/dev-guide/api_reference_v3). 64-bit numbers are read as JavaScript numbers:
// revisions stay far below 2^53, lease IDs are chosen by us below it, and cluster IDs are only compared for equality.

export interface ResponseHeader {
  readonly clusterId: number;
  readonly revision: number;
}

export interface KeyValue {
  readonly key: Buffer;
  readonly createRevision: number;
  readonly modRevision: number;
  readonly version: number;
  readonly value: Buffer;
  readonly lease: number;
}

export interface RangeRequest {
  readonly key: Uint8Array;
  /** The first key behind the range; only `key` when absent. */
  readonly rangeEnd?: Uint8Array;
  readonly limit?: number;
  /** As of this revision; the newest when absent. */
  readonly revision?: number;
  readonly keysOnly?: boolean;
  readonly countOnly?: boolean;
}
export interface RangeResponse {
  readonly header: ResponseHeader;
  readonly kvs: readonly KeyValue[];
  readonly more: boolean;
}

export interface PutRequest {
  readonly key: Uint8Array;
  readonly value: Uint8Array;
  readonly lease?: number;
  /** The key keeps the lease it has; a key that does not exist fails the whole transaction with "key not found". */
  readonly ignoreLease?: boolean;
}
export interface DeleteRangeRequest {
  readonly key: Uint8Array;
}

export interface RequestOp {
  readonly requestRange?: RangeRequest;
  readonly requestPut?: PutRequest;
  readonly requestDeleteRange?: DeleteRangeRequest;
  readonly requestTxn?: TxnRequest;
}
export interface ResponseOp {
  readonly responseRange: RangeResponse | null;
}

export const Target = { version: 0, create: 1, mod: 2 } as const;
/** How what is there has to stand to what is given. */
export const Result = { equal: 0, greater: 1, less: 2 } as const;
export interface Compare {
  /** Equal when absent. */
  readonly result?: (typeof Result)[keyof typeof Result];
  readonly target: (typeof Target)[keyof typeof Target];
  readonly key: Uint8Array;
  /** Every key from `key` up to before this one; holds where there is none, if it holds for 0. */
  readonly rangeEnd?: Uint8Array;
  readonly version?: number;
  readonly modRevision?: number;
}

/** All of `compare` hold: `success` is done, else `failure`; atomically either way. */
export interface TxnRequest {
  readonly compare: readonly Compare[];
  readonly success: readonly RequestOp[];
  readonly failure: readonly RequestOp[];
}
export interface TxnResponse {
  readonly header: ResponseHeader;
  readonly succeeded: boolean;
  readonly responses: readonly ResponseOp[];
}

export interface WatchRequest {
  readonly createRequest?: {
    readonly key: Uint8Array;
    readonly rangeEnd: Uint8Array;
    readonly startRevision: number;
    readonly fragment: boolean;
  };
  /** Asks for a sign of life of the stream. */
  readonly progressRequest?: Record<string, never>;
}
export const EventType = { put: 0, delete: 1 } as const;
export interface WatchEvent {
  readonly type: (typeof EventType)[keyof typeof EventType];
  readonly kv: KeyValue;
}
export interface WatchResponse {
  readonly header: ResponseHeader;
  readonly created: boolean;
  readonly canceled: boolean;
  /** Not 0: the watch was to start before this revision, which is the oldest that is kept. */
  readonly compactRevision: number;
  readonly cancelReason: string;
  /** True: the rest of this response's events follow in the next one. */
  readonly fragment: boolean;
  readonly events: readonly WatchEvent[];
}

export interface LeaseGrantRequest {
  readonly TTL: number;
  readonly ID: number;
}
export interface LeaseGrantResponse {
  readonly header: ResponseHeader;
  readonly ID: number;
  readonly TTL: number;
}
export interface LeaseKeepAliveRequest {
  readonly ID: number;
}
export interface LeaseKeepAliveResponse {
  readonly header: ResponseHeader;
  /** Seconds left; 0 = there is no such lease (any more). */
  readonly TTL: number;
}

export interface AuthenticateRequest {
  readonly name: string;
  readonly password: string;
}
export interface AuthenticateResponse {
  readonly token: string;
}

/** The methods in use: request and response type of each. */
export interface Methods {
  readonly range: { readonly request: RangeRequest; readonly response: RangeResponse };
  readonly put: { readonly request: PutRequest; readonly response: { readonly header: ResponseHeader } };
  readonly txn: { readonly request: TxnRequest; readonly response: TxnResponse };
  readonly watch: { readonly request: WatchRequest; readonly response: WatchResponse };
  readonly leaseGrant: { readonly request: LeaseGrantRequest; readonly response: LeaseGrantResponse };
  readonly leaseKeepAlive: { readonly request: LeaseKeepAliveRequest; readonly response: LeaseKeepAliveResponse };
  readonly authenticate: { readonly request: AuthenticateRequest; readonly response: AuthenticateResponse };
}
export type Method = keyof Methods;

const PATHS: Readonly<Record<Method, readonly [service: string, method: string]>> = {
  range: ["etcdserverpb.KV", "Range"],
  put: ["etcdserverpb.KV", "Put"],
  txn: ["etcdserverpb.KV", "Txn"],
  watch: ["etcdserverpb.Watch", "Watch"],
  leaseGrant: ["etcdserverpb.Lease", "LeaseGrant"],
  leaseKeepAlive: ["etcdserverpb.Lease", "LeaseKeepAlive"],
  authenticate: ["etcdserverpb.Auth", "Authenticate"],
};

interface Field {
  readonly type: string;
  readonly id: number;
  readonly rule?: "repeated";
}
const field = (type: string, id: number): Field => ({ type, id });
const many = (type: string, id: number): Field => ({ type, id, rule: "repeated" });
const header = field("ResponseHeader", 1);
const fields = (all: Record<string, Field>): { fields: Record<string, Field> } => ({ fields: all });
const method = (name: string, streams = false): object => ({
  requestType: `etcdserverpb.${name}Request`,
  responseType: `etcdserverpb.${name}Response`,
  ...(streams ? { requestStream: true, responseStream: true } : {}),
});

const KEY_VALUE = {
  key: field("bytes", 1),
  createRevision: field("int64", 2),
  modRevision: field("int64", 3),
  version: field("int64", 4),
  value: field("bytes", 5),
  lease: field("int64", 6),
};

/** Only the fields that are written or looked at; unknown ones are skipped when read [protobuf encoding]. */
const DESCRIPTOR = {
  nested: {
    etcdserverpb: {
      nested: {
        ResponseHeader: fields({ clusterId: field("uint64", 1), revision: field("int64", 3) }),
        KeyValue: fields(KEY_VALUE),
        Event: fields({ type: field("int32", 1), kv: field("KeyValue", 2) }),
        RangeRequest: fields({
          key: field("bytes", 1),
          rangeEnd: field("bytes", 2),
          limit: field("int64", 3),
          revision: field("int64", 4),
          keysOnly: field("bool", 8),
          countOnly: field("bool", 9),
        }),
        RangeResponse: fields({ header, kvs: many("KeyValue", 2), more: field("bool", 3) }),
        PutRequest: fields({
          key: field("bytes", 1),
          value: field("bytes", 2),
          lease: field("int64", 3),
          ignoreLease: field("bool", 6),
        }),
        PutResponse: fields({ header }),
        DeleteRangeRequest: fields({ key: field("bytes", 1) }),
        RequestOp: {
          oneofs: { request: { oneof: ["requestRange", "requestPut", "requestDeleteRange", "requestTxn"] } },
          ...fields({
            requestRange: field("RangeRequest", 1),
            requestPut: field("PutRequest", 2),
            requestDeleteRange: field("DeleteRangeRequest", 3),
            requestTxn: field("TxnRequest", 4),
          }),
        },
        ResponseOp: fields({ responseRange: field("RangeResponse", 1) }),
        Compare: {
          oneofs: { targetUnion: { oneof: ["version", "modRevision"] } },
          ...fields({
            result: field("int32", 1),
            target: field("int32", 2),
            key: field("bytes", 3),
            version: field("int64", 4),
            modRevision: field("int64", 6),
            rangeEnd: field("bytes", 64),
          }),
        },
        TxnRequest: fields({
          compare: many("Compare", 1),
          success: many("RequestOp", 2),
          failure: many("RequestOp", 3),
        }),
        TxnResponse: fields({ header, succeeded: field("bool", 2), responses: many("ResponseOp", 3) }),
        WatchRequest: {
          oneofs: { request: { oneof: ["createRequest", "progressRequest"] } },
          ...fields({
            createRequest: field("WatchCreateRequest", 1),
            progressRequest: field("WatchProgressRequest", 3),
          }),
        },
        WatchCreateRequest: fields({
          key: field("bytes", 1),
          rangeEnd: field("bytes", 2),
          startRevision: field("int64", 3),
          fragment: field("bool", 8),
        }),
        WatchProgressRequest: fields({}),
        WatchResponse: fields({
          header,
          created: field("bool", 3),
          canceled: field("bool", 4),
          compactRevision: field("int64", 5),
          cancelReason: field("string", 6),
          fragment: field("bool", 7),
          events: many("Event", 11),
        }),
        LeaseGrantRequest: fields({ TTL: field("int64", 1), ID: field("int64", 2) }),
        LeaseGrantResponse: fields({ header, ID: field("int64", 2), TTL: field("int64", 3) }),
        LeaseKeepAliveRequest: fields({ ID: field("int64", 1) }),
        LeaseKeepAliveResponse: fields({ header, ID: field("int64", 2), TTL: field("int64", 3) }),
        AuthenticateRequest: fields({ name: field("string", 1), password: field("string", 2) }),
        AuthenticateResponse: fields({ header, token: field("string", 2) }),
        KV: { methods: { Range: method("Range"), Put: method("Put"), Txn: method("Txn") } },
        Watch: { methods: { Watch: method("Watch", true) } },
        Lease: { methods: { LeaseGrant: method("LeaseGrant"), LeaseKeepAlive: method("LeaseKeepAlive", true) } },
        Auth: { methods: { Authenticate: method("Authenticate") } },
      },
    },
  },
};

/** How to call one method. */
export interface Wire<M extends Method> {
  readonly path: string;
  serialize(request: Methods[M]["request"]): Buffer;
  deserialize(bytes: Buffer): Methods[M]["response"];
}
export type Wires = { readonly [M in Method]: Wire<M> };

/** Loads the protobuf library and builds the codecs. */
export async function loadWires(): Promise<Wires> {
  const loader = await import("@grpc/proto-loader");
  const definition: PackageDefinition = loader.fromJSON(DESCRIPTOR as never, {
    keepCase: true,
    longs: Number,
    defaults: true,
    arrays: true,
  });
  const wires = Object.entries(PATHS).map(([name, [service, rpc]]) => {
    const found = (definition[service] as Record<string, MethodDefinition<object, object>> | undefined)?.[rpc];
    if (found === undefined) throw new Error(`no ${service}/${rpc} in the descriptors`);
    return [
      name,
      { path: found.path, serialize: found.requestSerialize, deserialize: found.responseDeserialize },
    ] as const;
  });
  return Object.fromEntries(wires) as unknown as Wires;
}
