// HTTP from end to end: paths arrive as they were written.
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
