// A server that speaks first, as a database does: says its name and ends. Arguments: port, name.
import { createServer } from "node:net";

const [port, name] = process.argv.slice(2);
createServer((socket) => {
  socket.on("error", () => {});
  // What it says comes a moment later, so that it is often killed in between.
  setTimeout(() => socket.end(`${name}\n`), 5);
}).listen(Number(port), "127.0.0.1", () => console.log("ready"));
