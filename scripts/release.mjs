// `npm run release [FOLDER]`: the tarball that is published, with the hook's library compiled for every C library and architecture that has a compiler here.
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { ensureBuilt, must, root } from "./ensure.mjs";
import { packedFiles } from "./packed.mjs";

ensureBuilt();
const { FLAGS, LIBRARIES } = await import("../dist/base/native-build.js");

const out = resolve(process.argv[2] ?? join(root, ".tmp", "release"));
const stage = join(out, "package");
rmSync(stage, { recursive: true, force: true });
mkdirSync(stage, { recursive: true });
const { scripts: _, ...description } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
writeFileSync(join(stage, "package.json"), `${JSON.stringify(description, null, 2)}\n`);
for (const path of packedFiles())
  if (path !== "package.json" && !path.startsWith("native/prebuilt/"))
    cpSync(join(root, path), join(stage, path), { recursive: true });

/** What a library is called, and with which compilers it can be made where this is x64; the first that is there makes it. */
const machine = process.arch === "arm64" ? "aarch64" : "x86_64";
const TARGETS = [
  [`linux-${process.arch}-glibc`, ["cc", "gcc", "clang"]],
  [`linux-${process.arch}-musl`, ["musl-gcc", `${machine}-linux-musl-gcc`]],
  ...(process.arch === "x64"
    ? [
        ["linux-arm64-glibc", ["aarch64-linux-gnu-gcc"]],
        ["linux-arm64-musl", ["aarch64-linux-musl-gcc"]],
      ]
    : []),
];
for (const [target, compilers] of TARGETS) {
  const compiler = compilers.find((name) => spawnSync(name, ["-dumpmachine"]).status === 0);
  if (compiler === undefined) {
    console.error(`${target}: none of ${compilers.join(", ")} is here; users there compile it themselves`);
    continue;
  }
  const folder = join(stage, "native", "prebuilt", target);
  mkdirSync(folder, { recursive: true });
  const source = join(root, "native", "libtrilith.c");
  must(compiler, [...FLAGS, "-s", "-o", join(folder, "libtrilith.so"), source, ...LIBRARIES]);
  console.error(`${target}: compiled by ${compiler}`);
}
must("npm", ["pack", "--silent", "--pack-destination", out], { cwd: stage });
