// A program with ioredis that knows nothing of Trilith: counts in Redis until its input ends, each time on the one connection and on a new one.
const Redis = require("ioredis");

const options = { host: "redis.service.consul", port: 6379, retryStrategy: () => 20 };
const failures = [];
const ports = new Set();
let counted = 0;
let over = false;
process.stdin.resume().once("end", () => {
  over = true;
});

async function main() {
  const kept = new Redis(options);
  kept.on("error", () => {});
  process.stdout.write("started\n");
  while (!over) {
    const fresh = new Redis(options);
    fresh.on("error", () => {});
    try {
      for (const client of [kept, fresh]) {
        await client.incr("counted");
        counted++;
        const [, port] = /tcp_port:(\d+)/.exec(await client.info("server"));
        if (!ports.has(port)) process.stdout.write(`${port}\n`);
        ports.add(port);
      }
    } catch (error) {
      failures.push(String(error));
    }
    fresh.disconnect();
  }
  kept.disconnect();
  process.stdout.write(`${JSON.stringify({ counted, failures, ports: [...ports] })}\n`);
}
void main();
