// The ways out: what each shows of all services, and how a service looks there.
import { readFile } from "node:fs/promises";
import { find, list } from "../../../src/index.ts";
import { runToEnd } from "../program.ts";
import { connecting } from "./connecting.ts";
import { AGENT, CLIENT_HOST, type Machine, OTHER, TAILNET } from "./machine.ts";
import type { Entry, Exit, Seen } from "./model.ts";

/** All of them. */
export function exitsOf(machine: Machine): readonly Exit[] {
  return [
    ...byHttp(machine),
    ...byDns(machine),
    ...byCommand(machine),
    ...byNeighbour(machine),
    ...connecting(machine),
  ];
}

type Row = Readonly<Record<string, never>> & {
  readonly Node?: { readonly Address: string };
  readonly Service?: {
    readonly Address: string;
    readonly Port: number;
    readonly Tags: string[];
    readonly Meta: object;
  };
};

/** With a port of 0 there is none. */
const portOf = (port: number | undefined): { readonly port?: number } => (port ? { port } : {});
const whole = ({ service, address, port, tags, labels }: Entry): Seen => ({
  ...{ service, address, tags, labels },
  ...portOf(port),
});
/** Where labels are all that there is, a tag is one that says "true". */
const labelled = ({ service, address, port, tags, labels }: Entry): Seen => ({
  ...{ service, address, ...portOf(port) },
  labels: { ...Object.fromEntries(tags.map((tag) => [tag, "true"])), ...labels },
});
const place = ({ service, address, port }: Entry): Seen => ({ service, address, ...portOf(port) });
const each = async (services: readonly string[], ask: (service: string) => Promise<readonly Seen[]>): Promise<Seen[]> =>
  (await Promise.all(services.map(ask))).flat();

/** Services that are the agent's own, which no entry brought in. */
const AGENTS_OWN = new Set(["consul"]);

function byHttp(machine: Machine): Exit[] {
  const healthRows = (rows: readonly Row[]): Seen[] =>
    rows.map(({ Node, Service }: Row) => ({
      service: String((Service as unknown as { Service: string }).Service),
      address: Service?.Address || (Node?.Address ?? ""),
      ...portOf(Service?.Port),
      tags: Service?.Tags ?? [],
      labels: { ...Service?.Meta } as Record<string, string>,
    }));
  type Get = (path: string) => Promise<unknown>;
  const of =
    (url: string): Get =>
    (path) =>
      machine.get(`${url}${path}`);
  const health = (get: Get, services: readonly string[]): Promise<Seen[]> =>
    each(services, async (name) => healthRows((await get(`/v1/health/service/${name}?passing`)) as Row[]));
  /** Everything that has a name there. */
  const healthy = async (get: Get): Promise<Seen[]> => {
    const names = Object.keys((await get("/v1/catalog/services")) as object);
    return await health(
      get,
      names.filter((name) => !AGENTS_OWN.has(name)),
    );
  };
  const catalog = async (url: string): Promise<Seen[]> => {
    const names = Object.keys((await machine.get(`${url}/v1/catalog/services`)) as object);
    return await each(
      names.filter((name) => !AGENTS_OWN.has(name)),
      async (name) =>
        ((await machine.get(`${url}/v1/catalog/service/${name}`)) as Record<string, unknown>[]).map((row) => ({
          service: String(row["ServiceName"]),
          address: String(row["ServiceAddress"] || row["Address"]),
          ...portOf(row["ServicePort"] as number),
          tags: row["ServiceTags"] as string[],
          labels: row["ServiceMeta"] as Record<string, string>,
        })),
    );
  };
  let query: Promise<void> | undefined;
  // Consul's own template, not one of this language.
  const asked = "$" + "{name.full}";
  const prepared = {
    Name: "",
    Template: { Type: "name_prefix_match" },
    Service: { Service: asked, OnlyPassing: true },
  };
  return [
    {
      title: "Consul's HTTP API: catalog",
      carries: "address, port, tags, metadata; also of what is critical",
      shows: () => catalog(AGENT),
      as: whole,
      showsSick: true,
    },
    {
      title: "Consul's HTTP API: health",
      carries: "address, port, tags, metadata",
      shows: (services) => health(of(AGENT), services),
      as: whole,
    },
    {
      title: "a prepared query",
      carries: "address, port, tags, metadata",
      async shows(services) {
        query ??= fetch(`${AGENT}/v1/query`, { method: "POST", body: JSON.stringify(prepared) }).then(async (reply) => {
          if (!reply.ok) throw new Error(`/v1/query: ${reply.status} ${await reply.text()}`);
        });
        await query;
        return await each(services, async (name) =>
          healthRows(((await machine.get(`/v1/query/${name}/execute`)) as { Nodes: Row[] }).Nodes),
        );
      },
      as: whole,
    },
    {
      title: "a client host (`--join`)",
      carries: "address, port, tags, metadata",
      shows: () => healthy(of(CLIENT_HOST)),
      as: whole,
    },
    {
      title: "another agent that has this one as `consul-upstream`",
      carries: "address, port, tags, metadata",
      shows: () => healthy(of(OTHER)),
      as: whole,
    },
    {
      title: "another host's agent, without a server (`--peers lan`)",
      carries: "address, port, tags, metadata",
      shows: () => healthy(machine.getFar),
      as: whole,
    },
    {
      title: "Eureka's `/apps`",
      carries: "address, port, metadata (tags among them)",
      async shows() {
        const reply = await fetch(`${AGENT}/eureka/apps`, { headers: { accept: "application/json" } });
        const { applications } = (await reply.json()) as {
          applications: { application: { name: string; instance: Record<string, unknown>[] }[] };
        };
        return applications.application.flatMap(({ name, instance }) =>
          instance
            .filter(({ status }) => status === "UP" && !AGENTS_OWN.has(name.toLowerCase()))
            .map((one) => {
              const { $: port } = one["port"] as { $: number };
              const { tags = "", ...labels } = (one["metadata"] ?? {}) as Record<string, string>;
              const said = tags === "" ? [] : tags.split(",");
              return {
                service: name.toLowerCase(),
                address: String(one["ipAddr"]),
                ...portOf(port),
                tags: said,
                labels,
              };
            }),
        );
      },
      as: whole,
    },
    {
      title: "`/proxy/backends`",
      carries: "address, port",
      async shows() {
        const text = await (await fetch(`http://${machine.here.ipv4}/proxy/backends.txt`)).text();
        return text.split("\n").flatMap((line) => {
          const [, address = "", port = ""] = /^(.+):(\d+)$/.exec(line) ?? [];
          return address === "" ? [] : [{ service: "backend", address, port: Number(port) }];
        });
      },
      as: place,
    },
  ];
}

function byDns(machine: Machine): Exit[] {
  /** Records of the answers or of what came along with them: [name, type, data …]. Asked over IPv6 by the other host, or by this one. */
  const dig = async (
    type: string,
    names: readonly string[],
    section: "+answer" | "+additional" = "+answer",
  ): Promise<string[][]> => {
    const questions = names.flatMap((name) => [`${name}.`, type]);
    const at = type === "AAAA" ? machine.here.ipv6 : "127.0.0.1";
    const words = ["dig", `@${at}`, "-p", "8600", "+time=8", "+tries=1", "+noall", section, ...questions];
    const { exitCode, out, err } = await (type === "AAAA" ? machine.far.run(...words) : runToEnd(words));
    if (exitCode !== 0) throw new Error(`dig ${type}: ${exitCode} ${out}${err}`);
    return out.split("\n").flatMap((line) => {
      const [name = "", , , kind = "", ...data] = line.split(/\s+/);
      return name === "" || name.startsWith(";") ? [] : [[name, kind, ...data]];
    });
  };
  const addresses = async (type: "A" | "AAAA", services: readonly string[]): Promise<Seen[]> =>
    (
      await dig(
        type,
        services.map((name) => `${name}.service.consul`),
      )
    )
      .filter(([, kind]) => kind === type)
      .map(([name = "", , address = ""]) => ({ service: name.split(".")[0] ?? "", address }));
  const servers = async (names: readonly string[], serviceOf: (name: string) => string): Promise<Seen[]> => {
    const [answers, more] = await Promise.all([dig("SRV", names), dig("SRV", names, "+additional")]);
    return answers
      .filter(([, kind]) => kind === "SRV")
      .map(([name = "", , , , port = "", target = ""]) => {
        const found = more.find(([host, kind]) => host === target && (kind === "A" || kind === "AAAA"));
        return { service: serviceOf(name), address: found?.[2] ?? target, ...portOf(Number(port)) };
      });
  };
  return [
    {
      title: "DNS: A",
      carries: "address",
      shows: (services) => addresses("A", services),
      as: ({ service, address }) => ({ service, address }),
    },
    {
      title: "DNS: AAAA, asked over IPv6",
      carries: "address",
      shows: (services) => addresses("AAAA", services),
      as: ({ service, ipv6 = "" }) => ({ service, address: ipv6 }),
    },
    {
      title: "DNS: SRV",
      carries: "address, port",
      shows: (services) =>
        servers(
          services.map((name) => `${name}.service.consul`),
          (name) => name.split(".")[0] ?? "",
        ),
      as: place,
    },
    {
      title: "DNS: SRV of a tag (`_NAME._TAG`)",
      carries: "address, port of those with the tag",
      shows: (services) =>
        servers(
          services.map((name) => `_${name}._blue.service.consul`),
          (name) => name.split(".")[0]?.slice(1) ?? "",
        ),
      as: place,
    },
  ];
}

function byCommand(machine: Machine): Exit[] {
  return [
    {
      title: "`trilith find`",
      carries: "address, port, tags, labels",
      async shows(services) {
        const found: Seen[] = [];
        // As many at a time as there are processors for them.
        const left = [...services];
        const work = async (): Promise<void> => {
          for (let name = left.shift(); name !== undefined; name = left.shift()) {
            const { out } = await machine.trilith("find", "--json", name);
            const { endpoints } = JSON.parse(out) as { endpoints: (Required<Seen> & { port: number })[] };
            for (const { address, port, tags, labels } of endpoints)
              found.push({ service: name, address, ...portOf(port), tags, labels });
          }
        };
        await Promise.all([work(), work(), work(), work()]);
        return found;
      },
      as: whole,
    },
    {
      title: "the library's `find`",
      carries: "address, port, tags, labels",
      shows: (services) =>
        each(services, async (service) =>
          (await find(service, {}, { agent: AGENT })).endpoints.map(({ address, port, tags, labels }) => ({
            ...{ service, address, tags: [...tags], labels: { ...labels } },
            ...portOf(port),
          })),
        ),
      as: whole,
    },
    {
      title: "the library's `list`",
      carries: "tags",
      async shows() {
        const all = await list({ agent: AGENT });
        return all
          .filter(({ name, passing }) => passing > 0 && !AGENTS_OWN.has(name))
          .flatMap(({ name, passing, tags }) => Array.from({ length: passing }, () => ({ service: name, tags })));
      },
      as: ({ service, tags }) => ({ service, tags }),
    },
    {
      title: "`trilith why`: what is answered now",
      carries: "address, port",
      shows: (services) =>
        each(services, async (service) => {
          const { answers } = (await machine.get(`/v1/trilith/why/${service}`)) as { answers: { text: string }[] };
          return answers.flatMap(({ text }) => {
            const [, said = ""] = /^GET \/v1\/health\/service\/\S+\?passing=1: (.*); without /.exec(text) ?? [];
            return [...said.matchAll(/(\S+?)(?::(\d+))? \(/g)].map(([, host = "", port = ""]) => ({
              ...{ service, address: host.replace(/^\[|\]$/g, "") },
              ...portOf(Number(port)),
            }));
          });
        }),
      as: place,
    },
    {
      title: "hosts files",
      carries: "address",
      async shows() {
        const text = await readFile(machine.at("hosts"), "utf8");
        return text.split("\n").flatMap((line) => {
          const [address = "", ...names] = line.split("#")[0]?.trim().split(/\s+/) ?? [];
          return names.filter((name) => !AGENTS_OWN.has(name)).map((service) => ({ service, address }));
        });
      },
      as: ({ service, address, container }) => ({ service, address: container?.() ?? address }),
    },
  ];
}

function byNeighbour(machine: Machine): Exit[] {
  return [
    {
      title: "the LAN: `avahi-browse`",
      carries: "address, port, tags and labels as TXT",
      async shows() {
        const { out } = await machine.far.run("avahi-browse", "-aprtk");
        return out.split("\n").flatMap((line) => {
          const [state, , family, , type = "", , , address = "", port = "", ...txt] = line.split(";");
          if (state !== "=" || family !== "IPv4" || type === "_trilith._tcp") return [];
          const words = [...txt.join(";").matchAll(/"([^"]*)"/g)].map(([, word = ""]) => word.split(/=(.*)/s));
          const { tags = "", ...labels } = Object.fromEntries(words.map(([key = "", value = ""]) => [key, value]));
          const said = tags === "" ? [] : tags.split(",");
          return [{ service: type.replace(/^_|\._tcp$/g, ""), address, port: Number(port), tags: said, labels }];
        });
      },
      as: whole,
    },
    {
      title: "the tailnet: `md list`",
      carries: "address, port, labels (tags among them)",
      async shows() {
        const { out } = await machine.trilith("md", "list", "--socket", machine.tailscaled(TAILNET.reader));
        return out.split("\n").flatMap((line) => {
          const [, service = "", address = "", port = "", said = ""] =
            /^\* (\S+)\s+(\S+):(\d+)\s*(?:\{(.*)\})?\s*$/.exec(line) ?? [];
          const labels = Object.fromEntries(
            [...said.matchAll(/([^\s=,]+)=([^\s,]*)/g)].map(([, key = "", value = ""]) => [key, value]),
          );
          return service === "" ? [] : [{ service, address, port: Number(port), labels }];
        });
      },
      as: (entry) => ({ ...labelled(entry), address: entry.of === "this host" ? TAILNET.own : entry.address }),
    },
    {
      title: "server sets in ZooKeeper",
      carries: "address, port, labels (tags among them)",
      shows: () => machine.members("/discovery"),
      as: labelled,
    },
    {
      title: "Registrator's keys in etcd (`trilith registrator`)",
      carries: "address, port; also of what is critical, as Registrator does",
      async shows() {
        const lines = (await machine.etcd.ctl("get", "--prefix", "/services/")).trim().split("\n");
        return lines.flatMap((line, i) => {
          const [, service = ""] = /^\/services\/([^/]+)\//.exec(line) ?? [];
          const [, address = "", port = ""] = /^(.*):(\d+)$/.exec(lines[i + 1] ?? "") ?? [];
          return i % 2 === 0 && service !== "" ? [{ service, address, port: Number(port) }] : [];
        });
      },
      as: place,
      showsSick: true,
    },
  ];
}
