// A test of node:test that knows nothing of Trilith: a service answers.
import assert from "node:assert";
import test from "node:test";

test("the service answers", async () => {
  assert.equal(await (await fetch("http://web.service.consul/")).text(), "one web.service.consul");
});
