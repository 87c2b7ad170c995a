// Changes of the directory, written to a Consul as one transaction.
import { TrilithError } from "../../base/error.ts";
import type { Servers } from "../../base/servers.ts";
import type { Written } from "../../contracts/directory.ts";
import type { Commit, Row } from "../../contracts/storage.ts";
import type { Change, Tables } from "../../model/record.ts";
import { type Json, text } from "../../wire/consul-catalog.ts";
import { type Mirror, RANK } from "./consul-mirror.ts";
import { type Held, list, type Mirrored, number } from "./consul-rows.ts";
import { drainOperation, operationOf } from "./consul-wire.ts";

/** Where it is written, and what is known of what stands there. */
interface At {
  readonly servers: Servers;
  readonly url: string;
  readonly mirror: Mirror;
}

interface Operation {
  readonly json: Json;
  /** Its refusal is an expectation that failed. */
  readonly guarded: boolean;
}

/** One transaction. This host's own records are set whatever stands there; those of others only as they are known. */
export async function commitToConsul(
  { servers, url, mirror }: At,
  { changes, expect }: Commit,
  signal: AbortSignal,
): Promise<Written> {
  for (const { table, key, at } of expect)
    if ((mirror.get(table, key)?.modifyIndex ?? 0) !== at) return { result: "expectation-failed" };
  const wanted = changes.filter(({ table }) => table !== "grave");
  const order = (change: Change): number => (change.op === "put" ? RANK[change.table] : 10 - RANK[change.table]);
  wanted.sort((a, b) => order(a) - order(b));
  const operations: Operation[] = [];
  for (const change of wanted) {
    const before = mirror.get(change.table, change.key);
    const theirs = !mirror.isOwn(change.key);
    const guarded = theirs && expect.some(({ table, key }) => table === change.table && key === change.key);
    const cas = guarded ? (before?.serverIndex ?? 0) : undefined;
    const json = operationOf(change, before?.value as Tables["node"] | undefined, cas, mirror.isClient);
    if (json !== undefined) operations.push({ json, guarded });
  }
  // Last, so that the results of the others keep their places.
  for (const change of wanted) {
    if (change.table !== "service" || change.op !== "put") continue;
    const before = mirror.get("service", change.key)?.value as Tables["service"] | undefined;
    const json = drainOperation(change.value, before);
    if (json !== undefined) operations.push({ json, guarded: false });
  }
  const results = operations.length === 0 ? [] : await transact({ servers, url }, operations, signal);
  if ("result" in results) return results;
  let at = 0;
  let next = 0;
  const news: Held[] = [];
  const gone: Held[] = [];
  for (const change of wanted) {
    const before = mirror.get(change.table, change.key);
    if (change.op === "delete") {
      if (before !== undefined) gone.push(before);
      continue;
    }
    const raw = (Object.values(results[next++] ?? {})[0] ?? {}) as Json;
    const serverIndex = number(raw["ModifyIndex"]);
    at = Math.max(at, serverIndex);
    const createIndex = number(raw["CreateIndex"]) || before?.createIndex || mirror.index + 1;
    const table = change.table as Mirrored;
    news.push({
      table,
      key: change.key,
      value: change.value as Tables[Mirrored],
      createIndex,
      serverIndex,
      modifyIndex: 0,
    });
  }
  const graves: Row[] = changes.flatMap((change) =>
    change.table !== "grave"
      ? []
      : [
          {
            table: "grave",
            key: change.key,
            value: change.op === "put" ? change.value : undefined,
            createIndex: 0,
            modifyIndex: 0,
          },
        ],
  );
  return { result: "written", index: mirror.emit(news, gone, at, graves) };
}

async function transact(
  { servers, url }: Pick<At, "servers" | "url">,
  operations: readonly Operation[],
  signal: AbortSignal,
): Promise<readonly Json[] | Written> {
  const body = JSON.stringify(operations.map(({ json }) => json));
  let status: number;
  let answer: string;
  try {
    const response = await servers.askOne(url, {
      path: "/v1/txn",
      method: "PUT",
      headers: { "content-type": "application/json" },
      body,
      signal,
    });
    status = response.status;
    answer = await response.text();
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    return { result: "unknown", cause: error as Error };
  }
  if (status === 200) return list((JSON.parse(answer) as Json)["Results"]);
  if (status === 409) {
    const errors = list((JSON.parse(answer) as Json)["Errors"]);
    const refused = errors.filter(({ OpIndex }) => operations[number(OpIndex)]?.guarded !== true);
    if (refused.length === 0) return { result: "expectation-failed" };
    throw new TrilithError("invalid", `${url} refuses: ${refused.map(({ What }) => text(What)).join("; ")}`);
  }
  const said = `${url}/v1/txn: status ${status}: ${answer.slice(0, 200)}`;
  throw new TrilithError(status === 413 ? "too-large" : status === 400 ? "invalid" : "unavailable", said);
}
