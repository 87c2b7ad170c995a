// A program that registers itself, and one that finds it: run "trilith agent -dev" first, then "node examples/greeter.mjs".
import { createServer } from "node:http";
import { advertise, find, list } from "trilith";

const server = createServer((request, response) => response.end(`hello from ${request.headers.host}\n`));
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const { port } = server.address();

const advertised = await advertise({ name: "greeter", port, address: "127.0.0.1", labels: { env: "prod" } });
const { endpoints } = await find("greeter", { env: "prod" });
for (const { address, port } of endpoints) console.log(await (await fetch(`http://${address}:${port}/`)).text());
console.log((await list()).map(({ name, passing }) => `${name}: ${passing} passing`).join("\n"));

await advertised.stop();
server.close();
server.closeAllConnections();
