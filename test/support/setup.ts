// Before every test file: in CI random tests repeat the same cases, so that luck does not decide what lands; elsewhere they explore.
import fc from "fast-check";

if (process.env["CI"] === "true") fc.configureGlobal({ seed: 20_261_121 });
