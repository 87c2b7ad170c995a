// What Node programs do with the npm package eureka-js-client: one registers, another finds it, sees its status change and sees it go; ends with 0 and "ok".
const assert = require("node:assert/strict");
const { createRequire } = require("node:module");
const { join } = require("node:path");

const [, , folder] = process.argv;
const { Eureka } = createRequire(join(folder, "package.json"))("eureka-js-client");
const { hostname, port } = new URL(process.env.EUREKA_ADDR);

function client(app, at, more = {}) {
  return new Eureka({
    instance: {
      instanceId: `${app}-1`,
      app,
      hostName: `${app}.example`,
      ipAddr: at,
      port: { $: 8080, "@enabled": true },
      vipAddress: app,
      dataCenterInfo: { "@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", name: "MyOwn" },
      ...more,
    },
    eureka: {
      host: hostname,
      port,
      servicePath: "/eureka/apps/",
      heartbeatInterval: 500,
      registryFetchInterval: 200,
      fetchDelta: process.env.EUREKA_DELTA === "true",
      maxRetries: 3,
      requestRetryDelay: 200,
    },
    logger: { warn() {}, info() {}, debug() {}, error: (...words) => console.error(...words) },
  });
}

const started = (one) => new Promise((resolve, reject) => one.start((error) => (error ? reject(error) : resolve())));
const stopped = (one) => new Promise((resolve, reject) => one.stop((error) => (error ? reject(error) : resolve())));

async function until(what, holds) {
  for (const end = Date.now() + 20_000; ; ) {
    if (holds()) return;
    assert(Date.now() < end, `${what}: not within 20 s`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function main() {
  const shop = client("shop", "192.0.2.10", { metadata: { env: "prod" } });
  const asker = client("asker", "192.0.2.11");
  await started(asker);
  await started(shop);
  const seen = () => asker.getInstancesByAppId("SHOP");
  await until("shop is found", () => seen().length === 1);
  assert.equal(seen()[0].status, "UP");
  assert.equal(seen()[0].ipAddr, "192.0.2.10");
  assert.deepEqual(seen()[0].port, { $: 8080, "@enabled": true });
  assert.equal(seen()[0].metadata.env, "prod");
  assert.equal(asker.getInstancesByVipAddress("shop").length, 1);
  // What came in through another dialect is there, too.
  await until("web is found", () => asker.getInstancesByAppId("WEB").length === 1);
  assert.equal(asker.getInstancesByAppId("WEB")[0].hostName, "192.0.2.1");
  await stopped(shop);
  await until("shop is gone", () => seen().length === 0);
  await stopped(asker);
}

main().then(
  () => console.log("ok"),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
