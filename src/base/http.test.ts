// HTTP from end to end: paths arrive as they were written.
import { spawnSync } from "node:child_process";
import { lstat, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { createHttp } from "./http.ts";

it.each([
  ["/a/%2E", "/a/%2E"],
  ["/a/%2E%2E?x=1", "/a/%2E%2E?x=1"],
  ["/a/%2e%2e/b", "/a/%2e%2e/b"],
  ["/a/../b?x", "/b?x"],
  ["/a%2Fb%0A%20c", "/a%2Fb%0A%20c"],
  ["/a b/ä", "/a%20b/%C3%A4"],
])("%s is asked for as %s", async (given, arrives) => {
  const http = createHttp();
  const server = await http.serve({ host: "127.0.0.1", port: 0 }, (request, response) => {
    response.end(request.url);
  });
  try {
    const response = await http.request({ url: `http://127.0.0.1:${server.port}${given}` });
    expect(await response.text()).toBe(arrives);
  } finally {
    await http.close();
    await server.close();
  }
});

it("takes over the file of a unix socket that a killed program left, and no other file", async () => {
  const folder = await mkdtemp(join(tmpdir(), "trilith-http-"));
  const http = createHttp();
  const path = join(folder, "agent.sock");
  try {
    // Ended by SIGKILL: nothing clears the file away.
    const script = `require("node:net").createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, "SIGKILL"))`;
    spawnSync(process.execPath, ["-e", script]);
    expect((await lstat(path)).isSocket()).toBe(true);
    const first = await http.serve({ path }, (_request, response) => void response.end("first"));
    await expect(http.serve({ path }, () => {})).rejects.toMatchObject({ code: "address-in-use" });
    const answer = await http.request({ url: "http://agent/", socketPath: path });
    expect(await answer.text()).toBe("first");
    await first.close();
    await writeFile(path, "precious");
    await expect(http.serve({ path }, () => {})).rejects.toMatchObject({ code: "address-in-use" });
    expect(await readFile(path, "utf8")).toBe("precious");
  } finally {
    await http.close();
    await rm(folder, { recursive: true });
  }
});

it("tells what could not be asked without its query, and a unix socket as such", async () => {
  const http = createHttp();
  const socketPath = join(tmpdir(), "trilith-http-nobody.sock");
  try {
    await expect(
      http.request({ url: "http://docker/events?filters=%7B%22type%22%3A%5B%5D%7D", socketPath }),
    ).rejects.toThrow(`GET /events of unix://${socketPath}: connect ENOENT ${socketPath}`);
    await expect(http.request({ url: "http://127.0.0.1:1/v1/list?token=secret", method: "PUT" })).rejects.toThrow(
      /^PUT http:\/\/127\.0\.0\.1:1\/v1\/list: connect ECONNREFUSED/,
    );
  } finally {
    await http.close();
  }
});
