// The route table: every path of Consul's HTTP API that this protocol answers.
import type { Row } from "../call.ts";
import { absentRows } from "./absent.ts";
import { agentCheckRows } from "./agent-checks.ts";
import { agentHealthRows } from "./agent-health.ts";
import { agentNodeRows } from "./agent-node.ts";
import { agentServiceRows } from "./agent-services.ts";
import { catalogRows } from "./catalog.ts";
import { coordinateRows } from "./coordinate.ts";
import { healthRows } from "./health.ts";
import { kvRows } from "./kv.ts";
import { statusRows } from "./status.ts";

export const rows: readonly Row[] = [
  ...agentServiceRows,
  ...agentCheckRows,
  ...agentHealthRows,
  ...agentNodeRows,
  ...catalogRows,
  ...coordinateRows,
  ...healthRows,
  ...kvRows,
  ...statusRows,
  ...absentRows,
];
