// Services as people write them.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { InputError } from "../base/error.ts";
import { type NamedQuery, queryFromText, textOfQuery } from "./service-name.ts";

describe("a service as people write it", () => {
  it.each<[string, NamedQuery]>([
    ["redis", { service: "redis" }],
    [" redis ", { service: "redis" }],
    ["primary.db", { service: "db", tags: ["primary"] }],
    ["v1.2.db", { service: "db", tags: ["v1.2"] }],
    ["service", { service: "service" }],
    ["service.db", { service: "db", tags: ["service"] }],
    ["redis.service.consul", { service: "redis" }],
    ["redis.service.consul.", { service: "redis" }],
    ["Redis.Service.CONSUL", { service: "Redis" }],
    ["master.mysql.service.consul", { service: "mysql", tags: ["master"] }],
    ["redis.service.dc2.consul", { service: "redis", datacenter: "dc2" }],
    ["redis.service.dc2.dc.consul", { service: "redis", datacenter: "dc2" }],
    ["a.service.service.consul", { service: "service", tags: ["a"] }],
    ["redis.connect.consul", { service: "redis" }],
    ["_redis._tcp.service.consul", { service: "redis" }],
    ["_redis._udp", { service: "redis" }],
    ["_redis._primary.service.dc2.consul", { service: "redis", tags: ["primary"], datacenter: "dc2" }],
    ["db?env=prod&zone=a%20b", { service: "db", labels: { env: "prod", zone: "a b" } }],
    ["primary.db.service.consul?env=prod", { service: "db", tags: ["primary"], labels: { env: "prod" } }],
    ["db?", { service: "db" }],
    ["consul", { service: "consul" }],
  ])("%s", (text, query) => {
    const read = queryFromText(text, "consul");
    expect({ ...read, ...(read.labels === undefined ? {} : { labels: { ...read.labels } }) }).toEqual(query);
  });

  it.each<[string, RegExp]>([
    ["", /the service's name is missing; expected a service: "redis"/],
    ["?env=prod", /the service's name is missing/],
    ["redis:6379", /leave out ":6379"/],
    ["10.0.0.5", /an address is not a service/],
    ["::1", /an address is not a service/],
    ["10.0.0.5:6379", /leave out ":6379"/],
    ["a..b", /two dots in a row/],
    ["a b", /" " in a name/],
    ["http://web", /"\/" in a name|":" in a name/],
    ["db?=x", /a label without a name/],
    ["db?a=1&a=2", /the label "a" cannot have two values/],
    ["redis.service.example", /it ends in "example", and this agent's domain is "consul"/],
    ["redis.consul", /that is not a service's; expected "NAME.service.consul"/],
    ["web.query.consul", /that is not a service's/],
    ["service.consul", /the service's name is missing/],
    ["redis.service.a.b.consul", /"a.b" is not a datacenter/],
    ["_._tcp", /the service's name is missing/],
  ])("refuses %j and says what would be right", (text, message) => {
    expect(() => queryFromText(text, "consul", "here")).toThrow(message);
    expect(() => queryFromText(text, "consul", "here")).toThrow(/^here: /);
  });

  it("knows domains of several words", () => {
    expect(queryFromText("web.service.sd.example", "sd.example")).toEqual({ service: "web" });
    expect(() => queryFromText("web.service.example", "sd.example")).toThrow(/it ends in "example"/);
  });

  const word = fc
    .stringMatching(/^[a-z0-9-]{1,12}$/)
    .filter((one) => !/^(service|connect|node|addr|query|virtual|ingress|consul)$/.test(one));
  const text = fc.string({ minLength: 1, maxLength: 8 });
  it("reads what it writes", () => {
    fc.assert(
      fc.property(
        fc.record(
          {
            service: word.filter((one) => !/^\d+$/.test(one)),
            tags: word.map((tag) => [tag]),
            datacenter: word,
            labels: fc.dictionary(text, text, { minKeys: 1, maxKeys: 3, noNullPrototype: false }),
          },
          { requiredKeys: ["service"] },
        ),
        (query) => {
          const read = queryFromText(textOfQuery(query, "consul"), "consul");
          expect(JSON.parse(JSON.stringify(read))).toEqual(JSON.parse(JSON.stringify(query)));
        },
      ),
    );
  });

  it("any text is read or refused as input", () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.stringMatching(/^[a-c._?=&:]*$/)), (any) => {
        try {
          expect(queryFromText(any, "consul").service).not.toBe("");
        } catch (error) {
          expect(error).toBeInstanceOf(InputError);
        }
      }),
    );
  });
});
