// One try of a blocking socket: it takes no longer than a try may while there are other backends, and ends as the kernel's own connect would.
#ifndef TRILITH_WAITING_H
#define TRILITH_WAITING_H

#include <signal.h>
#include <sys/time.h>

#include "attempts.h"

static int connect_plainly(int fd, const struct sockaddr *address, socklen_t bytes)
{
	connect_function *real = real_connect();
	return real != NULL ? real(fd, address, bytes) : (int)syscall(SYS_connect, fd, address, bytes);
}

static int connect_to(int fd, const struct table_backend *backend, const struct target *target)
{
	struct sockaddr_storage address;
	socklen_t bytes = backend_sockaddr(backend, target, &address);
	return connect_plainly(fd, (const struct sockaddr *)&address, bytes);
}

static uint64_t timeout_us(int fd)
{
	struct timeval t = {0, 0};
	socklen_t bytes = sizeof t;
	if (syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_SNDTIMEO, &t, &bytes) != 0 || t.tv_sec < 0)
		return 0;
	return (uint64_t)t.tv_sec > UINT32_MAX ? (uint64_t)UINT32_MAX * 1000000u : (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_usec;
}

static bool timeout_set(int fd, uint64_t us)
{
	struct timeval t = {.tv_sec = (time_t)(us / 1000000u), .tv_usec = (suseconds_t)(us % 1000000u)};
	return syscall(SYS_setsockopt, fd, SOL_SOCKET, SO_SNDTIMEO, &t, (socklen_t)sizeof t) == 0;
}

/* What a program's own mistakes raise. */
static const int own_mistakes[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};

static bool is_own_mistake(int number)
{
	for (size_t i = 0; i < sizeof own_mistakes / sizeof *own_mistakes; i++)
		if (own_mistakes[i] == number)
			return true;
	return false;
}

/*
 * A signal ended a wait that had our time limit. Without a limit the kernel would have gone on if the handler was installed with SA_RESTART;
 * with one it never does. So: go on where no handler without SA_RESTART is installed; where there is one it may have been that one.
 */
static bool connect_would_restart(void)
{
	for (int number = 1; number <= 64; number++) {
		struct sigaction action;
		/* It ends no wait, though crash reporters and sanitizers install handlers for it. */
		if (is_own_mistake(number))
			continue;
		if (sigaction(number, NULL, &action) != 0)
			continue; /* libc's own */
		if (action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN && (action.sa_flags & SA_RESTART) == 0)
			return false;
	}
	return true;
}

/* The socket is back where it was before its connect. */
static bool connect_abort(int fd)
{
	struct sockaddr none;
	memset(&none, 0, sizeof none);
	none.sa_family = AF_UNSPEC;
	if (syscall(SYS_connect, fd, &none, (socklen_t)sizeof none) != 0)
		return false;
	socket_number(fd, SOL_SOCKET, SO_ERROR); /* the kernel leaves ECONNRESET there for the next one who asks */
	return true;
}

/* A time limit for one try, on the socket only for as long as it lasts. */
struct limit {
	bool known;
	uint64_t users_us; /* the program's own SO_SNDTIMEO; 0 = none */
	uint64_t set_us;   /* what the socket has now */
};

static void limit_put_back(int fd, const struct limit *limit)
{
	if (limit->known && limit->set_us != limit->users_us)
		timeout_set(fd, limit->users_us);
}

/* What becomes of a call's tries, beside those that are over and done with. */
struct trying {
	struct limit limit; /* of a blocking socket */
	uint64_t begun_us;
	bool under_way; /* the connect goes on although the call ends */
	bool is_first;	/* nothing was tried before in this call */
	bool is_old;	/* the socket is connected, by what was done before this call */
	bool was_cut;	/* the last try took longer than one may while there are others */
};

/* Sets the limit for (the rest of) one try; true = the program's own ends the wait, or nothing does. */
static bool limit_set(int fd, struct trying *trying, const struct chosen *chosen, uint64_t try_began_us)
{
	struct limit *limit = &trying->limit;
	if (chosen->others && !limit->known) {
		limit->known = true;
		limit->users_us = limit->set_us = timeout_us(fd);
	}
	if (!limit->known)
		return true;
	bool whole = true;
	uint64_t now_us = monotonic_us(), wanted_us = limit->users_us;
	if (limit->users_us != 0)
		wanted_us = now_us - trying->begun_us < limit->users_us ? limit->users_us - (now_us - trying->begun_us) : 1;
	if (chosen->others) {
		uint64_t try_us = (uint64_t)chosen->try_ms * 1000u;
		uint64_t left_us = now_us - try_began_us < try_us ? try_us - (now_us - try_began_us) : 1;
		if (wanted_us == 0 || left_us < wanted_us) {
			wanted_us = left_us;
			whole = false;
		}
	}
	if (wanted_us == limit->set_us)
		return whole;
	if (!timeout_set(fd, wanted_us))
		return true;
	limit->set_us = wanted_us;
	return whole;
}

/* One try that may block: 0 or an errno. */
static int connect_waiting(int fd, const struct wish *wish, const struct chosen *chosen, struct trying *trying, uint64_t began_us)
{
	const struct limit *limit = &trying->limit;
	trying->was_cut = false;
	for (bool resumed = false;; resumed = true) {
		bool whole = limit_set(fd, trying, chosen, began_us);
		if (connect_to(fd, &chosen->backend, wish->target) == 0)
			return 0;
		int error = errno;
		if (error == EALREADY && resumed) /* what the kernel says when a second wait for the same connect ends */
			error = EINPROGRESS;
		if (error == ECONNABORTED && trying->is_first && !resumed) /* an earlier one, that did not wait, ended so */
			continue;
		if (error == EINTR && limit->known && limit->users_us == 0 && limit->set_us != 0 && connect_would_restart())
			continue;
		if (error == EINPROGRESS && !whole) {
			trying->was_cut = true;
			return connect_abort(fd) ? ETIMEDOUT : EALREADY;
		}
		trying->under_way = error == EINTR || error == EINPROGRESS;
		return error;
	}
}

#endif
