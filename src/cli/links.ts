// The names of other programs that this one goes by: called through a link of such a name it is that program.
import { basename } from "node:path";

/** Names with the command each stands for; "" = its words are commands themselves. */
export const LINKS: Readonly<Record<string, string>> = {
  "avahi-browse": "browse",
  "avahi-browse-domains": "browse",
  "avahi-publish": "publish",
  "avahi-publish-address": "publish",
  "avahi-publish-service": "publish",
  "avahi-resolve": "resolve",
  "avahi-resolve-address": "resolve",
  "avahi-resolve-host-name": "resolve",
  consul: "",
  md: "md",
  registrator: "registrator",
};

/** The words of a command line under the name by which the program was called. */
export function wordsAs(program: string, words: readonly string[]): readonly string[] {
  const name = basename(program);
  const command = Object.hasOwn(LINKS, name) ? LINKS[name] : "";
  return command === undefined || command === "" ? words : [command, ...words];
}

/** What a command that stands in for other programs calls itself: the link's name, else "trilith browse". */
export function calledAs(program: string, command: string): string {
  const name = basename(program);
  return Object.hasOwn(LINKS, name) && LINKS[name] === command ? name : `trilith ${command}`;
}
