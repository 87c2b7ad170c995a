// Completion in real shells: the printed script is loaded, and asked as a person's Tab key asks.

import { mkdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { havePrograms, ownFolder } from "../support/peers.ts";
import { type Done, program, type RunningAgent, runToEnd, startAgent } from "../support/program.ts";

const fish = await havePrograms("fish");
const zsh = await havePrograms("zsh");

describe("completion", () => {
  let agent: RunningAgent;
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let env: Record<string, string>;
  beforeAll(async () => {
    agent = await startAgent(["-dev", "-node", "alpha"]);
    folder = await ownFolder("completion");
    const bin = join(folder.path, "bin");
    await mkdir(bin);
    for (const name of ["trilith", "consul"]) await symlink(program, join(bin, name));
    env = { PATH: `${bin}:${process.env["PATH"]}`, CONSUL_HTTP_ADDR: agent.url, HOME: folder.path };
    const put = (path: string, body: string): Promise<Response> => fetch(agent.url + path, { method: "PUT", body });
    for (const Name of ["web", "web-api", "db"])
      await put("/v1/agent/service/register", JSON.stringify({ Name, ID: Name, Port: 1 }));
    for (const key of ["app/one", "app/two words", "apple"]) await put(`/v1/kv/${encodeURI(key)}`, "x");
  });
  afterAll(async () => {
    await agent?.stop();
    await folder?.remove();
  });

  /** What bash offers for a line; its words are cut as readline cuts them. */
  async function bash(words: readonly string[], called = "trilith"): Promise<string[]> {
    const script = `source <("$0" completion bash --program "$0") || exit 9
      complete -p "$0" >&2 || exit 8
      COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
      compopt() { :; }
      _\${0}_complete; for found in "\${COMPREPLY[@]}"; do printf '%s\\n' "$found"; done`;
    const done: Done = await runToEnd(["bash", "--norc", "-c", script, called, called, ...words], env);
    expect(done.exitCode, done.err).toBe(0);
    expect(done.err).toBe(`complete -o default -F _${called}_complete ${called}\n`);
    return done.out.split("\n").slice(0, -1);
  }

  it.each<[string[], string[]]>([
    [["mem"], ["members"]],
    [["nothing-so"], []],
    [
      ["kv", ""],
      ["get", "put", "delete", "export", "import"],
    ],
    [["kv", "ex"], ["export"]],
    [["kv", "get", "--rec"], ["--recurse"]],
    [["kv", "get", "-rec"], ["-recurse"]],
    [
      ["find", "we"],
      ["web", "web-api"],
    ],
    [["why", "--json", "d"], ["db"]],
    [["maint", "-service", "web-"], ["web-api"]],
    [["maint", "--service", "=", "web-"], ["web-api"]],
    [
      ["catalog", "nodes", "-service", "=", ""],
      ["consul", "db", "web", "web-api"],
    ],
    [["force-leave", "al"], ["alpha"]],
    [
      ["kv", "get", "app"],
      ["app/", "apple"],
    ],
    [
      ["kv", "get", "app/"],
      ["app/one", "app/two\\ words"],
    ],
    [["register", "--name", "we"], []],
    [["run", "--", "we"], []],
  ])("bash offers for %j: %j", async (words, expected) => {
    expect((await bash(words)).sort()).toEqual([...expected].sort());
  });

  it("offers every command, and all flags of one", async () => {
    const { out } = await runToEnd(["trilith", "help"], env);
    const commands = [...out.matchAll(/^ {2}([a-z-]+) {2}/gm)].map(([, name]) => name);
    expect(commands.length).toBeGreaterThan(25);
    expect((await bash([""])).sort()).toEqual(commands.sort());
    const help = (await runToEnd(["trilith", "agent", "--help"], env)).out;
    const flags = [...help.matchAll(/^ {2}(?:-\w, )?(--[a-z-]+)/gm)].map(([, name]) => name);
    expect((await bash(["agent", "--"])).sort()).toEqual(flags.sort());
  });

  it("goes by another name, and offers what needs no agent where there is none", async () => {
    expect(await bash(["mem"], "consul")).toEqual(["members"]);
    const away = await runToEnd(["trilith", "completion", "--candidates", "--", "find", ""], {
      ...env,
      CONSUL_HTTP_ADDR: "127.0.0.1:9",
    });
    expect(away).toEqual({ exitCode: 0, out: "", err: "" });
  });

  it("refuses other shells by name", async () => {
    const { exitCode, err } = await runToEnd(["trilith", "completion", "tcsh"], env);
    expect(exitCode).toBe(2);
    expect(err).toContain('"tcsh": expected bash, zsh or fish');
  });

  it.skipIf(!fish)("fish offers it with what it is", async () => {
    const files = join(folder.path, "files");
    await mkdir(files, { recursive: true });
    for (const name of ["webfile", "export.txt"]) await writeFile(join(files, name), "");
    const ask = (line: string): Promise<Done> => {
      const script = `cd ${files}; trilith completion fish | source; complete -C '${line}'`;
      return runToEnd(["fish", "--no-config", "-c", script], env);
    };
    expect(await ask("trilith find we")).toMatchObject({ out: "web\tservice\nweb-api\tservice\n" });
    expect((await ask("trilith kv ex")).out).toBe("export\tkeys and values as JSON, for import\n");
    expect((await ask("trilith rtt al")).out).toBe("alpha\tnode\n");
    // Files of the folder are offered where there is no name: many commands take them.
    expect((await ask("trilith kv ")).out).not.toContain("webfile");
    expect((await ask("trilith validate we")).out).toBe("webfile\n");
    expect((await ask("trilith agent --config-file we")).out).toBe("webfile\n");
  });

  it.skipIf(!zsh)("zsh offers it", async () => {
    const file = join(folder.path, "ask.zsh");
    // compadd is what zsh's own machinery is told with; here it prints.
    await writeFile(
      file,
      `autoload -Uz compinit && compinit -D -u
source <(trilith completion zsh)
print -r -- "$_comps[trilith]"
compadd() { while [[ $1 != -- ]]; do shift; done; shift; print -rl -- "$@" }
words=(trilith find we); CURRENT=3; $_comps[trilith]
`,
    );
    expect(await runToEnd(["zsh", "-f", file], env)).toEqual({
      exitCode: 0,
      err: "",
      out: "_trilith_complete\nweb\nweb-api\n",
    });
  });
});
