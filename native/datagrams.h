// sendto, sendmsg and sendmmsg to a magic address: each socket's datagrams for a service go to one backend for as long as it is there.
#ifndef TRILITH_DATAGRAMS_H
#define TRILITH_DATAGRAMS_H

#include <netinet/tcp.h>

#include "replies.h"

/* Which backend a socket's datagrams for a service go to. */
struct flow {
	_Atomic uint32_t lock;
	uint32_t slot;
	uint64_t cookie; /* 0 = free */
	struct table_backend backend;
};

enum { FLOW_PLACES = 1024 };
static struct flow flows[FLOW_PLACES];

static struct flow *flow_at(uint64_t cookie, uint32_t slot)
{
	return &flows[balance_mix(cookie ^ (uint64_t)slot << 32) % FLOW_PLACES];
}

/* True where the table still has this backend for the wish, and the agent does not suspect it. */
static bool flow_is_good(const struct wish *wish, const struct table_backend *backend)
{
	struct table *t = table_hold();
	if (t == NULL)
		return false;
	struct table_service service;
	const struct table_backend *backends = choose_service(t, wish, &service);
	bool good = false;
	for (uint32_t i = 0; backends != NULL && i < service.count && !good; i++)
		good = backends[i].port == backend->port && memcmp(backends[i].address, backend->address, 16) == 0 &&
		       (backends[i].flags & BACKEND_SUSPECT) == 0 && choose_fits(wish, &backends[i]);
	table_release(t);
	return good;
}

static enum choice flow_choose(const struct wish *wish, uint64_t cookie, struct table_backend *backend)
{
	struct flow *f = flow_at(cookie, wish->target->slot);
	bool locked = cookie != 0 && lock_try(&f->lock);
	enum choice choice = CHOICE_MADE;
	if (locked && f->cookie == cookie && f->slot == wish->target->slot && flow_is_good(wish, &f->backend)) {
		*backend = f->backend;
	} else {
		struct tries none;
		struct chosen chosen;
		none.count = 0;
		choice = choose(wish, &none, &chosen);
		if (choice == CHOICE_MADE) {
			*backend = chosen.backend;
			if (locked) {
				f->cookie = cookie;
				f->slot = wish->target->slot;
				f->backend = chosen.backend;
			}
		}
	}
	if (locked)
		lock_leave(&f->lock);
	return choice;
}

/* A stream socket's sendto names an address only to connect with the first data (TCP fast open). */
static bool send_opens(int fd, int flags)
{
	return (flags & MSG_FASTOPEN) != 0 && is_stream(socket_number(fd, SOL_SOCKET, SO_PROTOCOL));
}

/*
 * Where a datagram for `target` goes: the number of bytes in *out; 0 = as the program said; -1 = nowhere (errno says why). errno stays as it
 * was otherwise.
 */
static int datagram_to(int fd, const struct target *target, const struct sockaddr *said, int flags, struct sockaddr_storage *out)
{
	int errno_before = errno;
	struct wish wish = {.target = target, .caller = caller_key, .fd = -1};
	wish.datagrams = is_datagrams(socket_number(fd, SOL_SOCKET, SO_PROTOCOL));
	if (wish.datagrams || send_opens(fd, flags))
		wish.families = connect_families(fd, target);
	uint64_t cookie = wish.datagrams ? socket_cookie(fd) : 0;
	errno = errno_before;
	if (wish.families == 0)
		return 0;
	if (cookie != 0)
		wish.caller = balance_mix(cookie);
	struct table_backend backend;
	enum choice choice = flow_choose(&wish, cookie, &backend);
	if (choice == CHOICE_MADE) {
		if (cookie != 0)
			reply_note(fd, cookie, &backend, target, said);
		return (int)backend_sockaddr(&backend, target, out);
	}
	if (connect_is_left(&wish, choice))
		return 0;
	errno = choice == CHOICE_UNFITTING ? ENETUNREACH : ECONNREFUSED;
	return -1;
}

/* What becomes of a send to `target`. */
enum send { SEND_TO, SEND_CONNECTED, SEND_NOT };

/*
 * SEND_TO: *bytes of *out are the address (0: as the program said it). SEND_CONNECTED: a connect has just been made, the data are to follow without an
 * address. SEND_NOT: errno says why. A backend that refuses the first data could not be left for another one: so the connect comes first, as with
 * TCP_FASTOPEN_CONNECT; who may not wait for it although his socket could (MSG_DONTWAIT) has one try.
 */
static enum send send_prepare(int fd, const struct target *target, const struct sockaddr *said, socklen_t said_bytes, int flags,
			      struct sockaddr_storage *out, socklen_t *bytes)
{
	int errno_before = errno;
	bool opens = (flags & MSG_FASTOPEN) != 0 && (flags & MSG_DONTWAIT) == 0 && send_opens(fd, flags);
	errno = errno_before;
	if (opens)
		return connect_ours(fd, said, said_bytes, target) == 0 ? SEND_CONNECTED : SEND_NOT;
	int n = datagram_to(fd, target, said, flags, out);
	*bytes = n < 0 ? 0 : (socklen_t)n;
	return n < 0 ? SEND_NOT : SEND_TO;
}

HOOK(ssize_t, sendto, int fd, const void *data, size_t bytes, int flags, const struct sockaddr *address, socklen_t address_bytes)
{
	sendto_function *real = real_sendto();
	struct target target;
	struct sockaddr_storage out;
	if (address != NULL && prepared() && target_found(address, address_bytes, &target)) {
		socklen_t own_bytes = 0;
		enum send send = send_prepare(fd, &target, address, address_bytes, flags, &out, &own_bytes);
		if (send == SEND_NOT)
			return -1;
		if (send == SEND_CONNECTED) {
			address = NULL;
			address_bytes = 0;
			flags &= ~MSG_FASTOPEN;
		} else if (own_bytes != 0) {
			address = (const struct sockaddr *)&out;
			address_bytes = own_bytes;
		}
	}
	return real != NULL ? real(fd, data, bytes, flags, address, address_bytes)
			    : syscall(SYS_sendto, fd, data, bytes, flags, address, address_bytes);
}

HOOK(ssize_t, sendmsg, int fd, const struct msghdr *message, int flags)
{
	sendmsg_function *real = real_sendmsg();
	struct target target;
	struct sockaddr_storage out;
	struct msghdr own;
	uintptr_t p = (uintptr_t)message;
	if (p >= 4096 && p <= (uintptr_t)INTPTR_MAX && message->msg_name != NULL && prepared() &&
	    target_found(message->msg_name, message->msg_namelen, &target)) {
		socklen_t own_bytes = 0;
		enum send send = send_prepare(fd, &target, message->msg_name, message->msg_namelen, flags, &out, &own_bytes);
		if (send == SEND_NOT)
			return -1;
		if (send == SEND_CONNECTED || own_bytes != 0) {
			own = *message;
			own.msg_name = own_bytes == 0 ? NULL : &out;
			own.msg_namelen = own_bytes;
			message = &own;
		}
		if (send == SEND_CONNECTED)
			flags &= ~MSG_FASTOPEN;
	}
	return real != NULL ? real(fd, message, flags) : syscall(SYS_sendmsg, fd, message, flags);
}

static int sendmmsg_plainly(int fd, struct mmsghdr *messages, unsigned count, int flags)
{
	sendmmsg_function *real = real_sendmmsg();
	return real != NULL ? real(fd, messages, count, flags) : (int)syscall(SYS_sendmmsg, fd, messages, count, flags);
}

enum { SENDMMSG_AT_ONCE = 16 };

HOOK(int, sendmmsg, int fd, struct mmsghdr *messages, unsigned count, int flags)
{
	struct target target;
	uintptr_t p = (uintptr_t)messages;
	unsigned looked = count > SENDMMSG_MOST ? SENDMMSG_MOST : count, ours = looked;
	if (p >= 4096 && p <= (uintptr_t)INTPTR_MAX && prepared())
		for (ours = 0; ours < looked; ours++)
			if (messages[ours].msg_hdr.msg_name != NULL &&
			    target_found(messages[ours].msg_hdr.msg_name, messages[ours].msg_hdr.msg_namelen, &target))
				break;
	if (ours == looked)
		return sendmmsg_plainly(fd, messages, count, flags);
	/* Some are ours: the program's array is not to be changed but for the lengths, so copies go out, some at a time. */
	struct mmsghdr own[SENDMMSG_AT_ONCE];
	struct sockaddr_storage out[SENDMMSG_AT_ONCE];
	unsigned sent = 0;
	while (sent < looked) {
		unsigned n = 0;
		int error = 0, errno_before = errno;
		for (; n < SENDMMSG_AT_ONCE && sent + n < looked; n++) {
			own[n] = messages[sent + n];
			struct msghdr *h = &own[n].msg_hdr;
			if (h->msg_name == NULL || !target_found(h->msg_name, h->msg_namelen, &target))
				continue;
			int bytes = datagram_to(fd, &target, h->msg_name, flags, &out[n]);
			if (bytes < 0) {
				error = errno;
				break;
			}
			if (bytes > 0) {
				h->msg_name = &out[n];
				h->msg_namelen = (socklen_t)bytes;
			}
		}
		int result = n == 0 ? 0 : sendmmsg_plainly(fd, own, n, flags);
		if (result < 0)
			return sent > 0 ? (int)sent : -1;
		for (int i = 0; i < result; i++)
			messages[sent + (unsigned)i].msg_len = own[i].msg_len;
		sent += (unsigned)result;
		if ((unsigned)result < n)
			return (int)sent;
		if (error != 0) {
			errno = sent > 0 ? errno_before : error;
			return sent > 0 ? (int)sent : -1;
		}
	}
	return (int)sent;
}

#endif
