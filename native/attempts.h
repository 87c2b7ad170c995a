// Connects that a program left under way: which backend a descriptor is going to, and how it came out, seen where programs look themselves.
#ifndef TRILITH_ATTEMPTS_H
#define TRILITH_ATTEMPTS_H

#include <netinet/tcp.h>

#include "choose.h"

/*
 * A connect without blocking ends after the call. Every program then does one of three things with the descriptor, and each is a place to
 * learn the outcome: it asks SO_ERROR (curl, node, nginx, libpq, Java, Python), it calls connect again (HAProxy, hiredis), or it gives up and
 * closes it. So getsockopt(SO_ERROR), connect and close look here first, which costs them one load where nothing is under way. Who closes by a
 * system call of its own (libuv) is found out at its next connect.
 */
struct attempt {
	_Atomic uint32_t lock;
	int pid; /* a child that closes its copy, or its parent's by vfork, gives nothing up */
	struct table_backend backend;
	struct target target;
	uint64_t cookie;
	_Atomic uint64_t begun_us; /* may be read without the lock */
	uint32_t try_ms;
};

enum { ATTEMPT_PLACES = 4096 };
static struct attempt attempts[ATTEMPT_PLACES];
static _Atomic int attempt_fds[ATTEMPT_PLACES]; /* descriptor + 1; 0 = free */

static inline bool attempt_maybe(int fd)
{
	return __builtin_expect(fd >= 0 && atomic_load_explicit(&attempt_fds[(uint32_t)fd % ATTEMPT_PLACES], memory_order_relaxed) == fd + 1, 0);
}

/* The last ones that were left under way: descriptor + 1. */
enum { ATTEMPT_LATELY = 8, ATTEMPT_OLD_US = 20000, ATTEMPT_SILENT_US = 200000 };
static _Atomic int attempt_lately[ATTEMPT_LATELY];
static _Atomic uint32_t attempt_next;

static void attempt_remember(int fd, const struct target *target, const struct chosen *chosen, uint64_t begun_us)
{
	uint64_t cookie = socket_cookie(fd);
	struct attempt *a = &attempts[(uint32_t)fd % ATTEMPT_PLACES];
	if (fd < 0 || !lock_try(&a->lock))
		return;
	a->backend = chosen->backend;
	a->target = *target;
	a->cookie = cookie;
	atomic_store_explicit(&a->begun_us, begun_us, memory_order_relaxed);
	a->try_ms = chosen->try_ms;
	a->pid = (int)syscall(SYS_getpid);
	atomic_store_explicit(&attempt_fds[a - attempts], fd + 1, memory_order_release);
	lock_leave(&a->lock);
	uint32_t place = atomic_fetch_add_explicit(&attempt_next, 1, memory_order_relaxed) % ATTEMPT_LATELY;
	atomic_store_explicit(&attempt_lately[place], fd + 1, memory_order_relaxed);
	observed_asks(&chosen->backend, target->port);
}

/*
 * What this process has under way on the descriptor; false = nothing. What belongs to a socket that is gone was given up. `goes_on` = the program asks
 * for the very connect: what it has from the process that it was forked from is its own from then on.
 */
static bool attempt_find(int fd, struct attempt *found, bool goes_on)
{
	if (!attempt_maybe(fd))
		return false;
	uint64_t cookie = socket_cookie(fd);
	struct attempt *a = &attempts[(uint32_t)fd % ATTEMPT_PLACES];
	if (!lock_try(&a->lock))
		return false;
	int pid = (int)syscall(SYS_getpid);
	bool there = atomic_load_explicit(&attempt_fds[a - attempts], memory_order_relaxed) == fd + 1;
	if (there && goes_on && a->cookie == cookie)
		a->pid = pid;
	there = there && a->pid == pid;
	bool gone = there && a->cookie != cookie;
	if (gone)
		atomic_store_explicit(&attempt_fds[a - attempts], 0, memory_order_relaxed);
	if (there) {
		found->backend = a->backend;
		found->target = a->target;
		found->cookie = a->cookie;
		found->begun_us = a->begun_us;
		found->try_ms = a->try_ms;
	}
	lock_leave(&a->lock);
	if (gone)
		observed_report(&found->backend, found->target.port, EINPROGRESS, 0);
	return there && !gone;
}

static void attempt_forget(int fd)
{
	int had = fd + 1;
	atomic_compare_exchange_strong(&attempt_fds[(uint32_t)fd % ATTEMPT_PLACES], &had, 0);
}

/* Only who takes it off the list tells, so that two threads do not tell it twice. */
static void attempt_ended(int fd, const struct attempt *a, int error, uint64_t micros)
{
	int had = fd + 1;
	if (!atomic_compare_exchange_strong(&attempt_fds[(uint32_t)fd % ATTEMPT_PLACES], &had, 0))
		return;
	if (error == 0 || error == EINPROGRESS || observed_is_failure(error))
		observed_report(&a->backend, a->target.port, error, micros);
}

/*
 * Looks at the socket itself. `error` is what the program just read from SO_ERROR, or 0; `closing` = it is about to close it, so this is the
 * last look. errno may change.
 */
static void attempt_look(int fd, int error, bool closing)
{
	struct attempt a;
	if (!attempt_find(fd, &a, false))
		return;
	uint64_t waited_us = monotonic_us() - a.begun_us;
	if (error != 0) {
		attempt_ended(fd, &a, error, waited_us);
		return;
	}
	struct tcp_info info;
	socklen_t bytes = sizeof info;
	memset(&info, 0, sizeof info);
	if (syscall(SYS_getsockopt, fd, IPPROTO_TCP, TCP_INFO, &info, &bytes) != 0) {
		attempt_forget(fd);
		return;
	}
	if (info.tcpi_state == TCP_SYN_SENT) {
		if (!closing)
			return;
		attempt_ended(fd, &a, waited_us >= (uint64_t)a.try_ms * 1000 ? ETIMEDOUT : EINPROGRESS, waited_us);
		return;
	}
	/* The first round trip is the handshake: exact, however late the program looks. A socket that failed had none. */
	if (info.tcpi_state == TCP_CLOSE) {
		bool told = bytes >= offsetof(struct tcp_info, tcpi_rtt) + sizeof info.tcpi_rtt;
		/* Asking for the error takes it away, also from a duplicate of the descriptor: only where the kernel tells no times. */
		if (told ? info.tcpi_rtt == 0 : !closing || socket_number(fd, SOL_SOCKET, SO_ERROR) != ECONNRESET) {
			attempt_ended(fd, &a, ECONNREFUSED, waited_us);
			return;
		}
	}
	attempt_ended(fd, &a, 0, info.tcpi_rtt != 0 ? info.tcpi_rtt : waited_us);
}

/* So long may a backend be silent before it is in doubt: some times as long as it takes to connect to it, where that is known. */
static uint64_t attempt_patience_us(const struct attempt *a)
{
	uint64_t now_ms = observed_now_ms();
	struct observed_entry *e = observed_find(observed_block(now_ms), a->backend.address, balance_port(&a->backend, a->target.port));
	uint64_t usual_us = e == NULL ? 0 : (uint64_t)atomic_load_explicit(&e->time_us, memory_order_relaxed) * 4;
	return usual_us > ATTEMPT_SILENT_US ? usual_us : ATTEMPT_SILENT_US;
}

/*
 * Before a choice: what is under way for long without an answer, or was closed without a word, makes a backend doubtful. In healthy times there is
 * none; the outcome, should there be one, is learnt as ever. errno may change.
 */
static void attempts_look_back(uint64_t now_us)
{
	for (int i = 0; i < ATTEMPT_LATELY; i++) {
		int fd = atomic_load_explicit(&attempt_lately[i], memory_order_relaxed) - 1;
		struct attempt a;
		if (fd < 0)
			continue;
		if (!attempt_maybe(fd)) {
			int had = fd + 1;
			atomic_compare_exchange_strong(&attempt_lately[i], &had, 0);
			continue;
		}
		if (now_us - atomic_load_explicit(&attempts[(uint32_t)fd % ATTEMPT_PLACES].begun_us, memory_order_relaxed) < ATTEMPT_OLD_US ||
		    !attempt_find(fd, &a, false))
			continue;
		struct tcp_info info;
		if (now_us - a.begun_us >= attempt_patience_us(&a) && prefetch_state(fd, &info) == TCP_SYN_SENT)
			observed_report(&a.backend, a.target.port, EINPROGRESS, 0);
	}
}

HOOK(int, getsockopt, int fd, int level, int option, void *value, socklen_t *bytes)
{
	getsockopt_function *real = real_getsockopt();
	int result = real != NULL ? real(fd, level, option, value, bytes) : (int)syscall(SYS_getsockopt, fd, level, option, value, bytes);
	if (level != SOL_SOCKET || option != SO_ERROR || !attempt_maybe(fd) || result != 0 || *bytes < sizeof(int))
		return result;
	int errno_before = errno, error;
	memcpy(&error, value, sizeof error);
	attempt_look(fd, error, false);
	errno = errno_before;
	return result;
}

HOOK(int, close, int fd)
{
	if (attempt_maybe(fd)) {
		int errno_before = errno;
		attempt_look(fd, 0, true);
		errno = errno_before;
	}
	close_function *real = real_close();
	return real != NULL ? real(fd) : (int)syscall(SYS_close, fd);
}

#endif
