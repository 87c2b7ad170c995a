// The slow suites that need a real dockerd, in one file: there can be one at a time on a machine, so they take turns.
import "./docker/cases.ts";
import "./docker/connect.ts";
import "./docker/connect-networks.ts";
import "./docker/hook.ts";
import "./docker/hosts.ts";
import "./docker/registrator-backends.ts";
import "./docker/soak.ts";
