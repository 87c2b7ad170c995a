// The files of load balancers: what is in them, and that nothing that services are called gets through as configuration.
import { expect, it } from "vitest";
import type { Reading, ServiceInstance, ServiceKnown } from "./needs.ts";
import { type Target, targetContent } from "./targets.ts";

const instance = (id: string, more: Partial<ServiceInstance> = {}): ServiceInstance => ({
  ...{ node: "n1", nodeId: "", nodeAddress: "10.0.0.1", datacenter: "dc1", nodeTaggedAddresses: {}, nodeMeta: {} },
  ...{ id, name: "web", address: "10.0.0.1", port: 80, tags: [], meta: {}, status: "passing", draining: false },
  ...{ held: false, weight: 1, weights: { passing: 1, warning: 1 }, checks: [], ...more },
});
function made(target: Target, service: string, known: ServiceKnown): string {
  const reading: Reading = { get: () => ({ value: known }) as never, lacks: () => {} };
  return targetContent(target, service)(reading).replace(/^#.*\n/, "");
}
const a = instance("a", { weight: 3 });
const b = instance("b", { address: "2001:db8::1", held: true });
const leaving = instance("c", { port: 81, draining: true });
const known = { answer: [a, b], all: [a, leaving, instance("sick", { status: "critical" })] };

it("lists what is answered with weights, what the guard holds, and what drains without new work; not what is sick", () => {
  expect(made("haproxy", "web", known)).toBe(
    "backend web\n    server a 10.0.0.1:80 weight 3\n    server b [2001:db8::1]:80 weight 1\n    server c 10.0.0.1:81 weight 0\n",
  );
  expect(made("nginx", "v1.web", known)).toBe(
    "upstream v1.web {\n    server 10.0.0.1:80 weight=3;\n    server [2001:db8::1]:80 weight=1;\n    server 10.0.0.1:81 down;\n}\n",
  );
  expect(made("apache", "web", known)).toBe(
    '<Proxy "balancer://web">\n    BalancerMember "http://10.0.0.1:80" loadfactor=3\n    BalancerMember "http://[2001:db8::1]:80" loadfactor=1\n    BalancerMember "http://10.0.0.1:81" status=+N\n</Proxy>\n',
  );
});

it("reaches who listens where another one leaves, and nobody by an address with a zone", () => {
  const moved = instance("new");
  const zoned = instance("zone", { address: "fe80::1%eth0" });
  const all = [moved, zoned, instance("old", { draining: true })];
  expect(made("apache", "web", { answer: [moved, zoned], all })).toBe(
    '<Proxy "balancer://web">\n    BalancerMember "http://10.0.0.1:80" loadfactor=1\n</Proxy>\n',
  );
});

it("is a file that the programs take also where there is nobody", () => {
  const none = { answer: [], all: [] };
  expect(made("haproxy", "web", none)).toBe("backend web\n");
  expect(made("nginx", "web", none)).toBe("upstream web {\n    server 127.0.0.1:1 down;\n}\n");
  expect(made("apache", "web", none)).toBe('<Proxy "balancer://web">\n</Proxy>\n');
});

it("gives every server a name of its own that is one word, and lets no address through that is none", () => {
  const answer = [
    instance("x y"),
    instance("x y", { node: "n2" }),
    instance("a\n  option x", { node: "n3" }),
    instance("evil", { address: "1.2.3.4:80\n    server x" }),
    instance("portless", { port: 0 }),
    instance("host", { address: "db.example.com" }),
  ];
  expect(made("haproxy", "web", { answer, all: answer })).toBe(
    "backend web\n    server host db.example.com:80 weight 1\n    server n1.x_y 10.0.0.1:80 weight 1\n    server n2.x_y 10.0.0.1:80 weight 1\n    server a___option_x 10.0.0.1:80 weight 1\n",
  );
});

it("keeps weights in proportion within what each takes", () => {
  const answer = [instance("a", { weight: 1000 }), instance("b", { weight: 500 }), instance("c", { weight: 1 })];
  expect(made("haproxy", "web", { answer, all: [] }).match(/weight \d+/g)).toEqual([
    "weight 256",
    "weight 128",
    "weight 1",
  ]);
  expect(made("apache", "web", { answer, all: [] }).match(/loadfactor=\d+/g)).toEqual([
    "loadfactor=100",
    "loadfactor=50",
    "loadfactor=1",
  ]);
});

it("refuses a service that is none", () => {
  expect(() => targetContent("nginx", "a b")).toThrow("expected [tag.]name");
});
