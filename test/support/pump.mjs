// A client and a server in a process of their own: prints the server's port, reads a proxy's port, sends so many megabytes there and says when they arrived.
import { connect, createServer } from "node:net";

const bytes = Number(process.argv[2]) * 1_048_576;
const chunk = Buffer.alloc(1_048_576);
let arrived = 0;
const server = createServer((socket) => {
  socket.on("data", (data) => {
    arrived += data.length;
  });
  socket.on("end", () => {
    console.log(`arrived ${arrived}`);
    process.exit(0);
  });
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
process.stdin.once("data", (port) => {
  const socket = connect(Number(port), "127.0.0.1");
  let sent = 0;
  const push = () => {
    while (sent < bytes) {
      sent += chunk.length;
      if (!socket.write(chunk)) {
        socket.once("drain", push);
        return;
      }
    }
    socket.end();
  };
  push();
});
