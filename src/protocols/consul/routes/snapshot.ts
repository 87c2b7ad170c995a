// /v1/snapshot: the whole content of the directory out and back in.
import { TrilithError } from "../../../base/error.ts";
import type { Change } from "../../../model/record.ts";
import type { Call, Reply, Row } from "../call.ts";
import { Refusal } from "../errors.ts";
import { ownDatacenterOnly, readDatacenter } from "../options.ts";
import { readSnapshot, restoring, writeSnapshot } from "../snapshot.ts";

/** A snapshot's body may pause for so long. */
const IDLE_MS = 30_000;

async function save(call: Call): Promise<Reply> {
  ownDatacenterOnly(readDatacenter(call, "none"));
  const { directory, self, clock } = call.ground;
  if (!call.query.has("stale")) await directory.barrier(call.signal);
  const view = directory.view();
  return {
    headers: {
      "X-Consul-Index": String(view.index),
      "X-Consul-Knownleader": String(view.fresh),
      "X-Consul-Lastcontact": String(view.fresh ? 0 : Math.max(0, Math.round(clock.now() - view.asOfMs))),
      "X-Consul-Query-Backend": "blocking-query",
    },
    type: "application/x-gzip",
    stream: writeSnapshot(view, {
      datacenter: self.datacenter,
      node: self.node,
      trilith: self.version,
      takenAtMs: clock.now(),
    }),
  };
}

/** The body as it comes; ends with an error when it pauses for too long. */
async function* bodyOf({ request, ground, signal }: Call): AsyncGenerator<Uint8Array> {
  const late = (): void =>
    void request.destroy(new TrilithError("timeout", `the snapshot paused for more than ${IDLE_MS / 1000} s`));
  let timer = ground.clock.after(IDLE_MS, late);
  try {
    for await (const chunk of request as AsyncIterable<Buffer>) {
      timer.cancel();
      yield chunk;
      timer = ground.clock.after(IDLE_MS, late);
    }
    if (signal.aborted) throw signal.reason;
  } finally {
    timer.cancel();
  }
}

async function restore(call: Call): Promise<undefined> {
  ownDatacenterOnly(readDatacenter(call, "none"));
  const { directory, self, log } = call.ground;
  // Nothing is written before all of it was read and its checksum fits.
  const snapshot = await readSnapshot(bodyOf(call)).catch((error: unknown) => {
    // The rest of a refused body is taken in, so that its sender gets to read why.
    call.request.resume();
    if (error instanceof TrilithError && error.code !== "timeout") throw new Refusal(500, error.message);
    throw error;
  });
  const { puts, deletes } = restoring(directory.view(), snapshot, self.node);
  log.info("restoring a snapshot", {
    index: snapshot.head.index,
    from: snapshot.head.node,
    puts: puts.length,
    deletes: deletes.length,
  });
  await write(call, [...puts, ...deletes]);
  return undefined;
}

/**
 * Writes everything at once where the store takes it, else in pieces, in their order: what is new comes first, so that nothing is taken
 * away before all of that is safe.
 */
async function write(call: Call, changes: readonly Change[]): Promise<void> {
  if (changes.length === 0) return;
  try {
    // Not with the client's signal: a restore that began is finished also when its client goes away.
    const written = await call.ground.directory.write(changes);
    if (written.result === "unknown") throw written.cause;
  } catch (error) {
    if (!(error instanceof TrilithError) || error.code !== "too-large" || changes.length === 1) throw error;
    const middle = changes.length >> 1;
    await write(call, changes.slice(0, middle));
    await write(call, changes.slice(middle));
  }
}

export const snapshotRows: readonly Row[] = [
  {
    pattern: "/v1/snapshot",
    methods: ["GET", "PUT"],
    endpoint: (call) => (call.method === "GET" ? save(call) : restore(call)),
  },
];
