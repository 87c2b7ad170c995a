// `trilith why NAME`: for each instance who registered it, what its checks said and when, and why it is or is not in the answer.
import { systemClock } from "../../base/clock.ts";
import type { InstanceJson, WhyJson } from "../../index.ts";
import { type ClientOptions, clientFlags, clientFor, jsonFlag, segment } from "../client.ts";
import { ago, type Command, printable } from "../io.ts";

const since = (at: string, nowMs: number): string => `${ago(nowMs - Date.parse(at))} ago`;
const firstLine = (text: string): string => text.split("\n", 1)[0]?.slice(0, 160) ?? "";

function instanceText(found: InstanceJson, nowMs: number): string {
  const { source, authority, text } = found.registeredBy;
  const lines = [
    `${found.included ? "+" : "-"} ${found.id} on ${found.node} at ${found.address}:${found.port}: ${found.included ? "in the answer" : "not in the answer"}`,
    `    ${found.why}`,
    `    registered by ${source} (${authority})${text === undefined ? "" : `: ${text}`}`,
  ];
  if (found.tags.length > 0) lines.push(`    tags ${found.tags.join(", ")}`);
  const labels = Object.entries(found.labels);
  if (labels.length > 0) lines.push(`    labels ${labels.map(([key, value]) => `${key}=${value}`).join(", ")}`);
  for (const check of found.checks) {
    const output = firstLine(check.output);
    lines.push(
      `    check ${check.id}${check.about === "node" ? " (of the node)" : ""}: ${check.status}${output === "" ? "" : `, says: ${output}`}`,
    );
    for (const { at, status, output: said } of check.history?.slice(0, 5) ?? [])
      lines.push(`      ${since(at, nowMs)}: ${status}${said === "" ? "" : `, ${firstLine(said)}`}`);
  }
  return lines.map((line) => `${printable(line)}\n`).join("");
}

function whyText(answer: WhyJson, nowMs: number): string {
  const { service, known, instances, recent, gone, complaints, similar, held, fresh, ageMs } = answer;
  const included = instances.filter((one) => one.included).length;
  const parts = [
    known
      ? `${service}: ${instances.length} instance${instances.length === 1 ? "" : "s"}, ${included} in the answer\n`
      : `There is no service "${service}".${similar.length === 0 ? "" : ` Similar: ${similar.join(", ")}.`}\n`,
  ];
  if (!fresh) parts.push(`The store behind the directory is away: this is the last known good, ${ago(ageMs)} old.\n`);
  if (held !== undefined) parts.push(`Held by the sharp-drop guard since ${since(held.since, nowMs)}: ${held.text}\n`);
  for (const instance of instances) parts.push(`\n${instanceText(instance, nowMs)}`);
  // Graves that were folded together tell no reason any more.
  const told = gone.filter(({ id, text, code }) => id !== undefined || text !== undefined || code !== undefined);
  if (told.length > 0) {
    parts.push("\nGone:\n");
    for (const one of told.slice(0, 10)) {
      const when = one.at === undefined ? "" : `${since(one.at, nowMs)}: `;
      const what = one.id === undefined ? "" : `${one.id} on ${one.node ?? "?"}: `;
      parts.push(`  ${printable(`${when}${what}${one.text ?? one.code ?? "no reason told"}`)}\n`);
    }
  }
  if (recent.length > 0) {
    parts.push("\nLately on this host:\n");
    for (const { at, id, text } of recent.slice(0, 10))
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
  summary: "why is a service found, or not?",
  define(parser, io, done) {
    jsonFlag(clientFlags(parser))
      .argument("<service>", "the service's name")
      .action(async (service: string, options: ClientOptions) => {
        const client = clientFor(options, io);
        try {
          const answer = await client.get<WhyJson>(`/v1/trilith/why/${segment(service)}`);
          io.out(options.json ? `${JSON.stringify(answer, null, 2)}\n` : whyText(answer, systemClock.now()));
          done(answer.known ? 0 : 1);
        } finally {
          await client.close();
        }
      });
  },
};
