# What Python programs do with py-consul; ends with 0 and "ok", or with the assertion that failed.
import os
import threading
import time
import urllib.parse

import consul
import consul.exceptions

at = urllib.parse.urlparse(os.environ["CONSUL_HTTP_ADDR"])
c = consul.Consul(host=at.hostname, port=at.port)


def follow(ask, will, what):
    """Asks by blocking queries until the answer will do."""
    index = None
    end = time.monotonic() + 20
    while time.monotonic() < end:
        index, answer = ask(index)
        assert int(index) > 0, (what, index)
        if will(answer):
            return answer
    raise AssertionError(f"{what}: not within 20 s")


def health(index):
    return c.health.service("web", index=index, wait="10s")


# A service comes, is critical, is well again, is in maintenance, and goes.
assert c.agent.service.register("web", service_id="web-1", address="192.0.2.10", port=8080, tags=["a", "b"], meta={"k": "v"},
                                weights={"Passing": 5, "Warning": 1}, check=consul.Check.ttl("1h"),
                                tagged_addresses={"lan": {"address": "192.0.2.11", "port": 81}})
(entry,) = follow(health, lambda entries: len(entries) == 1, "it comes")
assert entry["Service"]["Tags"] == ["a", "b"] and entry["Service"]["Meta"] == {"k": "v"}, entry
assert entry["Service"]["Weights"] == {"Passing": 5, "Warning": 1}, entry
assert entry["Service"]["TaggedAddresses"]["lan"] == {"Address": "192.0.2.11", "Port": 81}, entry
assert c.health.service("web", passing=True)[1] == []
assert c.agent.check.ttl_pass("service:web-1", "fine")
follow(lambda index: c.health.service("web", passing=True, index=index, wait="10s"), lambda entries: len(entries) == 1, "it is well")
seen = []
watcher = threading.Thread(target=lambda: seen.append(follow(health, lambda e: e[0]["Checks"][-1]["Output"] == "broken", "critical")))
watcher.start()
assert c.agent.check.ttl_fail("service:web-1", "broken")
watcher.join()
assert [check["Status"] for check in seen[0][0]["Checks"] if check["ServiceID"]] == ["critical"], seen
assert [check["CheckID"] for check in c.health.state("critical")[1]] == ["service:web-1"]
assert c.health.checks("web")[1][0]["Output"] == "broken"
assert c.agent.maintenance(True, "new disk") and c.agent.checks()["_node_maintenance"]["Status"] == "critical"
assert c.agent.maintenance(False) and "_node_maintenance" not in c.agent.checks()
assert c.agent.service.maintenance("web-1", True) and c.agent.service.maintenance("web-1", False)
assert list(c.agent.services(filter_expr='"a" in Tags')) == ["web-1"]
assert c.agent.check.register("outside", check_id="outside", check=consul.Check.tcp("127.0.0.1", 1, "10s"))
assert c.agent.check.deregister("outside")
assert c.catalog.services()[1]["web"] == ["a", "b"]
assert c.catalog.service("web", tag="b")[1][0]["ServicePort"] == 8080
node = c.agent.self()["Config"]["NodeName"]
assert c.catalog.node(node)[1]["Services"]["web-1"]["Port"] == 8080
assert c.agent.service.deregister("web-1")
follow(health, lambda entries: entries == [], "it goes")

# The catalog, by hand.
assert c.catalog.register("printer", "192.0.2.50", service={"Service": "lpd", "Port": 515})
assert [n["Node"] for n in c.catalog.nodes(filter_expr='Address == "192.0.2.50"')[1]] == ["printer"]
assert c.catalog.deregister("printer")

# Keys.
assert c.kv.put("app/ключ", "wert", flags=7)
index, pair = c.kv.get("app/ключ")
assert pair["Value"] == "wert".encode() and pair["Flags"] == 7 and int(index) == pair["ModifyIndex"], pair
assert c.kv.put("app/ключ", "x", cas=0) is False and c.kv.put("app/new", "x", cas=0) is True
assert c.kv.put("app/ключ", "neu", cas=pair["ModifyIndex"]) is True
assert c.kv.get("app/", keys=True)[1] == ["app/new", "app/ключ"]
assert len(c.kv.get("app/", recurse=True)[1]) == 2
assert c.kv.get("nothing") == (c.kv.get("nothing")[0], None)
late = []
watcher = threading.Thread(target=lambda: late.append(follow(lambda i: c.kv.get("late", index=i, wait="10s"), lambda p: p is not None, "late")))
watcher.start()
assert c.kv.put("late", b"\x00\xff")
watcher.join()
assert late[0]["Value"] == b"\x00\xff"
assert c.kv.delete("app/", recurse=True) and c.kv.get("app/", recurse=True)[1] is None

# A lock: held by one, handed over, gone with its session.
one, two = c.session.create("one", lock_delay=0, ttl=10), c.session.create("two", lock_delay=0, behavior="delete")
assert c.kv.put("leader", "one", acquire=one) is True and c.kv.put("leader", "two", acquire=two) is False
assert c.kv.get("leader")[1]["Session"] == one
assert c.session.renew(one)["TTL"] == "10s"
assert c.kv.put("leader", "", release=one) is True and c.kv.put("leader", "two", acquire=two) is True
assert c.kv.get("leader")[1]["LockIndex"] == 2
assert {s["Name"] for s in c.session.list()[1]} == {"one", "two"} and len(c.session.node(node)[1]) == 2
assert c.session.destroy(two) and c.kv.get("leader")[1] is None and c.session.info(two)[1] is None
assert c.session.destroy(one)
try:
    c.session.renew(one)
    raise AssertionError("renewed what is gone")
except consul.exceptions.NotFound:
    pass

# Prepared queries, events, transactions, and what one asks of a cluster.
assert c.agent.service.register("db", port=5432, replace_existing_checks=True)
query = c.query.create("db", name="my-db", onlypassing=True, ttl="10s")["ID"]
follow(lambda i: (1, c.query.execute("my-db")), lambda answer: len(answer["Nodes"]) == 1, "prepared query")
assert c.query.get(query)[0]["Name"] == "my-db" and [q["ID"] for q in c.query.list()] == [query]
assert c.query.explain("my-db")["Query"]["Service"]["Service"] == "db"
assert c.query.delete(query)
event = c.event.fire("deploy", "now")
assert event["Name"] == "deploy"
follow(lambda i: c.event.list("deploy", index=i, wait="10s"), lambda events: [e["ID"] for e in events] == [event["ID"]], "event")
done = c.txn.put([{"KV": {"Verb": "set", "Key": "t", "Value": "eA=="}}, {"KV": {"Verb": "get", "Key": "t"}}])
assert done["Results"][1]["KV"]["Value"] == "eA==" and done["Errors"] is None, done
snapshot = c.snapshot.save()
assert c.kv.delete("t") and c.snapshot.restore(snapshot) and c.kv.get("t")[1]["Value"] == b"x"
assert c.status.leader() in c.status.peers()
assert [m["Name"] for m in c.agent.members()] == [node]
assert c.catalog.datacenters() == ["dc1"]
assert c.agent.metrics()["Gauges"] != []
assert c.operator.raft_config()["Servers"][0]["Leader"] is True
try:
    c.catalog.nodes(dc="dc9")
    raise AssertionError("answers for a datacenter that is not there")
except consul.exceptions.ConsulException as error:
    assert "No path to datacenter" in str(error), error
print("ok")
