// What the configuration no longer asks for goes at once, for the sources that need no peer's program; beside ZooKeeper and etcd: test/peers.
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, describe, it } from "vitest";
import { ImitatedConsul } from "../support/consul-imitation.ts";
import { toldRecursor } from "../support/dns-peers.ts";
import { goesWhenLessIsConfigured } from "../support/less-configured.ts";
import { ownFolder } from "../support/peers.ts";
import { answersFrom } from "../support/zone.ts";

const ending: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ending.splice(0).toReversed()) await end();
});
const THREE = [1, 2, 3];

describe("what the configuration no longer asks for goes at once", () => {
  it("of flat: a file and a folder", async () => {
    const folder = await ownFolder("less-flat");
    ending.push(() => folder.remove());
    await mkdir(join(folder.path, "lists"));
    const [going, staying] = [join(folder.path, "lists", "going"), join(folder.path, "staying")];
    await writeFile(going, THREE.map((n) => `192.0.2.${n}:80\n`).join(""));
    await writeFile(staying, THREE.map((n) => `198.51.100.${n}:80\n`).join(""));
    await goesWhenLessIsConfigured({
      ...{ protocol: "flat", going: "going", staying: "staying" },
      ...{ more: { files: [join(folder.path, "lists"), staying] }, less: { files: staying } },
    });
  });

  it("of dns-upstream: a name", async () => {
    const zone = ["going", "staying"].flatMap((name, i) =>
      THREE.map((n) => `${name}.example.com. 1 A 192.0.${i}.${n}`),
    );
    const recursor = await toldRecursor(answersFrom(() => zone));
    ending.push(() => recursor.stop());
    const [going, staying] = ["going", "staying"].map((service) => ({
      ...{ service, name: `${service}.example.com`, port: 80, resolvers: recursor.place },
    }));
    await goesWhenLessIsConfigured({
      ...{ protocol: "dns-upstream", going: "going", staying: "staying" },
      ...{ more: { services: [going, staying] }, less: { services: [staying] } },
    });
  });

  it("of consul-upstream: a service", async () => {
    const consul = new ImitatedConsul(10_000);
    for (const service of ["going", "staying"])
      for (const n of THREE)
        consul.register(`host-${n}`, `192.0.2.${n}`, { ID: `${service}-${n}`, Service: service, Port: 80 });
    await consul.start();
    ending.push(() => consul.stop());
    const upstream = (...services: string[]) => ({ upstreams: { url: consul.url, services } });
    await goesWhenLessIsConfigured({
      ...{ protocol: "consul-upstream", going: "going", staying: "staying" },
      ...{ more: upstream("going", "staying"), less: upstream("staying") },
    });
  });
});
