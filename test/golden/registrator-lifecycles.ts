// What Trilith makes of each recorded life of containers under Registrator: where a step differs, what is registered instead, and why.

/** A life as recorded ("same"), or with other services after some steps. */
export type LifeExpectation =
  | "same"
  | {
      readonly differs: string;
      /** By step, counted from 0: the IDs registered, without the host in front. */
      readonly steps?: Readonly<Record<number, readonly string[]>>;
      /** By step: what is registered but in no lookup. */
      readonly aside?: Readonly<Record<number, readonly string[]>>;
      /** The agent refuses to start, and says this. */
      readonly refused?: string;
    };

const CLEANUP = "what ended while the agent was away is gone, by owner, without any flag";

export const lives: Readonly<Record<string, LifeExpectation>> = {
  "life-start-stop-kill-rm": "same",
  "life-pause-unpause": { differs: "what is paused is in no lookup", aside: { 1: ["c0:80"], 3: ["c0:80"] } },
  "life-exit-codes-deregister-always": "same",
  "life-exit-codes-deregister-on-success": {
    differs: "what was removed is gone, also when it had failed",
    steps: { 22: ["c1:80", "c2:80", "c127:80"], 23: [] },
  },
  "life-onsuccess-exit1-then-start-again": "same",
  "life-rename": { differs: "a rename counts at once", steps: { 1: ["c0new:80"], 3: ["c0:80"] } },
  "life-network-two-internal": "same",
  "life-registrator-stops": "same",
  "life-registrator-restart-container-gone ": { differs: CLEANUP, steps: { 3: ["c1:80", "c3:80"] } },
  "life-registrator-restart-container-gone -cleanup": { differs: CLEANUP, steps: { 3: ["c1:80", "c3:80"] } },
  "life-registrator-restart-container-gone -cleanup -resync 2": { differs: CLEANUP, steps: { 3: ["c1:80", "c3:80"] } },
  "life-registrator-restart-container-gone -resync 2": { differs: CLEANUP, steps: { 3: ["c1:80", "c3:80"] } },
  "life-cleanup-what-is-touched": {
    differs: "what was registered by hand is its owner's: it is not cleaned up, nor overwritten by a container",
    steps: { 2: ["a b:80", "c0:80", "c0:9999", "g:80", "gone", "gone:53:udp", "gone:80", "gone:http", "manual", "otherhost:gone:80", "prefix:{hostname}:gone:80"] },
  },
  "life-resync-restores": {
    differs: "what somebody deregistered by hand stays away until the container changes",
    steps: { 2: ["c1:80"], 3: ["c1:80"] },
  },
  "life-consul-restart-persistent SIGTERM -resync 2": { differs: CLEANUP, steps: { 4: ["c1:80"] } },
  "life-consul-restart-persistent -cleanup -resync 2": "same",
  "life-consul-restart-memory-only ": { differs: "an empty directory is filled at once", steps: { 1: ["c0:80"] } },
  "life-tags-template {{.Nope": { differs: "a bad template is an error at start", refused: "template: tags: unclosed action" },
  "life-tags-template {{.Nope}}": { differs: "registered without these tags, and reported", steps: { 0: ["c0:80"] } },
  "life-tags-template {{nofunc}}": {
    differs: "a bad template is an error at start",
    refused: 'template: tags: function "nofunc" not defined',
  },
  'life-tags-template {{mIndex "absent" .Config.Labels}}': "same",
  "life-tags-template {{sIndex 5 .Config.Env}}": "same",
  "life-initial-sync": { differs: "what is paused is in no lookup", aside: { 1: ["cpause:80"], 2: ["cpause:80"] } },
  "life-short-lived": "same",
  "life-20-at-once": {
    differs: "bursts lose nothing and leave nothing",
    steps: { 0: Array.from({ length: 20 }, (_, i) => `m${i}:80`), 1: [] },
  },
  "life-resync-picks-up-failed": {
    differs: "registered without the label that Consul refuses, and reported",
    steps: { 0: ["c0:80"], 1: ["c0:80"] },
  },
  "life-dockerd-restart": {
    differs: "the agent waits for dockerd and goes on",
    steps: { 2: ["c1:80"], 3: ["c1:80", "c2:80"] },
  },
};
