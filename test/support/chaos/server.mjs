// A back end of the chaos test: answers every connection with its host's name, on a port that the system chooses.
import { createServer } from "node:net";

const [name, address] = process.argv.slice(2);
const body = `${name}\n`;
createServer((socket) => {
  socket.on("error", () => {});
  socket.once("data", () =>
    socket.end(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`),
  );
}).listen(0, address);
