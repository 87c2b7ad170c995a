// The numbers of the DNS: types, classes, opcodes, response codes, header bits, EDNS option codes.

/** Resource record types [RFC 1035 §3.2.2, RFC 3596, RFC 2782, RFC 6891, RFC 4034]. Any other number is carried as opaque bytes. */
export const TYPE = {
  A: 1,
  NS: 2,
  CNAME: 5,
  SOA: 6,
  PTR: 12,
  MX: 15,
  TXT: 16,
  AAAA: 28,
  SRV: 33,
  OPT: 41,
  DS: 43,
  NSEC: 47,
  IXFR: 251,
  AXFR: 252,
  ANY: 255,
} as const;

/** Classes [RFC 1035 §3.2.4]. In mDNS the top bit is apart: see `TOP_BIT_OF_CLASS`. */
export const CLASS = { IN: 1, CH: 3, HS: 4, ANY: 255 } as const;

/** mDNS: "cache flush" in a record's class, "unicast response wanted" in a question's [RFC 6762 §5.4, §10.2]. */
export const TOP_BIT_OF_CLASS = 0x8000;

/** Opcodes [RFC 1035 §4.1.1, RFC 1996, RFC 2136]. */
export const OPCODE = { QUERY: 0, STATUS: 2, NOTIFY: 4, UPDATE: 5 } as const;

/** Response codes [RFC 1035 §4.1.1, RFC 6891 §9]; those above 15 need EDNS. */
export const RCODE = { NOERROR: 0, FORMERR: 1, SERVFAIL: 2, NXDOMAIN: 3, NOTIMP: 4, REFUSED: 5, BADVERS: 16 } as const;

/** Bits of the header's second word [RFC 1035 §4.1.1, RFC 4035 §3]. */
export const FLAG = { QR: 0x8000, AA: 0x0400, TC: 0x0200, RD: 0x0100, RA: 0x0080, AD: 0x0020, CD: 0x0010 } as const;

/** EDNS option codes [RFC 7871]. */
export const EDNS_OPTION = { CLIENT_SUBNET: 8 } as const;

/** Bytes of a message's header. */
export const HEADER_BYTES = 12;
/** The largest UDP message without EDNS [RFC 1035 §4.2.1]. */
export const PLAIN_UDP_BYTES = 512;
/** The largest message a length of two bytes can announce [RFC 1035 §4.2.2]. */
export const MAX_MESSAGE_BYTES = 65535;
/** The longest name in wire form, with its lengths and the final zero [RFC 1035 §2.3.4]. */
export const MAX_NAME_BYTES = 255;
export const MAX_LABEL_BYTES = 63;
