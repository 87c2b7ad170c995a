// An agent in a process of its own for bench/processes.ts: prints a line when it is ready, and the time whenever "bench" comes or goes.
import { createTrilith } from "../src/trilith.ts";

const agent = createTrilith({
  dev: true,
  node: "bench",
  httpPort: -1,
  protocols: { docker: false, file: false, dns: { port: -1 }, process: { environ: process.argv[2] === "on" } },
});
await agent.start();
await agent.settled(60_000);
console.log("ready");
const stop = new AbortController();
process.stdin.resume();
process.stdin.once("end", () => stop.abort());
let there = false;
try {
  for await (const { endpoints } of agent.lookup.follow({ service: "bench" }, stop.signal)) {
    if (endpoints.length > 0 === there) continue;
    there = !there;
    console.log(Date.now());
  }
} catch (error) {
  if (!stop.signal.aborted) throw error;
}
await agent.stop();
process.exit(0);
