// The route table: every path of Consul's HTTP API that this protocol answers.
import type { Row } from "../call.ts";
import { absentRows } from "./absent.ts";
import { agentCheckRows } from "./agent-checks.ts";
import { agentHealthRows } from "./agent-health.ts";
import { agentNodeRows } from "./agent-node.ts";
import { agentServiceRows } from "./agent-services.ts";
import { catalogRows } from "./catalog.ts";
import { configEntryRows } from "./config-entries.ts";
import { coordinateRows } from "./coordinate.ts";
import { eventRows } from "./event.ts";
import { healthRows } from "./health.ts";
import { kvRows } from "./kv.ts";
import { meshRows } from "./mesh.ts";
import { operatorRows } from "./operator.ts";
import { queryRows } from "./query.ts";
import { sessionRows } from "./session.ts";
import { snapshotRows } from "./snapshot.ts";
import { statusRows } from "./status.ts";
import { telemetryRows } from "./telemetry.ts";
import { txnRows } from "./txn.ts";
import { uiRows } from "./ui.ts";

export const rows: readonly Row[] = [
  ...agentServiceRows,
  ...agentCheckRows,
  ...agentHealthRows,
  ...agentNodeRows,
  ...telemetryRows,
  ...catalogRows,
  ...coordinateRows,
  ...eventRows,
  ...healthRows,
  ...kvRows,
  ...queryRows,
  ...sessionRows,
  ...statusRows,
  ...txnRows,
  ...snapshotRows,
  ...operatorRows,
  ...configEntryRows,
  ...uiRows,
  ...absentRows,
  ...meshRows,
];
