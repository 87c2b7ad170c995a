// The Consul whose behaviour this dialect reproduces; clients read it from nodes' labels and /v1/agent/self.

/** The version that was recorded (test/conformance/consul). */
export const CONSUL_VERSION = "1.19.2";
