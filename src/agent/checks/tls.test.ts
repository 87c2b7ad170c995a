// Where the authorities and certificates of checks come from.
import { describe, expect, test } from "vitest";
import { readCheckTls } from "./index.ts";

const PEM = "-----BEGIN CERTIFICATE-----\nnot really\n-----END CERTIFICATE-----\n";

function machine(files: Readonly<Record<string, string>>, environment?: string) {
  return {
    disk: {
      async readText(path: string): Promise<string> {
        const text = files[path];
        if (text === undefined) throw Object.assign(new Error(`ENOENT: ${path}`), { code: "ENOENT" });
        return text;
      },
    },
    processes: { env: (name: string) => (name === "SSL_CERT_FILE" ? environment : undefined) },
  };
}

describe("the authorities of checks", () => {
  test("the system's, in the first of the usual places, or where SSL_CERT_FILE says", async () => {
    const files = {
      "/etc/pki/tls/certs/ca-bundle.crt": `red ${PEM}`,
      "/etc/ssl/cert.pem": PEM,
      "/own.pem": `own ${PEM}`,
    };
    expect(await readCheckTls(undefined, machine(files), "alpha")).toEqual({ ca: `red ${PEM}` });
    expect(await readCheckTls(undefined, machine(files, "/own.pem"), "alpha")).toEqual({ ca: `own ${PEM}` });
    expect(await readCheckTls(undefined, machine(files, "/none.pem"), "alpha")).toEqual({});
    expect(await readCheckTls(undefined, machine({ "/etc/ssl/cert.pem": "" }), "alpha")).toEqual({});
    expect(await readCheckTls(undefined, machine({}), "alpha")).toEqual({});
  });

  test("files that are named have to be there and to be what they should be", async () => {
    await expect(readCheckTls({ caFile: "/ca.pem" }, machine({}), "alpha")).rejects.toMatchObject({
      code: "not-found",
      message: expect.stringContaining("reading the TLS file /ca.pem for checks"),
    });
    await expect(readCheckTls({ keyFile: "/k.pem" }, machine({ "/k.pem": "rubbish" }), "alpha")).rejects.toThrow(
      /^the TLS files for checks \(\/k\.pem\): /,
    );
  });

  test("servers are called as the node is, unless a name is given", async () => {
    expect(await readCheckTls({}, machine({}), "alpha")).toEqual({ serverName: "alpha" });
    expect(await readCheckTls({ serverName: "s" }, machine({}), "alpha")).toEqual({ serverName: "s" });
  });
});
