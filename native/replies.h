// Replies to datagrams: what comes from a backend appears to come from the magic address that the program had sent to.
#ifndef TRILITH_REPLIES_H
#define TRILITH_REPLIES_H

#include "connect.h"

/*
 * RADIUS, NTP and other clients drop what comes from elsewhere than they asked. For each socket that sent to a magic address without being connected
 * the last one is kept; receiving looks here first, which costs one load for the others.
 */
struct reply {
	_Atomic uint32_t lock;
	uint64_t cookie;
	uint8_t backend[16];
	uint16_t backend_port;
	uint16_t said_port;
	uint8_t said[16]; /* what the program had sent to, IPv4 as ::ffff:a.b.c.d */
};

enum { REPLY_PLACES = 1024, SENDMMSG_MOST = 1024 /* of one call: the kernel's own limit */ };
static struct reply replies[REPLY_PLACES];
static _Atomic int reply_fds[REPLY_PLACES]; /* descriptor + 1; 0 = free */

static inline bool reply_maybe(int fd)
{
	return __builtin_expect(fd >= 0 && atomic_load_explicit(&reply_fds[(uint32_t)fd % REPLY_PLACES], memory_order_relaxed) == fd + 1, 0);
}

static void reply_note(int fd, uint64_t cookie, const struct table_backend *backend, const struct target *target, const struct sockaddr *said)
{
	struct reply *r = &replies[(uint32_t)fd % REPLY_PLACES];
	if (fd < 0 || !lock_try(&r->lock))
		return;
	r->cookie = cookie;
	memcpy(r->backend, backend->address, 16);
	r->backend_port = balance_port(backend, target->port);
	r->said_port = target->port;
	if (target->v6) {
		memcpy(r->said, (const char *)said + offsetof(struct sockaddr_in6, sin6_addr), 16);
	} else {
		memset(r->said, 0, 10);
		memset(r->said + 10, 0xff, 2);
		memcpy(r->said + 12, (const char *)said + offsetof(struct sockaddr_in, sin_addr), 4);
	}
	atomic_store_explicit(&reply_fds[r - replies], fd + 1, memory_order_relaxed);
	lock_leave(&r->lock);
}

/* Puts what was said in the place of a backend's address, in the `room` bytes that the program gave. errno stays as it was. */
static void reply_rename(int fd, void *name, socklen_t room)
{
	int errno_before = errno;
	uint64_t cookie = socket_cookie(fd);
	errno = errno_before;
	struct reply *r = &replies[(uint32_t)fd % REPLY_PLACES];
	if (name == NULL || room < sizeof(sa_family_t) || !lock_try(&r->lock))
		return;
	sa_family_t family;
	memcpy(&family, name, sizeof family);
	uint16_t port, said_port = htons(r->said_port);
	static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
	char *bytes = name;
	if (atomic_load_explicit(&reply_fds[r - replies], memory_order_relaxed) != fd + 1 || r->cookie != cookie) {
		family = AF_UNSPEC;
	} else if (family == AF_INET && room >= 8 && memcmp(r->said, mapped, 12) == 0 && memcmp(r->backend, mapped, 12) == 0 &&
		   memcmp(bytes + 4, r->backend + 12, 4) == 0) {
		memcpy(&port, bytes + 2, 2);
		if (ntohs(port) == r->backend_port) {
			memcpy(bytes + 2, &said_port, 2);
			memcpy(bytes + 4, r->said + 12, 4);
		}
	} else if (family == AF_INET6 && room >= SOCKADDR_IN6_LEAST && memcmp(bytes + 8, r->backend, 16) == 0) {
		memcpy(&port, bytes + 2, 2);
		if (ntohs(port) == r->backend_port) {
			memcpy(bytes + 2, &said_port, 2);
			memcpy(bytes + 8, r->said, 16);
		}
	}
	lock_leave(&r->lock);
}

static inline socklen_t least_room(socklen_t a, socklen_t b)
{
	return a < b ? a : b;
}

HOOK(ssize_t, recvfrom, int fd, void *data, size_t bytes, int flags, struct sockaddr *name, socklen_t *name_bytes)
{
	recvfrom_function *real = real_recvfrom();
	bool ours = name != NULL && name_bytes != NULL && reply_maybe(fd);
	socklen_t room = ours ? *name_bytes : 0;
	ssize_t n = real != NULL ? real(fd, data, bytes, flags, name, name_bytes)
				 : syscall(SYS_recvfrom, fd, data, bytes, flags, name, name_bytes);
	if (ours && n >= 0)
		reply_rename(fd, name, least_room(room, *name_bytes));
	return n;
}

#ifdef __GLIBC__
/* What programs call that were compiled with _FORTIFY_SOURCE. */
HOOK(ssize_t, __recvfrom_chk, int fd, void *data, size_t bytes, size_t data_bytes, int flags, struct sockaddr *name, socklen_t *name_bytes)
{
	__recvfrom_chk_function *real = real___recvfrom_chk();
	bool ours = name != NULL && name_bytes != NULL && reply_maybe(fd);
	socklen_t room = ours ? *name_bytes : 0;
	ssize_t n = real != NULL ? real(fd, data, bytes, data_bytes, flags, name, name_bytes)
				 : syscall(SYS_recvfrom, fd, data, bytes < data_bytes ? bytes : data_bytes, flags, name, name_bytes);
	if (ours && n >= 0)
		reply_rename(fd, name, least_room(room, *name_bytes));
	return n;
}
#endif

HOOK(ssize_t, recvmsg, int fd, struct msghdr *message, int flags)
{
	recvmsg_function *real = real_recvmsg();
	bool ours = reply_maybe(fd) && message != NULL && message->msg_name != NULL;
	socklen_t room = ours ? message->msg_namelen : 0;
	ssize_t n = real != NULL ? real(fd, message, flags) : syscall(SYS_recvmsg, fd, message, flags);
	if (ours && n >= 0)
		reply_rename(fd, message->msg_name, least_room(room, message->msg_namelen));
	return n;
}

static int recvmmsg_plainly(int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *limit)
{
	recvmmsg_function *real = real_recvmmsg();
	return real != NULL ? real(fd, messages, count, flags, limit) : (int)syscall(SYS_recvmmsg, fd, messages, count, flags, limit);
}

/* Apart, so that others do not need the stack. */
__attribute__((noinline)) static int recvmmsg_renamed(int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *limit)
{
	uint8_t rooms[SENDMMSG_MOST];
	unsigned looked = count < SENDMMSG_MOST ? count : SENDMMSG_MOST;
	for (unsigned i = 0; i < looked; i++)
		rooms[i] = (uint8_t)least_room(messages[i].msg_hdr.msg_namelen, UINT8_MAX);
	int n = recvmmsg_plainly(fd, messages, count, flags, limit);
	for (int i = 0; i < n && (unsigned)i < looked; i++)
		reply_rename(fd, messages[i].msg_hdr.msg_name, least_room(rooms[i], messages[i].msg_hdr.msg_namelen));
	return n;
}

HOOK(int, recvmmsg, int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *limit)
{
	return reply_maybe(fd) && messages != NULL ? recvmmsg_renamed(fd, messages, count, flags, limit)
						   : recvmmsg_plainly(fd, messages, count, flags, limit);
}

#endif
