// An agent in a process of its own for bench/docker-start.ts: Docker in, DNS out, kept on disk; prints its DNS port, lives until its input ends.
import { createTrilith } from "../src/trilith.ts";

const [host = "", dataDir = ""] = process.argv.slice(2);
const agent = createTrilith({
  node: "bench",
  dataDir,
  httpPort: -1,
  protocols: { docker: { host, enabled: true, hostname: "bench", ip: "192.0.2.1" }, dns: { port: 0 } },
});
await agent.start();
console.log(/:(\d+)$/.exec(agent.self.listening.get("dns") ?? "")?.[1]);
process.stdin.resume();
process.stdin.once("end", () => void agent.stop().then(() => process.exit(0)));
