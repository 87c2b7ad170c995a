// A service at whatever port is free, for app.mjs and library.mjs: run "trilith agent -dev" first, then "node examples/connect-node/server.mjs", twice if you like.
import { createServer } from "node:http";
import { advertise } from "trilith";

const server = createServer((_, response) => response.end(`hello from port ${port}\n`));
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const { port } = server.address();
const advertised = await advertise({ name: "web", port, address: "127.0.0.1", labels: { env: "prod" } });
console.log(`web is at port ${port}`);

for (const signal of ["SIGINT", "SIGTERM"])
  process.once(signal, async () => {
    await advertised.stop();
    server.close();
    server.closeIdleConnections();
  });
