// `trilith why NAME`: for each instance who registered it, what its checks said and when, and why it is or is not in the answer.
import { systemClock } from "../../base/clock.ts";
import type { InstanceJson, WhyJson } from "../../index.ts";

import { type ClientOptions, clientFlags, jsonFlag, segment, withClient } from "../client.ts";
import { ago, type Command, json, printable } from "../io.ts";

type SaidJson = NonNullable<InstanceJson["overridden"]>["by"][number];

const LINES = { results: 5, gone: 10, recent: 10 } as const;

const since = (at: string, nowMs: number): string => `${ago(nowMs - Date.parse(at))} ago`;
const firstLine = (text: string): string => text.split("\n", 1)[0]?.slice(0, 160) ?? "";
const lines = (all: readonly string[]): string => all.map((line) => `${printable(line)}\n`).join("");
const shown = (value: unknown): string => (typeof value === "string" ? value : JSON.stringify(value));

function saidText({ for: target, set, by, at }: SaidJson, nowMs: number): string {
  return `"${target}": ${set.join(" ")} (by ${by}${at === undefined ? "" : `, ${since(at, nowMs)}`})`;
}

function checkLines(found: InstanceJson, here: string, nowMs: number): readonly string[] {
  return found.checks.flatMap((check) => {
    const output = firstLine(check.output);
    const whose = check.about === "node" ? " (of the node)" : "";
    const results = check.history?.slice(0, LINES.results) ?? [];
    const elsewhere = check.history === undefined && found.external !== true && found.node !== here;
    return [
      `    check ${check.id}${whose}: ${check.status}${output === "" ? "" : `, says: ${output}`}`,
      ...results.map(
        ({ at, status, output: said }) =>
          `      ${since(at, nowMs)}: ${status}${said === "" ? "" : `, ${firstLine(said)}`}`,
      ),
      ...(elsewhere ? [`      its results are kept on ${found.node}: trilith why there tells them`] : []),
    ];
  });
}

function instanceText(found: InstanceJson, here: string, nowMs: number): string {
  const { source, authority, text, words = [] } = found.registeredBy;
  const said = [
    `${found.included ? "+" : "-"} ${found.id} on ${found.node} at ${found.address}:${found.port}: ${found.included ? "in the answer" : "not in the answer"}`,
    `    ${found.why}`,
    `    registered by ${source} (${authority})${text === undefined ? "" : `: ${text}`}`,
    ...words.map((word) => `      ${word}`),
  ];
  if (found.external === true)
    said.push(
      `    on an external node${found.witnesses === undefined ? "" : `, seen by ${found.witnesses.join(", ")}`}`,
    );
  if (found.overridden !== undefined) {
    for (const one of found.overridden.by) said.push(`    overridden as ${saidText(one, nowMs)}`);
    for (const [key, value] of Object.entries(found.overridden.original))
      said.push(`      its source says ${key} ${shown(value)}`);
  }
  if (found.tags.length > 0) said.push(`    tags ${found.tags.join(", ")}`);
  const labels = Object.entries(found.labels);
  if (labels.length > 0) said.push(`    labels ${labels.map(([key, value]) => `${key}=${value}`).join(", ")}`);
  return lines([...said, ...checkLines(found, here, nowMs)]);
}

function overridesText(overrides: WhyJson["overrides"], shownIds: ReadonlySet<string>, nowMs: number): string {
  const told = overrides.flatMap((one) => {
    // What is shown with its instance need not be told again.
    const rest = one.matches.filter(({ id }) => !shownIds.has(id));
    if (rest.length === 0 && one.note === undefined) return [];
    const about = rest.map(({ id, service, from, hidden, text }) => {
      const what = `${id}, which ${from} calls "${service}"${text === undefined ? "" : ` (${text})`}`;
      return `    ${hidden ? "hides" : "changes"} ${what}`;
    });
    return [
      `  ${saidText(one, nowMs)}`,
      ...about,
      ...(one.note === undefined ? [] : [`    ${one.note}`]),
      ...(one.from === undefined ? [`    trilith override ${one.for} --undo takes it back`] : []),
    ];
  });
  return told.length === 0 ? "" : `\nOverrides:\n${lines(told)}`;
}

/** An answer as text for people. */
export function whyText(answer: WhyJson, nowMs: number): string {
  const { service, node, known, instances, recent, gone, complaints, similar, held, fresh, ageMs, overrides } = answer;
  const included = instances.filter((one) => one.included).length;
  const parts = [
    known
      ? `${service}: ${instances.length} instance${instances.length === 1 ? "" : "s"}, ${included} in the answer\n`
      : `There is no service "${service}".${similar.length === 0 ? "" : ` Similar: ${similar.join(", ")}.`}\n`,
  ];
  if (!fresh)
    parts.push(
      `What is marked "last known" is the last known good, ${ago(ageMs)} old: what told of it does not answer (trilith doctor).\n`,
    );
  if (held !== undefined)
    parts.push(`Held by the sharp-drop guard for ${ago(nowMs - Date.parse(held.since))}: ${held.text}\n`);
  if (answer.panic === true) parts.push("Too few instances are healthy: all are answered (panic threshold).\n");
  for (const instance of instances) parts.push(`\n${instanceText(instance, node, nowMs)}`);
  parts.push(overridesText(overrides, new Set(instances.map(({ id }) => id)), nowMs));
  if (answer.answers.length > 0) {
    parts.push("\nAnswered now:\n");
    for (const { protocol, to, text } of answer.answers)
      parts.push(`  ${printable(`${protocol}, to ${to}: ${text}`)}\n`);
  }
  // Graves that were folded together tell no reason any more.
  const told = gone.filter(({ id, text, code }) => id !== undefined || text !== undefined || code !== undefined);
  if (told.length > 0) {
    parts.push("\nGone:\n");
    for (const one of told.slice(0, LINES.gone)) {
      const when = one.at === undefined ? "" : `${since(one.at, nowMs)}: `;
      const what = one.id === undefined ? "" : `${one.id} on ${one.node ?? "?"}: `;
      parts.push(`  ${printable(`${when}${what}${one.text ?? one.code ?? "no reason told"}`)}\n`);
    }
  }
  if (recent.length > 0) {
    parts.push("\nLately on this host:\n");
    for (const { at, id, text } of recent.slice(0, LINES.recent))
      parts.push(`  ${printable(`${since(at, nowMs)}: ${id}: ${text}`)}\n`);
  }
  if (complaints.length > 0) {
    parts.push("\nComplaints:\n");
    for (const { from, about, text } of complaints)
      parts.push(`  ${printable(`${from}: ${text.startsWith(about) ? "" : `${about}: `}${text}`)}\n`);
  }
  return parts.join("");
}

export const command: Command = {
  name: "why",
  summary: "explain why a service is found, or not",
  define(parser, io, done) {
    jsonFlag(clientFlags(parser))
      .argument("<service>", "the service's name")
      .action(async (service: string, options: ClientOptions) => {
        const path = `/v1/trilith/why/${segment(service)}`;
        const answer = await withClient(options, io, (client) => client.get<WhyJson>(path));
        io.out(options.json ? json(answer) : whyText(answer, systemClock.now()));
        done(answer.known ? 0 : 1);
      });
  },
};
