// A back end of the chaos test, or several: answers every connection with its host's name, on ports that the system chooses and this prints.
import { createServer } from "node:net";

const [name, address, count = "1"] = process.argv.slice(2);
const body = `${name}\n`;
for (let i = 0; i < Number(count); i++) {
  const server = createServer((socket) => {
    socket.on("error", () => {});
    socket.once("data", () =>
      socket.end(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`),
    );
  });
  server.listen(0, address, () => console.log(server.address().port));
}
