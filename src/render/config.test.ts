// What is wanted, from flags and from consul-template's configuration, and what is told of mistakes.
import { describe, expect, it } from "vitest";
import { renderConfig, waitFromText, wantedFromText } from "./config.ts";

describe("flags", () => {
  it("names a template, its file, a command and a check", () => {
    expect(wantedFromText("in:out", "--template")).toEqual({ from: { template: "in" }, path: "out" });
    expect(wantedFromText("web:/f:reload now:check {}", "--haproxy", "haproxy")).toEqual({
      from: { target: "haproxy", service: "web" },
      path: "/f",
      command: "reload now",
      check: "check {}",
    });
  });
  it.each(["in", ":out", "in:", "in:out:curl http://x:80/"])("%j is refused", (text) => {
    expect(() => wantedFromText(text, "--template")).toThrow("--template: ");
  });
  it("waits", () => {
    expect(waitFromText("250ms:2s", "w")).toEqual({ waitMs: 250, waitMostMs: 2000 });
    expect(waitFromText("1s", "w")).toEqual({ waitMs: 1000, waitMostMs: 4000 });
    for (const text of ["", "x", "2s:1s", "-1s", "1s:2s:3s"]) expect(() => waitFromText(text, "w")).toThrow("w: ");
  });
});

describe("a configuration", () => {
  it("is consul-template's", () => {
    const config = renderConfig(
      `
consul { address = "10.0.0.1:8500" token = "t" retry { enabled = true } }
wait { min = "1s" max = "3s" }
log_level = "warn"
template {
  source = "in.ctmpl"
  destination = "/out"
  command = "reload"
  command_timeout = "5s"
  perms = 0600
  backup = true
  validate = "check {}"
  error_fatal = true
  wait { min = "100ms" }
}
template {
  contents = "{{key \\"a\\"}}"
  destination = "/two"
  create_dest_dirs = false
  exec { command = ["kill", "-HUP", "it's"] timeout = "1s" }
}
template { nginx = "web" destination = "/three" }
`,
      "ct.hcl",
    );
    expect(config).toMatchObject({ agent: "10.0.0.1:8500", token: "t", wait: { waitMs: 1000, waitMostMs: 3000 } });
    expect(config.ignored.map((key) => key.replace(/^.*: /, "")).sort()).toEqual([
      "consul.retry",
      "log_level",
      "template[0].error_fatal",
    ]);
    expect(config.files).toEqual([
      {
        from: { template: "in.ctmpl" },
        path: "/out",
        command: "reload",
        check: "check {}",
        commandTimeoutMs: 5000,
        mode: 0o600,
        backup: true,
        wait: { waitMs: 100, waitMostMs: 400 },
      },
      {
        from: { contents: '{{key "a"}}', name: "ct.hcl:17: template[1].contents" },
        path: "/two",
        command: "'kill' '-HUP' 'it'\\''s'",
        commandTimeoutMs: 1000,
        makeFolders: false,
      },
      { from: { target: "nginx", service: "web" }, path: "/three" },
    ]);
  });

  it.each([
    [
      'template { sorce = "a" destination = "/b" }',
      'ct.hcl:1: template.sorce: there is no such key here: did you mean "source"?',
    ],
    ['template { source = "a" }', "template.destination: expected the file"],
    ['template { destination = "a" }', "expected one of source, contents"],
    ['template { source = "a" contents = "b" destination = "c" }', "source and contents exclude each other"],
    ['template { source = 3 destination = "c" }', "expected a text"],
    ['template { source = "a" destination = "c" perms = "rwx" }', 'expected permissions such as "0644"'],
    ['template { source = "a" destination = "c" backup = "yes" }', "expected true or false"],
    ['template = "x"', "expected a block"],
    ["vault { }", "vault: there is no such key here"],
  ])("%s is refused", (text, message) => {
    expect(() => renderConfig(text, "ct.hcl")).toThrow(message);
  });
});
