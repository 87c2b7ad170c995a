// What the hook asks of the machine: system calls without cancellation points, clocks, and memory that a fork empties.
#ifndef TRILITH_KERNEL_H
#define TRILITH_KERNEL_H

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the table is little-endian and read in place: this machine's byte order is not supported"
#endif

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

/* open(2) and close(2) of libc are cancellation points and may be other preloaded libraries' too: the hook's own files go straight to the kernel. */
static inline int kernel_openat(int folder, const char *path, int flags)
{
	return (int)syscall(SYS_openat, folder, path, flags | O_CLOEXEC, 0);
}

static inline void kernel_close(int fd)
{
	syscall(SYS_close, fd);
}

/* Microseconds that never go back. */
static inline uint64_t monotonic_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

/* The same in milliseconds, as exact as the scheduler's tick and cheaper. */
static inline uint64_t coarse_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
	return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

/*
 * Locks that nobody waits for: who finds one taken does without. A thread that held one when another thread forked does not exist in the child: so each
 * says in which generation of processes it was taken, and one of an older generation is as good as free.
 */
static _Atomic uint32_t lock_generation = 1;

static bool lock_try(_Atomic uint32_t *lock)
{
	uint32_t mine = atomic_load_explicit(&lock_generation, memory_order_relaxed), found = 0;
	if (atomic_compare_exchange_strong_explicit(lock, &found, mine, memory_order_acquire, memory_order_relaxed))
		return true;
	return found != mine && atomic_compare_exchange_strong_explicit(lock, &found, mine, memory_order_acquire, memory_order_relaxed);
}

static void lock_leave(_Atomic uint32_t *lock)
{
	atomic_store_explicit(lock, 0, memory_order_release);
}

/* At most this many tables are mapped in a process at a time: the present one and old ones that some thread still reads. */
enum { TABLE_PLACES = 16 };

/*
 * What belongs to this process alone. A fork empties it (MADV_WIPEONFORK), so that a child neither waits for a lock nor keeps a table
 * for threads that it does not have. Where the kernel cannot do that the worst is a table that is not reopened for LOCK_STALE_MS.
 */
struct own_page {
	_Atomic uint64_t reopening;	    /* coarse ms at which somebody began to reopen the table; 0 = nobody */
	_Atomic uint64_t retry_at;	    /* coarse ms before which opening is not tried again */
	_Atomic uint64_t compare_at;	    /* coarse ms at which to see whether the file is still the one that is mapped */
	_Atomic int32_t held[TABLE_PLACES]; /* readers of each place */
};

/* PATIENCE: so many rests, each of a tenth of a millisecond, before going without what another thread is just making. */
enum { LOCK_STALE_MS = 10000, PATIENCE = 1000 };

static inline void rest(void)
{
	const struct timespec t = {0, 100000};
	syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &t, NULL);
}

static struct own_page own_page_fallback;
static _Atomic(struct own_page *) own_page_at;

static inline struct own_page *own_page(void)
{
	struct own_page *page = atomic_load_explicit(&own_page_at, memory_order_acquire);
	return page != NULL ? page : &own_page_fallback;
}

/* Once, before the first reader. */
static void own_page_prepare(void)
{
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		return;
	if (madvise(page, 4096, MADV_WIPEONFORK) != 0) {
		munmap(page, 4096);
		return;
	}
	atomic_store_explicit(&own_page_at, page, memory_order_release);
}

#endif
