// Every recorded case of Registrator that is to be the same, replayed against a real dockerd; and every recorded life, step by step.
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { cases } from "../../golden/registrator-cases.ts";
import { lives as expectedLives } from "../../golden/registrator-lifecycles.ts";
import { furnish, isReplayed, lives, replayLife, replayStatic } from "../../golden/registrator-live.ts";
import { type Docker, startDocker } from "../../support/docker.ts";
import { triedBefore } from "../../support/own-name.ts";
import { havePrograms } from "../../support/peers.ts";

const present = await havePrograms("dockerd", "docker", "iptables", "ip");

describe.runIf(present)("the recorded containers on a real dockerd", () => {
  let docker: Docker;
  beforeAll(async () => {
    docker = await startDocker("cases");
    await furnish(docker);
  });
  beforeEach(async (context) => {
    if (triedBefore(context)) await docker.clear();
  });
  afterAll(() => docker?.remove());

  it.each(cases.filter(isReplayed).map((recorded) => [recorded.name, recorded] as const))("%s", async (_, recorded) => {
    const result = await replayStatic(docker, recorded);
    expect(result.got).toEqual(result.wanted);
  });

  it("all recorded lives have an expectation, and no expectation is about nothing", () => {
    expect(lives.map(({ name }) => name).sort()).toEqual(Object.keys(expectedLives).sort());
  });

  it.each(lives.map((life) => [life.name, life] as const))("%s", async (name, life) => {
    await replayLife(docker, life, expectedLives[name] ?? "same");
  });
});
