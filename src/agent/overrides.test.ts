// Overrides: their words, whom they are about, what they change, and that they last.
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { asked, entryOf, host, service } from "../../test/support/agent-host.ts";
import type { SourceList } from "../contracts/source.ts";
import type { Registration } from "../model/instance.ts";
import { addWords, applyWords } from "../model/override-words.ts";

const ID = "3f2a9c71d0aa3f2a9c71d0aa3f2a9c71d0aa3f2a9c71d0aa3f2a9c71d0aa0000";
const container = (more: Partial<Registration> = {}): Registration =>
  service("host:web-1:80", {
    name: "web",
    tags: ["a", "b"],
    foreignId: `${ID}:80`,
    aka: ["web-1", ID],
    text: "container web-1 (3f2a9c71d0aa), port 80/tcp",
    ...more,
  });
const first = (...list: Registration[]): SourceList => ({ list, authority: "first-hand" });

describe("words", () => {
  const make = (...words: string[]) => applyWords(container({ labels: { x: "1" } }), words, (_kind, detail) => detail);
  test("say what a service is called, how it is found, weighed and checked", () => {
    expect(make("name=shop", "tags+=c,a", "tags-=b", "port=81", "address=10.0.0.1")).toMatchObject({
      ...{ name: "shop", tags: ["a", "c"], port: 81, address: "10.0.0.1" },
    });
    expect(make("weight=5")?.weights).toEqual({ passing: 5, warning: 1 });
    expect(make("tags=")?.tags).toEqual([]);
    expect({ ...make("label.a.b=v=w", "label.x=")?.labels }).toEqual({ "a.b": "v=w" });
    expect(make("check=none")?.checks).toEqual([]);
    expect(make("check=http:/health@5")?.checks).toMatchObject([
      { kind: "http", detail: { url: "/health" }, intervalMs: 5000 },
    ]);
    expect(make("hidden")).toBeUndefined();
    expect(make("hidden", "hidden=false")).toBeDefined();
  });

  test("a newer word takes the place of the one it contradicts", () => {
    expect(addWords(["name=a", "tags+=x,y"], ["name=b", "tags-=x"])).toEqual(["tags+=y", "name=b", "tags-=x"]);
    expect(addWords(["tags+=x"], ["tags=z"])).toEqual(["tags=z"]);
    expect(addWords(["hidden"], ["hidden=false"])).toEqual(["hidden=false"]);
  });

  test.each([
    ["", "expected one of name=, tags="],
    ["colour=red", "expected one of name=, tags="],
    ["name=", "expected a name without slashes"],
    ["port=70000", "expected a whole number from 0 to 65535"],
    ["weight=x", "expected a whole number"],
    ["weight+=1", "only tags can be added to"],
    ["tags+=", "expected at least one tag"],
    ["address=a b", "expected an IP address or host name"],
    ["check=script:/bin/sh", "expected check=none, check=tcp, check=http:/path"],
    ["check=http:", "expected check=none"],
    ["label.=x", "expected one of"],
    ["hidden=maybe", "expected hidden, hidden=true or hidden=false"],
  ])("%j is refused with what would be right", (word, right) => {
    expect(() => addWords([], [word])).toThrow(right);
  });

  test("any text is read or refused by name, and what was read can be read again", () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.string().map((text) => `label.a=${text}`),
        ),
        (word) => {
          let words: readonly string[];
          try {
            words = addWords([], [word]);
          } catch (error) {
            expect((error as { code?: string }).code).toBe("invalid");
            return;
          }
          expect(addWords([], words)).toEqual(words);
        },
      ),
    );
  });
});

describe("overrides", () => {
  test("hold by a container's name over its re-creation, and are undone by one call", async () => {
    const { agent, directory, clock } = await host();
    await agent.adopt("docker", first(container()));
    const held = await agent.override("web-1", ["name=shop", "tags+=c"], "ann");
    expect(held).toMatchObject({ for: "web-1", set: ["name=shop", "tags+=c"], by: "ann", atMs: clock.now() });
    expect(held.matches).toMatchObject([{ id: "host:web-1:80", service: "web", from: "docker", hidden: false }]);
    expect(entryOf(directory, "host:web-1:80")).toMatchObject({
      name: "shop",
      tags: ["a", "b", "c"],
      origin: { overridden: { by: [{ by: "ann" }], original: { name: "web", tags: ["a", "b"] } } },
    });
    await agent.adopt("docker", first());
    const anew = container({ foreignId: "other:80", aka: ["web-1", "other"] });
    await agent.adopt("docker", first(anew));
    expect(entryOf(directory, "host:web-1:80")?.name).toBe("shop");
    expect(await agent.undoOverride("WEB-1")).toBe(true);
    expect(await agent.undoOverride("web-1")).toBe(false);
    expect(entryOf(directory, "host:web-1:80")).toMatchObject({ name: "web", tags: ["a", "b"] });
    expect(entryOf(directory, "host:web-1:80")?.origin.overridden).toBeUndefined();
  });

  test("a container's ID, also cut short, stands for its name", async () => {
    const { agent } = await host();
    await agent.adopt("docker", first(container()));
    expect((await agent.override(ID.slice(0, 12), ["weight=3"], "ann")).for).toBe("web-1");
    expect(await agent.undoOverride(ID)).toBe(true);
    expect(agent.overrides()).toEqual([]);
  });

  test("last over restarts, without a flap and without a write", async () => {
    const { agent, directory, again } = await host();
    await agent.adopt("docker", first(container()));
    await agent.register("api", service("api-1", { name: "web" }));
    await agent.override("web", ["name=shop"], "ann");
    expect(entryOf(directory, "api-1")?.name).toBe("shop");
    const at = directory.view().index;
    await agent.stop();
    const next = await again();
    expect(directory.view().index).toBe(at);
    await next.adopt("docker", first(container()));
    await next.register("api", service("api-1", { name: "web" }));
    expect(directory.view().index).toBe(at);
    expect(next.overrides()).toMatchObject([{ matches: [{ id: "host:web-1:80" }, { id: "api-1" }] }]);
    await next.undoOverride("web");
    expect(entryOf(directory, "api-1")?.name).toBe("web");
    expect(entryOf(directory, "host:web-1:80")?.name).toBe("web");
  });

  test("undone before the source has told its list again, too", async () => {
    const { agent, directory, again } = await host();
    await agent.adopt("docker", first(container()));
    await agent.override("web", ["name=shop"], "ann");
    await agent.stop();
    const next = await again();
    await next.undoOverride("web");
    expect(entryOf(directory, "host:web-1:80")?.name).toBe("web");
    const at = directory.view().index;
    await next.adopt("docker", first(container()));
    expect(directory.view().index).toBe(at);
  });

  test("hidden is registered nowhere, whoever registers it, and comes back", async () => {
    const { agent, directory, again } = await host();
    await agent.register("api", service("api-1", { checks: [asked("told")] }));
    await agent.adopt("docker", first(container()));
    await agent.override("api-1", ["hidden"], "ann");
    await agent.override("web-1", ["hidden"], "ann");
    expect(agent.services().size).toBe(0);
    const graves = [...directory.view().list("grave")].map(({ why }) => why);
    expect(graves).toContainEqual(
      expect.objectContaining({ text: 'is hidden by the override for "web-1", set by ann', confirmed: true }),
    );
    await agent.register("api", service("api-1", { port: 81, checks: [asked("told")] }));
    expect(agent.services().size).toBe(0);
    await agent.stop();
    const next = await again();
    expect(next.overrides().map(({ matches }) => matches.map(({ id, hidden }) => [id, hidden]))).toEqual([
      [["api-1", true]],
      [],
    ]);
    await next.undoOverride("api-1");
    expect(entryOf(directory, "api-1")).toMatchObject({ port: 81 });
    expect([...next.checks().keys()]).toEqual(["service:api-1"]);
    await next.override("api-1", ["hidden"], "ann");
    await next.deregister("api", "api-1");
    await next.undoOverride("api-1");
    expect(next.services().size).toBe(0);
  });

  test("the closest one wins; files speak first; a list states them anew", async () => {
    const { agent, directory } = await host();
    await agent.adopt("docker", first(container()));
    await agent.adopt("file", {
      ...first(),
      overrides: [{ for: "web-1", set: ["weight=2", "name=f"], by: "o.json:1" }],
    });
    const now = () => entryOf(directory, "host:web-1:80");
    expect(now()).toMatchObject({ name: "f", weights: { passing: 2 } });
    await agent.override("web", ["name=by-name"], "ann");
    expect(now()?.name).toBe("f");
    await agent.override("web-1", ["name=by-container"], "ann");
    expect(now()?.name).toBe("by-container");
    await agent.override("host:web-1:80", ["name=by-id"], "ann");
    expect(now()?.name).toBe("by-id");
    expect(agent.overrides().map(({ from }) => from)).toEqual(["file", undefined, undefined, undefined]);
    await agent.adopt("file", first());
    expect(now()?.weights).toBeUndefined();
  });

  test("what a file says holds from the start of the next life on, until the file says something else", async () => {
    const { agent, directory, again } = await host();
    const said = { ...first(), overrides: [{ for: "web-1", set: ["name=filed"], by: "o.json:1" }] };
    await agent.adopt("file", said);
    await agent.adopt("docker", first(container()));
    const at = directory.view().index;
    await agent.stop();
    const next = await again();
    await next.adopt("docker", first(container()));
    await next.adopt("file", said);
    expect(entryOf(directory, "host:web-1:80")?.name).toBe("filed");
    expect(directory.view().index).toBe(at);
    await next.adopt("file", first());
    expect(entryOf(directory, "host:web-1:80")?.name).toBe("web");
    await next.stop();
    expect((await again()).overrides()).toEqual([]);
  });

  test("checks are replaced and come back", async () => {
    const { agent } = await host();
    await agent.register("api", service("web", { checks: [asked("told", { id: "own" })] }));
    await agent.registerCheck("api", { ...asked("told", { id: "extra" }), serviceId: "web" });
    await agent.override("web", ["check=none"], "ann");
    expect([...agent.checks().keys()]).toEqual(["extra"]);
    await agent.undoOverride("web");
    expect([...agent.checks().keys()].sort()).toEqual(["extra", "own"]);
  });

  test("what means nothing is refused; what matches nothing is taken with a note", async () => {
    const { agent } = await host();
    await expect(agent.override("web", ["colour=red"], "ann")).rejects.toMatchObject({ code: "invalid" });
    await expect(agent.override(" ", ["hidden"], "ann")).rejects.toMatchObject({ code: "invalid" });
    await agent.adopt("docker", first(container()));
    await expect(agent.override("web", ["check=http:/x"], "ann")).rejects.toThrow("no way to run http checks");
    expect(agent.overrides()).toEqual([]);
    expect((await agent.override("nobody", ["hidden"], "ann")).matches).toEqual([]);
  });

  test("what is on external nodes is overridden alike", async () => {
    const { agent, directory } = await host();
    const printer = service("ipp", { external: { node: { name: "printer", address: "192.0.2.7" } } });
    await agent.adopt("mdns", { list: [printer], authority: "second-hand" });
    await agent.override("ipp", ["name=print"], "ann");
    expect(entryOf(directory, "ipp", "printer")?.name).toBe("print");
    await agent.override("ipp", ["hidden"], "ann");
    expect(entryOf(directory, "ipp", "printer")).toBeUndefined();
    await agent.undoOverride("ipp");
    expect(entryOf(directory, "ipp", "printer")?.name).toBe("ipp");
  });
});

test("of two overrides that are said at once for one service both hold", async () => {
  const { agent } = await host();
  await agent.register("api", service("a"));
  await Promise.all([agent.override("a", ["tags+=x"], "one"), agent.override("a", ["weight=5"], "two")]);
  expect(agent.overrides()).toMatchObject([{ for: "a", set: ["tags+=x", "weight=5"] }]);
});
