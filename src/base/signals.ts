// Signals to this process: the only door to them beside the terminal's SIGINT and SIGTERM.

/** Calls back on each of the signals instead of what they do by default, until closed. */
export function onSignals(
  names: readonly NodeJS.Signals[],
  callback: (name: NodeJS.Signals) => void,
): { close(): void } {
  const listener = (name: NodeJS.Signals): void => callback(name);
  for (const name of names) process.on(name, listener);
  return {
    close() {
      for (const name of names) process.off(name, listener);
    },
  };
}
