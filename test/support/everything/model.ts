// What the matrix of entries and exits is made of: a service as it went in, and as an exit shows it.

/** A service as somebody sees it. What the dialect at hand has no words for is absent. */
export interface Seen {
  readonly service: string;
  readonly address?: string;
  readonly port?: number;
  readonly tags?: readonly string[];
  /** Of a dialect whose Trilith adds labels of its own: at least these. */
  readonly labels?: Readonly<Record<string, string>>;
}

/** A way in: one service by one dialect, under a name that no other entry has. */
export interface Entry {
  /** Its row in the table: "Consul's API, with a check". */
  readonly title: string;
  readonly service: string;
  /** Who has it: a program of the agent's own host at first hand, or somebody else as far as the agent knows. */
  readonly of: "this host" | "others";
  /** Where it is reached on the LAN. */
  readonly address: string;
  readonly ipv6?: string;
  /** Of a container: its own address, once it runs. */
  readonly container?: () => string;
  /** Absent: the dialect knows none. */
  readonly port?: number;
  readonly tags: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
  enter(): Promise<unknown>;
  /** Where the dialect knows health: makes it critical, and well again. */
  readonly health?: { sick(): Promise<unknown>; well(): Promise<unknown> };
  leave(): Promise<unknown>;
}

/** A way out. */
export interface Exit {
  readonly title: string;
  /** What it carries of a service, in a few words. */
  readonly carries: string;
  /** Everything that it shows; `services`: for dialects that tell one name at a time. */
  shows(services: readonly string[]): Promise<readonly Seen[]>;
  /** How an entry looks there. */
  as(entry: Entry): Seen;
  /** It shows what is critical as well. */
  readonly showsSick?: true;
}

/** Services that an exit does not show by design. */
export interface Exception {
  readonly exits: readonly string[];
  /** Which these are, for people. */
  readonly which: string;
  readonly reason: string;
  but(entry: Entry): boolean;
}
