// What `trilith why` prints: readable at three in the morning, and no control character gets through.
import { expect, test } from "vitest";
import type { InstanceJson, WhyJson } from "../../index.ts";
import { whyText } from "./why.ts";

const NOW = Date.parse("2026-11-21T03:00:00.000Z");
const at = (secondsAgo: number): string => new Date(NOW - secondsAgo * 1000).toISOString();

const instance = (more: Partial<InstanceJson> = {}): InstanceJson => ({
  ...{ id: "alpha:web-1:80", node: "alpha", nodeAddress: "10.0.0.1", address: "10.0.0.1", port: 32768 },
  ...{ tags: ["v2"], labels: { zone: "a" }, status: "passing", draining: false, included: true, why: "passing" },
  registeredBy: {
    ...{ source: "docker", authority: "first-hand", text: "container web-1 (3f2a9c71d0aa), port 80/tcp" },
    words: ["env SERVICE_NAME=web", "label SERVICE_80_TAGS=v1"],
  },
  ...{ createIndex: 1, modifyIndex: 2 },
  checks: [
    {
      ...{
        id: "service:web",
        name: "c",
        about: "service",
        status: "passing",
        output: "HTTP GET: 200 OK\nmore",
        notes: "",
      },
      type: "http",
      history: [
        { at: at(5), status: "passing", output: "HTTP GET: 200 OK" },
        { at: at(65), status: "critical", output: "connection refused" },
      ],
    },
  ],
  ...more,
});
const answer = (more: Partial<WhyJson> = {}): WhyJson => ({
  ...{ service: "shop", node: "alpha", known: true, fresh: true, ageMs: 0, instances: [], recent: [], gone: [] },
  ...{ complaints: [], overrides: [], answers: [], similar: [] },
  ...more,
});

test("every instance with who registered it, from what words, its checks, overrides and witnesses; then what is answered", () => {
  const override = { for: "web-1", set: ["name=shop", "tags=v2"], by: "ann on this host", at: at(3600) };
  const text = whyText(
    answer({
      instances: [
        instance({ overridden: { by: [override], original: { name: "web", tags: ["v1"] } } }),
        instance({
          ...{ id: "b", node: "beta", included: false, why: 'critical: check "c" says: no', tags: [], labels: {} },
          registeredBy: { source: "api", authority: "first-hand" },
          checks: [{ id: "c", name: "c", about: "service", status: "critical", output: "no", notes: "", type: "tcp" }],
        }),
        instance({
          ...{ id: "ipp", node: "printer", external: true, witnesses: ["alpha", "beta"], tags: [], labels: {} },
          registeredBy: { source: "mdns", authority: "second-hand", text: "printer on the LAN" },
          checks: [],
        }),
      ],
      overrides: [{ ...override, matches: [{ id: "alpha:web-1:80", service: "web", from: "docker", hidden: false }] }],
      held: { since: at(30), text: "3 of 5 went by hearsay" },
      answers: [{ protocol: "dns", to: "everybody", text: "shop.service.consul. A: 10.0.0.1" }],
      recent: [{ at: at(3600), id: "alpha:web-1:80", text: "override by ann: \u001b[31mname=shop" }],
    }),
    NOW,
  );
  expect(text).toMatchInlineSnapshot(`
    "shop: 3 instances, 2 in the answer
    Held by the sharp-drop guard for 30s: 3 of 5 went by hearsay

    + alpha:web-1:80 on alpha at 10.0.0.1:32768: in the answer
        passing
        registered by docker (first-hand): container web-1 (3f2a9c71d0aa), port 80/tcp
          env SERVICE_NAME=web
          label SERVICE_80_TAGS=v1
        overridden as "web-1": name=shop tags=v2 (by ann on this host, 1h 0m ago)
          its source says name web
          its source says tags ["v1"]
        tags v2
        labels zone=a
        check service:web: passing, says: HTTP GET: 200 OK
          5s ago: passing, HTTP GET: 200 OK
          1m 5s ago: critical, connection refused

    - b on beta at 10.0.0.1:32768: not in the answer
        critical: check "c" says: no
        registered by api (first-hand)
        check c: critical, says: no
          its results are kept on beta: trilith why there tells them

    + ipp on printer at 10.0.0.1:32768: in the answer
        passing
        registered by mdns (second-hand): printer on the LAN
        on an external node, seen by alpha, beta

    Answered now:
      dns, to everybody: shop.service.consul. A: 10.0.0.1

    Lately on this host:
      1h 0m ago: alpha:web-1:80: override by ann: \\u{1b}[31mname=shop
    "
  `);
});

test("a name that is not there: what hides it, what was, when it went and why, and what is called alike", () => {
  const text = whyText(
    answer({
      ...{ service: "web", known: false, similar: ["webs"] },
      overrides: [
        {
          ...{ for: "web", set: ["hidden"], by: "ann on this host", at: at(90) },
          matches: [{ id: "web-9", service: "web", from: "process", hidden: true, text: "process 9 (nginx)" }],
        },
        { for: "web-0", set: ["name=web"], by: "o.json:1", from: "file", matches: [], note: "nothing is called so" },
      ],
      gone: [
        { node: "alpha", id: "web-1", index: 5, at: at(120), code: "stopped", text: "container web-1 was stopped" },
      ],
      complaints: [{ from: "docker", about: "web-2", text: "not registered" }],
    }),
    NOW,
  );
  expect(text).toMatchInlineSnapshot(`
    "There is no service "web". Similar: webs.

    Overrides:
      "web": hidden (by ann on this host, 1m 30s ago)
        hides web-9, which process calls "web" (process 9 (nginx))
        trilith override web --undo takes it back
      "web-0": name=web (by o.json:1)
        nothing is called so

    Gone:
      2m 0s ago: web-1 on alpha: container web-1 was stopped

    Complaints:
      docker: web-2: not registered
    "
  `);
});

test("an answer that is not fresh: the store is not blamed alone, since a source may be what is away", () => {
  expect(whyText(answer({ service: "web", known: true, fresh: false, ageMs: 4000 }), NOW)).toContain(
    `What is marked "last known" is the last known good, 4s old: what told of it does not answer (trilith doctor).\n`,
  );
});
