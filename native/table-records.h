// The records of the hook's table as they lie in the file: services and backends.
#ifndef TRILITH_TABLE_RECORDS_H
#define TRILITH_TABLE_RECORDS_H

#include <stdint.h>

enum { BALANCE_P2C = 0, BALANCE_ROUND_ROBIN, BALANCE_RANDOM, BALANCE_LEAST, BALANCE_FIRST, BALANCE_STICKY };

enum { SERVICE_PREFETCH = 1, SERVICE_PANIC = 2, SERVICE_HELD = 4 };

struct table_service {
	uint32_t slot;
	uint32_t first; /* index of its first backend */
	uint32_t count; /* of backends */
	uint8_t policy; /* BALANCE_… */
	uint8_t flags;	/* SERVICE_… */
	uint16_t ahead; /* most connections opened ahead, per process */
	uint32_t idle_ms;
	uint32_t try_ms;
	uint32_t text_offset;
	uint32_t text_bytes;
	uint8_t rest[16];
};

enum { BACKEND_SUSPECT = 1, BACKEND_UDP_ONLY = 2, BACKEND_TCP_ONLY = 4 };

struct table_backend {
	uint8_t address[16]; /* IPv4 as ::ffff:a.b.c.d */
	uint16_t port;	     /* 0 = the caller's own */
	uint16_t weight;
	uint8_t tier; /* 0 same host, 1 same zone, 2 elsewhere */
	uint8_t flags; /* BACKEND_… */
	uint16_t rest;
};

_Static_assert(sizeof(struct table_service) == 48, "a service is 48 bytes");
_Static_assert(sizeof(struct table_backend) == 24, "a backend is 24 bytes");

#endif
