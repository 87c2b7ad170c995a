// Names and magic addresses: which service a name or an address means.
#ifndef TRILITH_NAMES_H
#define TRILITH_NAMES_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>

#include "balance.h"
#include "table.h"

enum { NAME_BYTES_MAX = 255 };

/* Lower case without the final dot; false = no name of ours can be that long or that empty. */
static bool name_canonical(const char *name, char out[NAME_BYTES_MAX + 1], uint32_t *bytes)
{
	uint32_t n = 0;
	for (; name[n] != 0; n++) {
		if (n == NAME_BYTES_MAX + 1)
			return false;
		char c = name[n];
		if (n < NAME_BYTES_MAX)
			out[n] = c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
		else if (c != '.')
			return false;
	}
	if (n > 0 && name[n - 1] == '.')
		n--;
	if (n == 0 || n > NAME_BYTES_MAX)
		return false;
	out[n] = 0;
	*bytes = n;
	return true;
}

/* FNV-1a, 32 bits. */
static uint32_t name_hash(const char *name, uint32_t bytes)
{
	uint32_t hash = 0x811c9dc5u;
	for (uint32_t i = 0; i < bytes; i++)
		hash = (hash ^ (unsigned char)name[i]) * 0x01000193u;
	return hash;
}

static const struct table_service *name_service(struct table *t, const char *name, uint32_t bytes)
{
	if (t->bucket_count == 0)
		return NULL;
	uint32_t hash = name_hash(name, bytes), mask = t->bucket_count - 1;
	for (uint32_t turn = 0, at = hash & mask; turn < t->bucket_count; turn++, at = (at + 1) & mask) {
		uint32_t index = t->buckets[at];
		if (index == 0 || index > t->name_count)
			return NULL;
		struct table_name found = t->names[index - 1];
		if (found.hash != hash || found.bytes != bytes || found.text > t->strings_bytes || bytes > t->strings_bytes - found.text)
			continue;
		if (memcmp(t->strings + found.text, name, bytes) != 0)
			continue;
		if (found.service >= t->service_count || !table_is_sound(t))
			return NULL;
		return &t->services[found.service];
	}
	return NULL;
}

static inline bool magic_v4(uint32_t address, uint32_t *slot)
{
	uint64_t range = atomic_load_explicit(&range_v4, memory_order_acquire);
	uint32_t base = (uint32_t)(range >> 32), mask = (uint32_t)range;
	if (mask == 0 || (address & mask) != base)
		return false;
	*slot = address & ~mask;
	return true;
}

/* An address of a sockaddr_in6: the host's own prefix, or IPv4-mapped. */
static inline bool magic_v6(const uint8_t address[16], uint32_t *slot, bool *mapped)
{
	uint64_t high;
	uint32_t low, last;
	memcpy(&high, address, 8);
	memcpy(&low, address + 8, 4);
	memcpy(&last, address + 12, 4);
	*mapped = balance_is_v4(address);
	if (*mapped)
		return magic_v4(ntohl(last), slot);
	if (atomic_load_explicit(&range_v4, memory_order_acquire) == 0 || atomic_load_explicit(&range_has_v6, memory_order_relaxed) == 0)
		return false;
	if (high != atomic_load_explicit(&range_v6_high, memory_order_relaxed) || low != atomic_load_explicit(&range_v6_low, memory_order_relaxed))
		return false;
	*slot = ntohl(last);
	return true;
}

/* What a program means that hands over a socket address. */
struct target {
	uint32_t slot;
	uint16_t port; /* host's order; the caller's own */
	bool v6;       /* the socket address is a sockaddr_in6 */
	bool mapped;   /* … that holds an IPv4 address */
};

enum { SOCKADDR_IN6_LEAST = 24 }; /* the kernel takes one without sin6_scope_id [RFC2133] */

/*
 * While there is no table: whether the address may be a magic one of the usual ranges, so that it is worth to look whether the agent has written a
 * table since. Programs that connect elsewhere make no call that they would not make without the hook (some may make few: seccomp).
 */
static bool range_is_usual(const struct sockaddr *address, socklen_t bytes)
{
	uintptr_t p = (uintptr_t)address;
	if (p < 4096 || p > (uintptr_t)INTPTR_MAX || bytes < sizeof(struct sockaddr_in))
		return false;
	sa_family_t family;
	uint8_t first[24] = {0};
	memcpy(&family, &address->sa_family, sizeof family);
	memcpy(first, address, bytes < sizeof first ? bytes : sizeof first);
	if (family == AF_INET)
		return first[4] == 127;
	return family == AF_INET6 && (balance_is_v4(first + 8) ? first[20] == 127 : (first[8] & 0xfe) == 0xfc);
}

/* True where the address is a magic one. Bad pointers that programs really pass (small ones, -1) are left for the kernel to refuse. */
static inline bool target_of(const struct sockaddr *address, socklen_t bytes, struct target *target)
{
	uintptr_t p = (uintptr_t)address;
	if (p < 4096 || p > (uintptr_t)INTPTR_MAX || bytes < sizeof(struct sockaddr_in))
		return false;
	sa_family_t family;
	memcpy(&family, &address->sa_family, sizeof family);
	if (family == AF_INET) {
		struct sockaddr_in in;
		memcpy(&in, address, sizeof in);
		target->v6 = target->mapped = false;
		target->port = ntohs(in.sin_port);
		return magic_v4(ntohl(in.sin_addr.s_addr), &target->slot);
	}
	if (family == AF_INET6 && bytes >= SOCKADDR_IN6_LEAST) {
		struct sockaddr_in6 in6;
		memcpy(&in6, address, SOCKADDR_IN6_LEAST);
		target->v6 = true;
		target->port = ntohs(in6.sin6_port);
		return magic_v6(in6.sin6_addr.s6_addr, &target->slot, &target->mapped);
	}
	return false;
}

/* The same where the program may have begun before there was a table. */
static inline bool target_found(const struct sockaddr *address, socklen_t bytes, struct target *target)
{
	if (__builtin_expect(atomic_load_explicit(&range_v4, memory_order_relaxed) == 0, 0) && range_is_usual(address, bytes)) {
		struct table *t = table_hold();
		if (t != NULL)
			table_release(t);
	}
	return target_of(address, bytes, target);
}

/* The socket address of a backend, in the family that the caller used. */
static socklen_t backend_sockaddr(const struct table_backend *backend, const struct target *target, struct sockaddr_storage *out)
{
	uint16_t port = htons(balance_port(backend, target->port));
	memset(out, 0, sizeof *out);
	if (target->v6) {
		struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;
		in6->sin6_family = AF_INET6;
		in6->sin6_port = port;
		memcpy(&in6->sin6_addr, backend->address, 16);
		return sizeof *in6;
	}
	struct sockaddr_in *in = (struct sockaddr_in *)out;
	in->sin_family = AF_INET;
	in->sin_port = port;
	memcpy(&in->sin_addr, backend->address + 12, 4);
	return sizeof *in;
}

/* Which families of address a service is given out with, and how often. */
struct magic_answer {
	char v4[INET_ADDRSTRLEN], v6[INET6_ADDRSTRLEN];
	uint32_t v4_backends, v6_backends;
	char name[NAME_BYTES_MAX + 1];
};

/* False = not a name of ours. errno stays as it was. */
static bool magic_of_name(const char *name, struct magic_answer *answer)
{
	uint32_t bytes;
	if (name == NULL || !name_canonical(name, answer->name, &bytes))
		return false;
	struct table *t = table_hold();
	if (t == NULL)
		return false;
	const struct table_service *s = name_service(t, answer->name, bytes);
	bool found = s != NULL && s->slot <= ~t->v4_mask;
	if (found) {
		int errno_before = errno;
		uint32_t n;
		const struct table_backend *b = table_backends_of(t, s, &n);
		answer->v4_backends = answer->v6_backends = 0;
		for (uint32_t i = 0; i < n; i++)
			(*(balance_is_v4(b[i].address) ? &answer->v4_backends : &answer->v6_backends))++;
		uint32_t slot = s->slot, v4 = htonl(t->v4_base | slot), low = htonl(slot);
		uint8_t v6[16];
		memcpy(v6, t->v6_prefix, 12);
		memcpy(v6 + 12, &low, 4);
		inet_ntop(AF_INET, &v4, answer->v4, sizeof answer->v4);
		answer->v6[0] = 0;
		if (t->has_v6)
			inet_ntop(AF_INET6, v6, answer->v6, sizeof answer->v6);
		errno = errno_before;
	}
	table_release(t);
	return found;
}

/* Names that results point to for as long as the process lives: one text each, and not endlessly many. */
struct kept_name {
	struct kept_name *next;
	char text[];
};

enum { KEPT_NAMES_MAX = 4096 };

static const char *name_kept(const char *name)
{
	static _Atomic(struct kept_name *) kept;
	static _Atomic int count;
	struct kept_name *first = atomic_load_explicit(&kept, memory_order_acquire);
	for (struct kept_name *k = first; k != NULL; k = k->next)
		if (strcmp(k->text, name) == 0)
			return k->text;
	if (atomic_fetch_add(&count, 1) >= KEPT_NAMES_MAX) {
		atomic_fetch_sub(&count, 1);
		return NULL;
	}
	size_t bytes = strlen(name) + 1;
	struct kept_name *k = malloc(sizeof *k + bytes);
	if (k == NULL)
		return NULL;
	memcpy(k->text, name, bytes);
	k->next = first;
	while (!atomic_compare_exchange_weak(&kept, &k->next, k))
		continue;
	return k->text;
}

#endif
