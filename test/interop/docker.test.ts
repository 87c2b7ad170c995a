// Everything that needs a real dockerd, in one file: there can be one at a time on a machine, so these suites take turns instead of waiting for one another.
import "./docker/agent.ts";
import "./docker/lives.ts";
import "./docker/engines.ts";
import "./docker/bursts.ts";
import "./docker/dns.ts";
import "./docker/checks.ts";
import "./docker/override.ts";
import "./docker/protocol-readmes.ts";
