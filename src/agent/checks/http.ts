// The http check: one request; 2xx passing, 429 warning, everything else critical. Texts as Consul writes them.
import { createGunzip, type Gunzip } from "node:zlib";
import { TrilithError } from "../../base/error.ts";
import type { Http, HttpResponse } from "../../base/http.ts";
import { hostPort } from "../../base/net.ts";
import { throwIfShort } from "../../base/shortage.ts";
import { defaultLimits, type Limits, type Probe, type Target } from "../../contracts/probe.ts";
import type { Outcome, Status } from "../../model/check.ts";
import { Tail, textOf } from "../../wire/check-output.ts";
import { type CheckTls, fieldsOf, tlsOf } from "./detail.ts";
import { goNetworkError } from "./go-text.ts";

/** What is sent to whom. */
export interface HttpDetail {
  /** `http://…` or `https://…`; a path alone ("/health") is asked of the service itself. */
  readonly url: string;
  readonly method: string;
  readonly headers: Readonly<Record<string, readonly string[]>>;
  readonly body: string;
  readonly disableRedirects: boolean;
  /** "" = the URL's host. */
  readonly tlsServerName: string;
  readonly tlsSkipVerify: boolean;
  /** Whoever registered it knows that it cannot be asked, and with which words it is critical for that; "" = it can. */
  readonly fault: string;
}

const KNOWN = ["url", "method", "headers", "body", "disableRedirects", "tlsServerName", "tlsSkipVerify", "fault"];
/** Go's http.Client gives up at the tenth redirect. */
const MAX_REDIRECTS = 10;

function parse(raw: unknown): HttpDetail {
  const fields = fieldsOf("http", raw, KNOWN);
  const url = fields.text("url", "");
  const fault = fields.text("fault", "");
  if (fault === "" && !url.startsWith("/")) {
    const parsed = URL.canParse(url) ? new URL(url) : undefined;
    if (parsed === undefined || !/^https?:$/.test(parsed.protocol))
      fields.fail("url", 'a URL that starts with "http://" or "https://", or a path that starts with "/"');
  }
  const method = fields.text("method", "");
  if (fault === "" && !/^[!#$%&'*+.^_`|~0-9A-Za-z-]*$/.test(method))
    fields.fail("method", 'an HTTP method such as "GET"');
  return {
    url,
    method: method === "" ? "GET" : method,
    headers: fields.headers("headers"),
    body: fields.text("body", ""),
    disableRedirects: fields.flag("disableRedirects"),
    tlsServerName: fields.text("tlsServerName", ""),
    tlsSkipVerify: fields.flag("tlsSkipVerify"),
    fault,
  };
}

/** The request's headers as Consul sends them; a check's own win, whatever their case. */
function headersOf(detail: HttpDetail): Record<string, string | string[]> {
  const headers: Record<string, string | string[]> = Object.create(null);
  const own = new Set<string>();
  for (const [name, values] of Object.entries(detail.headers)) {
    const [only] = values;
    headers[name] = values.length === 1 && only !== undefined ? only : [...values];
    own.add(name.toLowerCase());
  }
  const unless = (name: string, value: string): void => {
    if (!own.has(name.toLowerCase())) headers[name] = value;
  };
  unless("User-Agent", "Consul Health Check");
  unless("Accept", "text/plain, text/*, */*");
  unless("Accept-Encoding", "gzip");
  // A kept connection would ask whether an old connection still works, not whether the service takes new ones.
  unless("Connection", "close");
  return headers;
}

function statusOf(code: number): Status {
  if (code >= 200 && code <= 299) return "passing";
  return code === 429 ? "warning" : "critical";
}

/** Reads a body to its end, keeping the tail. What came before a broken end or a time-out counts: the status is known. */
async function tailOf(answer: HttpResponse, maxBytes: number, signal: AbortSignal): Promise<Uint8Array> {
  const tail = new Tail(maxBytes);
  const zipped = String(answer.headers["content-encoding"] ?? "").toLowerCase() === "gzip";
  const source = zipped ? createGunzip() : answer.body;
  if (zipped) answer.body.on("error", (error) => source.destroy(error)).pipe(source as Gunzip);
  const stop = (): void => void answer.body.destroy(new TrilithError("timeout", "the check's time is over"));
  signal.addEventListener("abort", stop, { once: true });
  try {
    for await (const chunk of source as AsyncIterable<Uint8Array>) tail.add(chunk);
  } catch {
    // Consul, too, reports the status with as much of the body as there was.
  } finally {
    signal.removeEventListener("abort", stop);
    answer.body.destroy();
    source.destroy();
  }
  return tail.bytes();
}

/** Makes the http probe. */
export function httpProbe(http: Http, tls: CheckTls = {}): Probe<HttpDetail> {
  /** The answer at the end of the redirects. */
  async function ask(detail: HttpDetail, first: string, signal: AbortSignal): Promise<HttpResponse> {
    let url = first;
    let method = detail.method;
    let body = detail.body;
    for (let redirects = 0; ; redirects++) {
      const headers = headersOf(detail);
      const answer = await http.request({
        url,
        method,
        headers,
        signal,
        // The check's own time-out is in the signal.
        headTimeoutMs: 0,
        bodyTimeoutMs: 0,
        ...(body === "" ? {} : { body }),
        ...(url.startsWith("https:") ? { tls: tlsOf(detail, tls) } : {}),
      });
      const location = answer.headers["location"];
      const redirect = [301, 302, 303, 307, 308].includes(answer.status) && typeof location === "string";
      if (!redirect || detail.disableRedirects) return answer;
      answer.body.on("error", () => {}).destroy();
      if (redirects + 1 >= MAX_REDIRECTS) throw new TrilithError("unavailable", "stopped after 10 redirects");
      if (!URL.canParse(location, url))
        throw new TrilithError("unavailable", `failed to parse Location header ${JSON.stringify(location)}`);
      url = new URL(location, url).href;
      if (!/^https?:/.test(url))
        throw new TrilithError("unavailable", `unsupported protocol scheme ${JSON.stringify(new URL(url).protocol)}`);
      // 307 and 308 repeat the request as it was, the others become a GET [RFC9110-15.4].
      if (answer.status < 307 && method !== "HEAD") {
        method = "GET";
        body = "";
      }
    }
  }
  return {
    kind: "http",
    defaultTimeoutMs: 10_000,
    parse,
    async run(detail, target: Target, signal, limits: Limits = defaultLimits): Promise<Outcome> {
      if (detail.fault !== "") return { status: "critical", output: detail.fault };
      const url = detail.url.startsWith("/")
        ? `http://${hostPort(target.address, target.port)}${detail.url}`
        : detail.url;
      try {
        const answer = await ask(detail, url, signal);
        const body = await tailOf(answer, limits.outputMaxBytes, signal);
        const status = `${answer.status} ${answer.statusText}`.trimEnd();
        return {
          status: statusOf(answer.status),
          output: `HTTP ${detail.method} ${url}: ${status} Output: ${textOf(body)}`,
        };
      } catch (error) {
        if (!signal.aborted) throwIfShort(error);
        const verb = detail.method.charAt(0).toUpperCase() + detail.method.slice(1).toLowerCase();
        const { host, port, protocol } = new URL(url);
        const why = signal.aborted
          ? "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
          : goNetworkError(error, port === "" ? `${host}:${protocol === "https:" ? 443 : 80}` : host);
        return { status: "critical", output: `${verb} "${url}": ${why}` };
      }
    },
  };
}
