// A program that knows nothing of Trilith, and no port either: "node --import trilith/hook examples/connect-node/app.mjs" while server.mjs runs.
import { get } from "node:http";

console.log((await (await fetch("http://web.service.consul/")).text()).trim());
get("http://web.service.consul/", (response) => response.pipe(process.stdout));
