// Connects again and again, one connection after the other, and prints how long each took: host, port and number as arguments.
import { connect } from "node:net";

const [host, port, count] = process.argv.slice(2);
const options = { host, port: Number(port) };
const one = () =>
  new Promise((resolve, reject) => {
    const began = process.hrtime.bigint();
    const socket = connect(options, () => {
      const took = Number(process.hrtime.bigint() - began);
      socket.resetAndDestroy();
      socket.once("close", () => resolve(took));
    });
    socket.once("error", reject);
  });
for (let i = 0; i < 2_000; i++) await one();
const cpu = process.cpuUsage();
const took = [];
for (let i = 0; i < Number(count); i++) took.push(await one());
const { user, system } = process.cpuUsage(cpu);
took.sort((a, b) => a - b);
process.stdout.write(
  `${JSON.stringify({ medianUs: took[took.length >> 1] / 1_000, cpuUs: (user + system) / took.length })}\n`,
);
