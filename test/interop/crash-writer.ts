// The program that crash tests kill: writes to a data folder under load and says what was acknowledged.
import { writeSync } from "node:fs";
import { systemClock } from "../../src/base/clock.ts";
import { openDurable } from "../../src/base/durable.ts";
import { silentLog } from "../../src/base/log.ts";
import { createMetrics } from "../../src/base/metrics.ts";
import { systemRandom } from "../../src/base/random.ts";
import { createDirectory } from "../../src/directory/local.ts";
import { lmdbStorage } from "../../src/directory/storage/lmdb.ts";
import { changesOf, counterOf } from "./crash-content.ts";

const [folder = "", writers = "1", rounds = "Infinity"] = process.argv.slice(2);
const directory = createDirectory(lmdbStorage(await openDurable(folder)), {
  clock: systemClock,
  random: systemRandom,
  log: silentLog,
  metrics: createMetrics(),
});
await directory.start();
writeSync(1, "ready\n");
await Promise.all(
  Array.from({ length: Number(writers) }, async (_, writer) => {
    for (let left = Number(rounds); left > 0; left--) {
      const n = counterOf(directory.view(), writer) + 1;
      const written = await directory.write(changesOf(writer, n));
      if (written.result !== "written") throw new Error(written.result);
      writeSync(1, `ack ${writer} ${n}\n`);
    }
  }),
);
await directory.stop();
process.exit(0);
