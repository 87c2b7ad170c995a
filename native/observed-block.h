// The counter file of a user and who owns which of its blocks; private memory where there is none.
#ifndef TRILITH_OBSERVED_BLOCK_H
#define TRILITH_OBSERVED_BLOCK_H

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
	OBSERVED_COMPARE_MS = 10000, /* so often it is looked whether the file is still the one that others have */
	OBSERVED_REPLACED_MOST = 64, /* so often another one is mapped: the earlier ones stay */
	OBSERVED_FULL_MS = 1000,
	OBSERVED_STALE_MS = 1000,	  /* what this process has not tried for so long, others may know better */
	OBSERVED_OTHERS = 8,		  /* so many other processes are asked */
	OBSERVED_OTHERS_MS = 10000,	  /* who was at work so lately */
	OBSERVED_DOUBT_MS = 5000,	  /* a backend that gave no answer while a program had patience is out for so long */
	OBSERVED_TROUBLE_MS = 5000,	  /* after a failure the others of its service are not trusted for so long, unless seen well since */
	OBSERVED_ASKED = 4,
	OBSERVED_SILENT_MS = 200, /* who waits for an answer for longer would say that there is none */
	OBSERVED_USERS = 8, /* a program that goes on as one user after the other: the first ones have files, the others private memory */
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
	_Atomic uint64_t compared_ms; /* when the file was the one that has the name, or the name was out of reach */
	_Atomic(struct observed_block *) blocks[OBSERVED_USERS]; /* in each user's file */
};

static char observed_folder[4096]; /* "" = private memory only */
static _Atomic(struct observed_own *) observed_own_at;
static _Atomic uint32_t observed_own_refused; /* the kernel has no memory that a fork empties: private memory only */
static _Atomic(struct observed_file *) observed_mapped; /* the present user's */
static struct {
	uint64_t user; /* uid + 1; 0 = free */
	struct observed_file *file;
	dev_t device;
	ino_t inode;
} observed_users[OBSERVED_USERS];
static uint32_t observed_replaced;
static struct observed_block observed_private;
static _Atomic uint64_t observed_private_trouble_ms;

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

static bool observed_file_is_ours(int fd, uid_t uid, struct stat *s)
{
	return fstat(fd, s) == 0 && S_ISREG(s->st_mode) && s->st_uid == uid && (s->st_mode & (S_IWGRP | S_IWOTH)) == 0 &&
	       s->st_size == (off_t)sizeof(struct observed_file);
}

static struct observed_file *observed_map_fd(int fd, uid_t uid, struct stat *s)
{
	if (!observed_file_is_ours(fd, uid, s))
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

/* By the folder's descriptor, so that no path is put together: a thread's stack may be small. `s`: which file it is. */
static struct observed_file *observed_map(uid_t uid, struct stat *s)
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
	struct observed_file *file = observed_map_fd(fd, uid, s);
	kernel_close(fd);
	return file;
}

/* True where another file, or none, has the name by now: nobody hears what is written into this one. Out of reach (a chroot) says nothing. */
static bool observed_is_replaced(uid_t uid, dev_t device, ino_t inode)
{
	char name[16];
	struct stat s;
	snprintf(name, sizeof name, "%u", (unsigned)uid);
	int folder = kernel_openat(AT_FDCWD, observed_folder, O_PATH | O_DIRECTORY);
	if (folder < 0)
		return false;
	bool replaced = fstatat(folder, name, &s, AT_SYMLINK_NOFOLLOW) == 0 ? s.st_dev != device || s.st_ino != inode : errno == ENOENT;
	kernel_close(folder);
	return replaced;
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

/* Below, where entries are (observed.h): what the owner of a block that is taken over waited for, and what others wait for. */
static void observed_heed_last_words(struct observed_file *file, struct observed_block *block, uint64_t now_ms);
static void observed_hear_others(struct observed_file *file, struct observed_block *block, uint64_t now_ms);

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

/* Maps the user's file into this place; false = there is none for him. */
static bool observed_take_file(int place, uid_t uid)
{
	struct stat s;
	struct observed_file *file = observed_map(uid, &s);
	if (file == NULL)
		return false;
	observed_users[place].file = file;
	observed_users[place].device = s.st_dev;
	observed_users[place].inode = s.st_ino;
	observed_users[place].user = (uint64_t)uid + 1;
	return true;
}

/* The place of the user's file among those that are mapped; -1 = there is none for him. They stay mapped: another thread may be using one. */
static int observed_user(uid_t uid)
{
	for (int i = 0; i < OBSERVED_USERS; i++) {
		if (observed_users[i].user == (uint64_t)uid + 1)
			return i;
		if (observed_users[i].user == 0)
			return observed_take_file(i, uid) ? i : -1;
	}
	return -1;
}

/* Now and then: where the file was cleared away with its folder, the one that has the name now is this process's, too; made if need be. */
static void observed_compare(struct observed_own *own, int place, uid_t uid, uint64_t now_ms)
{
	uint64_t compared = atomic_load(&own->compared_ms);
	if (compared != 0 && compared <= now_ms && now_ms - compared < OBSERVED_COMPARE_MS)
		return;
	atomic_store(&own->compared_ms, now_ms);
	if (compared == 0 || observed_replaced >= OBSERVED_REPLACED_MOST ||
	    !observed_is_replaced(uid, observed_users[place].device, observed_users[place].inode) || !observed_take_file(place, uid))
		return;
	observed_replaced++;
	atomic_store(&own->blocks[place], NULL);
}

/* The block that this process has there already, or a new one; NULL = none. */
static struct observed_block *observed_block_there(struct observed_own *own, int place, uint32_t pid, uid_t uid, uint64_t now_ms)
{
	struct observed_block *block = atomic_load(&own->blocks[place]);
	if (block != NULL && atomic_load(&block->owner) == pid) {
		atomic_store(&block->used_ms, now_ms);
		return block;
	}
	block = observed_claim(observed_users[place].file, pid, uid, now_ms);
	if (block != NULL)
		observed_hear_others(observed_users[place].file, block, now_ms);
	atomic_store(&own->blocks[place], block);
	return block;
}

/* The slow way to a block: at the first use, after a fork, after another took ours, and once a second after a change of user. */
static struct observed_block *observed_acquire(struct observed_own *own, uint64_t now_ms)
{
	uint32_t nobody = 0;
	/* Another thread is at it, or this is a signal handler that interrupted it. */
	if (!atomic_compare_exchange_strong(&own->claiming, &nobody, 1))
		return &observed_private;
	int errno_before = errno;
	uid_t uid = geteuid();
	int place = observed_user(uid);
	if (place >= 0) {
		observed_compare(own, place, uid, now_ms);
		atomic_store(&observed_mapped, observed_users[place].file);
	}
	uint32_t pid = (uint32_t)getpid();
	atomic_store(&own->pid, pid);
	struct observed_block *block = place < 0 ? NULL : observed_block_there(own, place, pid, uid, now_ms);
	if (block == NULL) {
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
	uint64_t compared = atomic_load_explicit(&own->compared_ms, memory_order_relaxed);
	if (atomic_load(&block->owner) != atomic_load(&own->pid) || atomic_load(&block->uid) != (uint32_t)geteuid() || block == &observed_private ||
	    compared > now_ms || now_ms - compared >= OBSERVED_COMPARE_MS)
		return observed_acquire(own, now_ms);
	atomic_store_explicit(&own->checked_ms, now_ms, memory_order_relaxed);
	atomic_store_explicit(&block->used_ms, now_ms, memory_order_relaxed);
	return block;
}

#endif
