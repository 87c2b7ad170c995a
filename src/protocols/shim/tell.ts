// What people are told of the hook: how its table stands for doctor and the start screen, and what hooked programs are given for `why`.
import type { Clock } from "../../base/clock.ts";
import { hostPort } from "../../base/net.ts";
import type { SourceState } from "../../contracts/ground.ts";
import { type Magic, subjectOf } from "../../contracts/magic.ts";
import type { Told } from "../../contracts/protocol.ts";
import type { TableBackend, TableService } from "../../wire/hook-table.ts";
import type { Composer } from "./composer.ts";
import type { HostView } from "./host.ts";
import type { Keeper } from "./keeper.ts";
import type { Suspicions } from "./suspicions.ts";

const MOST_COMPLAINTS = 3;
const MOST_BACKENDS = 8;
const MOST_SUBJECTS = 8;

/** Lines for doctor: the table, and what is wrong with it or with what services say in their labels. */
export function hookStates(parts: {
  readonly clock: Pick<Clock, "now">;
  readonly keeper: Keeper;
  readonly composer: Composer;
  readonly suspicions: Suspicions;
  /** True where somebody said where the table is to be: that others cannot reach it there is not what was meant. */
  readonly placed: boolean;
  /** Where programs in other network namespaces reach this host. */
  readonly host: Pick<HostView, "now">;
}): readonly SourceState[] {
  const { clock, keeper, composer, suspicions, placed, host } = parts;
  const { place, written, trouble, waiting } = keeper.standing();
  const states: SourceState[] = [];
  const say = (ok: boolean, text: string): void => void states.push({ name: "hook", ok, text });
  if (trouble !== undefined) say(false, trouble.message);
  else if (place === undefined) say(true, "no table until somebody asks for one (trilith hook)");
  else {
    const parts = [
      written === undefined || written.generation === 0
        ? `table ${place.file.path}: not written yet`
        : `table ${place.file.path}: ${written.services} ${written.services === 1 ? "service or tag" : "services and tags"}, written ${agoText(clock.now() - written.atMs)}`,
    ];
    const reached = [host.now?.v4, host.now?.v6].filter((each) => each !== undefined);
    if (reached.length > 0) parts.push(`containers reach this host at ${reached.join(" and ")}`);
    const suspects = suspicions.count();
    if (suspects > 0)
      parts.push(suspects === 1 ? "1 backend refuses connections" : `${suspects} backends refuse connections`);
    const unread = suspicions.unread();
    if (unread > 0)
      parts.push(`what programs of ${unread} other ${unread === 1 ? "user" : "users"} see cannot be read`);
    const barred = placed && place.limits?.shut === true;
    for (const each of [waiting, barred ? undefined : place.limits?.text]) if (each !== undefined) parts.push(each);
    say(true, parts.join("; "));
    if (barred) say(false, `the table ${place.file.path}: ${place.limits.text}`);
    if (place.usual !== undefined) say(false, place.usual);
  }
  const unreadable = suspicions.trouble();
  if (unreadable !== undefined) say(false, unreadable);
  const complaints = composer.complaints();
  for (const text of complaints.slice(0, MOST_COMPLAINTS)) say(false, text);
  if (complaints.length > MOST_COMPLAINTS) say(false, `and ${complaints.length - MOST_COMPLAINTS} more of this kind`);
  return states;
}

function agoText(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  return seconds < 120 ? `${seconds} s ago` : `${Math.round(seconds / 60)} min ago`;
}

/** What hooked programs are given: the service first, then its tags, then what its instances said that is not followed. */
export function answersAbout(
  subjects: readonly TableService[],
  complaints: readonly string[],
  magic: Pick<Magic, "of">,
): readonly Told[] {
  const given = subjects.slice(0, MOST_SUBJECTS).map((each) => {
    const { v4, v6 } = magic.of(subjectOf(each.subject));
    const name = each.names[0] ?? each.subject;
    const where = each.backends.length === 0 ? "nothing: connections are refused" : backendsText(each.backends);
    return { to: "programs with the hook", text: `${name} (${v4}, ${v6}), ${each.policy}: ${where}` };
  });
  return [...given, ...complaints.map((text) => ({ to: "programs with the hook", text: `not followed: ${text}` }))];
}

const PLACE = ["this host", "this zone", undefined] as const;

function backendsText(backends: readonly TableBackend[]): string {
  const texts = backends.slice(0, MOST_BACKENDS).map(({ address, port, tier, suspect, weight }) => {
    const notes = [PLACE[tier], suspect ? "refuses" : undefined, weight === 1 ? undefined : `weight ${weight}`];
    const said = notes.filter((each) => each !== undefined).join(", ");
    return `${hostPort(address, port)}${said === "" ? "" : ` (${said})`}`;
  });
  const more = backends.length - texts.length;
  return `${texts.join(", ")}${more > 0 ? ` and ${more} more` : ""}`;
}
