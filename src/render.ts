// Files kept up to date from the directory, for any program and `trilith render`.
import { resolve } from "node:path";
import { systemClock } from "./base/clock.ts";
import { systemDisk } from "./base/disk.ts";
import { codeOf, InputError, messageOf } from "./base/error.ts";
import { createHttp, type Http } from "./base/http.ts";
import { callback, mustFit, objectWith, type Rules, text, texts } from "./base/options.ts";
import { systemProcesses } from "./base/process.ts";
import { systemRandom } from "./base/random.ts";
import { environment } from "./base/terminal.ts";
import {
  type RenderConfig,
  renderConfig,
  type Wait,
  type Wanted,
  waitFromText,
  wantedFromText,
} from "./render/config.ts";
import { type RenderEvent, type Rendered, Renderer } from "./render/renderer.ts";
import { TARGETS, targetContent } from "./render/targets.ts";
import { type Content, parseFileTemplate } from "./render/template.ts";
import { agentFollow } from "./render-source.ts";
import { TemplateFault } from "./wire/go-template/values.ts";

/** What `render` is told. */
export interface RenderOptions {
  /** Templates with the files they make: "TEMPLATE:FILE", with ":COMMAND" and ":CHECK" behind them. */
  readonly template?: readonly string[];
  /** Load balancers' files of services: "SERVICE:FILE", and what may stand behind it. */
  readonly haproxy?: readonly string[];
  readonly nginx?: readonly string[];
  readonly apache?: readonly string[];
  /** Configuration files with `template` blocks, in consul-template's HCL or JSON. */
  readonly config?: readonly string[];
  /** What must be content with each new file that names no check of its own: a shell command, {} is the file. */
  readonly check?: string;
  /** How long bursts are waited for: "MIN" or "MIN:MAX", default "250ms:2s"; MAX is four times MIN unless told. */
  readonly wait?: string;
  /** Writes every file once and ends; an agent that does not answer is an error then. */
  readonly once?: boolean;
  /** Writes and runs nothing: what would be written comes as events. */
  readonly dry?: boolean;
  /** The agent to ask, and its token; as for `find`. */
  readonly agent?: string;
  readonly token?: string;
  /** The datacenter of what names none. */
  readonly datacenter?: string;
  /** What requests go through; the package's own unless given. */
  readonly http?: Pick<Http, "request">;
  /** Told of each file that was written, of what failed, of what is waited for and of what the guard holds. */
  readonly onEvent?: (event: RenderEvent) => void;
  /** What commands print that went well. */
  readonly onOutput?: (text: string) => void;
}

export type { RenderEvent };

const flag: Rules<{ a: boolean }>["a"] = ["true or false", (value) => typeof value === "boolean"];
const OPTIONS: Rules<RenderOptions> = {
  template: texts,
  haproxy: texts,
  nginx: texts,
  apache: texts,
  config: texts,
  check: text,
  wait: text,
  once: flag,
  dry: flag,
  agent: text,
  token: text,
  datacenter: text,
  http: objectWith("request"),
  onEvent: callback,
  onOutput: callback,
};

/** Files that are kept, until `stop`. */
export interface Renders {
  /** Resolves when every file was made (`once`), or after `stop`: to whether all went well. @throws what no file can be made without */
  ended(): Promise<boolean>;
  /** Reads configuration and templates again; where they cannot be understood those before go on. @throws InputError */
  reload(): Promise<void>;
  /** Keeps them no more; they stay as they are. */
  stop(): Promise<void>;
}

const DEFAULT_WAIT: Wait = { waitMs: 250, waitMostMs: 2_000 };
const COMMAND_TIMEOUT_MS = 30_000;

/**
 * Keeps files up to date from the directory: made by Go templates with consul-template's functions, or for HAProxy, nginx and Apache. A file is checked
 * before it takes its place whole, and put back where its command fails; while no agent answers it stays.
 * @throws InputError for templates and options that cannot be understood, before anything is written
 */
export async function render(options: RenderOptions): Promise<Renders> {
  mustFit("render", options, OPTIONS);
  const { once = false, dry = false, onEvent = () => {}, onOutput = () => {}, agent, token } = options;
  const configs = await readConfigs(options.config ?? []);
  const files = await filesOf(options, configs);
  const ownHttp = createHttp();
  const [toldAgent, toldToken] = [agent ?? firstOf(configs, "agent"), token ?? firstOf(configs, "token")];
  const machine = { clock: systemClock, random: systemRandom, disk: systemDisk, onEvent };
  const renderer = new Renderer(
    {
      ...machine,
      processes: systemProcesses,
      onOutput,
      follow: agentFollow({
        ...machine,
        once,
        http: options.http ?? ownHttp,
        ...(toldAgent === undefined ? {} : { agent: toldAgent }),
        ...(toldToken === undefined ? {} : { token: toldToken }),
        ...(options.datacenter === undefined ? {} : { datacenter: options.datacenter }),
      }),
    },
    { once, dry },
  );
  for (const key of configs.flatMap(({ ignored }) => ignored))
    onEvent({ event: "note", text: `${key} is accepted and has no effect here` });
  renderer.set(files);
  let reloading = Promise.resolve();
  return {
    ended: () => renderer.ended(),
    reload() {
      // One after the other: what is read last counts.
      const turn = reloading.then(async () =>
        renderer.set(await filesOf(options, await readConfigs(options.config ?? []))),
      );
      reloading = turn.catch(() => {});
      return turn;
    },
    async stop() {
      await renderer.stop();
      await ownHttp.close();
    },
  };
}

const firstOf = (configs: readonly RenderConfig[], key: "agent" | "token"): string | undefined =>
  configs.find((config) => config[key] !== undefined)?.[key];

async function textOf(path: string): Promise<string> {
  try {
    return await systemDisk.readText(path);
  } catch (error) {
    throw new InputError(path, codeOf(error) === "not-found" ? "there is no such file" : messageOf(error), error);
  }
}

async function readConfigs(paths: readonly string[]): Promise<readonly RenderConfig[]> {
  return await Promise.all(paths.map(async (path) => renderConfig(await textOf(path), path)));
}

/** All files that are wanted, with their templates read. @throws InputError */
async function filesOf(options: RenderOptions, configs: readonly RenderConfig[]): Promise<readonly Rendered[]> {
  const { check } = options;
  const wanted: Wanted[] = [
    ...(options.template ?? []).map((one) => wantedFromText(one, "--template")),
    ...TARGETS.flatMap((target) => (options[target] ?? []).map((one) => wantedFromText(one, `--${target}`, target))),
  ].map((one) => (check === undefined || one.check !== undefined ? one : { ...one, check }));
  wanted.push(...configs.flatMap(({ files }) => files));
  if (wanted.length === 0)
    throw new InputError(
      "render",
      "no file is wanted: name some with --template IN:OUT, --haproxy, --nginx, --apache or --config",
    );
  const paths = new Set<string>();
  for (const { path } of wanted) {
    const whole = resolve(path);
    if (paths.has(whole)) throw new InputError(path, "is wanted twice");
    paths.add(whole);
  }
  const told = options.wait === undefined ? undefined : waitFromText(options.wait, "--wait");
  const wait = told ?? configs.find((config) => config.wait !== undefined)?.wait ?? DEFAULT_WAIT;
  return await Promise.all(
    wanted.map(async (one) => {
      const { from: _, wait: own = wait, commandTimeoutMs = COMMAND_TIMEOUT_MS, makeFolders = true, ...rule } = one;
      return { rule: { ...rule, commandTimeoutMs, makeFolders }, content: await contentOf(one), ...own };
    }),
  );
}

async function contentOf({ from, path }: Wanted): Promise<Content> {
  if ("template" in from) return parseFileTemplate(await textOf(from.template), from.template, environment);
  if ("contents" in from) return parseFileTemplate(from.contents, from.name, environment);
  try {
    return targetContent(from.target, from.service);
  } catch (error) {
    throw error instanceof TemplateFault ? new InputError(path, error.message, error) : error;
  }
}
