// A program that answers HTTP on several ports, each with a service's name: DIR NAME:PORT…; /health fails while DIR/NAME.sick is there. Says "up" once all listen.
import { existsSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";

const [folder = "", ...words] = process.argv.slice(2);
const waiting = words.map((word) => {
  const [name = "", port = ""] = word.split(":");
  const server = createServer((request, response) => {
    const sick = request.url === "/health" && existsSync(join(folder, `${name}.sick`));
    response.writeHead(sick ? 503 : 200, { connection: "close" }).end(`${name}\n`);
  });
  return new Promise((listening, failed) => {
    server.once("error", failed);
    server.listen(Number(port), "::", listening);
  });
});
await Promise.all(waiting);
process.stdout.write("up\n");
