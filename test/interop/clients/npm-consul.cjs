// What Node programs do with the npm package consul; ends with 0 and "ok", or with the assertion that failed.
const assert = require("node:assert/strict");
const { createRequire } = require("node:module");
const { join } = require("node:path");

const [, , folder] = process.argv;
const Consul = createRequire(join(folder, "package.json"))("consul");
const { hostname, port } = new URL(process.env.CONSUL_HTTP_ADDR);
const consul = new Consul({ host: hostname, port });

/** Every state that a watch tells, in order; `until` waits for one that will do. */
function watch(method, options) {
  const watcher = consul.watch({ method, options: { wait: "10s", ...options } });
  const seen = [];
  let rung = () => {};
  watcher.on("change", (data) => {
    seen.push(data);
    rung();
  });
  watcher.on("error", (error) => {
    throw error;
  });
  return {
    end: () => watcher.end(),
    async until(what, will) {
      const timer = setTimeout(() => {
        throw new Error(`${what}: not within 20 s; seen: ${JSON.stringify(seen)}`);
      }, 20_000);
      for (;;) {
        while (seen.length > 0) {
          const one = seen.shift();
          if (!will(one)) continue;
          clearTimeout(timer);
          return one;
        }
        await new Promise((resolve) => {
          rung = resolve;
        });
      }
    },
  };
}

async function main() {
  // A service comes, is critical, is well again, is in maintenance, and goes.
  const all = watch(consul.health.service, { service: "web" });
  const passing = watch(consul.health.service, { service: "web", passing: true });
  await all.until("before", (entries) => entries.length === 0);
  await consul.agent.service.register({
    ...{ name: "web", id: "web-1", address: "192.0.2.10", port: 8080, tags: ["a", "b"] },
    meta: { version: "1.2" },
    check: { ttl: "1h", status: "passing" },
  });
  const [entry] = await passing.until("it comes", (entries) => entries.length === 1);
  assert.deepEqual(entry.Service.Tags, ["a", "b"]);
  assert.equal(entry.Service.Meta.version, "1.2");
  assert.equal(`${entry.Service.Address}:${entry.Service.Port}`, "192.0.2.10:8080");
  await consul.agent.check.fail({ id: "service:web-1", note: "broken" });
  await passing.until("it is critical", (entries) => entries.length === 0);
  const [sick] = await all.until("it is critical", (entries) =>
    entries.some(({ Checks }) => Checks.some(({ Status }) => Status === "critical")),
  );
  assert.equal(sick.Checks.find(({ ServiceID }) => ServiceID === "web-1").Output, "broken");
  assert.deepEqual(
    (await consul.health.state("critical")).map(({ CheckID }) => CheckID),
    ["service:web-1"],
  );
  await consul.agent.check.warn("service:web-1");
  assert.equal((await consul.health.checks("web"))[0].Status, "warning");
  await consul.agent.check.pass("service:web-1");
  await passing.until("it is well again", (entries) => entries.length === 1);
  await consul.agent.service.maintenance({ id: "web-1", enable: true, reason: "new disk" });
  await passing.until("maintenance", (entries) => entries.length === 0);
  await consul.agent.service.maintenance({ id: "web-1", enable: false });
  await passing.until("maintenance is over", (entries) => entries.length === 1);
  await consul.agent.check.register({ name: "outside", tcp: "127.0.0.1:1", interval: "10s" });
  assert.equal((await consul.agent.check.list()).outside.Status, "critical");
  await consul.agent.check.deregister("outside");
  assert.deepEqual((await consul.catalog.service.list()).web, ["a", "b"]);
  assert.equal((await consul.catalog.service.nodes({ service: "web", tag: "b" }))[0].ServicePort, 8080);
  const node = (await consul.agent.self()).Config.NodeName;
  assert.equal((await consul.catalog.node.services(node)).Services["web-1"].Port, 8080);
  assert.deepEqual(Object.keys(await consul.agent.service.list()), ["web-1"]);
  await consul.agent.service.deregister("web-1");
  await all.until("it goes", (entries) => entries.length === 0);
  all.end();
  passing.end();

  // The catalog, by hand.
  await consul.catalog.register({
    ...{ node: "printer", address: "192.0.2.50" },
    service: { id: "lpd", service: "lpd", port: 515 },
    check: { node: "printer", checkid: "ink", name: "ink", status: "critical", serviceid: "lpd" },
  });
  assert.deepEqual(await consul.health.service({ service: "lpd", passing: true }), []);
  assert.equal((await consul.health.node("printer"))[0].CheckID, "ink");
  await consul.catalog.deregister({ node: "printer" });
  assert.deepEqual(
    (await consul.catalog.node.list()).map(({ Node }) => Node),
    [node],
  );

  // Keys.
  const keys = watch(consul.kv.get, { key: "app/", recurse: true });
  assert.equal(await consul.kv.set("app/ключ", "wert"), true);
  const [pair] = await keys.until("a key comes", (pairs) => pairs !== undefined);
  assert.equal(pair.Value, "wert");
  // This client hands an answer of false over as undefined.
  assert.equal(await consul.kv.set({ key: "app/ключ", value: "x", cas: "0" }), undefined);
  assert.equal(await consul.kv.set({ key: "app/ключ", value: "neu", cas: pair.ModifyIndex, flags: 7 }), true);
  assert.equal((await consul.kv.get("app/ключ")).Flags, 7);
  assert.deepEqual(await consul.kv.get({ key: "app/ключ", raw: true }), Buffer.from("neu"));
  assert.deepEqual(await consul.kv.keys("app/"), ["app/ключ"]);
  await consul.kv.del({ key: "app/", recurse: true });
  await keys.until("the keys go", (pairs) => pairs === undefined);
  keys.end();

  // A lock: held by one, handed over, gone with its session.
  const [one, two] = await Promise.all(
    ["one", "two"].map((name) => consul.session.create({ name, ttl: "10s", lockdelay: "1ms", behavior: "delete" })),
  ).then((sessions) => sessions.map(({ ID }) => ID));
  assert.equal(await consul.kv.set({ key: "leader", value: "one", acquire: one }), true);
  assert.equal(await consul.kv.set({ key: "leader", value: "two", acquire: two }), undefined);
  assert.equal((await consul.session.renew(one))[0].ID, one);
  assert.equal((await consul.session.list()).length, 2);
  assert.equal((await consul.session.node(node)).length, 2);
  assert.equal(await consul.kv.set({ key: "leader", value: "", release: one }), true);
  assert.equal(await consul.kv.set({ key: "leader", value: "two", acquire: two }), true);
  assert.equal((await consul.kv.get("leader")).LockIndex, 2);
  await consul.session.destroy(two);
  assert.equal(await consul.kv.get("leader"), undefined);
  assert.equal(await consul.session.info(two), undefined);
  await consul.session.destroy(one);

  // Prepared queries, events, transactions, and what one asks of a cluster.
  await consul.agent.service.register({ name: "db", port: 5432 });
  const { ID } = await consul.query.create({ name: "my-db", service: { service: "db", onlypassing: true } });
  assert.equal((await consul.query.execute("my-db")).Nodes[0].Service.Port, 5432);
  await consul.query.update({ query: ID, name: "my-db", service: { service: "nobody" } });
  assert.deepEqual((await consul.query.execute("my-db")).Nodes, []);
  assert.equal((await consul.query.get(ID)).Name, "my-db");
  assert.equal((await consul.query.list()).length, 1);
  await consul.query.destroy(ID);
  const events = watch(consul.event.list, { name: "deploy" });
  const fired = await consul.event.fire("deploy", "now");
  const [event] = await events.until("an event", (list) => list.length === 1);
  assert.equal(event.ID, fired.ID);
  assert.equal(Buffer.from(event.Payload, "base64").toString(), "now");
  events.end();
  const done = await consul.transaction.create([
    { KV: { Verb: "set", Key: "t", Value: "eA==" } },
    { KV: { Verb: "get", Key: "t" } },
  ]);
  assert.equal(done.Results[1].KV.Value, "eA==");
  await assert.rejects(consul.transaction.create([{ KV: { Verb: "cas", Key: "t", Index: 1, Value: "eQ==" } }]), {
    statusCode: 409,
  });
  assert.ok((await consul.status.peers()).includes(await consul.status.leader()));
  assert.deepEqual(await consul.catalog.datacenters(), ["dc1"]);
  assert.equal((await consul.agent.members())[0].Name, node);
  await assert.rejects(consul.catalog.node.list({ dc: "dc9" }), /No path to datacenter/);
  await assert.rejects(consul.agent.service.deregister("web-1"), { statusCode: 404 });
}

main().then(
  () => {
    console.log("ok");
    // Watches that ended leave their last request open.
    process.exit(0);
  },
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
