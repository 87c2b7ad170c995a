// A Node program that knows nothing of service discovery, under `--import trilith/hook`: as load.py, with fetch.
const [url] = process.argv.slice(2);

async function once() {
  try {
    const response = await fetch(url, { headers: { connection: "close" }, signal: AbortSignal.timeout(5_000) });
    return ["ok", (await response.text()).trim()];
  } catch (error) {
    const cause = error?.cause ?? error;
    const text = `${cause?.code ?? cause?.name}: ${cause?.message}`;
    return [
      /ECONNREFUSED|EHOSTUNREACH|ENETUNREACH|ETIMEDOUT|ENOTFOUND|UND_ERR_CONNECT/.test(text) ? "unconnected" : "cut",
      text,
    ];
  }
}

async function run() {
  for (;;) {
    const began = Date.now();
    let [what, text] = await once();
    let tries = 1;
    if (what === "unconnected") {
      const first = text;
      [what, text] = await once();
      tries = 2;
      if (what === "unconnected") text = `${first}; then ${text}`;
    }
    console.log(JSON.stringify({ atMs: Date.now(), what, text, tries, tookMs: Date.now() - began }));
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

for (let i = 0; i < 2; i++) void run();
