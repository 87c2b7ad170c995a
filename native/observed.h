// What this process has seen of backends: a block of its own in its user's counter file, or private memory where there is none.
#ifndef TRILITH_OBSERVED_H
#define TRILITH_OBSERVED_H

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/auxv.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "balance.h"
#include "kernel.h"

/* The file is read by src/wire/hook-observed.ts. Everything in it is advice: whatever stands there, nothing worse happens than a poor choice. */
enum {
	OBSERVED_VERSION = 1,
	OBSERVED_BLOCKS = 64,
	OBSERVED_ENTRIES = 256,
	OBSERVED_PROBES = 16,
	OBSERVED_FOREIGN_DEAD_MS = 60000, /* an owner whose pid means nothing here: dead after so long without use */
	OBSERVED_TOUCH_MS = 1000,
	OBSERVED_FULL_MS = 1000,
	OBSERVED_STALE_MS = 1000,	  /* what this process has not tried for so long, others may know better */
	OBSERVED_OTHERS = 8,		  /* so many other processes are asked */
	OBSERVED_OTHERS_MS = 10000,	  /* who was at work so lately */
	OBSERVED_DOUBT_MS = 5000,	  /* a backend that gave no answer while a program had patience is out for so long */
	OBSERVED_TROUBLE_MS = 5000,	  /* after a failure the others of its service are not trusted for so long, unless seen well since */
	OBSERVED_ASKED = 4,
	OBSERVED_SILENT_MS = 200, /* who waits for an answer for longer would say that there is none */
	OBSERVED_TURNS = 256,
	OBSERVED_TURN_PROBES = 8
};

enum { OBSERVED_FREE = 0, OBSERVED_USED = 1, OBSERVED_CHANGING = 0xffff };

/* A claimed block whose other owner fields are being written. */
#define OBSERVED_CLAIMING 0x80000000u

struct observed_entry {
	_Atomic uint64_t address[2];
	_Atomic uint32_t port_used; /* u16 port, u16 OBSERVED_… */
	_Atomic uint32_t failures_in_row;
	_Atomic uint64_t connects;
	_Atomic uint64_t failures;
	_Atomic uint32_t time_us;
	_Atomic uint32_t last_errno; /* EINPROGRESS: the last try was given up before there was an answer, at `changed_ms` */
	_Atomic uint64_t ejected_until_ms;
	_Atomic uint64_t changed_ms;
};

struct observed_block {
	_Atomic uint32_t owner; /* pid; 0 = free */
	_Atomic uint32_t uid;
	_Atomic uint64_t started; /* field 22 of /proc/PID/stat: tells a process from a later one with its pid */
	_Atomic uint64_t pid_namespace;
	_Atomic uint64_t used_ms;
	_Atomic uint64_t asked[OBSERVED_ASKED]; /* the last connects that were left under way: place of the entry + 1, low 32 bits of the time in ms */
	struct observed_entry entries[OBSERVED_ENTRIES];
};

struct observed_file {
	char magic[8]; /* "TRILSEEN" */
	uint32_t version, blocks, entries, block_bytes;
	_Atomic uint64_t full_until_ms; /* all blocks had living owners: do not look again before */
	_Atomic uint64_t trouble_ms;	/* when one of the user's processes last had a failure */
	uint64_t rest[3];
	struct observed_block block[OBSERVED_BLOCKS];
};

_Static_assert(sizeof(struct observed_entry) == 64, "an entry is 64 bytes");
_Static_assert(sizeof(struct observed_block) == 64 + 64 * OBSERVED_ENTRIES, "a block is its head and its entries");
_Static_assert(sizeof(struct observed_file) == 64 + OBSERVED_BLOCKS * sizeof(struct observed_block), "a file is its head and its blocks");

/* What belongs to this process alone; a fork empties it, so that a child takes a block of its own. */
struct observed_own {
	_Atomic(struct observed_block *) block; /* NULL = none yet */
	_Atomic uint32_t claiming;
	_Atomic uint32_t pid;
	_Atomic uint64_t salt;
	_Atomic uint64_t checked_ms; /* when the block was ours for the last time */
};

static char observed_folder[4096]; /* "" = private memory only */
static _Atomic(struct observed_own *) observed_own_at;
static _Atomic uint32_t observed_own_refused; /* the kernel has no memory that a fork empties: private memory only */
static _Atomic(struct observed_file *) observed_mapped;
static _Atomic uint32_t observed_mapped_uid;
static struct observed_block observed_private;
static _Atomic uint64_t observed_private_trouble_ms;

/* The tries of late, of the entry with the same place: a float and the low 32 bits of the time in ms. Of this process alone. */
static _Atomic uint64_t observed_lately[OBSERVED_ENTRIES];

/* Round-robin: the next turn by slot. */
static _Atomic uint32_t observed_turn_slots[OBSERVED_TURNS], observed_turns[OBSERVED_TURNS];
static _Atomic uint64_t observed_drawn;

/* Unix milliseconds, as exact as the scheduler's tick. */
static inline uint64_t observed_now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME_COARSE, &t);
	return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

/* Remembers where the counter file lies (beside the table). Called once, in the constructor; makes no system call. */
static void observed_start(const char *table_path)
{
	/* Who starts a setuid program decides what it connects to: that must not teach its user's other programs. */
	if (getauxval(AT_SECURE) != 0)
		return;
	const char *last = strrchr(table_path, '/');
	size_t n = last == NULL ? 0 : (size_t)(last - table_path);
	if (last == NULL || n + sizeof "/observed" > sizeof observed_folder)
		return;
	memcpy(observed_folder, table_path, n);
	memcpy(observed_folder + n, "/observed", sizeof "/observed");
}

/* — The file — */

static bool observed_file_is_ours(int fd, uid_t uid)
{
	struct stat s;
	return fstat(fd, &s) == 0 && S_ISREG(s.st_mode) && s.st_uid == uid && (s.st_mode & (S_IWGRP | S_IWOTH)) == 0 &&
	       s.st_size == (off_t)sizeof(struct observed_file);
}

static struct observed_file *observed_map_fd(int fd, uid_t uid)
{
	if (!observed_file_is_ours(fd, uid))
		return NULL;
	struct observed_file *file = mmap(NULL, sizeof *file, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (file == MAP_FAILED)
		return NULL;
	if (memcmp(file->magic, "TRILSEEN", 8) == 0 && file->version == OBSERVED_VERSION && file->blocks == OBSERVED_BLOCKS &&
	    file->entries == OBSERVED_ENTRIES && file->block_bytes == sizeof(struct observed_block))
		return file;
	munmap(file, sizeof *file);
	return NULL;
}

/*
 * Makes the user's file under another name and links it to its own: nobody ever sees half of one, and of several makers one wins. All of its
 * blocks on the disk are taken first, since writing to a mapped hole of a full disk would kill the program.
 */
static void observed_make_file(int folder, const char *name, uid_t uid)
{
	char temporary[64];
	struct timespec t;
	struct rlimit limit;
	/* Beyond it there is no error, but a signal that ends the program. */
	if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur < sizeof(struct observed_file))
		return;
	clock_gettime(CLOCK_MONOTONIC, &t);
	snprintf(temporary, sizeof temporary, ".%u.%u.%lx", (unsigned)uid, (unsigned)getpid(), (unsigned long)t.tv_nsec);
	int fd = (int)syscall(SYS_openat, folder, temporary, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return;
	struct {
		char magic[8];
		uint32_t version, blocks, entries, block_bytes;
	} head = {"TRILSEEN", OBSERVED_VERSION, OBSERVED_BLOCKS, OBSERVED_ENTRIES, sizeof(struct observed_block)};
	if (fchmod(fd, 0600) == 0 && fallocate(fd, 0, 0, sizeof(struct observed_file)) == 0 &&
	    syscall(SYS_pwrite64, fd, &head, sizeof head, (off_t)0) == (long)sizeof head)
		syscall(SYS_linkat, folder, temporary, folder, name, 0);
	syscall(SYS_unlinkat, folder, temporary, 0);
	kernel_close(fd);
}

/* By the folder's descriptor, so that no path is put together: a thread's stack may be small. */
static struct observed_file *observed_map(uid_t uid)
{
	char name[16];
	snprintf(name, sizeof name, "%u", (unsigned)uid);
	const int flags = O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
	int folder = kernel_openat(AT_FDCWD, observed_folder, O_PATH | O_DIRECTORY);
	if (folder < 0)
		return NULL;
	int fd = kernel_openat(folder, name, flags);
	if (fd < 0 && errno == ENOENT) {
		observed_make_file(folder, name, uid);
		fd = kernel_openat(folder, name, flags);
	}
	kernel_close(folder);
	if (fd < 0)
		return NULL;
	struct observed_file *file = observed_map_fd(fd, uid);
	kernel_close(fd);
	return file;
}

/* — Owners — */

static uint64_t observed_number(const char *text)
{
	uint64_t n = 0;
	for (; *text >= '0' && *text <= '9'; text++)
		n = n * 10 + (uint64_t)(*text - '0');
	return n;
}

/* State and start time of a process; false = /proc does not tell. */
static bool observed_process(const char *pid, uint32_t expected, char *state, uint64_t *started)
{
	char path[32], text[512];
	snprintf(path, sizeof path, "/proc/%s/stat", pid);
	int fd = kernel_openat(AT_FDCWD, path, O_RDONLY);
	if (fd < 0)
		return false;
	long n = syscall(SYS_read, fd, text, sizeof text - 1);
	kernel_close(fd);
	if (n <= 0)
		return false;
	text[n] = 0;
	/* "PID (name) S …": the name may hold anything, brackets too. A /proc of another pid namespace tells another number. */
	char *field = strrchr(text, ')');
	if (field == NULL || field[1] != ' ' || observed_number(text) != expected)
		return false;
	*state = field[2];
	field += 2;
	for (int i = 3; i < 22; i++) {
		field = strchr(field, ' ');
		if (field == NULL)
			return false;
		field++;
	}
	*started = observed_number(field);
	return true;
}

static bool observed_owner_is_dead(struct observed_block *block, uint32_t owner, uint64_t pid_namespace, uint64_t now_ms)
{
	uint64_t used = atomic_load(&block->used_ms);
	bool lately = used <= now_ms && now_ms - used < OBSERVED_FOREIGN_DEAD_MS;
	pid_t pid = (pid_t)(owner & ~OBSERVED_CLAIMING);
	if ((owner & OBSERVED_CLAIMING) == 0 && atomic_load(&block->pid_namespace) != pid_namespace)
		return !lately;
	if (pid <= 0 || (kill(pid, 0) != 0 && errno == ESRCH))
		return true;
	/* The pid is somebody's. Whose, is asked only of a block that was not used for long. */
	if ((owner & OBSERVED_CLAIMING) != 0 || lately)
		return false;
	char name[16], state;
	uint64_t started;
	snprintf(name, sizeof name, "%u", (unsigned)pid);
	return observed_process(name, (uint32_t)pid, &state, &started) && (state == 'Z' || state == 'X' || started != atomic_load(&block->started));
}

static void observed_doubted(struct observed_entry *e, uint64_t now_ms);

/* Its owner was ended while it waited for answers (by `timeout`, a unit's limit …): what it would have said, had it given up. */
static void observed_heed_last_words(struct observed_file *file, struct observed_block *block, uint64_t now_ms)
{
	for (int i = 0; i < OBSERVED_ASKED; i++) {
		uint64_t asked = atomic_exchange(&block->asked[i], 0), place = asked >> 32;
		uint32_t ago = (uint32_t)now_ms - (uint32_t)asked;
		if (place == 0 || place > OBSERVED_ENTRIES || ago >= OBSERVED_DOUBT_MS)
			continue;
		observed_doubted(&block->entries[place - 1], now_ms - ago);
		if (atomic_load(&file->trouble_ms) < now_ms - ago)
			atomic_store(&file->trouble_ms, now_ms - ago);
	}
}

/* Takes a free block, or a dead process's with what it saw; NULL = there is none. */
static struct observed_block *observed_claim(struct observed_file *file, uint32_t pid, uid_t uid, uint64_t now_ms)
{
	uint64_t full = atomic_load(&file->full_until_ms);
	if (full > now_ms && full - now_ms <= OBSERVED_FULL_MS)
		return NULL;
	struct stat s;
	char state;
	uint64_t started;
	if (stat("/proc/self/ns/pid", &s) != 0 || !observed_process("self", pid, &state, &started))
		return NULL;
	for (int i = 0; i < OBSERVED_BLOCKS; i++) {
		struct observed_block *block = &file->block[i];
		uint32_t owner = atomic_load(&block->owner);
		if (owner != 0 && !observed_owner_is_dead(block, owner, s.st_ino, now_ms))
			continue;
		if (!atomic_compare_exchange_strong(&block->owner, &owner, pid | OBSERVED_CLAIMING))
			continue;
		atomic_store(&block->uid, (uint32_t)uid);
		atomic_store(&block->started, started);
		atomic_store(&block->pid_namespace, (uint64_t)s.st_ino);
		atomic_store(&block->used_ms, now_ms);
		for (int e = 0; e < OBSERVED_ENTRIES; e++) {
			/* Its owner died while it wrote this one. */
			uint32_t port_used = atomic_load_explicit(&block->entries[e].port_used, memory_order_relaxed);
			if (port_used >> 16 > OBSERVED_USED)
				atomic_store_explicit(&block->entries[e].port_used, 0, memory_order_relaxed);
		}
		observed_heed_last_words(file, block, now_ms);
		atomic_store(&block->owner, pid);
		return block;
	}
	atomic_store(&file->full_until_ms, now_ms + OBSERVED_FULL_MS);
	return NULL;
}

static struct observed_own *observed_own(void)
{
	struct observed_own *own = atomic_load_explicit(&observed_own_at, memory_order_acquire), *nobody = NULL;
	if (own != NULL)
		return own;
	if (atomic_load_explicit(&observed_own_refused, memory_order_relaxed) != 0)
		return NULL;
	int errno_before = errno;
	own = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (own == MAP_FAILED || madvise(own, 4096, MADV_WIPEONFORK) != 0)
		atomic_store_explicit(&observed_own_refused, 1, memory_order_relaxed);
	else if (atomic_compare_exchange_strong(&observed_own_at, &nobody, own))
		nobody = own;
	if (own != MAP_FAILED && own != nobody)
		munmap(own, 4096);
	errno = errno_before;
	return nobody;
}

static void observed_hear_others(struct observed_file *file, struct observed_block *block, uint64_t now_ms);

/* The slow way to a block: at the first use, after a fork, after another took ours, and once a second after a change of user. */
static struct observed_block *observed_acquire(struct observed_own *own, uint64_t now_ms)
{
	uint32_t nobody = 0;
	/* Another thread is at it, or this is a signal handler that interrupted it. */
	if (!atomic_compare_exchange_strong(&own->claiming, &nobody, 1))
		return &observed_private;
	int errno_before = errno;
	uid_t uid = geteuid();
	struct observed_file *file = atomic_load(&observed_mapped);
	if (file == NULL || atomic_load(&observed_mapped_uid) != (uint32_t)uid) {
		/* A former user's file stays mapped: another thread may be using it. */
		file = observed_map(uid);
		if (file != NULL) {
			atomic_store(&observed_mapped, file);
			atomic_store(&observed_mapped_uid, (uint32_t)uid);
		}
	}
	uint32_t pid = (uint32_t)getpid();
	atomic_store(&own->pid, pid);
	struct observed_block *block = file == NULL ? NULL : observed_claim(file, pid, uid, now_ms);
	if (block != NULL) {
		observed_hear_others(file, block, now_ms);
	} else {
		block = &observed_private;
		atomic_store(&block->owner, pid);
		atomic_store(&block->uid, (uint32_t)uid);
		atomic_store(&block->used_ms, now_ms);
	}
	atomic_store(&own->checked_ms, now_ms);
	atomic_store_explicit(&own->block, block, memory_order_release);
	atomic_store(&own->claiming, 0);
	errno = errno_before;
	return block;
}

/* This process's block; errno stays as it was. */
static struct observed_block *observed_block(uint64_t now_ms)
{
	if (observed_folder[0] == 0)
		return &observed_private;
	struct observed_own *own = observed_own();
	if (own == NULL)
		return &observed_private;
	struct observed_block *block = atomic_load_explicit(&own->block, memory_order_acquire);
	if (block == NULL)
		return observed_acquire(own, now_ms);
	/* By our own clock: the block's is another one's if that took it for a dead process's. */
	uint64_t checked = atomic_load_explicit(&own->checked_ms, memory_order_relaxed);
	if (checked <= now_ms && now_ms - checked < OBSERVED_TOUCH_MS)
		return block;
	if (atomic_load(&block->owner) != atomic_load(&own->pid) || atomic_load(&block->uid) != (uint32_t)geteuid() || block == &observed_private)
		return observed_acquire(own, now_ms);
	atomic_store_explicit(&own->checked_ms, now_ms, memory_order_relaxed);
	atomic_store_explicit(&block->used_ms, now_ms, memory_order_relaxed);
	return block;
}

/* — Entries — */

static inline bool observed_is(struct observed_entry *e, const uint64_t address[2], uint16_t port)
{
	return atomic_load_explicit(&e->port_used, memory_order_acquire) == ((uint32_t)port | (uint32_t)OBSERVED_USED << 16) &&
	       atomic_load_explicit(&e->address[0], memory_order_relaxed) == address[0] &&
	       atomic_load_explicit(&e->address[1], memory_order_relaxed) == address[1];
}

/* A backend's entry; NULL = never seen. It lies within OBSERVED_PROBES places from its hash on. */
static inline struct observed_entry *observed_find(struct observed_block *block, const uint8_t address[16], uint16_t port)
{
	uint64_t words[2];
	memcpy(words, address, 16);
	uint64_t place = balance_address_hash(address, port);
	for (int i = 0; i < OBSERVED_PROBES; i++) {
		struct observed_entry *e = &block->entries[(place + (uint64_t)i) % OBSERVED_ENTRIES];
		if (observed_is(e, words, port))
			return e;
		if (atomic_load_explicit(&e->port_used, memory_order_relaxed) == 0)
			return NULL;
	}
	return NULL;
}

/* The same, made if need be in the place of the one that was not seen for the longest time; NULL = others are just doing that. */
static struct observed_entry *observed_make(struct observed_block *block, const uint8_t address[16], uint16_t port)
{
	struct observed_entry *found = observed_find(block, address, port), *oldest = NULL;
	if (found != NULL)
		return found;
	uint64_t words[2], oldest_ms = UINT64_MAX, place = balance_address_hash(address, port);
	memcpy(words, address, 16);
	uint32_t was = 0;
	for (int i = 0; i < OBSERVED_PROBES; i++) {
		struct observed_entry *e = &block->entries[(place + (uint64_t)i) % OBSERVED_ENTRIES];
		uint32_t port_used = atomic_load(&e->port_used);
		uint64_t changed = port_used == 0 ? 0 : atomic_load_explicit(&e->changed_ms, memory_order_relaxed);
		if (port_used >> 16 > OBSERVED_USED || changed >= oldest_ms)
			continue;
		oldest = e;
		oldest_ms = changed;
		was = port_used;
		if (port_used == 0)
			break;
	}
	if (oldest == NULL || !atomic_compare_exchange_strong(&oldest->port_used, &was, (uint32_t)OBSERVED_CHANGING << 16))
		return NULL;
	atomic_store_explicit(&oldest->address[0], words[0], memory_order_relaxed);
	atomic_store_explicit(&oldest->address[1], words[1], memory_order_relaxed);
	atomic_store_explicit(&oldest->failures_in_row, 0, memory_order_relaxed);
	atomic_store_explicit(&oldest->connects, 0, memory_order_relaxed);
	atomic_store_explicit(&oldest->failures, 0, memory_order_relaxed);
	atomic_store_explicit(&oldest->time_us, 0, memory_order_relaxed);
	atomic_store_explicit(&oldest->last_errno, 0, memory_order_relaxed);
	atomic_store_explicit(&oldest->ejected_until_ms, 0, memory_order_relaxed);
	atomic_store_explicit(&oldest->changed_ms, 1, memory_order_relaxed);
	atomic_store_explicit(&observed_lately[oldest - block->entries], 0, memory_order_relaxed);
	atomic_store_explicit(&oldest->port_used, (uint32_t)port | (uint32_t)OBSERVED_USED << 16, memory_order_release);
	return oldest;
}

static inline float observed_lately_of(struct observed_block *block, struct observed_entry *e, uint64_t now_ms)
{
	uint64_t packed = atomic_load_explicit(&observed_lately[e - block->entries], memory_order_relaxed);
	if (packed == 0)
		return 0;
	uint32_t bits = (uint32_t)(packed >> 32), elapsed = (uint32_t)now_ms - (uint32_t)packed;
	float lately;
	memcpy(&lately, &bits, sizeof lately);
	return balance_fade(lately, elapsed > UINT32_MAX / 2 ? 0 : elapsed);
}

struct observed_view {
	struct observed_block *block;
	uint64_t now_ms;
	int others_count; /* -1 = not looked for yet */
	struct observed_block *others[OBSERVED_OTHERS];
};

/* The blocks of this user's other processes that are at work. */
static void observed_look_around(struct observed_view *view)
{
	struct observed_file *file = atomic_load(&observed_mapped);
	view->others_count = 0;
	if (file == NULL || view->block == &observed_private)
		return;
	for (int i = 0; i < OBSERVED_BLOCKS && view->others_count < OBSERVED_OTHERS; i++) {
		struct observed_block *block = &file->block[i];
		uint64_t used = atomic_load_explicit(&block->used_ms, memory_order_relaxed);
		if (block != view->block && atomic_load_explicit(&block->owner, memory_order_relaxed) != 0 && used + OBSERVED_OTHERS_MS > view->now_ms)
			view->others[view->others_count++] = block;
	}
}

static inline bool observed_is_doubt(struct observed_entry *e)
{
	return atomic_load_explicit(&e->last_errno, memory_order_relaxed) == EINPROGRESS;
}

/* Who was given up without an answer may be ill or not: it is out for a while, and nothing else. */
static void observed_see_doubt(struct observed_entry *e, uint64_t changed_ms, uint64_t now_ms, struct balance_seen *seen)
{
	uint64_t until = changed_ms + OBSERVED_DOUBT_MS;
	if (observed_is_doubt(e) && changed_ms <= now_ms && until > now_ms && until > seen->ejected_until_ms)
		seen->ejected_until_ms = until;
}

/*
 * A short-lived program has seen next to nothing, and one without blocking sockets learns late: where this process has not tried a backend of
 * late, a failure that another process of its user saw counts as its own. To find out whether such a backend is back is for those who saw it go.
 */
static void observed_ask_others(struct observed_view *view, const uint8_t address[16], uint16_t port, struct balance_seen *seen)
{
	if (seen->changed_ms <= view->now_ms && view->now_ms - seen->changed_ms < OBSERVED_STALE_MS)
		return;
	if (view->others_count < 0)
		observed_look_around(view);
	struct observed_entry *last = NULL; /* who saw it last */
	uint64_t last_ms = seen->changed_ms;
	for (int i = 0; i < view->others_count; i++) {
		struct observed_entry *e = observed_find(view->others[i], address, port);
		uint64_t changed = e == NULL ? 0 : atomic_load_explicit(&e->changed_ms, memory_order_relaxed);
		if (changed <= last_ms || changed > view->now_ms)
			continue;
		last = e;
		last_ms = changed;
	}
	if (last == NULL)
		return;
	observed_see_doubt(last, last_ms, view->now_ms, seen);
	uint32_t failures = atomic_load_explicit(&last->failures_in_row, memory_order_relaxed);
	uint64_t until = atomic_load_explicit(&last->ejected_until_ms, memory_order_relaxed);
	if (failures == 0 || until + BALANCE_RETURN_MS <= view->now_ms)
		return;
	if (until <= view->now_ms)
		until = view->now_ms + 1;
	if (until <= seen->ejected_until_ms)
		return;
	seen->ejected_until_ms = until;
	seen->failures = failures;
}

static void observed_look(void *context, const struct table_backend *backend, uint16_t port, struct balance_seen *seen)
{
	struct observed_view *view = context;
	struct observed_entry *e = observed_find(view->block, backend->address, port);
	memset(seen, 0, sizeof *seen);
	if (e == NULL) {
		observed_ask_others(view, backend->address, port, seen);
		return;
	}
	seen->ejected_until_ms = atomic_load_explicit(&e->ejected_until_ms, memory_order_relaxed);
	seen->changed_ms = atomic_load_explicit(&e->changed_ms, memory_order_relaxed);
	seen->failures = atomic_load_explicit(&e->failures_in_row, memory_order_relaxed);
	seen->time_us = atomic_load_explicit(&e->time_us, memory_order_relaxed);
	seen->lately = observed_lately_of(view->block, e, view->now_ms);
	observed_see_doubt(e, seen->changed_ms, view->now_ms, seen);
	observed_ask_others(view, backend->address, port, seen);
}

/* When this process or others of its user last saw the backend well, or last saw it ill or in doubt; 0 = never. */
static uint64_t observed_last(struct observed_view *view, const uint8_t address[16], uint16_t port, bool well)
{
	uint64_t last = 0;
	if (view->others_count < 0)
		observed_look_around(view);
	for (int i = -1; i < view->others_count; i++) {
		struct observed_entry *e = observed_find(i < 0 ? view->block : view->others[i], address, port);
		if (e == NULL || (atomic_load_explicit(&e->failures_in_row, memory_order_relaxed) == 0 && !observed_is_doubt(e)) != well)
			continue;
		uint64_t changed = atomic_load_explicit(&e->changed_ms, memory_order_relaxed);
		if (changed > last && changed <= view->now_ms)
			last = changed;
	}
	return last;
}

static _Atomic uint64_t *observed_trouble(struct observed_block *block)
{
	struct observed_file *file = atomic_load(&observed_mapped);
	return file == NULL || block == &observed_private ? &observed_private_trouble_ms : &file->trouble_ms;
}

/*
 * True where the chosen backend may be as dead as others of its service: it is suspect itself, it failed when it was last tried, or another one failed
 * a moment ago and nobody has seen this one well since. In healthy times that takes no more than a look at it and at the last trouble.
 */
static bool observed_is_doubtful(struct observed_view *view, const struct table_backend *backends, uint32_t count, uint32_t chosen,
				 const struct balance_asked *asked, const struct balance_seen *seen)
{
	const struct table_backend *b = &backends[chosen];
	if ((b->flags & BACKEND_SUSPECT) != 0 || seen->failures != 0 || balance_ejected(seen, view->now_ms))
		return true;
	uint64_t trouble = atomic_load_explicit(observed_trouble(view->block), memory_order_relaxed);
	if (trouble > view->now_ms || view->now_ms - trouble >= OBSERVED_TROUBLE_MS)
		return false;
	uint64_t well = observed_last(view, b->address, balance_port(b, asked->port), true);
	for (uint32_t i = 0; i < count; i++) {
		uint64_t ill = observed_last(view, backends[i].address, balance_port(&backends[i], asked->port), false);
		/* The clock's ticks are long: in the same one anything may have come first. */
		if (ill >= well && ill + OBSERVED_TROUBLE_MS > view->now_ms)
			return true;
	}
	return false;
}

/* True for an errno that speaks of the backend, so that another one should be tried. */
static bool observed_is_failure(int error)
{
	switch (error) {
	case ECONNREFUSED:
	case ECONNRESET:
	case ECONNABORTED:
	case EPIPE:
	case ETIMEDOUT:
	case EHOSTUNREACH:
	case ENETUNREACH:
	case EHOSTDOWN:
	case ENETDOWN: return true;
	default: return false;
	}
}

static void observed_connected(struct observed_entry *e, uint64_t micros, uint64_t now_ms)
{
	atomic_fetch_add_explicit(&e->connects, 1, memory_order_relaxed);
	atomic_store_explicit(&e->failures_in_row, 0, memory_order_relaxed);
	if (observed_is_doubt(e))
		atomic_store_explicit(&e->last_errno, 0, memory_order_relaxed);
	uint64_t before = atomic_load_explicit(&e->time_us, memory_order_relaxed), now = micros < 1 ? 1 : micros > UINT32_MAX ? UINT32_MAX : micros;
	atomic_store_explicit(&e->time_us, (uint32_t)(before == 0 ? now : (before * 3 + now) / 4), memory_order_relaxed);
	struct balance_seen seen = {.ejected_until_ms = atomic_load_explicit(&e->ejected_until_ms, memory_order_relaxed)};
	if (balance_ejected(&seen, now_ms))
		atomic_store_explicit(&e->ejected_until_ms, now_ms, memory_order_relaxed);
	atomic_store_explicit(&e->changed_ms, now_ms, memory_order_relaxed);
}

static void observed_failed(struct observed_entry *e, int error, uint64_t now_ms, uint64_t random)
{
	atomic_fetch_add_explicit(&e->failures, 1, memory_order_relaxed);
	atomic_store_explicit(&e->last_errno, (uint32_t)error, memory_order_relaxed);
	struct balance_seen seen = {.ejected_until_ms = atomic_load_explicit(&e->ejected_until_ms, memory_order_relaxed)};
	if (balance_ejected(&seen, now_ms))
		return;
	uint32_t failures = atomic_load_explicit(&e->failures_in_row, memory_order_relaxed);
	if (failures < UINT32_MAX)
		failures++;
	uint64_t until = now_ms + balance_ejection_ms(failures, balance_fraction(random));
	/* Of several threads that fail at once one ejects. */
	if (!atomic_compare_exchange_strong(&e->ejected_until_ms, &seen.ejected_until_ms, until))
		return;
	atomic_store_explicit(&e->failures_in_row, failures, memory_order_relaxed);
	atomic_store_explicit(&e->changed_ms, now_ms, memory_order_relaxed);
}

/* Nobody knows whether it is ill, so it is not ejected. An ejection says more than a doubt. */
static void observed_doubted(struct observed_entry *e, uint64_t now_ms)
{
	struct balance_seen seen = {.ejected_until_ms = atomic_load_explicit(&e->ejected_until_ms, memory_order_relaxed)};
	if (balance_ejected(&seen, now_ms))
		return;
	atomic_store_explicit(&e->last_errno, EINPROGRESS, memory_order_relaxed);
	atomic_store_explicit(&e->changed_ms, now_ms, memory_order_relaxed);
}

/*
 * Who begins learns what others wait for in vain just now, or waited for when they were ended: one that was killed a moment ago is not always told
 * from one that lives.
 */
static void observed_hear_others(struct observed_file *file, struct observed_block *block, uint64_t now_ms)
{
	for (int i = 0; i < OBSERVED_BLOCKS * OBSERVED_ASKED; i++) {
		struct observed_block *other = &file->block[i / OBSERVED_ASKED];
		uint64_t asked = atomic_load_explicit(&other->asked[i % OBSERVED_ASKED], memory_order_relaxed), place = asked >> 32;
		uint32_t ago = (uint32_t)now_ms - (uint32_t)asked;
		if (other == block || place == 0 || place > OBSERVED_ENTRIES || ago < OBSERVED_SILENT_MS || ago >= OBSERVED_DOUBT_MS)
			continue;
		struct observed_entry *its = &other->entries[place - 1];
		uint32_t port_used = atomic_load(&its->port_used);
		uint64_t address[2] = {atomic_load(&its->address[0]), atomic_load(&its->address[1])};
		uint8_t bytes[16];
		memcpy(bytes, address, sizeof bytes);
		struct observed_entry *own = port_used >> 16 != OBSERVED_USED ? NULL : observed_make(block, bytes, (uint16_t)port_used);
		if (own == NULL || atomic_load(&own->changed_ms) >= now_ms - ago)
			continue;
		observed_doubted(own, now_ms - ago);
		atomic_store(&file->trouble_ms, now_ms - ago);
	}
}

/* `observed_report` with everything that it takes from the machine. */
static void observed_outcome(struct observed_block *block, const struct table_backend *backend, uint16_t port, int error, uint64_t micros,
			     uint64_t now_ms, uint64_t random)
{
	if (error != 0 && error != EINPROGRESS && !observed_is_failure(error))
		return;
	struct observed_entry *e = observed_make(block, backend->address, port);
	if (e == NULL)
		return;
	for (int i = 0; i < OBSERVED_ASKED; i++)
		if (atomic_load_explicit(&block->asked[i], memory_order_relaxed) >> 32 == (uint64_t)(e - block->entries) + 1)
			atomic_store_explicit(&block->asked[i], 0, memory_order_relaxed);
	if (error == 0)
		observed_connected(e, micros, now_ms);
	else if (error == EINPROGRESS)
		observed_doubted(e, now_ms);
	else
		observed_failed(e, error, now_ms, random);
	if (error != 0)
		atomic_store_explicit(observed_trouble(block), now_ms, memory_order_relaxed);
}

/* `observed_pick` with everything that it takes from the machine. */
static int observed_choose(struct observed_block *block, uint8_t policy, const struct table_backend *backends, uint32_t count,
			   const struct balance_asked *asked, uint64_t turn, uint64_t now_ms, uint64_t random)
{
	struct observed_view view = {.block = block, .now_ms = now_ms, .others_count = -1};
	struct balance_question q = {.backends = backends,
				     .count = count,
				     .policy = policy,
				     .asked = *asked,
				     .turn = turn,
				     .now_ms = now_ms,
				     .random = random,
				     .look = observed_look,
				     .context = &view};
	int64_t chosen = balance_choose(&q);
	if (chosen < 0 || policy != BALANCE_LEAST)
		return (int)chosen;
	const struct table_backend *b = &backends[chosen];
	struct observed_entry *e = observed_make(block, b->address, balance_port(b, asked->port));
	if (e != NULL) {
		float lately = observed_lately_of(block, e, now_ms) + 1;
		uint32_t bits;
		memcpy(&bits, &lately, sizeof bits);
		atomic_store_explicit(&observed_lately[e - block->entries], (uint64_t)bits << 32 | (uint32_t)now_ms, memory_order_relaxed);
	}
	return (int)chosen;
}

/* — What the hook calls — */

/* Different in every process and at every call; for choices, not for secrets. */
static uint64_t observed_random(void)
{
	static _Atomic uint64_t common_salt;
	struct observed_own *own = observed_own();
	_Atomic uint64_t *salt = own == NULL ? &common_salt : &own->salt;
	uint64_t value = atomic_load_explicit(salt, memory_order_relaxed);
	if (value == 0) {
		struct timespec t;
		clock_gettime(CLOCK_MONOTONIC, &t);
		value = balance_mix(balance_mix((uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec) ^ (uint64_t)getpid()) | 1;
		atomic_store_explicit(salt, value, memory_order_relaxed);
	}
	return balance_mix(value + atomic_fetch_add_explicit(&observed_drawn, 1, memory_order_relaxed) * 0x9e3779b97f4a7c15u);
}

static uint64_t observed_turn(uint32_t slot, bool take)
{
	for (uint32_t i = 0; i < OBSERVED_TURN_PROBES; i++) {
		uint32_t place = (slot + i) % OBSERVED_TURNS, its = atomic_load_explicit(&observed_turn_slots[place], memory_order_relaxed);
		if (its == 0 && atomic_compare_exchange_strong(&observed_turn_slots[place], &its, slot)) {
			its = slot;
			atomic_fetch_add_explicit(&observed_turns[place], (uint32_t)observed_random() >> 8, memory_order_relaxed);
		}
		if (its == slot)
			return take ? atomic_fetch_add_explicit(&observed_turns[place], 1, memory_order_relaxed)
				    : atomic_load_explicit(&observed_turns[place], memory_order_relaxed);
	}
	return observed_random();
}

/*
 * Chooses a backend of the service: its index in `backends` (`count` of them, the service's own), or -1 if none fits that was not tried.
 * errno stays as it was.
 */
static int observed_pick(const struct table_service *service, const struct table_backend *backends, uint32_t count,
			 const struct balance_asked *asked)
{
	uint64_t now_ms = observed_now_ms();
	struct observed_block *block = observed_block(now_ms);
	uint64_t turn = service->policy == BALANCE_ROUND_ROBIN ? observed_turn(service->slot, !asked->again) : 0;
	return observed_choose(block, service->policy, backends, count, asked, turn, now_ms, observed_random());
}

/*
 * How a try went: error 0 and the microseconds it took, its errno, or EINPROGRESS where a program (or the hook) had no patience to wait for an answer.
 * `callers_port` is used where the backend has none of its own.
 */
static void observed_report(const struct table_backend *backend, uint16_t callers_port, int error, uint64_t micros)
{
	uint64_t now_ms = observed_now_ms();
	observed_outcome(observed_block(now_ms), backend, balance_port(backend, callers_port), error, micros, now_ms, observed_random());
}

/* A connect to it is under way, whose outcome this process will report, unless it is ended before. */
static void observed_asks(const struct table_backend *backend, uint16_t callers_port)
{
	static _Atomic uint32_t next;
	uint64_t now_ms = observed_now_ms();
	struct observed_block *block = observed_block(now_ms);
	struct observed_entry *e = observed_make(block, backend->address, balance_port(backend, callers_port));
	if (e == NULL)
		return;
	uint64_t place = (uint64_t)(e - block->entries) + 1;
	atomic_store_explicit(&block->asked[atomic_fetch_add_explicit(&next, 1, memory_order_relaxed) % OBSERVED_ASKED], place << 32 | (uint32_t)now_ms,
			      memory_order_relaxed);
}

#endif
