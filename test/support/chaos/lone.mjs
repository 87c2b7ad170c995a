// As lone.py, in Node: connects once, waits for a line, then tries at most twice.
import { once as event } from "node:events";
import { get } from "node:http";

const [host] = process.argv.slice(2);

const once = () =>
  new Promise((resolve, reject) => {
    const request = get({ host, agent: false, signal: AbortSignal.timeout(1_000) }, (response) => {
      let text = "";
      response.on("data", (data) => {
        text += data;
      });
      response.on("end", () => resolve(text.trim()));
    });
    request.on("error", (error) => reject(error.cause ?? error));
  });

async function tries(most) {
  for (let number = 1; ; number++) {
    try {
      return `${await once()} at try ${number}`;
    } catch (error) {
      if (number === most) return `${error.code ?? error.name} ${error.message} at try ${number}`;
    }
  }
}

console.log(`ready: ${await tries(1)}`);
await event(process.stdin, "data");
console.log(`after: ${await tries(2)}`);
process.exit();
