// Who may take, replace and take away what somebody else has registered on this host.
import { describe, expect, test } from "vitest";
import { entryOf, host, service, ttl } from "../../test/support/agent-host.ts";
import type { Registration } from "../model/instance.ts";

describe("ownership", () => {
  test("higher ranks take over from lower ones; equals and lower ones are told who holds it", async () => {
    const { agent, directory } = await host();
    const from = (name: string, more: Partial<Registration> = {}): Registration =>
      service("web", { text: `${name}'s web`, ...more });
    await agent.adopt("file", { list: [from("file", { checks: [ttl({ id: "f" })] })], authority: "first-hand" });
    await agent.adopt("docker", { list: [from("docker", { port: 81 })], authority: "first-hand" });
    expect(entryOf(directory, "web")).toMatchObject({ port: 81, origin: { source: "docker" } });
    expect(agent.checks().size).toBe(0);
    await agent.adopt("process", { list: [from("process")], authority: "first-hand" });
    await agent.adopt("file", { list: [from("file")], authority: "first-hand" });
    expect(agent.complaints()).toEqual([
      {
        from: "file",
        about: "web",
        text: `the service id "web" on node Alpha is held by docker (docker's web) and also wanted by file (file's web): one of them has to use another id`,
      },
      {
        from: "process",
        about: "web",
        text: `the service id "web" on node Alpha is held by docker (docker's web) and also wanted by process (process's web): one of them has to use another id`,
      },
    ]);
    await agent.register("api", service("web", { port: 82 }));
    expect(entryOf(directory, "web")).toMatchObject({ port: 82, origin: { source: "api" } });
    await expect(agent.register("docker", from("docker"))).rejects.toMatchObject({
      code: "conflict",
      message: expect.stringMatching(/held by api .* wanted by docker \(docker's web\)/),
    });
    await expect(agent.deregister("docker", "web")).rejects.toMatchObject({ code: "conflict" });
    // Another source's list never takes it away.
    await agent.adopt("docker", { list: [], authority: "first-hand" });
    expect(entryOf(directory, "web")).toBeDefined();
  });

  test("what is freed goes to the source that wanted it", async () => {
    const { agent, directory, clock } = await host();
    await agent.register("api", service("web", { port: 82 }));
    await agent.adopt("file", { list: [service("web", { port: 80 })], authority: "first-hand" });
    expect(entryOf(directory, "web")?.port).toBe(82);
    await agent.deregister("api", "web");
    await clock.settle();
    expect(entryOf(directory, "web")).toMatchObject({ port: 80, origin: { source: "file" } });
    expect(agent.complaints()).toEqual([]);
  });

  test("check ids belong to somebody, too", async () => {
    const { agent } = await host();
    await agent.adopt("docker", { list: [service("a", { checks: [ttl({ id: "c" })] })], authority: "first-hand" });
    await agent.adopt("file", { list: [service("b", { checks: [ttl({ id: "c" })] })], authority: "first-hand" });
    expect([...agent.services().keys()]).toEqual(["a"]);
    expect(agent.complaints()[0]?.text).toMatch(/check id "c" .* held by docker .* wanted by file/);
    await expect(agent.registerCheck("api", { ...ttl({ id: "serfHealth" }), serviceId: "" })).rejects.toMatchObject({
      code: "conflict",
    });
  });
});
