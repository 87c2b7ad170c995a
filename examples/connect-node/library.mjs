// The same by the library, without the hook: a socket by labels, and an agent for fetch: "node examples/connect-node/library.mjs" while server.mjs runs.
import { connect } from "trilith";
import { install } from "trilith/undici";

const socket = await connect("web", { labels: { env: "prod" } });
socket.end("GET / HTTP/1.0\r\n\r\n");
const answer = await socket.setEncoding("utf8").toArray();
console.log(answer.join("").split("\r\n\r\n")[1].trim());

const agent = install();
console.log((await (await fetch("http://web.service.consul/")).text()).trim());
const { body } = await agent.request({ origin: "trilith://web?env=prod", path: "/", method: "GET" });
console.log((await body.text()).trim());
