// Questions about names that are not ours, asked of the servers that know them: one after the other, equal ones once, answers kept for their TTL.
import { TrilithError } from "../../base/error.ts";
import type { Metrics } from "../../base/metrics.ts";
import type { Random } from "../../base/random.ts";
import {
  type AskFlags,
  type DnsRecord,
  lowerLabel,
  type Message,
  type Name,
  type NameserverParts,
  Nameservers,
  type Question,
  type RecordData,
  type Reply,
  textOfName,
} from "../../wire/dns/index.ts";
import { AnswerCache } from "./answer-cache.ts";

export interface RecursorParts extends NameserverParts {
  readonly cacheBytes: number;
  readonly metrics: Metrics;
}

/** See the first line. */
export interface Recursors {
  /**
   * The answer with the question's spelling in its names. Waits for every server's time in turn at most.
   * @throws TrilithError `unavailable` where no server gave an answer (the text says what each said), `stopped`
   */
  ask(question: Question, flags: AskFlags): Promise<Message>;
  /** Ends everything under way; what is asked later is answered again. */
  stop(): void;
}

/** More than this at a time are refused: each holds a socket. */
const MOST_UNDER_WAY = 1_000;
/** With fewer letters, chance could make a spelling of ours. */
const LETTERS_TO_KNOW_A_SPELLING = 5;

/** One question under way; whoever asks the same meanwhile waits for the same answer. */
interface UnderWay {
  readonly answer: Promise<Reply>;
  /** The spelling we made up for it, to recognise the question when it comes back to us. */
  readonly spelling: Name;
}

/** See `Recursors`. */
export function createRecursors(parts: RecursorParts): Recursors {
  return new Recursing(parts);
}

class Recursing implements Recursors {
  readonly #servers: Nameservers;
  readonly #random: Random;
  readonly #cache: AnswerCache;
  readonly #underWay = new Map<string, UnderWay>();
  readonly #counts: Record<"asked" | "cached" | "joined" | "failed" | "loops", { add(): void }>;

  constructor(parts: RecursorParts) {
    this.#servers = new Nameservers(parts);
    this.#random = parts.random;
    this.#cache = new AnswerCache(parts.clock, parts.cacheBytes);
    const count = (outcome: string): { add(): void } =>
      parts.metrics.counter("dns_recursions_total", "DNS questions for recursors, by what became of them", { outcome });
    this.#counts = {
      asked: count("asked"),
      cached: count("cached"),
      joined: count("joined"),
      failed: count("failed"),
      loops: count("loop"),
    };
  }

  stop(): void {
    this.#servers.stop(new TrilithError("stopped", "the DNS listener has stopped"));
  }

  async ask(question: Question, flags: AskFlags): Promise<Message> {
    const { type, class: klass, name } = question;
    const key = `${type} ${klass} ${flags.checkingDisabled ? 1 : 0}${flags.dnssecOk ? 1 : 0} ${name
      .map(lowerLabel)
      .map((label) => `${label.length}${label}`)
      .join("")}`;
    const cached = this.#cache.get(key);
    if (cached !== undefined) {
      this.#counts.cached.add();
      return respelled(cached, name);
    }
    let underWay = this.#underWay.get(key);
    if (underWay !== undefined) {
      if (isOurSpelling(name, underWay.spelling)) {
        this.#counts.loops.add();
        this.#servers.warn(
          "loop",
          `a recursor asks this agent: questions such as "${textOfName(name)}" go round in a circle`,
        );
        throw new TrilithError("unavailable", `"${textOfName(name)}" came back from a recursor`);
      }
      this.#counts.joined.add();
    } else {
      if (this.#underWay.size >= MOST_UNDER_WAY)
        throw new TrilithError("unavailable", `more than ${MOST_UNDER_WAY} questions wait for recursors`);
      this.#counts.asked.add();
      const spelling = this.#spelling(name);
      const answer = this.#servers.ask({ name: spelling, type, class: klass }, flags);
      underWay = { answer, spelling };
      this.#underWay.set(key, underWay);
      const over = (): boolean => this.#underWay.delete(key);
      answer.then(
        ({ packet, message }) => {
          this.#cache.put(key, packet, message);
          over();
        },
        () => {
          this.#counts.failed.add();
          over();
        },
      );
    }
    return respelled((await underWay.answer).message, name);
  }

  /** The name in upper and lower case at random, and never as it was asked: when it comes to us so, it is our own question. */
  #spelling(name: Name): Name {
    const random = this.#random;
    let same = true;
    const spelled = name.map((label) =>
      [...label]
        .map((letter) => {
          if (!/[a-zA-Z]/.test(letter)) return letter;
          const made = random.below(2) === 0 ? letter.toLowerCase() : letter.toUpperCase();
          if (made !== letter) same = false;
          return made;
        })
        .join(""),
    );
    if (!same) return spelled;
    let turned = false;
    return spelled.map((label) =>
      label.replace(/[a-zA-Z]/g, (letter) => {
        if (turned) return letter;
        turned = true;
        return letter === letter.toLowerCase() ? letter.toUpperCase() : letter.toLowerCase();
      }),
    );
  }
}

function isOurSpelling(name: Name, spelling: Name): boolean {
  if (!name.every((label, i) => label === spelling[i])) return false;
  return name.join("").replace(/[^a-zA-Z]/g, "").length >= LETTERS_TO_KNOW_A_SPELLING;
}

/** The message with the asker's spelling wherever names share their ends with the question's. */
function respelled(message: Message, asked: Name): Message {
  const spell = (name: Name): Name => {
    let same = 0;
    while (
      same < name.length &&
      same < asked.length &&
      lowerLabel(name[name.length - 1 - same] as string) === lowerLabel(asked[asked.length - 1 - same] as string)
    )
      same++;
    return same === 0 ? name : [...name.slice(0, name.length - same), ...asked.slice(asked.length - same)];
  };
  const data = (given: RecordData): RecordData => {
    switch (given.kind) {
      case "NS":
      case "CNAME":
      case "PTR":
      case "SRV":
        return { ...given, target: spell(given.target) };
      case "MX":
        return { ...given, exchange: spell(given.exchange) };
      case "SOA":
        return { ...given, primary: spell(given.primary), mailbox: spell(given.mailbox) };
      default:
        return given;
    }
  };
  const records = (list: readonly DnsRecord[]): DnsRecord[] =>
    list.map((record) => ({ ...record, name: spell(record.name), data: data(record.data) }));
  return {
    ...message,
    questions: message.questions.map((question) => ({ ...question, name: asked })),
    answers: records(message.answers),
    authorities: records(message.authorities),
    additionals: records(message.additionals),
  };
}
