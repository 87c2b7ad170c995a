// The agent's table in this process: mapped, checked, reopened when the agent has written a newer one.
#ifndef TRILITH_TABLE_H
#define TRILITH_TABLE_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>

#include "kernel.h"
#include "table-records.h"

/* The layout is src/wire/hook-table.ts's; all numbers are little-endian. */
struct table_header {
	char magic[8]; /* "TRILHOOK" */
	uint32_t version;
	uint32_t header_bytes;
	uint64_t file_bytes;
	uint32_t crc; /* of [64, file_bytes) */
	uint32_t zero;
	uint64_t generation;
	uint64_t written_ms;
	uint32_t superseded; /* the only field that changes once the file is there */
	uint32_t zeros[3];
	uint32_t v4_base, v4_bits;
	uint8_t v6_prefix[16];
	uint32_t v6_bits, zero_2;
	uint32_t buckets_at, buckets;
	uint32_t names_at, names;
	uint32_t services_at, services;
	uint32_t backends_at, backends;
	uint32_t strings_at, strings_bytes;
	uint32_t domain_at, domain_bytes;
	uint64_t network_inode, network_device; /* of the agent's network namespace; 0 = unknown */
	uint8_t host_v4[4];			/* where other network namespaces reach the agent's host; zeros = unknown */
	uint32_t zero_3;
	uint8_t host_v6[16];
	uint8_t rest[8];
};
_Static_assert(sizeof(struct table_header) == 192, "the header is 192 bytes");
_Static_assert(offsetof(struct table_header, network_inode) == 144, "the network follows the domain");

struct table_name {
	uint32_t text; /* from the strings' start */
	uint16_t bytes, zero;
	uint32_t service;
	uint32_t hash;
};
_Static_assert(sizeof(struct table_name) == 16, "a name is 16 bytes");

enum { TABLE_VERSION = 1, TABLE_CHECKED_FROM = 64, TABLE_RETRY_MS = 1000, TABLE_REFUSED_MS = 100, TABLE_COMPARE_MS = 5000 };
#define TABLE_BYTES_MAX ((uint64_t)1 << 30)
#define TABLE_DEFAULT_PATH "/run/trilith/table"

enum { TABLE_UNCHECKED = 0, TABLE_GOOD, TABLE_BAD };

/* A mapped table. Its sections lie inside the file: that was checked against these copies of the header's numbers, which nobody changes. */
struct table {
	const unsigned char *bytes;
	size_t size;
	dev_t device;
	ino_t inode;
	_Atomic int checked;
	uint32_t v4_base, v4_mask;
	bool has_v6;
	uint8_t v6_prefix[12];
	const uint32_t *buckets;
	const struct table_name *names;
	const struct table_service *services;
	const struct table_backend *backends;
	const unsigned char *strings;
	uint32_t bucket_count, name_count, service_count, backend_count, strings_bytes;
	uint64_t network_inode, network_device;
	uint8_t host_v4[4], host_v6[16];
	struct table_backend *translated; /* the backends as this process reaches them; NULL = as they stand in the file */
};

static struct table table_places[TABLE_PLACES];
static _Atomic int table_now = -1; /* the place of the present table */

/* The present table's ranges, for the question that every connect asks: is that address one of ours? */
static _Atomic uint64_t range_v4; /* base and mask, in one so that they belong together; 0 = no table */
static _Atomic uint64_t range_v6_high;
static _Atomic uint32_t range_v6_low;
static _Atomic int range_has_v6;

static char table_path[4096];
static const char *table_file = table_path; /* the last part of the path */
static _Atomic int table_folder = -1;	    /* only in programs that chroot */
static dev_t table_folder_dev;
static ino_t table_folder_ino;
static _Atomic int table_jailed;

/* CRC-32 as zlib's, eight bytes a step; the words of the table are made the first time. */
static uint32_t crc_words[8][256];
static _Atomic int crc_ready;

static uint32_t crc32_of(const unsigned char *p, size_t n)
{
	/* Two threads that make them at once write the same words. */
	static _Atomic int making;
	while (atomic_load_explicit(&crc_ready, memory_order_acquire) == 0) {
		int nobody = 0;
		if (!atomic_compare_exchange_strong(&making, &nobody, 1)) {
			/* The maker may be the thread that this signal handler interrupted: do not wait for it. */
			uint32_t crc = 0xffffffffu;
			for (; n > 0; n--) {
				crc ^= *p++;
				for (int bit = 0; bit < 8; bit++)
					crc = (crc >> 1) ^ (0xedb88320u & (0u - (crc & 1)));
			}
			return ~crc;
		}
		for (uint32_t i = 0; i < 256; i++) {
			uint32_t c = i;
			for (int bit = 0; bit < 8; bit++)
				c = (c >> 1) ^ (0xedb88320u & (0u - (c & 1)));
			crc_words[0][i] = c;
		}
		for (uint32_t i = 0; i < 256; i++)
			for (int k = 1; k < 8; k++)
				crc_words[k][i] = (crc_words[k - 1][i] >> 8) ^ crc_words[0][crc_words[k - 1][i] & 255];
		atomic_store_explicit(&crc_ready, 1, memory_order_release);
	}
	uint32_t crc = 0xffffffffu;
	for (; n >= 8; n -= 8, p += 8) {
		uint32_t a, b;
		memcpy(&a, p, 4);
		memcpy(&b, p + 4, 4);
		a ^= crc;
		crc = crc_words[7][a & 255] ^ crc_words[6][(a >> 8) & 255] ^ crc_words[5][(a >> 16) & 255] ^ crc_words[4][a >> 24] ^
		      crc_words[3][b & 255] ^ crc_words[2][(b >> 8) & 255] ^ crc_words[1][(b >> 16) & 255] ^ crc_words[0][b >> 24];
	}
	for (; n > 0; n--)
		crc = (crc >> 8) ^ crc_words[0][(crc ^ *p++) & 255];
	return ~crc;
}

static bool section_fits(uint64_t file_bytes, uint32_t at, uint32_t count, uint32_t each)
{
	return at >= sizeof(struct table_header) && at % 8 == 0 && (uint64_t)at + (uint64_t)count * each <= file_bytes;
}

/* Fills `t` from a mapping; false = not a table that this library can read. */
static bool table_fits(struct table *t, const unsigned char *bytes, size_t size)
{
	struct table_header h;
	if (size < sizeof h)
		return false;
	memcpy(&h, bytes, sizeof h); /* a copy: what is checked is what is used */
	if (memcmp(h.magic, "TRILHOOK", 8) != 0 || h.version != TABLE_VERSION || h.header_bytes != sizeof h || h.file_bytes != size)
		return false;
	if (!section_fits(size, h.buckets_at, h.buckets, 4) || !section_fits(size, h.names_at, h.names, sizeof(struct table_name)) ||
	    !section_fits(size, h.services_at, h.services, sizeof(struct table_service)) ||
	    !section_fits(size, h.backends_at, h.backends, sizeof(struct table_backend)) || !section_fits(size, h.strings_at, h.strings_bytes, 1))
		return false;
	if ((h.buckets & (h.buckets - 1)) != 0 || h.v4_bits < 8 || h.v4_bits > 30 || (h.v6_bits != 0 && h.v6_bits != 96))
		return false;
	memset(t, 0, sizeof *t);
	t->bytes = bytes;
	t->size = size;
	t->v4_mask = 0xffffffffu << (32 - h.v4_bits);
	t->v4_base = h.v4_base;
	if ((t->v4_base & ~t->v4_mask) != 0)
		return false;
	t->has_v6 = h.v6_bits == 96;
	memcpy(t->v6_prefix, h.v6_prefix, sizeof t->v6_prefix);
	t->buckets = (const uint32_t *)(const void *)(bytes + h.buckets_at);
	t->names = (const struct table_name *)(const void *)(bytes + h.names_at);
	t->services = (const struct table_service *)(const void *)(bytes + h.services_at);
	t->backends = (const struct table_backend *)(const void *)(bytes + h.backends_at);
	t->strings = bytes + h.strings_at;
	t->bucket_count = h.buckets;
	t->name_count = h.names;
	t->service_count = h.services;
	t->backend_count = h.backends;
	t->strings_bytes = h.strings_bytes;
	t->network_inode = h.network_inode;
	t->network_device = h.network_device;
	memcpy(t->host_v4, h.host_v4, sizeof t->host_v4);
	memcpy(t->host_v6, h.host_v6, sizeof t->host_v6);
	return true;
}

/* — Loopback of another network namespace: in a container 127.0.0.1 is the container — */

/* True where the agent is known to be in another network namespace. Without /proc what was known before counts, and nothing known is the same one. */
static bool table_is_from_elsewhere(const struct table *t)
{
	static _Atomic uint64_t own_inode, own_device;
	struct stat s;
	if (t->network_inode == 0)
		return false;
	if (stat("/proc/self/ns/net", &s) == 0) {
		atomic_store(&own_device, (uint64_t)s.st_dev);
		atomic_store(&own_inode, (uint64_t)s.st_ino);
	}
	uint64_t inode = atomic_load(&own_inode);
	return inode != 0 && (inode != t->network_inode || atomic_load(&own_device) != t->network_device);
}

/* Where else a loopback address of the agent's host is reached; NULL = it is none, or nobody knows. */
static const uint8_t *table_host_instead(const struct table *t, const uint8_t address[16], size_t *at)
{
	static const uint8_t mapped_127[13] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127}, own[16] = {[15] = 1}, unknown[16];
	bool v4 = memcmp(address, mapped_127, sizeof mapped_127) == 0;
	if (!v4 && memcmp(address, own, sizeof own) != 0)
		return NULL;
	*at = v4 ? 12 : 0;
	const uint8_t *host = v4 ? t->host_v4 : t->host_v6;
	return memcmp(host, unknown, 16 - *at) == 0 ? NULL : host;
}

/* From here on every reader sees the backends as this process reaches them: what is tried, observed and answered is told apart from the agent's loopback. */
static void table_translate(struct table *t)
{
	struct table_backend *own = NULL;
	size_t bytes = (size_t)t->backend_count * sizeof *own, at;
	for (uint32_t i = 0; i < t->backend_count; i++) {
		const uint8_t *host = table_host_instead(t, t->backends[i].address, &at);
		if (host == NULL)
			continue;
		if (own == NULL) {
			void *copy = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			if (copy == MAP_FAILED)
				return;
			own = copy;
			memcpy(own, t->backends, bytes);
		}
		memcpy(own[i].address + at, host, 16 - at);
	}
	if (own != NULL)
		t->backends = t->translated = own;
}

static void table_unmap(struct table *t)
{
	if (t->translated != NULL)
		munmap(t->translated, (size_t)t->backend_count * sizeof *t->translated);
	munmap((void *)(uintptr_t)t->bytes, t->size);
	t->translated = NULL;
	t->bytes = NULL;
}

static bool table_is_sound(struct table *t)
{
	int checked = atomic_load_explicit(&t->checked, memory_order_acquire);
	if (checked == TABLE_UNCHECKED) {
		uint32_t said;
		memcpy(&said, t->bytes + offsetof(struct table_header, crc), 4);
		checked = crc32_of(t->bytes + TABLE_CHECKED_FROM, t->size - TABLE_CHECKED_FROM) == said ? TABLE_GOOD : TABLE_BAD;
		atomic_store_explicit(&t->checked, checked, memory_order_release);
	}
	return checked == TABLE_GOOD;
}

static bool table_is_superseded(const struct table *t)
{
	/* The agent writes it from another process into the same page. */
	const _Atomic uint32_t *flag = (const _Atomic uint32_t *)(const void *)(t->bytes + offsetof(struct table_header, superseded));
	return atomic_load_explicit((_Atomic uint32_t *)(uintptr_t)flag, memory_order_acquire) != 0;
}

/* Only root or this very user may tell a program where to connect. */
static bool table_is_trusted(const struct stat *s)
{
	return S_ISREG(s->st_mode) && (s->st_uid == 0 || s->st_uid == geteuid()) && (s->st_mode & (S_IWGRP | S_IWOTH)) == 0 &&
	       s->st_size >= (off_t)sizeof(struct table_header) && (uint64_t)s->st_size <= TABLE_BYTES_MAX;
}

/* Where the table is now, as openat has it; false = it cannot be reached any more. */
static bool table_place(int *folder, const char **file)
{
	*folder = AT_FDCWD;
	*file = table_path;
	if (atomic_load(&table_jailed) == 0)
		return true;
	/* The path would mean another file now. The program may have closed our descriptor, and the number may be somebody else's. */
	struct stat s;
	*folder = atomic_load(&table_folder);
	*file = table_file;
	return *folder >= 0 && fstat(*folder, &s) == 0 && s.st_dev == table_folder_dev && s.st_ino == table_folder_ino && S_ISDIR(s.st_mode);
}

static int table_open_file(void)
{
	int folder;
	const char *file;
	return table_place(&folder, &file) ? kernel_openat(folder, file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY) : -1;
}

/* True where another file has taken its place without a word: an agent that found nothing to mark (its folder had been cleared away). */
static bool table_is_replaced(const struct table *t)
{
	int errno_before = errno, folder;
	const char *file;
	struct stat s;
	bool replaced = table_place(&folder, &file) && fstatat(folder, file, &s, AT_SYMLINK_NOFOLLOW) == 0 &&
			(s.st_dev != t->device || s.st_ino != t->inode);
	errno = errno_before;
	return replaced;
}

/* Maps the file into `t`; false = there is none that can be used. */
static bool table_map(struct table *t)
{
	int fd = table_open_file();
	if (fd < 0)
		return false;
	struct stat s;
	void *bytes = MAP_FAILED;
	if (fstat(fd, &s) == 0 && table_is_trusted(&s))
		bytes = mmap(NULL, (size_t)s.st_size, PROT_READ, MAP_SHARED, fd, 0);
	kernel_close(fd);
	if (bytes == MAP_FAILED)
		return false;
	if (table_fits(t, bytes, (size_t)s.st_size)) {
		t->device = s.st_dev;
		t->inode = s.st_ino;
		if (table_is_from_elsewhere(t))
			table_translate(t);
		return true;
	}
	munmap(bytes, (size_t)s.st_size);
	memset(t, 0, sizeof *t);
	return false;
}

static void range_publish(const struct table *t)
{
	uint64_t high;
	uint32_t low;
	memcpy(&high, t->v6_prefix, 8);
	memcpy(&low, t->v6_prefix + 8, 4);
	atomic_store_explicit(&range_v6_high, high, memory_order_relaxed);
	atomic_store_explicit(&range_v6_low, low, memory_order_relaxed);
	atomic_store_explicit(&range_has_v6, t->has_v6, memory_order_relaxed);
	atomic_store_explicit(&range_v4, (uint64_t)t->v4_base << 32 | t->v4_mask, memory_order_release);
}

/*
 * Takes the newest table. At most one thread does it at a time; the others, and a signal handler that interrupted it, go on with what there
 * is. Old tables are unmapped when nobody reads them; with every place in use the present table stays.
 */
static void table_reopen(uint64_t now_ms)
{
	struct own_page *own = own_page();
	uint64_t since = 0;
	if (!atomic_compare_exchange_strong(&own->reopening, &since, now_ms | 1)) {
		/* A holder that is gone (killed in a vfork, jumped out of a handler) must not hold it for ever. */
		if (now_ms < since + LOCK_STALE_MS || !atomic_compare_exchange_strong(&own->reopening, &since, now_ms | 1)) {
			/* Who has no table at all gives the other one the time that it takes; the other one may be under this very handler. */
			for (int i = 0; i < PATIENCE && atomic_load(&table_now) < 0 && atomic_load(&own->reopening) == since; i++)
				rest();
			return;
		}
	}
	int errno_before = errno;
	int present = atomic_load(&table_now);
	int place = -1;
	for (int i = 0; i < TABLE_PLACES; i++) {
		if (i == present || atomic_load(&own->held[i]) != 0)
			continue;
		if (table_places[i].bytes != NULL)
			table_unmap(&table_places[i]);
		place = i;
	}
	bool taken = false;
	if (place >= 0 && table_map(&table_places[place])) {
		struct table *t = &table_places[place];
		/* The first table is summed when it is first used; a later one at once, as a spoilt one must not take a good one's place. */
		if (present < 0 || table_is_sound(t)) {
			range_publish(t);
			atomic_store(&table_now, place);
			atomic_store(&own->compare_at, now_ms + TABLE_COMPARE_MS);
			taken = true;
		}
	}
	atomic_store(&own->retry_at, taken ? 0 : now_ms + (present < 0 ? TABLE_RETRY_MS : TABLE_REFUSED_MS));
	atomic_store(&own->reopening, 0);
	errno = errno_before;
}

static void table_release(struct table *t)
{
	/* In a child that was forked inside a signal handler the count may be gone: it never goes below zero. */
	_Atomic int32_t *held = &own_page()->held[t - table_places];
	int32_t n = atomic_load(held);
	while (n > 0 && !atomic_compare_exchange_weak(held, &n, n - 1))
		continue;
}

/* Every few seconds of use one look at the file itself; `superseded` tells in time, unless nobody was there to write it. */
static bool table_is_old(struct own_page *own, const struct table *t, uint64_t now_ms)
{
	if (table_is_superseded(t))
		return true;
	if (now_ms < atomic_load_explicit(&own->compare_at, memory_order_relaxed))
		return false;
	atomic_store_explicit(&own->compare_at, now_ms + TABLE_COMPARE_MS, memory_order_relaxed);
	return table_is_replaced(t);
}

/*
 * The present table, held until table_release; NULL = there is none. Makes a system call only where the agent has written a newer one, every
 * TABLE_COMPARE_MS to make sure, and once a second while there is none. Hold it only for as long as it takes to read: never across a call that may block.
 */
static struct table *table_hold(void)
{
	struct own_page *own = own_page();
	uint64_t now_ms = coarse_ms();
	for (int turn = 0;; turn++) {
		int place = atomic_load(&table_now);
		if (place >= 0) {
			atomic_fetch_add(&own->held[place], 1);
			if (atomic_load(&table_now) != place) {
				table_release(&table_places[place]);
				continue;
			}
			if (turn > 0 || !table_is_old(own, &table_places[place], now_ms))
				return &table_places[place];
		} else if (turn > 0) {
			return NULL;
		}
		if (now_ms < atomic_load(&own->retry_at)) {
			if (place >= 0)
				return &table_places[place];
			return NULL;
		}
		if (place >= 0)
			table_release(&table_places[place]);
		table_reopen(now_ms);
	}
}

/* The service with this slot; NULL = none. */
static const struct table_service *table_service_by_slot(struct table *t, uint32_t slot)
{
	if (!table_is_sound(t))
		return NULL;
	uint32_t low = 0, high = t->service_count;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		uint32_t found = t->services[middle].slot;
		if (found == slot)
			return &t->services[middle];
		if (found < slot)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

/* The backends of a service; *n = 0 where the table does not hold what it says. */
static const struct table_backend *table_backends_of(const struct table *t, const struct table_service *s, uint32_t *n)
{
	uint32_t first = s->first, count = s->count;
	if (first > t->backend_count || count > t->backend_count - first)
		count = first = 0;
	*n = count;
	return t->backends + first;
}

/*
 * Before a chroot: keeps a way to the table's folder. A directory descriptor would lead out of the jail, so it is a detached copy of the mount,
 * which has nothing above it; where the kernel refuses that (no CAP_SYS_ADMIN) a plain one is kept only if TRILITH_HOOK_CHROOT=folder says so,
 * and otherwise the program goes on with the table that it has.
 */
static bool table_plain_folder;

static void table_before_chroot(void)
{
	if (atomic_load(&table_jailed) != 0 || atomic_load(&table_folder) >= 0 || table_path[0] == 0)
		return;
	char folder[sizeof table_path];
	size_t n = (size_t)(table_file - table_path);
	memcpy(folder, table_path, n);
	folder[n] = 0;
	enum { OPEN_TREE = 428, CLONE = 1 };
	int fd = (int)syscall(OPEN_TREE, AT_FDCWD, folder, CLONE | O_CLOEXEC);
	if (fd < 0 && table_plain_folder)
		fd = kernel_openat(AT_FDCWD, folder, O_PATH | O_DIRECTORY);
	if (fd < 0)
		return;
	/* Out of the way of programs that expect the lowest numbers. */
	int high = fcntl(fd, F_DUPFD_CLOEXEC, 100);
	if (high >= 0) {
		kernel_close(fd);
		fd = high;
	}
	struct stat s;
	if (fstat(fd, &s) != 0) {
		kernel_close(fd);
		return;
	}
	table_folder_dev = s.st_dev;
	table_folder_ino = s.st_ino;
	atomic_store(&table_folder, fd);
}

static void table_after_chroot(void)
{
	atomic_store(&table_jailed, 1);
}

/* Once: where the table is, and its first mapping. */
static void table_prepare(void)
{
	const char *path = NULL;
	bool secure = getauxval(AT_SECURE) != 0;
	if (!secure) {
		path = getenv("TRILITH_HOOK_TABLE");
		const char *kept = getenv("TRILITH_HOOK_CHROOT");
		table_plain_folder = kept != NULL && strcmp(kept, "folder") == 0;
	}
	/* A relative one would mean another file after the program's first chdir. */
	if (path == NULL || path[0] != '/' || strlen(path) >= sizeof table_path)
		path = TABLE_DEFAULT_PATH;
	strcpy(table_path, path);
	table_file = strrchr(table_path, '/') + 1;
	table_reopen(coarse_ms());
}

#endif
