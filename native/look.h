// A look before the leap: where a service is in trouble, which of its backends answers is found out by sockets of the hook's own.
#ifndef TRILITH_LOOK_H
#define TRILITH_LOOK_H

#include <poll.h>
#include <signal.h>

#include "waiting.h"

/*
 * A program whose sockets do not block hears of a dead backend after its connect, when this call is over: each one costs it a try, and it has few.
 * So a backend that may be dead (observed_is_doubtful) is asked first, and when it does not answer at once others as well, in the order in which
 * they would be tried: one, after a step of time two, four, eight … at a time, and another one at once for each that refuses. The first that
 * answers is the program's. The sockets are closed again; what came of each is remembered as of any try.
 */
enum {
	LOOK_STEPS = 5,
	LOOK_AT_ONCE = 1 << LOOK_STEPS,
	LOOK_STEP_LEAST_US = 5000,
	LOOK_STEP_MOST_US = 25000,
	LOOK_SILENT_US = 20000, /* who let somebody else answer first by so much is in doubt */
	LOOK_VAIN_PLACES = 64,
	LOOK_VAIN_TIMES = 4 /* after a look in vain there is none for so many times as long as it took */
};

struct look_asked {
	struct table_backend backend;
	uint64_t asked_us;
};

struct look {
	int domain;
	int fd; /* the program's */
	struct wish wish;
	struct tries tries; /* asked, or tried by the call before */
	struct chosen next;
	int open;
	bool more; /* there is a next one, and a socket to ask it with */
	bool way_known;
	uint32_t way_count;
	uint8_t way[OPTIONS]; /* places in socket_options of what differs from a fresh socket and decides the way */
	struct pollfd polled[LOOK_AT_ONCE];
	struct look_asked asked[LOOK_AT_ONCE];
};

/* Services where nobody answered: slot, and the low 32 bits of the coarse ms until which the next call does not look. */
static _Atomic uint64_t look_vain[LOOK_VAIN_PLACES];

static bool look_was_vain(uint32_t slot)
{
	uint64_t last = atomic_load_explicit(&look_vain[slot % LOOK_VAIN_PLACES], memory_order_relaxed);
	return last != 0 && (uint32_t)(last >> 32) == slot && (int32_t)((uint32_t)last - (uint32_t)coarse_ms()) > 0;
}

static void look_note_vain(uint32_t slot, uint64_t took_us)
{
	uint32_t until = (uint32_t)(coarse_ms() + took_us * LOOK_VAIN_TIMES / 1000);
	atomic_store_explicit(&look_vain[slot % LOOK_VAIN_PLACES], (uint64_t)slot << 32 | until, memory_order_relaxed);
}

/* What the program's socket was told about its way, beside a fresh one; false = another one cannot be told the same, and nothing is learnt by it. */
static bool look_learn_way(struct look *look, int fresh)
{
	uint64_t cookie = socket_cookie(look->fd);
	if (cookie == 0 || prefetch_network(fresh) != prefetch_network(look->fd) || prefetch_user(fresh) != prefetch_user(look->fd) ||
	    socket_has_secrets(look->fd, cookie))
		return false;
	look->way_count = 0;
	for (int i = 0; i < OPTIONS; i++) {
		unsigned char value[OPTION_BYTES] = {0}, other[OPTION_BYTES] = {0};
		socklen_t bytes = sizeof value, other_bytes = sizeof other;
		int level = socket_options[i].level, name = socket_options[i].name;
		if (socket_options[i].look == LOOK_OWN || (level == IPPROTO_IPV6 && look->domain != AF_INET6) ||
		    syscall(SYS_getsockopt, look->fd, level, name, value, &bytes) != 0) /* what it does not have it was not told */
			continue;
		if (syscall(SYS_getsockopt, fresh, level, name, other, &other_bytes) == 0 && bytes == other_bytes && memcmp(value, other, sizeof value) == 0)
			continue;
		if (socket_options[i].look == LOOK_NOT)
			return false;
		look->way[look->way_count++] = (uint8_t)i;
	}
	look->way_known = true;
	return true;
}

/* Gives a fresh socket the program's own way; false = it cannot be had. */
static bool look_goes_the_same_way(struct look *look, int fd)
{
	if (!look->way_known && !look_learn_way(look, fd))
		return false;
	for (uint32_t i = 0; i < look->way_count; i++) {
		unsigned char value[OPTION_BYTES] = {0};
		socklen_t bytes = sizeof value;
		int level = socket_options[look->way[i]].level, name = socket_options[look->way[i]].name;
		if (syscall(SYS_getsockopt, look->fd, level, name, value, &bytes) != 0 ||
		    syscall(SYS_setsockopt, fd, level, name, value, bytes) != 0)
			return false;
	}
	union socket_address own;
	socklen_t bytes;
	if (!socket_own_address(look->fd, &own, &bytes))
		return false;
	if (socket_address_is_any(&own))
		return true;
	own.v4.sin_port = 0; /* at the same place in both */
	return syscall(SYS_bind, fd, &own, bytes) == 0;
}

/* A thread that forks meanwhile gives its child a copy: the server is told by shutdown, not by the last copy's end. */
static void look_close(int fd)
{
	syscall(SYS_shutdown, fd, SHUT_RDWR);
	kernel_close(fd);
}

/* What came of one that is asked no longer. */
static void look_ended(struct look *look, int index, int error, uint64_t now_us)
{
	const struct look_asked *asked = &look->asked[index];
	if (error == 0 || error == EINPROGRESS || observed_is_failure(error))
		observed_report(&asked->backend, look->wish.target->port, error, now_us - asked->asked_us);
	look_close(look->polled[index].fd);
	look->polled[index].fd = -1;
	look->open--;
}

/* Asks the next one in order; false = no socket is to be had for it. */
static bool look_ask_next(struct look *look)
{
	int place = 0, fd = (int)syscall(SYS_socket, look->domain, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);
	if (fd < 0)
		return false;
	if (!look_goes_the_same_way(look, fd)) {
		kernel_close(fd);
		return false;
	}
	while (look->polled[place].fd >= 0)
		place++;
	tries_add(&look->tries, &look->next.backend);
	struct sockaddr_storage address;
	socklen_t bytes = backend_sockaddr(&look->next.backend, look->wish.target, &address);
	look->asked[place] = (struct look_asked){.backend = look->next.backend, .asked_us = monotonic_us()};
	look->polled[place] = (struct pollfd){.fd = fd, .events = POLLOUT};
	look->open++;
	if (syscall(SYS_connect, fd, &address, bytes) != 0 && errno != EINPROGRESS)
		look_ended(look, place, errno, monotonic_us());
	return true;
}

/* Waits for answers, at most so long: the place of the first one that answered, in order; -1 = nobody yet. */
static int look_wait(struct look *look, uint64_t us)
{
	struct timespec limit = {.tv_sec = (time_t)(us / 1000000u), .tv_nsec = (long)(us % 1000000u) * 1000};
	int places = LOOK_AT_ONCE, first = -1;
	while (look->polled[places - 1].fd < 0)
		places--;
	if (syscall(SYS_ppoll, look->polled, (nfds_t)places, &limit, NULL, (size_t)8) < 0 && errno != EINTR) {
		look->more = false; /* not allowed here */
		for (int i = 0; i < places; i++)
			if (look->polled[i].fd >= 0)
				look_ended(look, i, ECANCELED, 0);
		return -1;
	}
	for (int i = 0; i < places; i++) {
		if (look->polled[i].fd < 0 || look->polled[i].revents == 0)
			continue;
		int error = socket_number(look->polled[i].fd, SOL_SOCKET, SO_ERROR);
		if (error == 0 && first < 0)
			first = i;
		look_ended(look, i, error, monotonic_us());
	}
	return first;
}

/* The place of the first that answered within the limit; -1 = nobody did. */
static int look_for_answer(struct look *look, uint64_t step_us, uint64_t limit_us)
{
	uint64_t began_us = monotonic_us(), elapsed_us = 0;
	int first = -1;
	while (first < 0 && elapsed_us < limit_us) {
		uint64_t steps = elapsed_us / step_us;
		int due = steps >= LOOK_STEPS ? LOOK_AT_ONCE : 1 << steps;
		while (look->more && look->open < due)
			look->more = look_ask_next(look) && choose(&look->wish, &look->tries, &look->next) == CHOICE_MADE;
		if (look->open == 0)
			break;
		uint64_t until_us = look->more && due < LOOK_AT_ONCE ? (steps + 1) * step_us : limit_us;
		first = look_wait(look, (until_us < limit_us ? until_us : limit_us) - elapsed_us);
		elapsed_us = monotonic_us() - began_us;
	}
	return first;
}

/* No handler runs meanwhile, as one may jump out of the call and leave the sockets behind. What a program's own mistakes raise is not held. */
static void look_block_signals(sigset_t *before)
{
	sigset_t all;
	sigfillset(&all);
	for (size_t i = 0; i < sizeof own_mistakes / sizeof *own_mistakes; i++)
		sigdelset(&all, own_mistakes[i]);
	sigprocmask(SIG_BLOCK, &all, before);
}

/*
 * Puts a backend that answers in the place of one that is doubtful; where nobody does, one that did not refuse. Takes at most look_limit_ms, and no
 * longer than a try may. errno may change.
 */
__attribute__((noinline)) static void look_before(int fd, const struct wish *wish, const struct tries *tries, struct chosen *chosen)
{
	uint64_t limit_us = (uint64_t)(look_limit_ms < chosen->try_ms ? look_limit_ms : chosen->try_ms) * 1000;
	uint64_t step_us = (uint64_t)chosen->time_us * 2;
	step_us = step_us < LOOK_STEP_LEAST_US ? LOOK_STEP_LEAST_US : step_us > LOOK_STEP_MOST_US ? LOOK_STEP_MOST_US : step_us;
	struct look look;
	struct tcp_info info;
	sigset_t signals;
	/* Half of the program's own limit is for its connect. Who is so far away cannot have answered by then. */
	uint64_t own_us = wish->waits ? timeout_us(fd) : 0;
	if (own_us != 0 && own_us / 2 < limit_us)
		limit_us = own_us / 2;
	if ((uint64_t)chosen->time_us * 2 > limit_us || limit_us == 0 || look_was_vain(wish->target->slot) || prefetch_state(fd, &info) != TCP_CLOSE)
		return;
	look.domain = socket_number(fd, SOL_SOCKET, SO_DOMAIN);
	look.fd = fd;
	look.wish = *wish;
	look.wish.fd = -1;
	look.wish.looks = false;
	look.tries = *tries;
	look.next = *chosen;
	look.open = 0;
	look.more = true;
	look.way_known = false;
	for (int i = 0; i < LOOK_AT_ONCE; i++)
		look.polled[i].fd = -1;
	uint64_t began_us = monotonic_us();
	look_block_signals(&signals);
	int first = look_for_answer(&look, step_us, limit_us);
	uint64_t now_us = monotonic_us();
	/* Where nobody answered one may be slow: it is not put behind those that refused. */
	for (int i = 0; i < LOOK_AT_ONCE; i++)
		if (look.polled[i].fd >= 0)
			look_ended(&look, i, first >= 0 && now_us - look.asked[i].asked_us >= LOOK_SILENT_US ? EINPROGRESS : ECANCELED, now_us);
	sigprocmask(SIG_SETMASK, &signals, NULL);
	if (first < 0) {
		look_note_vain(wish->target->slot, now_us - began_us);
		choose(&look.wish, tries, chosen);
		return;
	}
	chosen->backend = look.asked[first].backend;
}

#endif
