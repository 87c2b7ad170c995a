// Counters and gauges; counting costs an addition, showing them is the business of whoever is asked for figures.

export interface Counter {
  add(by?: number): void;
}

export interface Metrics {
  /** The counter of that name; the same one for the same name and labels. Names are `snake_case` with a unit at the end. */
  counter(name: string, help: string, labels?: Readonly<Record<string, string>>): Counter;
  /** A number read when somebody looks. Registering a name again replaces its reader. */
  gauge(name: string, help: string, read: () => number): void;
  /** Everything at this moment. */
  read(): readonly Sample[];
}

export interface Sample {
  readonly name: string;
  readonly help: string;
  readonly kind: "counter" | "gauge";
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** Registers what this process itself uses: memory, processor time, when it started. */
export function processMetrics(metrics: Pick<Metrics, "gauge">): void {
  metrics.gauge("process_resident_memory_bytes", "Memory of this process in use", () => process.memoryUsage.rss());
  metrics.gauge("nodejs_heap_size_used_bytes", "JavaScript heap in use", () => process.memoryUsage().heapUsed);
  metrics.gauge("process_uptime_seconds", "Time since this process started", () => process.uptime());
}

/** An empty set of metrics. */
export function createMetrics(): Metrics {
  const counters = new Map<
    string,
    { name: string; help: string; labels: Readonly<Record<string, string>>; value: number; add(by?: number): void }
  >();
  const gauges = new Map<string, { help: string; read: () => number }>();
  return {
    counter(name, help, labels = {}) {
      const key = name + JSON.stringify(labels);
      let counter = counters.get(key);
      if (counter === undefined) {
        counter = {
          name,
          help,
          labels,
          value: 0,
          add(by = 1) {
            this.value += by;
          },
        };
        counters.set(key, counter);
      }
      return counter;
    },
    gauge(name, help, read) {
      gauges.set(name, { help, read });
    },
    read() {
      const samples: Sample[] = [...counters.values()].map(({ name, help, labels, value }) => ({
        name,
        help,
        kind: "counter",
        labels,
        value,
      }));
      for (const [name, { help, read }] of gauges)
        samples.push({ name, help, kind: "gauge", labels: {}, value: read() });
      return samples;
    },
  };
}
