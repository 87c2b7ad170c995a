// /v1/txn: many operations on keys and the catalog, all or none.
import { TrilithError } from "../../../base/error.ts";
import { type Entry, type Index, keyOf } from "../../../model/record.ts";
import { type TxnOpBody, txnBody } from "../bodies.ts";
import type { Call, Reply, Row } from "../call.ts";
import { decodeBody } from "../decode.ts";
import { Draft } from "../draft.ts";
import { encodeCheck, encodeKv, encodeNode, encodeNodeService } from "../encode.ts";
import { Refusal } from "../errors.ts";
import { ownDatacenterOnly, readDatacenter, readOptions } from "../options.ts";
import { perform, type TxnFault, type TxnRecord, writes } from "../txn.ts";

const MOST_OPERATIONS = 128;
/** Others may write the same records in between; each try looks at a new view. */
const MOST_TRIES = 100;
const LIMIT_PAGE = "https://www.consul.io/docs/agent/config/config-files#txn_max_req_len";
/** Numbers beyond 2^53 are kept as their digits. Inside of a text the quotes would be escaped. */
const BIG_FLAGS = /("flags"\s*:\s*)(\d{16,20})(?=\s*[,}])/gi;

async function transaction(call: Call): Promise<Reply> {
  const { config, ground } = call;
  const mostBytes = Math.max(config.txnMaxBytes, config.kvMaxValueBytes);
  const bytes = await call.body(
    mostBytes,
    (size) => `Request body(${size} bytes) too large, max size: ${mostBytes} bytes. See ${LIMIT_PAGE}.`,
  );
  const asked = decodeBody(withBigFlags(bytes), txnBody, "Failed to parse body: ");
  if (asked.length > MOST_OPERATIONS)
    throw new Refusal(413, `Transaction contains too many operations (${asked.length} > ${MOST_OPERATIONS})`);
  // What asks for nothing does not count, not even in the places that errors name.
  const ops = asked.filter(({ KV, Node, Service, Check }) => (KV ?? Node ?? Service ?? Check) !== undefined);
  for (const { KV: { Key: key = "", Value: { length } = [] } = {} } of ops)
    if (length > config.kvMaxValueBytes)
      throw new Refusal(
        413,
        `Value for key ${JSON.stringify(key)} is too large (${length} > ${config.kvMaxValueBytes} bytes)`,
      );
  const writing = writes(ops);
  const options = writing
    ? { datacenter: readDatacenter(call, "none"), consistency: "leader" }
    : readOptions(call, "none");
  ownDatacenterOnly(options.datacenter);
  // Of keys only; nodes and services may be written where there are none.
  if (ops.some(({ KV }) => KV !== undefined)) await ground.sessions.settled(call.signal);
  if (writing) return write(call, ops);
  if (options.consistency === "consistent") await ground.directory.barrier(call.signal);
  return read(call, ops);
}

function withBigFlags(bytes: Uint8Array): Uint8Array {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1");
  const safe = text.replace(BIG_FLAGS, '$1"$2"');
  return safe === text ? bytes : Buffer.from(safe, "latin1");
}

function read(call: Call, ops: readonly TxnOpBody[]): Reply {
  const draft = new Draft(call.ground.directory.view());
  const { fresh, asOfMs } = draft.base;
  const outcome = perform(call, ops, draft);
  // What is refused unseen is answered without asking how things stand.
  const known = fresh && (outcome.ok || !outcome.early);
  const lastContactMs = fresh ? 0 : Math.max(0, Math.round(call.ground.clock.now() - asOfMs));
  const headers = { "X-Consul-Knownleader": String(known), "X-Consul-Lastcontact": String(lastContactMs) };
  const meta = {
    Index: outcome.ok || !outcome.early ? 1 : 0,
    LastContact: lastContactMs,
    KnownLeader: known,
    ConsistencyLevel: "",
    NotModified: false,
    Backend: 0,
    ResultsFilteredByACLs: false,
  };
  if (!outcome.ok) return { ...conflict(outcome.faults, meta), headers };
  const results = outcome.records.map((record) => encode(record, draft, draft.base.index));
  return { json: { Results: results, Errors: null, ...meta }, exact: true, headers };
}

async function write(call: Call, ops: readonly TxnOpBody[]): Promise<Reply> {
  const { directory } = call.ground;
  for (let caughtUp = false, tries = 0; tries < MOST_TRIES; tries++) {
    const draft = new Draft(directory.view());
    const outcome = perform(call, ops, draft);
    if (outcome.ok) {
      const written = await directory.write(draft.changes, draft.expect, call.signal);
      if (written.result === "unknown")
        throw new TrilithError(
          "timeout",
          `whether the transaction was done is not known: ${written.cause.message}`,
          written.cause,
        );
      if (written.result === "written") {
        const results = outcome.records.map((record) => encode(record, draft, written.index));
        return { json: { Results: results, Errors: null }, exact: true };
      }
    } else if (outcome.early || caughtUp) return conflict(outcome.faults);
    // "No" must be said of the present state, not of what this process has seen of it so far.
    await directory.barrier(call.signal);
    caughtUp = true;
  }
  throw new TrilithError("unavailable", `others wrote the same records ${MOST_TRIES} times in between`);
}

function conflict(faults: readonly TxnFault[], meta: object = {}): Reply {
  return { status: 409, json: { Results: null, Errors: faults, ...meta } };
}

function encode(record: TxnRecord, draft: Draft, index: Index): unknown {
  switch (record.kind) {
    case "KV": {
      const entry = draft.asWritten("kv", record.entry.key, record.entry, index);
      return { KV: encodeKv(record.value ? entry : { ...entry, value: new Uint8Array() }) };
    }
    case "Node":
      return { Node: encodeNode(draft.asWritten("node", keyOf.node(record.entry.name), record.entry, index)) };
    case "Service": {
      const { node, id } = record.entry;
      const service = encodeNodeService(draft.asWritten("service", keyOf.service(node, id), record.entry, index));
      return { Service: { ...service, Tags: orNull(record.entry.tags) } };
    }
    case "Check": {
      const { node, id, serviceId } = record.entry;
      const check: Entry<"check"> = draft.asWritten("check", keyOf.check(node, id), record.entry, index);
      const service = serviceId === "" ? undefined : draft.get("service", keyOf.service(node, serviceId));
      const tags = (check.foreign?.["ServiceTags"] as readonly string[] | undefined) ?? service?.tags ?? [];
      return { Check: { ...encodeCheck(check, service), ServiceTags: orNull(tags) } };
    }
  }
}

const orNull = (tags: readonly string[]): readonly string[] | null => (tags.length === 0 ? null : tags);

export const txnRows: readonly Row[] = [{ pattern: "/v1/txn", methods: ["PUT"], endpoint: transaction }];
