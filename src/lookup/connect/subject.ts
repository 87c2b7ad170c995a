// A query as a word for people and as the name of its list of backends: "web", "primary.web?env=prod".
import type { Query } from "../../model/query.ts";
import { textOfQuery } from "../../model/service-name.ts";

const texts = new WeakMap<Query, string>();

/** The same text for the same question. */
export function subjectOfQuery(query: Query): string {
  let text = texts.get(query);
  if (text === undefined) {
    text = textOfQuery({ ...query, service: query.service.toLowerCase() }, "consul");
    texts.set(query, text);
  }
  return text;
}
