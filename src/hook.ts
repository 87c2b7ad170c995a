// The public door `trilith/hook`: `node --import trilith/hook app.js` lets a program that knows nothing of Trilith connect to services by name.
import { systemClock } from "./base/clock.ts";
import { ownNetworkNamespace } from "./base/network-namespace.ts";
import { hookNode } from "./base/node-hook.ts";
import { programIdentity } from "./base/program-identity.ts";
import { systemRandom } from "./base/random.ts";
import { openShared } from "./base/shared-file.ts";
import { environment } from "./base/terminal.ts";
import { createBalancer } from "./lookup/balance/create.ts";
import { ownNeighbours } from "./lookup/node/own-neighbours.ts";
import { createRewrite } from "./lookup/node/rewrite.ts";
import { createCurrentTable, DEFAULT_TABLE } from "./lookup/node/table.ts";

/** How long a program's first question for a service waits for an agent that does not answer. */
const ASK_MS = 5_000;

/** The agent's own answer. What is needed for it is loaded only then: most programs find the table without. */
async function askAgent(): Promise<string | undefined> {
  // A connection in the background would let a program end that waits for nothing but this.
  const hold = systemClock.after(ASK_MS, () => {}, true);
  try {
    const [{ createHttp }, { hookTable }] = await Promise.all([
      import("./base/http.ts"),
      import("./protocols/api/client.ts"),
    ]);
    return await hookTable({ http: createHttp({ background: true }), signal: AbortSignal.timeout(ASK_MS) });
  } finally {
    hold.cancel();
  }
}

/** Once in a thread, whichever copy of this package comes first. */
const HOOKED = Symbol.for("trilith.hook");
if (!(HOOKED in globalThis)) {
  const told = environment("TRILITH_HOOK_TABLE");
  const table = createCurrentTable({
    open: openShared,
    clock: systemClock,
    path: told ?? DEFAULT_TABLE,
    network: ownNetworkNamespace,
    ...(told === undefined ? { locate: askAgent } : {}),
  });
  const balancer = createBalancer({
    clock: systemClock,
    random: systemRandom,
    neighbours: ownNeighbours(() => table.path()),
  });
  const hook = hookNode(createRewrite({ table, balancer, caller: programIdentity() }));
  Object.defineProperty(globalThis, HOOKED, { value: hook });
}
