// Prometheus' text format 0.0.4, as its documentation "Exposition formats" defines it.
import type { Sample } from "../../base/metrics.ts";

export const PROMETHEUS_TYPE = "text/plain; version=0.0.4; charset=utf-8";

/** Metrics about the process itself go by the names that every exporter uses. */
const COMMON = /^(process|nodejs|consul)_/;

/** Samples as text: each metric with help and type once, its samples together. */
export function prometheusText(samples: readonly Sample[]): string {
  const byName = new Map<string, Sample[]>();
  for (const sample of samples) {
    const name = COMMON.test(sample.name) ? sample.name : `trilith_${sample.name}`;
    byName.set(name, [...(byName.get(name) ?? []), sample]);
  }
  let text = "";
  for (const [name, all] of [...byName].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const [first] = all as [Sample, ...Sample[]];
    text += `# HELP ${name} ${first.help.replaceAll("\\", "\\\\").replaceAll("\n", "\\n")}\n# TYPE ${name} ${first.kind}\n`;
    for (const { labels, value } of all) {
      const pairs = Object.entries(labels).map(([key, of]) => `${key}="${escapeLabel(of)}"`);
      text += `${name}${pairs.length === 0 ? "" : `{${pairs.join(",")}}`} ${number(value)}\n`;
    }
  }
  return text;
}

function escapeLabel(value: string): string {
  return value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}

function number(value: number): string {
  if (value === Number.POSITIVE_INFINITY) return "+Inf";
  return value === Number.NEGATIVE_INFINITY ? "-Inf" : String(value);
}
