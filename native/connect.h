// connect: a magic address becomes a backend's address and port.
#ifndef TRILITH_CONNECT_H
#define TRILITH_CONNECT_H

#include <signal.h>
#include <sys/time.h>

#include "attempts.h"

#ifndef IPPROTO_UDPLITE
#define IPPROTO_UDPLITE 136
#endif
#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

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

/*
 * Nobody has this address, or only backends that this socket cannot reach: an IPv4 address goes to the kernel as the program said it, since the
 * agent's proxy answers on those. An IPv6 one is in the host's own prefix and would only be sent off the host.
 */
static bool connect_is_left(const struct wish *wish, enum choice choice)
{
	return (choice == CHOICE_NOT_OURS || choice == CHOICE_UNFITTING) && (!wish->target->v6 || wish->target->mapped);
}

/* Errors that another backend may not have, although they say nothing about this one: an own address, port or rule that does not go with it. */
static bool connect_is_local_failure(int error)
{
	return error == EADDRNOTAVAIL || error == EACCES || error == EPERM || error == EINVAL || error == ENOPROTOOPT;
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

/*
 * A signal ended a wait that had our time limit. Without a limit the kernel would have gone on if the handler was installed with SA_RESTART;
 * with one it never does. So: go on where no handler without SA_RESTART is installed; where there is one it may have been that one.
 */
static bool connect_would_restart(void)
{
	for (int number = 1; number <= 64; number++) {
		struct sigaction action;
		/* What a program's own mistakes raise ends no wait, though crash reporters and sanitizers install handlers for it. */
		if (number == SIGSEGV || number == SIGBUS || number == SIGFPE || number == SIGILL || number == SIGTRAP || number == SIGABRT ||
		    number == SIGSYS)
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

/*
 * One try that may block. 0 or an errno; *under_way = the connect goes on although this call ends (with that errno); *was_cut = it took longer than a
 * try may while there are others.
 */
static int connect_try(int fd, const struct wish *wish, const struct chosen *chosen, struct limit *limit, uint64_t begun_us, uint64_t try_began_us,
		       bool *under_way, bool *was_cut)
{
	*was_cut = false;
	uint64_t try_us = (uint64_t)chosen->try_ms * 1000u;
	for (bool resumed = false;; resumed = true) {
		bool whole = true; /* the program's own limit ends this wait, or nothing does */
		uint64_t wanted_us = 0;
		if (chosen->others && !limit->known) {
			limit->known = true;
			limit->users_us = limit->set_us = timeout_us(fd);
		}
		if (limit->known) {
			uint64_t now_us = monotonic_us();
			wanted_us = limit->users_us;
			if (limit->users_us != 0)
				wanted_us = now_us - begun_us < limit->users_us ? limit->users_us - (now_us - begun_us) : 1;
			if (chosen->others) {
				uint64_t left_us = now_us - try_began_us < try_us ? try_us - (now_us - try_began_us) : 1;
				if (wanted_us == 0 || left_us < wanted_us) {
					wanted_us = left_us;
					whole = false;
				}
			}
			if (wanted_us != limit->set_us) {
				if (!timeout_set(fd, wanted_us))
					whole = true;
				else
					limit->set_us = wanted_us;
			}
		}
		if (connect_to(fd, &chosen->backend, wish->target) == 0)
			return 0;
		int error = errno;
		if (error == EALREADY && resumed) /* what the kernel says when a second wait for the same connect ends */
			error = EINPROGRESS;
		if (error == EINTR && limit->known && limit->users_us == 0 && limit->set_us != 0 && connect_would_restart())
			continue;
		if (error == EINPROGRESS && !whole) {
			*was_cut = true;
			return connect_abort(fd) ? ETIMEDOUT : EALREADY;
		}
		*under_way = error == EINTR || error == EINPROGRESS;
		return error;
	}
}

static int connect_blocking(int fd, struct wish *wish)
{
	struct tries tries;
	struct chosen chosen;
	struct limit limit = {false, 0, 0};
	/* The first backend that had no time left: when no other one is there it may have been slow only. */
	struct chosen slow;
	uint64_t begun_us = monotonic_us();
	int errno_before = errno, error = ECONNREFUSED;
	bool under_way = false, was_cut = false, may_return = false;
	tries.count = 0;
	wish->fd = fd;
	for (uint64_t try_began_us = begun_us;; try_began_us = monotonic_us()) {
		enum choice choice = choose(wish, &tries, &chosen);
		if (choice == CHOICE_TAKEN) {
			error = 0;
			break;
		}
		if (choice != CHOICE_MADE) {
			if (tries.count == 0 && connect_is_left(wish, choice))
				return connect_plainly(fd, wish->address, wish->bytes);
			if (tries.count == 0 && choice == CHOICE_UNFITTING)
				error = ENETUNREACH;
			if (!may_return)
				break;
			chosen = slow;
			chosen.others = may_return = false;
		}
		error = connect_try(fd, wish, &chosen, &limit, begun_us, try_began_us, &under_way, &was_cut);
		if (error == 0) {
			observed_report(&chosen.backend, wish->target->port, 0, monotonic_us() - try_began_us);
			break;
		}
		if (under_way)
			attempt_remember(fd, wish->target, &chosen, try_began_us);
		if (observed_is_failure(error))
			observed_report(&chosen.backend, wish->target->port, error, monotonic_us() - try_began_us);
		else if (!connect_is_local_failure(error))
			break;
		if (was_cut && !may_return)
			slow = chosen;
		/* Who waited as long as the kernel does waits no second time. */
		may_return = was_cut || (may_return && error != ETIMEDOUT);
		tries_add(&tries, &chosen.backend);
	}
	if (limit.known && limit.set_us != limit.users_us)
		timeout_set(fd, limit.users_us);
	if (error != 0) {
		errno = error;
		return -1;
	}
	if ((chosen.service_flags & SERVICE_PREFETCH) != 0)
		choose_ahead(wish);
	errno = errno_before;
	return 0;
}

/* A backend on this host refuses before connect returns. */
static bool connect_is_refused(int fd)
{
	struct tcp_info info;
	socklen_t bytes = sizeof info;
	memset(&info, 0, sizeof info);
	return syscall(SYS_getsockopt, fd, IPPROTO_TCP, TCP_INFO, &info, &bytes) == 0 && bytes > 0 && info.tcpi_state == TCP_CLOSE;
}

static int connect_without_waiting(int fd, const struct wish *wish)
{
	struct tries tries;
	struct chosen chosen;
	int errno_before = errno, error = ECONNREFUSED;
	tries.count = 0;
	for (;;) {
		enum choice choice = choose(wish, &tries, &chosen);
		if (choice != CHOICE_MADE) {
			if (tries.count == 0 && connect_is_left(wish, choice))
				return connect_plainly(fd, wish->address, wish->bytes);
			if (tries.count == 0 && choice == CHOICE_UNFITTING)
				error = ENETUNREACH;
			break;
		}
		uint64_t began_us = monotonic_us();
		if (connect_to(fd, &chosen.backend, wish->target) == 0) {
			observed_report(&chosen.backend, wish->target->port, 0, monotonic_us() - began_us);
			errno = errno_before;
			return 0;
		}
		error = errno;
		if (error == EINPROGRESS && chosen.others && connect_is_refused(fd)) {
			/* Asked again the kernel tells the error, and the socket is where it was before. */
			error = connect_to(fd, &chosen.backend, wish->target) == 0 ? EINPROGRESS : errno;
		}
		if (error == EINPROGRESS) {
			attempt_remember(fd, wish->target, &chosen, began_us);
			break;
		}
		if (observed_is_failure(error))
			observed_report(&chosen.backend, wish->target->port, error, monotonic_us() - began_us);
		else if (!connect_is_local_failure(error))
			break;
		tries_add(&tries, &chosen.backend);
	}
	errno = error;
	return -1;
}

/* A datagram socket: the kernel only notes the address. */
static int connect_datagrams(int fd, const struct wish *wish)
{
	struct tries tries;
	struct chosen chosen;
	int errno_before = errno, error = ECONNREFUSED;
	tries.count = 0;
	for (;;) {
		enum choice choice = choose(wish, &tries, &chosen);
		if (choice != CHOICE_MADE) {
			if (tries.count == 0 && connect_is_left(wish, choice))
				return connect_plainly(fd, wish->address, wish->bytes);
			if (tries.count == 0 && choice == CHOICE_UNFITTING)
				error = ENETUNREACH;
			break;
		}
		if (connect_to(fd, &chosen.backend, wish->target) == 0) {
			errno = errno_before;
			return 0;
		}
		error = errno;
		if (!observed_is_failure(error) && !connect_is_local_failure(error))
			break;
		tries_add(&tries, &chosen.backend);
	}
	errno = error;
	return -1;
}

/* The program asks again about a connect that is under way: the kernel looks at the socket and not at the address. */
static int connect_again(int fd, const struct attempt *a)
{
	int errno_before = errno;
	if (connect_to(fd, &a->backend, &a->target) == 0 || errno == EISCONN) {
		int error = errno;
		attempt_look(fd, 0, false);
		if (error == EISCONN) {
			errno = EISCONN;
			return -1;
		}
		errno = errno_before;
		return 0;
	}
	int error = errno;
	if (error != EALREADY && error != EINPROGRESS && error != EINTR)
		attempt_ended(fd, a, error, monotonic_us() - a->begun_us);
	errno = error;
	return -1;
}

/* Which families a socket reaches through this target; 0 = leave the address to the kernel. */
static uint8_t connect_families(int fd, const struct target *target)
{
	if (!target->v6)
		return BALANCE_V4;
	bool only = socket_number(fd, IPPROTO_IPV6, IPV6_V6ONLY) != 0;
	if (target->mapped)
		return only ? 0 : BALANCE_V4;
	return only ? BALANCE_V6 : BALANCE_V4 | BALANCE_V6;
}

static bool is_datagrams(int protocol)
{
	return protocol == IPPROTO_UDP || protocol == IPPROTO_UDPLITE;
}

static bool is_stream(int protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP;
}

static int connect_ours(int fd, const struct sockaddr *address, socklen_t bytes, const struct target *target)
{
	int errno_before = errno;
	struct attempt a;
	if (attempt_find(fd, &a)) {
		errno = errno_before;
		return connect_again(fd, &a);
	}
	int protocol = socket_number(fd, SOL_SOCKET, SO_PROTOCOL);
	struct wish wish = {.target = target, .address = address, .bytes = bytes, .caller = caller_key, .fd = -1};
	wish.datagrams = is_datagrams(protocol);
	if (is_stream(protocol) || wish.datagrams)
		wish.families = connect_families(fd, target);
	int flags = wish.families == 0 ? 0 : fcntl(fd, F_GETFL);
	errno = errno_before;
	if (wish.families == 0 || flags < 0)
		return connect_plainly(fd, address, bytes);
	if (wish.datagrams) {
		uint64_t cookie = socket_cookie(fd);
		wish.caller = cookie != 0 ? balance_mix(cookie) : caller_key;
		errno = errno_before;
		return connect_datagrams(fd, &wish);
	}
	return (flags & O_NONBLOCK) != 0 ? connect_without_waiting(fd, &wish) : connect_blocking(fd, &wish);
}

HOOK(int, connect, int fd, const struct sockaddr *address, socklen_t bytes)
{
	struct target target;
	if (!prepared())
		return connect_plainly(fd, address, bytes);
	if (__builtin_expect(atomic_load_explicit(&range_v4, memory_order_relaxed) == 0, 0) && range_is_usual(address, bytes)) {
		struct table *t = table_hold();
		if (t != NULL)
			table_release(t);
	}
	if (__builtin_expect(target_of(address, bytes, &target), 0))
		return connect_ours(fd, address, bytes, &target);
	if (attempt_maybe(fd)) /* another address, or AF_UNSPEC: what was under way is of no interest any more */
		attempt_forget(fd);
	return connect_plainly(fd, address, bytes);
}

HOOK(int, epoll_ctl, int epoll, int operation, int fd, struct epoll_event *event)
{
	epoll_ctl_function *real = real_epoll_ctl();
	int result = real != NULL ? real(epoll, operation, fd, event) : (int)syscall(SYS_epoll_ctl, epoll, operation, fd, event);
	if (result == 0 && operation == EPOLL_CTL_ADD) {
		int errno_before = errno;
		prefetch_watched(fd);
		errno = errno_before;
	}
	return result;
}

HOOK(int, chroot, const char *path)
{
	chroot_function *real = real_chroot();
	int errno_before = errno;
	if (prepared())
		table_before_chroot();
	errno = errno_before;
	int result = real != NULL ? real(path) : (int)syscall(SYS_chroot, path);
	if (result == 0)
		table_after_chroot();
	return result;
}

#endif
