// node:fs, loaded when the first file is opened: it brings all of Node's streams, which a hooked program that opens none would wait for at its start.
import type Fs from "node:fs";

export const fs = (): typeof Fs => process.getBuiltinModule("node:fs");
