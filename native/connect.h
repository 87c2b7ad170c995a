// connect: a magic address becomes a backend's address and port.
#ifndef TRILITH_CONNECT_H
#define TRILITH_CONNECT_H

#include "look.h"

#ifndef IPPROTO_UDPLITE
#define IPPROTO_UDPLITE 136
#endif
#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

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

/* A backend on this host refuses before connect returns. */
static bool connect_is_refused(int fd)
{
	struct tcp_info info;
	return prefetch_state(fd, &info) == TCP_CLOSE;
}

/*
 * What a connect that has only just begun can hardly have heard of: an earlier one of the same socket ended so, and nobody has asked since (or only for
 * SO_ERROR: ECONNABORTED). By saying so the kernel forgets it.
 */
static bool connect_is_old_failure(int error)
{
	return error == ECONNREFUSED || error == ECONNRESET || error == ETIMEDOUT || error == EPIPE || error == ECONNABORTED;
}

/* False where the kernel answers for a connect that another process began, or another program in this one: it led elsewhere. */
static bool connect_is_to(int fd, const struct table_backend *backend, const struct target *target)
{
	struct sockaddr_storage wanted;
	union socket_address is;
	socklen_t bytes = sizeof is;
	memset(&is, 0, sizeof is);
	if (syscall(SYS_getpeername, fd, &is, &bytes) != 0)
		return false;
	backend_sockaddr(backend, target, &wanted);
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)&wanted;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&wanted;
	if (wanted.ss_family != is.v4.sin_family || v4->sin_port != is.v4.sin_port)
		return false;
	return wanted.ss_family == AF_INET ? v4->sin_addr.s_addr == is.v4.sin_addr.s_addr : memcmp(&v6->sin6_addr, &is.v6.sin6_addr, 16) == 0;
}

/* One try that does not wait: 0 or an errno. Of a datagram socket the kernel only notes the address. */
static int connect_at_once(int fd, const struct wish *wish, const struct chosen *chosen, struct trying *trying)
{
	int error = connect_to(fd, &chosen->backend, wish->target) == 0 ? 0 : errno;
	if (trying->is_first && !wish->datagrams && connect_is_old_failure(error))
		error = connect_to(fd, &chosen->backend, wish->target) == 0 ? 0 : errno;
	if (error == 0) {
		trying->is_old = !wish->datagrams && !connect_is_to(fd, &chosen->backend, wish->target);
		return 0;
	}
	/* Asked again the kernel tells the error, and the socket is where it was before. */
	if (error == EINPROGRESS && chosen->others && connect_is_refused(fd))
		error = connect_to(fd, &chosen->backend, wish->target) == 0 ? EINPROGRESS : errno;
	trying->under_way = error == EINPROGRESS;
	return error;
}

/* Tries one backend after the other for as long as others may do better: 0 or -1 and errno, as the kernel's connect. */
static int connect_by_tries(int fd, struct wish *wish)
{
	struct tries tries;
	struct chosen chosen;
	struct trying trying = {.begun_us = wish->datagrams ? 0 : monotonic_us()};
	/* The first backend that had no time left: when no other one is there it may have been slow only. */
	struct chosen slow;
	int errno_before = errno, error = ECONNREFUSED;
	bool may_return = false;
	tries.count = 0;
	if (wish->looks && !wish->waits)
		attempts_look_back(trying.begun_us);
	for (uint64_t began_us = trying.begun_us;; began_us = monotonic_us()) {
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
		/* Who waits is only better off where backends may be silent: one that refuses has cost him nothing. */
		if (wish->looks && chosen.doubtful && (!wish->waits || tries.count == 0 || trying.was_cut)) {
			wish->looks = false;
			look_before(fd, wish, &tries, &chosen);
			began_us = monotonic_us();
		}
		trying.is_first = tries.count == 0;
		error = wish->waits ? connect_waiting(fd, wish, &chosen, &trying, began_us) : connect_at_once(fd, wish, &chosen, &trying);
		if (trying.is_old)
			break;
		if (!wish->datagrams) {
			if (trying.under_way)
				attempt_remember(fd, wish->target, &chosen, began_us);
			if (error == 0 || observed_is_failure(error))
				observed_report(&chosen.backend, wish->target->port, error, monotonic_us() - began_us);
		}
		if (error == 0 || (!observed_is_failure(error) && !connect_is_local_failure(error)))
			break;
		if (trying.was_cut && !may_return)
			slow = chosen;
		/* Who waited as long as the kernel does waits no second time. */
		may_return = trying.was_cut || (may_return && error != ETIMEDOUT);
		tries_add(&tries, &chosen.backend);
	}
	limit_put_back(fd, &trying.limit);
	if (error != 0) {
		errno = error;
		return -1;
	}
	if (wish->waits && (chosen.service_flags & SERVICE_PREFETCH) != 0)
		choose_ahead(wish);
	errno = errno_before;
	return 0;
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

/*
 * With TCP_FASTOPEN_CONNECT the kernel says "connected" before it has sent anything, and a refusal comes with the first write, too late for another
 * backend: so such a socket is connected by a handshake. A connect that failed leaves the option as it was.
 */
static bool fast_open_off(int fd)
{
	int off = 0;
	return socket_number(fd, IPPROTO_TCP, OPTION_TCP_FASTOPEN_CONNECT) == 1 &&
	       syscall(SYS_setsockopt, fd, IPPROTO_TCP, OPTION_TCP_FASTOPEN_CONNECT, &off, (socklen_t)sizeof off) == 0;
}

static void fast_open_on(int fd)
{
	int on = 1;
	syscall(SYS_setsockopt, fd, IPPROTO_TCP, OPTION_TCP_FASTOPEN_CONNECT, &on, (socklen_t)sizeof on); /* refused once there is a connect */
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
	if (attempt_find(fd, &a, true)) {
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
	} else {
		wish.looks = true;
		wish.waits = (flags & O_NONBLOCK) == 0;
		wish.fd = wish.waits ? fd : -1;
	}
	bool was_fast = !wish.datagrams && fast_open_off(fd);
	errno = errno_before;
	int result = connect_by_tries(fd, &wish);
	if (was_fast && result != 0) {
		int error = errno;
		fast_open_on(fd);
		errno = error;
	}
	return result;
}

HOOK(int, connect, int fd, const struct sockaddr *address, socklen_t bytes)
{
	struct target target;
	if (!prepared())
		return connect_plainly(fd, address, bytes);
	if (__builtin_expect(target_found(address, bytes, &target), 0))
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
		cookies_add(&prefetch_watched, fd);
		errno = errno_before;
	}
	return result;
}

HOOK(int, setsockopt, int fd, int level, int option, const void *value, socklen_t bytes)
{
	setsockopt_function *real = real_setsockopt();
	int result = real != NULL ? real(fd, level, option, value, bytes) : (int)syscall(SYS_setsockopt, fd, level, option, value, bytes);
	if (__builtin_expect(option_is_secret(level, option), 0) && result == 0) {
		int errno_before = errno;
		cookies_add(&sockets_with_secrets, fd);
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
