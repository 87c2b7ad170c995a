// What the hook's C tests share: checks, a writer of tables, servers on loopback.
#ifndef TRILITH_TEST_CHECK_H
#define TRILITH_TEST_CHECK_H

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>

static int checks_failed;
static const char *case_name = "";

#define CHECK(condition)                                                                                                                             \
	do {                                                                                                                                         \
		if (!(condition)) {                                                                                                                  \
			int at_errno = errno;                                                                                                        \
			printf("FAILED %s: %s:%d: %s (errno %d, %s)\n", case_name, __FILE__, __LINE__, #condition, at_errno, strerror(at_errno));    \
			checks_failed++;                                                                                                             \
		}                                                                                                                                    \
	} while (0)

#define CHECK_IS(is, expected)                                                                                                                       \
	do {                                                                                                                                         \
		long long is_value = (long long)(is), expected_value = (long long)(expected);                                                        \
		if (is_value != expected_value) {                                                                                                    \
			printf("FAILED %s: %s:%d: %s is %lld and not %lld\n", case_name, __FILE__, __LINE__, #is, is_value, expected_value);         \
			checks_failed++;                                                                                                             \
		}                                                                                                                                    \
	} while (0)

/* — Tables — */

struct spec_backend {
	const char *address; /* text; NULL = the end */
	uint16_t port, weight;
	uint8_t tier, flags;
};

struct spec_service {
	uint32_t slot; /* 0 = the end */
	const char *name;
	uint8_t policy, flags;
	uint32_t try_ms;
	struct spec_backend backends[80];
};

struct bytes {
	unsigned char *at;
	size_t size;
};

static uint32_t align8(uint32_t n)
{
	return (n + 7) & ~7u;
}

/* Of the next tables: without an IPv6 range. */
static bool table_without_v6;

/* The bytes of a table as src/wire/hook-table.ts would write it; the caller frees them. */
static struct bytes table_encode(const struct spec_service *services, uint64_t generation)
{
	uint32_t service_count = 0, backend_count = 0, string_bytes = 6, buckets = 8;
	for (const struct spec_service *s = services; s->slot != 0; s++) {
		service_count++;
		string_bytes += (uint32_t)strlen(s->name);
		for (const struct spec_backend *b = s->backends; b->address != NULL; b++)
			backend_count++;
	}
	while (buckets < service_count * 2)
		buckets *= 2;
	struct table_header h;
	memset(&h, 0, sizeof h);
	memcpy(h.magic, "TRILHOOK", 8);
	h.version = 1;
	h.header_bytes = sizeof h;
	h.generation = generation;
	h.v4_base = 0x7f800000;
	h.v4_bits = 9;
	memcpy(h.v6_prefix, "\xfd\x01\x02\x03\x04\x05", 6);
	h.v6_bits = table_without_v6 ? 0 : 96;
	h.buckets_at = sizeof h;
	h.buckets = buckets;
	h.names_at = align8(h.buckets_at + buckets * 4);
	h.names = service_count;
	h.services_at = align8(h.names_at + service_count * 16);
	h.services = service_count;
	h.backends_at = align8(h.services_at + service_count * 48);
	h.backends = backend_count;
	h.strings_at = align8(h.backends_at + backend_count * 24);
	h.strings_bytes = string_bytes;
	h.domain_bytes = 6;
	h.file_bytes = align8(h.strings_at + string_bytes);
	unsigned char *bytes = calloc(1, h.file_bytes);
	memcpy(bytes + h.strings_at, "consul", 6);
	uint32_t string = 6, backend = 0, *bucket = (uint32_t *)(void *)(bytes + h.buckets_at);
	for (uint32_t i = 0; i < service_count; i++) {
		const struct spec_service *s = &services[i];
		struct table_name name = {string, (uint16_t)strlen(s->name), 0, i, name_hash(s->name, (uint32_t)strlen(s->name))};
		memcpy(bytes + h.names_at + i * 16, &name, 16);
		memcpy(bytes + h.strings_at + string, s->name, name.bytes);
		uint32_t at = name.hash & (buckets - 1);
		while (bucket[at] != 0)
			at = (at + 1) & (buckets - 1);
		bucket[at] = i + 1;
		struct table_service service;
		memset(&service, 0, sizeof service);
		service.slot = s->slot;
		service.first = backend;
		service.policy = s->policy;
		service.flags = s->flags;
		service.ahead = 4;
		service.idle_ms = 10000;
		service.try_ms = s->try_ms;
		service.text_offset = string;
		service.text_bytes = name.bytes;
		string += name.bytes;
		for (const struct spec_backend *b = s->backends; b->address != NULL; b++) {
			struct table_backend row;
			memset(&row, 0, sizeof row);
			if (inet_pton(AF_INET6, b->address, row.address) != 1) {
				memset(row.address + 10, 0xff, 2);
				inet_pton(AF_INET, b->address, row.address + 12);
			}
			row.port = b->port;
			row.weight = b->weight == 0 ? 1 : b->weight;
			row.tier = b->tier;
			row.flags = b->flags;
			memcpy(bytes + h.backends_at + backend * 24, &row, 24);
			backend++;
			service.count++;
		}
		memcpy(bytes + h.services_at + i * 48, &service, 48);
	}
	memcpy(bytes, &h, sizeof h);
	h.crc = crc32_of(bytes + 64, h.file_bytes - 64);
	memcpy(bytes, &h, sizeof h);
	return (struct bytes){bytes, h.file_bytes};
}

static void file_write(const char *path, const void *bytes, size_t size, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, mode);
	if (fd < 0 || write(fd, bytes, size) != (ssize_t)size || fchmod(fd, mode) != 0) {
		perror(path);
		exit(2);
	}
	close(fd);
}

/* Puts bytes in the table's place as the agent does: link, rename, mark, unlink. */
static void table_put_bytes(const void *bytes, size_t size, mode_t mode)
{
	char temporary[4200], old[4200];
	snprintf(temporary, sizeof temporary, "%s.new", table_path);
	snprintf(old, sizeof old, "%s.old", table_path);
	unlink(temporary);
	unlink(old);
	file_write(temporary, bytes, size, mode);
	int linked = link(table_path, old);
	if (rename(temporary, table_path) != 0) {
		perror("rename");
		exit(2);
	}
	int fd = linked == 0 ? open(old, O_WRONLY | O_NOFOLLOW) : -1;
	if (fd >= 0) {
		uint32_t one = 1;
		struct stat s;
		if (fstat(fd, &s) == 0 && s.st_size >= 52 && pwrite(fd, &one, 4, 48) != 4)
			perror("pwrite");
		close(fd);
	}
	unlink(old);
}

/* Forgets that opening failed lately: tests do not wait for the next look. */
static void table_look_now(void)
{
	atomic_store(&own_page()->retry_at, 0);
	atomic_store(&own_page()->compare_at, 0);
}

static bool slot_is_known_now(uint32_t slot)
{
	struct table *t = table_hold();
	if (t == NULL)
		return false;
	bool known = table_service_by_slot(t, slot) != NULL;
	table_release(t);
	return known;
}

static bool slot_is_known(uint32_t slot)
{
	table_look_now();
	return slot_is_known_now(slot);
}

static void table_put_quietly(const struct spec_service *services)
{
	static uint64_t generation = 1;
	struct bytes b = table_encode(services, generation++);
	table_put_bytes(b.at, b.size, 0644);
	free(b.at);
}

static void table_put(const struct spec_service *services)
{
	table_put_quietly(services);
	table_look_now();
}

/* — Addresses and servers — */

static struct sockaddr_in v4_address(const char *text, uint16_t port)
{
	struct sockaddr_in a;
	memset(&a, 0, sizeof a);
	a.sin_family = AF_INET;
	a.sin_port = htons(port);
	inet_pton(AF_INET, text, &a.sin_addr);
	return a;
}

static struct sockaddr_in6 v6_address(const char *text, uint16_t port)
{
	struct sockaddr_in6 a;
	memset(&a, 0, sizeof a);
	a.sin6_family = AF_INET6;
	a.sin6_port = htons(port);
	inet_pton(AF_INET6, text, &a.sin6_addr);
	return a;
}

/* The magic addresses of a slot. */
static struct sockaddr_in magic4(uint32_t slot, uint16_t port)
{
	struct sockaddr_in a = v4_address("127.128.0.0", port);
	a.sin_addr.s_addr = htonl(ntohl(a.sin_addr.s_addr) + slot);
	return a;
}

static struct sockaddr_in6 magic6(uint32_t slot, uint16_t port)
{
	struct sockaddr_in6 a = v6_address("fd01:203:405::", port);
	uint32_t low = htonl(slot);
	memcpy((uint8_t *)&a.sin6_addr + 12, &low, 4);
	return a;
}

#define ADDRESS(a) ((const struct sockaddr *)&(a)), (socklen_t)sizeof(a)

/* A bound socket; stream ones listen. *port is the one it got. */
static int server(int family, int type, uint16_t *port)
{
	int fd = socket(family, type | SOCK_CLOEXEC, 0), one = 1;
	struct sockaddr_in in = v4_address("127.0.0.1", 0);
	struct sockaddr_in6 in6 = v6_address("::1", 0);
	if (family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
	int bound = family == AF_INET ? bind(fd, ADDRESS(in)) : bind(fd, ADDRESS(in6));
	if (bound != 0 || (type == SOCK_STREAM && listen(fd, 512) != 0)) {
		perror("server");
		exit(2);
	}
	struct sockaddr_in6 name;
	socklen_t bytes = sizeof name;
	getsockname(fd, (struct sockaddr *)&name, &bytes);
	*port = ntohs(name.sin6_port); /* at the same place in both families */
	return fd;
}

/* A port that refuses for as long as the socket is open: bound, not listening. */
static int refusing(uint16_t *port)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in in = v4_address("127.0.0.1", 0);
	socklen_t bytes = sizeof in;
	if (bind(fd, ADDRESS(in)) != 0)
		exit(2);
	getsockname(fd, (struct sockaddr *)&in, &bytes);
	*port = ntohs(in.sin_port);
	return fd;
}

/* A port where no answer comes: a listener whose queue is full. */
struct silent {
	int listener, filling[4];
	uint16_t port;
};

static struct silent silent(void)
{
	struct silent s;
	s.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in in = v4_address("127.0.0.1", 0);
	socklen_t bytes = sizeof in;
	if (bind(s.listener, ADDRESS(in)) != 0 || listen(s.listener, 0) != 0)
		exit(2);
	getsockname(s.listener, (struct sockaddr *)&in, &bytes);
	s.port = ntohs(in.sin_port);
	for (int i = 0; i < 4; i++) {
		s.filling[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		connect_plainly(s.filling[i], ADDRESS(in));
		struct pollfd p = {s.filling[i], POLLOUT, 0};
		poll(&p, 1, 50);
	}
	return s;
}

static void silent_end(struct silent *s)
{
	for (int i = 0; i < 4; i++)
		kernel_close(s->filling[i]);
	kernel_close(s->listener);
}

static uint16_t peer_port(int fd)
{
	struct sockaddr_in6 name;
	socklen_t bytes = sizeof name;
	memset(&name, 0, sizeof name);
	return getpeername(fd, (struct sockaddr *)&name, &bytes) == 0 ? ntohs(name.sin6_port) : 0;
}

/* What is remembered of a backend on 127.0.0.1. */
static struct balance_seen seen_of(uint16_t port)
{
	struct table_backend b;
	memset(&b, 0, sizeof b);
	memset(b.address + 10, 0xff, 2);
	inet_pton(AF_INET, "127.0.0.1", b.address + 12);
	b.port = port;
	uint64_t now_ms = observed_now_ms();
	struct observed_view view = {.block = observed_block(now_ms), .now_ms = now_ms};
	struct balance_seen seen;
	observed_look(&view, &b, port, &seen);
	return seen;
}

/* A stream socket connected to a slot, or -1. */
static int connected(uint32_t slot, uint16_t port)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in a = magic4(slot, port);
	if (connect(fd, ADDRESS(a)) == 0)
		return fd;
	int error = errno;
	close(fd);
	errno = error;
	return -1;
}

static uint64_t now_ms(void)
{
	return monotonic_us() / 1000;
}

#endif
