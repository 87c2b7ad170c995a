// Registrator's translation against its recordings: every static case has an expectation, and its pure functions their tables.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Container, readContainer } from "../../src/protocols/docker/inspect.ts";
import { healthCheckId, translate } from "../../src/protocols/docker/registrator.ts";
import { parseTemplate } from "../../src/protocols/docker/tags-template.ts";
import { combineTags, serviceMetadata } from "../../src/wire/service-env.ts";
import {
  cases,
  defaults,
  got,
  HOST,
  HOST_IP,
  type Recorded,
  read,
  translateAll,
  wanted,
} from "./registrator-cases.ts";
import { expectations } from "./registrator-expectations.ts";

describe("the recorded containers", () => {
  it("all have an expectation, and no expectation is about nothing", () => {
    expect(Object.keys(expectations).sort()).toEqual(cases.map(({ name }) => name).sort());
  });

  for (const recorded of cases) {
    const expectation = expectations[recorded.name];
    if (expectation === "same" || expectation === "compat-only")
      it(`${recorded.name}: ${expectation}`, () => {
        const variants = wanted(recorded);
        const compat = got(translateAll(recorded, true).registrations);
        const matching = variants.find((variant) => JSON.stringify(variant) === JSON.stringify(compat)) ?? variants[0];
        expect(compat).toEqual(matching);
        const usual = got(translateAll(recorded).registrations);
        if (expectation === "same") expect(usual).toEqual(matching);
        else expect(usual).not.toEqual(matching);
      });
    else if (recorded.inspect !== null && Object.keys(recorded.inspect).length > 0)
      it(`${recorded.name}: differs`, () => {
        const [variant] = wanted(recorded);
        const usual = got(translateAll(recorded).registrations);
        // Every difference is one of a registration, never a missing service.
        expect(usual.length).toBeGreaterThanOrEqual(Math.max(1, variant?.length ?? 0));
        expect(usual).not.toEqual(variant);
      });
  }
});

const named = (name: string): Recorded => {
  const found = cases.find((one) => one.name === name);
  if (found === undefined) throw new Error(`no case ${name}`);
  return found;
};

describe("what differs from Registrator, and how", () => {
  it("labels beyond Consul's limits are left out by name, the service and its other labels stay", () => {
    const long = translateAll(named("attr-value-513"));
    expect(long.registrations[0]?.labels).toEqual({});
    expect(long.complaints[0]).toContain("SERVICE_FOO is not a label: its value has 513 bytes, 512 are allowed");
    const many = translateAll(named("attr-65-keys"));
    expect(Object.keys(many.registrations[0]?.labels ?? {})).toHaveLength(64);
    expect(many.complaints).toEqual([expect.stringContaining("SERVICE_K64 is not a label")]);
    const reserved = translateAll(named("attr-consul-prefix"));
    expect({ ...reserved.registrations[0]?.labels }).toEqual({ consul: "x" });
    expect(reserved.complaints[0]).toContain('keys that begin with "consul-" are reserved');
    for (const name of [
      "attr-key-dot",
      "attr-key-too-long",
      "attr-no-name-after-prefix",
      "attr-port-number-underscore",
    ]) {
      const one = translateAll(named(name));
      expect(one.registrations).toHaveLength(1);
      expect(one.complaints).toHaveLength(1);
    }
  });

  it("a wrong check attribute costs neither the service nor the check", () => {
    const soon = translateAll(named("check-interval-bogus"));
    expect(soon.registrations[0]?.checks[0]).toMatchObject({ kind: "tcp", intervalMs: 10_000 });
    expect(soon.complaints[0]).toContain('SERVICE_CHECK_INTERVAL="soon"');
    const status = translateAll(named("check-initial-status-bogus"));
    expect(status.registrations[0]?.checks[0]).not.toHaveProperty("initial");
    expect(status.complaints[0]).toContain("passing, warning or critical");
    const never = translateAll(named("check-deregister-after-bogus"));
    expect(never.registrations[0]?.checks[0]).not.toHaveProperty("deregisterAfterMs");
    expect(never.complaints).toHaveLength(1);
  });

  it("scripts are shell lines, run only where scripts are on", () => {
    const script = translateAll(named("check-script"));
    expect(script.registrations[0]?.checks[0]?.detail).toEqual({
      args: ["/bin/sh", "-c", `curl --silent --fail ${HOST_IP}:21080/x`],
    });
    const off = translateAll(named("check-script-consul-scripts-disabled"));
    expect(off.registrations[0]?.checks).toEqual([]);
    expect(off.complaints[0]).toContain("script checks are switched off");
  });

  it("IPv6 addresses in checks stand in brackets", () => {
    expect(translateAll(named("check-tcp-v6-real")).registrations[0]?.checks[0]?.detail).toMatchObject({
      address: "[2001:db8::7]:21080",
    });
    expect(translateAll(named("check-http-v6-real")).registrations[0]?.checks[0]?.detail).toMatchObject({
      url: "http://[2001:db8::7]:21080/",
    });
  });

  it("a host name that resolves to nothing leaves the node's own address", () => {
    expect(translateAll(named("hostname-unresolvable")).registrations[0]?.address).toBe("");
  });

  it("of several ports with one ID the first is registered and the others are reported", () => {
    const group = translateAll(named("id-general-group"));
    expect(group.registrations.map(({ name }) => name)).toEqual(["bbexp3-53"]);
    expect(group.complaints).toHaveLength(2);
    expect(group.complaints[0]).toContain("SERVICE_80_ID");
  });
});

describe("beyond Registrator", () => {
  const plain = (name = "port-fixed"): { raw: Record<string, unknown>; container: Container } => {
    const raw = structuredClone(read(`inspect/${name}.json`)) as Record<string, unknown>;
    return { raw, container: readContainer(raw) };
  };

  it("all addresses of an instance, with their reach", () => {
    const [one] = translate(plain().container, defaults).registrations;
    expect(one?.addresses).toEqual([
      { host: HOST_IP, port: 21080, reach: "public" },
      { host: "172.17.0.2", port: 80, reach: "bridge", network: "172.17.0.0/16" },
    ]);
    expect(translate(plain().container, { ...defaults, compat: true }).registrations[0]).not.toHaveProperty(
      "addresses",
    );
  });

  it("the driver of a network decides from where addresses on it are reached", () => {
    const { container } = plain("net-custom-bridge-published");
    const on = (driver: string): unknown =>
      translate(
        { ...container, networks: container.networks.map((network) => ({ ...network, driver })) },
        defaults,
      ).registrations[0]?.addresses?.find(({ port }) => port === 80)?.reach;
    expect(["bridge", "overlay", "macvlan"].map(on)).toEqual(["bridge", "overlay", "lan"]);
  });

  it("words that come to nothing are told, with what would be right", () => {
    const said = (env: string[], change: (raw: Record<string, Record<string, unknown>>) => void = () => {}): string[] => {
      const { raw } = plain();
      (raw["Config"] as Record<string, unknown>)["Env"] = env;
      change(raw as Record<string, Record<string, unknown>>);
      return translate(readContainer(raw), defaults).complaints.map(({ text }) => text);
    };
    expect(said(["SERVICE_NAME=web", "SERVICE_80_NAME=api", "SERVICE_CHECK_HTTP=/", "SERVICE_CHECK_INTERVAL=5s"])).toEqual(
      [],
    );
    expect(said(["SERVICE_CHECK_HTPP=/", "SERVICE_CHECK_INTERVAL=5s"])).toEqual([
      "SERVICE_CHECK_HTPP says nothing about a check; right would be SERVICE_CHECK_HTTP",
    ]);
    expect(said(["SERVICE_CHECK_INTERVAL=5s"])).toEqual([
      expect.stringMatching(/^SERVICE_CHECK_INTERVAL says how to check, but nothing says what; right would be one of SERVICE_CHECK_HTTP,/),
    ]);
    expect(said(["SERVICE_8080_NAME=web"])).toEqual([
      "SERVICE_8080_NAME is about port 8080, which is not one of the container's own (80); right would be the number inside the container",
    ]);
    expect(said(["SERVICE_NAME=my shop!"])).toEqual([expect.stringMatching(/^its name "my shop!" is found over HTTP only: /)]);
    const unpublished = (raw: Record<string, Record<string, unknown>>): void => {
      (raw["NetworkSettings"] as Record<string, unknown>)["Ports"] = { "80/tcp": null };
    };
    expect(said(["SERVICE_NAME=web"], unpublished)).toEqual([
      expect.stringMatching(/^not registered: it has a SERVICE_NAME, but none of its ports \(80\) is published; right would be docker run -p/),
    ]);
    expect(said([], unpublished)).toEqual([]);
    expect(said(["SERVICE_NAME=web", "SERVICE_IGNORE=1"], unpublished)).toEqual([]);
  });

  it("many names for one port: each a service, the further ones as well as the first; with compat a label", () => {
    const named = (env: string[], options = defaults, name?: string) => {
      const { raw } = plain(name);
      (raw["Config"] as Record<string, unknown>)["Env"] = env;
      return translate(readContainer(raw), options).registrations;
    };
    const two = named(["SERVICE_NAME=shop", "SERVICE_NAMES=cart, till,shop", "SERVICE_CHECK_TCP=1"]);
    expect(two.map(({ id, name }) => [id, name])).toEqual([
      [`${HOST}:c0:80`, "shop"],
      [`${HOST}:c0:80:cart`, "cart"],
      [`${HOST}:c0:80:till`, "till"],
    ]);
    expect(two.map(({ checks }) => checks[0]?.kind)).toEqual(["tcp", "alias", "alias"]);
    expect(two[1]?.checks[0]?.detail).toEqual({ node: "", service: `${HOST}:c0:80` });
    expect(new Set(two.map(({ foreignId }) => foreignId)).size).toBe(3);
    expect(Object.keys(two[0]?.labels ?? {})).not.toContain("names");
    expect(named(["SERVICE_NAMES=a,b"]).map(({ name }) => name)).toEqual(["a", "b"]);
    expect(named(["SERVICE_NAMES=a,b"], { ...defaults, explicit: true })).toHaveLength(2);
    const compat = named(["SERVICE_NAME=shop", "SERVICE_NAMES=cart"], { ...defaults, compat: true });
    expect(compat.map(({ name, labels }) => [name, labels["names"]])).toEqual([["shop", "cart"]]);
    // In a group names get the port as SERVICE_NAME does, unless they were given for the port.
    const group = named(["SERVICE_NAMES=a", "SERVICE_80_NAMES=web"], defaults, "port-P-group");
    expect(group.map(({ name }) => name).sort()).toEqual(["a-443", "a-53", "web"]);
  });

  it.each(["SERVICE_CHECK_DOCKER", "SERVICE_CHECK_DOCKER_SCRIPT", "SERVICE_DOCKER_CHECK_SCRIPT", "SERVICE_80_CHECK_DOCKER"])(
    "%s runs inside the container, by the shell that is asked for",
    (key) => {
      const { raw, container } = plain();
      const check = (...env: string[]) => {
        (raw["Config"] as Record<string, unknown>)["Env"] = [`${key}=wget -q localhost`, ...env];
        return translate(readContainer(raw), defaults).registrations[0]?.checks[0];
      };
      expect(check()).toMatchObject({
        kind: "docker",
        intervalMs: 10_000,
        detail: { container: container.id, args: ["/bin/sh", "-c", "wget -q localhost"] },
      });
      expect(check("SERVICE_CHECK_DOCKER_SHELL=/bin/bash", "SERVICE_CHECK_INTERVAL=3s")).toMatchObject({
        intervalMs: 3_000,
        detail: { args: ["/bin/bash", "-c", "wget -q localhost"] },
      });
    },
  );

  it("names by a template, and groups without the port behind the name", () => {
    const template = parseTemplate('{{toUpper "x"}}{{.Name}}');
    const options = { ...defaults, name: (c: Container) => template(c.raw), portSuffix: false };
    expect(translate(plain().container, options).registrations[0]?.name).toBe("X/c0");
    const group = translate(plain("port-P-group").container, { ...defaults, portSuffix: false }).registrations;
    expect(group.map(({ name }) => name)).toEqual(["bbexp3", "bbexp3", "bbexp3"]);
    const bad = parseTemplate("{{.Nope}}");
    const { registrations, complaints } = translate(plain().container, { ...defaults, name: (c) => bad(c.raw) });
    expect(registrations[0]?.name).toBe("bbexp1");
    expect(complaints[0]?.text).toContain("without the name of the template docker.name: template:");
  });

  it("a label that is not there is no tag and no name; with compat Go's word for it is the tag", () => {
    const template = parseTemplate("{{.Config.Labels.nope}},a");
    const options = { ...defaults, tags: (c: Container) => template(c.raw), name: (c: Container) => template(c.raw).slice(0, -2) };
    const [one] = translate(plain().container, options).registrations;
    expect([one?.tags, one?.name]).toEqual([["a"], "bbexp1"]);
    expect(translate(plain().container, { ...options, compat: true }).registrations[0]?.tags).toEqual(["a", "<no value>"]);
  });

  it("another host's engine: part of the identity, and its own networks are not offered", () => {
    const { container } = plain();
    const [one] = translate(container, { ...defaults, engine: "far/AAAA", remote: true }).registrations;
    expect(one?.foreignId).toBe(`${container.id}:80/tcp@far/AAAA`);
    expect(one).not.toHaveProperty("addresses");
  });

  it("identity and a sentence for people", () => {
    const { container } = plain();
    const [one] = translate(container, defaults).registrations;
    expect(one?.foreignId).toBe(`${container.id}:80/tcp`);
    expect(one?.text).toBe(`container c0 (${container.id.slice(0, 12)}), port 80/tcp`);
  });

  it("HEALTHCHECK becomes a pushed check, critical until healthy, and none with compat", () => {
    const { raw } = plain();
    (raw["State"] as Record<string, unknown>)["Health"] = { Status: "starting", FailingStreak: 0, Log: [] };
    const container = readContainer(raw);
    const [one] = translate(container, defaults).registrations;
    expect(one?.checks).toMatchObject([{ id: healthCheckId(`${HOST}:c0:80`), kind: "none", initial: "critical" }]);
    expect(translate(container, { ...defaults, compat: true }).registrations[0]?.checks).toEqual([]);
  });

  it("a container that shares the network of one that is not there is registered and reported", () => {
    const { raw } = plain();
    (raw["HostConfig"] as Record<string, unknown>)["NetworkMode"] = "container:gone";
    const { registrations, complaints } = translate(readContainer(raw), defaults);
    expect(registrations).toHaveLength(1);
    expect(complaints[0]?.text).toContain("container:gone");
  });

  it("a network mode that is a network's ID is found, too", () => {
    const { raw } = plain();
    (raw["HostConfig"] as Record<string, unknown>)["NetworkMode"] = "n".repeat(64);
    (raw["NetworkSettings"] as Record<string, unknown>)["Networks"] = {
      back: { NetworkID: "n".repeat(64), IPAddress: "172.30.7.5", IPPrefixLen: 24 },
    };
    expect(translate(readContainer(raw), defaults).registrations[0]?.address).toBe("172.30.7.5");
  });

  it("names like __proto__ are ordinary labels", () => {
    const { raw } = plain();
    (raw["Config"] as Record<string, unknown>)["Env"] = ["SERVICE___proto__=x", "SERVICE_CONSTRUCTOR=y"];
    const [one] = translate(readContainer(raw), defaults).registrations;
    expect(Object.entries(one?.labels ?? {})).toEqual([
      ["__proto__", "x"],
      ["constructor", "y"],
    ]);
  });

  it("a template that does not fit costs the tags, not the service", () => {
    const tags = parseTemplate("{{.Nope}}");
    const { registrations, complaints } = translate(plain().container, { ...defaults, tags: (c) => tags(c.raw) });
    expect(registrations).toHaveLength(1);
    expect(complaints[0]?.text).toContain("can't evaluate field Nope");
  });

  it("never throws, and never registers what Consul would refuse, whatever containers say", () => {
    const texts = fc.oneof(
      fc.string(),
      fc.constantFrom("SERVICE_NAME=x", "SERVICE_80_ID=\u0000", "SERVICE_CHECK_HTTP=//", "SERVICE_CHECK_TTL=1e9"),
    );
    const keys = fc.constantFrom(
      "NAME",
      "80_NAME",
      "CHECK_HTTP",
      "CHECK_TTL",
      "CHECK_INTERVAL",
      "CHECK_SCRIPT",
      "TAGS",
      "consul-a",
      "",
      "é",
      "CHECK_GRPC",
    );
    fc.assert(
      fc.property(
        fc.array(
          fc.oneof(
            texts,
            fc.tuple(keys, fc.string()).map(([k, v]) => `SERVICE_${k}=${v}`),
          ),
        ),
        fc.dictionary(
          fc.oneof(
            texts,
            keys.map((k) => `SERVICE_${k}`),
          ),
          fc.string(),
        ),
        fc.boolean(),
        (env, labels, internal) => {
          const { raw } = plain();
          Object.assign(raw["Config"] as object, { Env: env, Labels: labels });
          for (const one of translate(readContainer(raw), { ...defaults, internal }).registrations) {
            expect(Object.keys(one.labels).every((key) => /^[A-Za-z0-9_-]{1,128}$/.test(key))).toBe(true);
            expect(Object.values(one.labels).every((value) => Buffer.byteLength(value) <= 512)).toBe(true);
            expect(one.name).not.toBe("");
          }
        },
      ),
    );
  });
});

describe("Registrator's pure functions", () => {
  const units = read("units.json") as {
    combineTags_one: { in: string; out: string[] }[];
    combineTags_many: { in: string[]; out: string[] }[];
    serviceMetaData: {
      env: string[] | null;
      labels: Record<string, string> | null;
      port: string;
      metadata: Record<string, string>;
      from_port: Record<string, boolean>;
    }[];
  };
  it("combineTags", () => {
    for (const { in: text, out } of units.combineTags_one) {
      expect(combineTags([text], true), text).toEqual(out);
      expect(combineTags([text], false), text).toEqual([...out].reverse());
    }
    for (const { in: texts, out } of units.combineTags_many) expect(combineTags(texts, true)).toEqual(out);
  });
  it("serviceMetaData", () => {
    for (const { env, labels, port, metadata, from_port } of units.serviceMetaData) {
      const { values, fromPort } = serviceMetadata(env ?? [], labels ?? {}, port);
      expect(Object.fromEntries(values)).toEqual(metadata);
      expect([...fromPort]).toEqual(Object.keys(from_port));
    }
  });
});
