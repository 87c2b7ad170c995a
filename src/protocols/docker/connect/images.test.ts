// Whose labels they are: the engine is asked for the image of containers that want something, and whatever it says costs the container nothing else.
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { FakeEngine, json } from "../../../../test/support/docker-engine.ts";
import { ownFolder } from "../../../../test/support/peers.ts";
import { systemClock } from "../../../base/clock.ts";
import { createHttp } from "../../../base/http.ts";
import { createEngine, type Engine } from "../client.ts";
import { parseHost } from "../endpoint.ts";

describe("labels of images", () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let fake: FakeEngine;
  let engine: Engine;
  const http = createHttp();
  const serving = createHttp();
  const stop = new AbortController();
  beforeEach(async () => {
    folder = await ownFolder("docker-images");
    fake = new FakeEngine(join(folder.path, "docker.sock"));
    await fake.start(serving);
    engine = createEngine(parseHost(`unix://${fake.path}`, "test"), http, systemClock, stop.signal);
  });
  afterEach(async () => {
    await http.close();
    await fake.stop();
    await serving.close();
    await folder.remove();
  });
  const add = (name: string, image: string, labels: Readonly<Record<string, string>>): string =>
    fake.add(name, 80, (raw) => {
      Object.assign(raw, { Image: image });
      Object.assign(raw["Config"] ?? {}, { Labels: labels });
    });

  it("are asked for where a container wants something, once for each image", async () => {
    fake.images.set("sha256:1", { "connect.80": "web" });
    const [a, b, plain] = [
      add("a", "sha256:1", { "connect.80": "web" }),
      add("b", "sha256:1", { "connect.80": "web", "connect.81": "api" }),
      add("plain", "sha256:2", { other: "x" }),
    ];
    expect((await engine.inspect(a))?.imageLabels).toEqual({ "connect.80": "web" });
    expect((await engine.inspect(b))?.imageLabels).toEqual({ "connect.80": "web" });
    expect((await engine.inspect(plain))?.imageLabels).toBeUndefined();
    expect(fake.askedImages).toEqual(["sha256:1"]);
  });

  it("of an image that was removed are nobody's; where the engine does not tell, that is told, and asked again", async () => {
    const id = add("a", "sha256:1", { "connect.80": "web" });
    expect((await engine.inspect(id))?.imageLabels).toBeUndefined();
    fake.image = json(403, { message: "images are not for you" });
    const refused = await engine.inspect(id);
    expect(refused).toMatchObject({ id, name: "a", imageLabels: expect.stringContaining("images are not for you") });
    fake.image = undefined;
    fake.images.set("sha256:1", {});
    expect((await engine.inspect(id))?.imageLabels).toEqual({});
  });
});
