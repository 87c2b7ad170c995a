// What Trilith makes of each recorded Registrator case: the same, the same with `compat`, or something better (and why).

/** How a case's registrations compare with the recording. */
export type Expectation =
  /** Exactly as recorded, with default settings (and with `compat`). */
  | "same"
  /** Exactly as recorded with `compat: true`; by default tags keep the order in which they were written. */
  | "compat-only"
  /** Not as recorded, and why. */
  | { readonly differs: string };

const META = "Registrator's whole registration is refused for one label; here the valid part is registered and the rest reported";
const CHECK = "Registrator's whole registration is refused for one wrong check attribute; here it is registered and the attribute reported";
const SCRIPT = "the script is run as a shell line; Registrator hands it over as one program name";
const IPV6 = "IPv6 addresses stand in brackets";
const SLASH = "a path without its slash gets it";
const UNRESOLVED = "a host name that resolves to nothing: the node's own address instead of 0.0.0.0, which is refused";
const NO_RUN = "Docker could not start the container: there is nothing to translate";

export const expectations: Readonly<Record<string, Expectation>> = {
  "port-fixed": "same",
  "port-random-p": "same",
  "port-P-single": "same",
  "port-P-group": "same",
  "port-group-fixed": "same",
  "port-exposed-unpublished": "same",
  "port-none": "same",
  "port-expose-flag-unpublished": "same",
  "port-expose-flag-P": "same",
  "port-loopback-ip-random": "same",
  "port-ipv6-only": "same",
  "port-explicit-0.0.0.0": "same",
  "port-partially-published": "same",
  "port-range": "same",
  "port-two-host-ports-for-one": "same",
  "port-two-host-ips-for-one": "same",
  "port-sctp": { differs: NO_RUN },
  "port-tcp-udp-sctp-group": { differs: NO_RUN },
  "net-host-exposed": "same",
  "net-host-group": "same",
  "net-host-p-discarded": "same",
  "net-host-expose-flag": "same",
  "net-host-no-expose": "same",
  "net-custom-bridge-published": "same",
  "net-custom-bridge-specific-ip": "same",
  "net-custom-bridge-static-ip-internal": "same",
  "net-container-mode-internal": "same",
  "name-env": "same",
  "name-env-group": "same",
  "name-port-env-single": "same",
  "name-port-env-group-some": "same",
  "name-port-env-group-all": "same",
  "name-empty": "same",
  "name-port-empty-group": "same",
  "name-odd-chars": "same",
  "name-comma": "same",
  "name-lower-prefix": "same",
  "name-unmatched-port": "same",
  "name-hostport-not-matched": "same",
  "image-repo-tag": "same",
  "image-registry-port-tag": "same",
  "image-odd-name": "same",
  "image-by-sha256-id": "same",
  "image-by-digest": "same",
  "image-by-tag-and-digest": "same",
  "tags-one": "same",
  "tags-empty": "same",
  "tags-escaped-comma": "compat-only",
  "tags-extra-commas": "compat-only",
  "tags-spaces": "compat-only",
  "tags-duplicates": "compat-only",
  "tags-double-backslash": "same",
  "tags-backslash-end": "compat-only",
  "tags-unicode": "compat-only",
  "tags-port-overrides-general": "same",
  "tags-udp": "compat-only",
  "tags-flag": "compat-only",
  "tags-flag-no-env": "compat-only",
  "tags-flag-udp": "compat-only",
  "tags-flag-template": "compat-only",
  "tags-flag-template-split": "compat-only",
  "tags-flag-template-state": "compat-only",
  "tags-flag-template-escaped-comma": "compat-only",
  "id-general": "same",
  "id-port": "same",
  "id-general-group": "same",
  "id-udp": "same",
  "id-with-slash-space": "same",
  "attr-general": "same",
  "attr-port-over-general-rev": "same",
  "attr-empty-value": "same",
  "attr-equals-in-value": "same",
  "attr-unicode-value": "same",
  "attr-value-512": "same",
  "attr-value-513": { differs: META },
  "attr-key-too-long": { differs: META },
  "attr-key-dot": { differs: META },
  "attr-key-dash": "same",
  "attr-65-keys": { differs: META },
  "attr-no-name-after-prefix": { differs: META },
  "attr-port-number-only": "same",
  "attr-port-number-underscore": { differs: META },
  "attr-consul-prefix": { differs: META },
  "ignore-true": "same",
  "ignore-false": "same",
  "ignore-empty": "same",
  "ignore-port": "same",
  "ignore-general-not-port": "same",
  "label-name": "compat-only",
  "label-and-env": "same",
  "label-general-env-port": "same",
  "label-port-env-general": "same",
  "label-port-env-port": "same",
  "label-lowercase": "same",
  "label-check": "same",
  "image-env-defaults": "compat-only",
  "image-env-defaults-overridden": "compat-only",
  "image-env-defaults-emptied": "same",
  "image-env-ports": "same",
  "image-label-defaults": "same",
  "image-label-vs-run-env": "same",
  "image-label-vs-run-label": "same",
  "image-env-check": "same",
  "check-http": "same",
  "check-http-full": "same",
  "check-http-no-slash": { differs: SLASH },
  "check-http-real": "same",
  "check-https": "same",
  "check-https-http-method": "same",
  "check-tcp": "same",
  "check-script": { differs: SCRIPT },
  "check-script-consul-scripts-disabled": { differs: CHECK },
  "check-cmd": "same",
  "check-ttl": "same",
  "check-ttl-initial-passing": "same",
  "check-initial-status-warning": "same",
  "check-initial-status-bogus": { differs: CHECK },
  "check-interval-only": "same",
  "check-interval-no-unit": { differs: CHECK },
  "check-interval-bogus": { differs: CHECK },
  "check-interval-too-short": "same",
  "check-deregister-after-bogus": { differs: CHECK },
  "check-deregister-after-10s": "same",
  "check-grpc": "same",
  "check-grpc-tls": "same",
  "check-precedence-ttl-over-tcp": "same",
  "check-precedence-script-over-ttl": { differs: SCRIPT },
  "check-http-internal": "same",
  "flag-internal-unpublished": "same",
  "flag-internal-published": "same",
  "flag-internal-net-host": "same",
  "flag-internal-no-expose": "same",
  "flag-explicit-no-name": "same",
  "flag-explicit-name-env": "same",
  "flag-explicit-name-label": "same",
  "flag-explicit-one-port-named": "same",
  "flag-explicit-image-env": "compat-only",
  "flag-ip": "same",
  "flag-ip-loopback-binding": "same",
  "flag-ip-v6-tcp": { differs: IPV6 },
  "flag-ip-hostname": "same",
  "flag-useIpFromLabel": "same",
  "flag-useIpFromLabel-no-slash": "same",
  "flag-useIpFromLabel-absent": "same",
  "flag-useIpFromLabel-internal": "same",
  "flag-useIpFromLabel-over-ip": "same",
  "flag-ttl-consul": "same",
  "hostname-unresolvable": { differs: UNRESOLVED },
  "hostname-unresolvable-loopback": "same",
  "hostname-unresolvable-net-host": { differs: UNRESOLVED },
  "hostname-loopback-resolved": "same",
  "name-with-compose-labels": "same",
  "port-sctp-internal": "same",
  "port-sctp-net-host": "same",
  "port-tcp-udp-sctp-internal": "same",
  "check-script-real-output": { differs: SCRIPT },
  "check-script-real-single": { differs: SCRIPT },
  "check-cmd-real": "same",
  "check-http-no-slash-real": { differs: SLASH },
  "check-tcp-v6-real": { differs: IPV6 },
  "check-http-v6-real": { differs: IPV6 },
  "name-label-case-collision": "same",
  "name-group-same-port-names": "same",
  "tags-port-and-forced-group": "compat-only",
  "ip-flag-and-useIp-internal-group": "same",
  "explicit-ignore": "same",
  "explicit-empty-name": "same",
  "internal-net-custom-and-published": "same",
  "net-none-ip-flag": "same",
  "net-named-default-bridge": "same",
};

/** How a case of the command line compares: the same, or not, and why. */
export type CommandExpectation = "same" | { readonly differs: string };

/** What is printed and with which code it ends. */
export const commandExpectations: Readonly<Record<string, CommandExpectation>> = {
  "life-consul-absent-at-start ": "same",
  "life-consul-absent-at-start -retry-attempts 2 -retry-interval 300": "same",
  "life-consul-absent-at-start -retry-attempts -1 -retry-interval 500": "same",
  "cmdline -ttl 10 consul://127.0.0.1:28500": "same",
  "cmdline -ttl-refresh 10 consul://127.0.0.1:28500": "same",
  "cmdline -deregister never consul://127.0.0.1:28500": "same",
  "cmdline -retry-interval 0 consul://127.0.0.1:28500": "same",
  "cmdline -nosuch consul://127.0.0.1:28500": "same",
  "cmdline  foo://127.0.0.1": "same",
  "cmdline  127.0.0.1:28500": "same",
  "cmdline  ": "same",
  "cmdline extra consul://127.0.0.1:28500": "same",
  "cmdline  skydns2://127.0.0.1:22379": "same",
  "cmdline  consul://127.0.0.1:28500/path": "same",
};

type Row = Readonly<Record<string, unknown>>;

/** How a backend case compares: what is stored after each step. */
export type BackendExpectation =
  | "same"
  | {
      readonly differs: string;
      /** What is stored after a step instead of what was recorded. */
      readonly stored?: Readonly<Record<string, readonly Row[]>>;
      /** What is stored after a step besides what was recorded. */
      readonly also?: Readonly<Record<string, readonly Row[]>>;
    };

const folder = (path: string): Row => ({ path, data: "", ephemeral: false });
const web = (path: string): Row => ({
  path: `${path}/{hostip}:21080`,
  data: '{"Name":"web","IP":"{hostip}","PublicPort":21080,"PrivatePort":80,"ContainerID":"{cid12}","Tags":["b","a"],"Attrs":{"foo":"bar"}}',
  ephemeral: true,
});
const slashes: readonly Row[] = [
  folder("/basepath/a"),
  folder("/basepath/a/b"),
  {
    path: "/basepath/a/b/{hostip}:21083",
    data: '{"Name":"a/b","IP":"{hostip}","PublicPort":21083,"PrivatePort":80,"ContainerID":"{cid12:c3}","Tags":[],"Attrs":{}}',
    ephemeral: true,
  },
];
const deep: readonly Row[] = [folder("/a"), folder("/a/b")];
const key = (name: string): Row => ({ key: name, value: "{hostip}:21080", flags: 0, session: null });

export const backendExpectations: Readonly<Record<string, BackendExpectation>> = {
  "etcd-ttl": "same",
  "etcd-ttl-registrator-hangs": "same",
  "etcd-onsuccess-exit1-no-ttl": "same",
  "etcd-resync": "same",
  "etcd-cleanup-does-nothing": {
    differs: "-cleanup works in every backend that can tell whose an entry is by its ID",
    stored: {
      "foreign key": [{ key: "/services/web", dir: true }],
      "run c0": [{ key: "/services/web/{hostname}:c0:80", value: "{hostip}:21080" }],
      "registrator stopped by SIGTERM": [{ key: "/services/web/{hostname}:c0:80", value: "{hostip}:21080" }],
    },
  },
  "etcd-ipv6": "same",
  "skydns2-basic": "same",
  "skydns2-deep-domain": "same",
  "consulkv-basic": "same",
  "consulkv-deep-path": "same",
  "consulkv-path-root": {
    differs: 'the path "/" means the top; Registrator makes keys of it that Consul refuses',
    stored: {
      "run c0 web": [key("web/{hostname}:c0:80")],
      "registrator stopped by SIGTERM": [key("web/{hostname}:c0:80")],
    },
  },
  "consulkv-ttl": "same",
  "zookeeper-basic": {
    differs: "a name with a slash gets the znodes above it",
    also: {
      "run c3 name and id with slashes": slashes,
      "rm -f c0": slashes,
      "rm -f c1": slashes,
    },
  },
  "zookeeper-root-path": "same",
  "zookeeper-no-path": "same",
  "zookeeper-deep-path-missing-parent": {
    differs: "missing parents are made",
    stored: {
      "registrator started": deep,
      "run c0 web": [...deep, folder("/a/b/web"), web("/a/b/web")],
      "registrator stopped by SIGTERM": [...deep, folder("/a/b/web"), web("/a/b/web")],
    },
  },
  "zookeeper-ttl": "same",
  "zookeeper-resync": "same",
  "zookeeper-session-loss": {
    differs: "what a lost session took along is made anew",
    also: {
      "goes on: session expired, a new session, node not re-created": [web("/basepath/web")],
      "registrator stopped by SIGTERM": [web("/basepath/web")],
    },
  },
  "zookeeper-restart": "same",
};
