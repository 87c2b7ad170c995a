// `npm start`: makes the clone ready and runs an agent on the embedded store; further words go to `trilith agent`.
import { spawn } from "node:child_process";
import { join } from "node:path";
import { ensureBuilt, root } from "./ensure.mjs";

ensureBuilt();
const child = spawn(process.execPath, [join(root, "dist", "cli", "main.js"), "agent", ...process.argv.slice(2)], {
  stdio: "inherit",
});
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
child.once("exit", (code, signal) => process.exit(code ?? (signal === null ? 1 : 128)));
