// Ports of this host that accept no connection and refuse none: what tries to connect gets no answer.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { connect, type Socket } from "node:net";

/** So many are silent until `stop`: a stopped process listens there, and its queues are full. */
export async function silentPorts(count: number): Promise<{ readonly ports: readonly number[]; stop(): void }> {
  const script = `
    const net = require("node:net");
    const ports = [];
    for (let i = 0; i < ${count}; i++) {
      const server = net.createServer().listen({ port: 0, host: "127.0.0.1", backlog: 1 }, () => {
        ports.push(server.address().port);
        if (ports.length === ${count}) console.log(ports.join());
      });
    }`;
  const child = spawn(process.execPath, ["-e", script], { stdio: ["ignore", "pipe", "inherit"] });
  const fillers: Socket[] = [];
  const stop = (): void => {
    for (const filler of fillers) filler.destroy();
    child.kill("SIGKILL");
  };
  try {
    const ports = String((await once(child.stdout, "data"))[0])
      .split(",")
      .map(Number);
    child.kill("SIGSTOP");
    // Two fit into a queue of one; what comes later gets no answer.
    for (const port of ports)
      for (let i = 0; i < 4; i++) {
        const filler = connect(port, "127.0.0.1").on("error", () => {});
        fillers.push(filler);
        if (i < 2) await once(filler, "connect");
      }
    return { ports, stop };
  } catch (error) {
    stop();
    throw error;
  }
}
