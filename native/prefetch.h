// Connections opened ahead: where a process makes the same connection again and again, the next one is there already.
#ifndef TRILITH_PREFETCH_H
#define TRILITH_PREFETCH_H

#include <pthread.h>
#include <sched.h>

#include "observed.h"
#include "packet-filter.h"
#include "socket-options.h"

/*
 * A connection is opened by a connect that does not wait, in the thread that has just made the same one; there is no thread of our own. When
 * nobody takes it within the idle limit the kernel ends it: keep-alive asks after that time, and a filter drops the answer (and nothing that
 * carries data, FIN or RST), so the connection dies of silence, and the server is told by a reset.
 */
enum {
	PREFETCH_PLACES = 64, /* connections ahead, per process */
	PREFETCH_HABITS = 64, /* services whose habits are known */
	PREFETCH_DEFAULT_IDLE_MS = 10000,
	PREFETCH_REPORT_MS = 5000, /* a failure that is found later than this says nothing about now */
	PREFETCH_REFUSALS = 3,	   /* so many sockets in a row that cannot be replaced: opening ahead is for nothing here */
	PREFETCH_SAME_FILES = 1024, /* with more open files than that it is not looked whether one is a duplicate */
	PREFETCH_LOWEST_FD = 512
};

/* Handing over costs about a tenth of a millisecond: nearer backends are connected to as ever. */
#ifndef PREFETCH_WORTH_US
#define PREFETCH_WORTH_US 300
#endif

struct prefetched {
	int fd; /* 0 = free place */
	int domain;
	uint64_t cookie; /* tells our socket from another one that got its number after the program closed all it did not know */
	uint64_t network;
	uid_t user; /* routing and packet filters may go by a socket's */
	uint64_t opened_ms; /* coarse */
	uint32_t slot;
	uint16_t port;
	struct table_backend backend;
};

/* How often this process connects to a service. */
struct habit {
	uint32_t slot; /* 0 = free place */
	uint32_t in_row; /* connects that came within the idle limit after the one before */
	uint32_t wanted; /* so many ahead */
	uint32_t refusals;
	uint64_t last_ms;
};

static _Atomic int prefetch_lock; /* 1, or minus the thread that forks; never waited for: who finds it taken does without */
static int prefetch_pid; /* whose descriptors the pool's are */
static struct prefetched prefetch_pool[PREFETCH_PLACES];
static struct habit prefetch_habits[PREFETCH_HABITS];
static _Atomic uint32_t prefetch_count; /* in the pool */
static struct {
	bool known;
	struct option_values values;
} prefetch_defaults[2]; /* of a fresh socket: IPv4, IPv6 */

/* Sockets that were ever added to an epoll set: they are never replaced. */
static struct cookies prefetch_watched;

static void prefetch_leave(void)
{
	atomic_store_explicit(&prefetch_lock, 0, memory_order_release);
}

static bool prefetch_enter(void)
{
	int nobody = 0, pid = (int)syscall(SYS_getpid);
	if (!atomic_compare_exchange_strong(&prefetch_lock, &nobody, 1))
		return false;
	if (prefetch_pid == 0)
		prefetch_pid = pid;
	if (prefetch_pid == pid)
		return true;
	prefetch_leave(); /* a child by vfork, whose memory is its parent's and whose descriptors are not, or by a bare clone */
	return false;
}

/* — The pool — */

/* Never closes what is not ours any more. */
static void prefetch_drop(struct prefetched *p)
{
	if (socket_cookie(p->fd) == p->cookie)
		kernel_close(p->fd);
	p->fd = 0;
	atomic_fetch_sub_explicit(&prefetch_count, 1, memory_order_relaxed);
}

/* Before a fork nobody may be half-way; a child closes its copies, or the server would not see its peer close. */
static void prefetch_before_fork(void)
{
	int errno_before = errno, mine = -(int)syscall(SYS_gettid);
	/* A holder never waits; unless it is this thread, interrupted by the signal handler that forks: then without. */
	for (int turns = 0; turns < 1000; turns++) {
		int nobody = 0;
		if (atomic_compare_exchange_strong(&prefetch_lock, &nobody, mine))
			break;
		sched_yield();
	}
	errno = errno_before;
}

static void prefetch_after_fork_in_parent(void)
{
	int errno_before = errno, mine = -(int)syscall(SYS_gettid);
	atomic_compare_exchange_strong(&prefetch_lock, &mine, 0);
	errno = errno_before;
}

static void prefetch_after_fork_in_child(void)
{
	int errno_before = errno;
	for (int i = 0; i < PREFETCH_PLACES; i++)
		if (prefetch_pool[i].fd != 0)
			prefetch_drop(&prefetch_pool[i]);
	memset(prefetch_habits, 0, sizeof prefetch_habits);
	prefetch_pid = 0;
	atomic_fetch_add_explicit(&lock_generation, 1, memory_order_relaxed);
	prefetch_leave();
	errno = errno_before;
}

__attribute__((constructor)) static void prefetch_prepare(void)
{
	pthread_atfork(prefetch_before_fork, prefetch_after_fork_in_parent, prefetch_after_fork_in_child);
}

static struct habit *prefetch_habit(uint32_t slot, uint64_t now_ms, bool make)
{
	struct habit *oldest = NULL;
	for (uint32_t i = 0; i < PREFETCH_HABITS; i++) {
		struct habit *h = &prefetch_habits[(slot + i) % PREFETCH_HABITS];
		if (h->slot == slot)
			return h;
		if (oldest == NULL || h->last_ms < oldest->last_ms)
			oldest = h;
	}
	if (!make)
		return NULL;
	*oldest = (struct habit){.slot = slot, .wanted = 1, .last_ms = now_ms};
	return oldest;
}

static uint32_t prefetch_idle_ms(const struct table_service *service)
{
	return service->idle_ms == 0 ? PREFETCH_DEFAULT_IDLE_MS : service->idle_ms;
}

/* — Which sockets may be replaced — */

static const struct option_values *prefetch_defaults_of(int domain)
{
	int place = domain == AF_INET6;
	if (!prefetch_defaults[place].known) {
		int fd = (int)syscall(SYS_socket, domain, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
		if (fd < 0)
			return NULL;
		options_read(fd, domain, &prefetch_defaults[place].values);
		kernel_close(fd);
		prefetch_defaults[place].known = true;
	}
	return &prefetch_defaults[place].values;
}

static uint64_t prefetch_network(int fd)
{
	uint64_t cookie = 0;
	socklen_t bytes = sizeof cookie;
	return syscall(SYS_getsockopt, fd, SOL_SOCKET, OPTION_SO_NETNS_COOKIE, &cookie, &bytes) == 0 ? cookie : 0;
}

static uid_t prefetch_user(int fd)
{
	struct stat s;
	return fstat(fd, &s) == 0 ? s.st_uid : (uid_t)-1;
}

union socket_address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

static bool socket_own_address(int fd, union socket_address *own, socklen_t *bytes)
{
	*bytes = sizeof *own;
	return syscall(SYS_getsockname, fd, own, bytes) == 0;
}

/* A v4 or v6 socket's own address is left to the kernel, whatever its port. */
static bool socket_address_is_any(const union socket_address *own)
{
	static const struct in6_addr nothing;
	return own->any.sa_family == AF_INET ? own->v4.sin_addr.s_addr == 0 : memcmp(&own->v6.sin6_addr, &nothing, sizeof nothing) == 0;
}

static bool prefetch_is_bound(int fd)
{
	union socket_address own;
	socklen_t bytes;
	if (!socket_own_address(fd, &own, &bytes) || (own.any.sa_family != AF_INET && own.any.sa_family != AF_INET6))
		return true;
	/* The port stands at the same place in both. */
	return own.v4.sin_port != 0 || !socket_address_is_any(&own);
}

static int prefetch_state(int fd, struct tcp_info *info)
{
	socklen_t bytes = sizeof *info;
	memset(info, 0, sizeof *info);
	return syscall(SYS_getsockopt, fd, IPPROTO_TCP, TCP_INFO, info, &bytes) == 0 ? info->tcpi_state : -1;
}

/* True where the socket is as good as another one of its kind, but for options that can be carried over. */
static bool prefetch_can_replace(int fd, int domain, struct option_values *values)
{
	struct tcp_info info;
	uint64_t cookie = socket_cookie(fd);
	const struct option_values *defaults = prefetch_defaults_of(domain);
	if (defaults == NULL || cookie == 0 || cookies_have(&prefetch_watched, cookie) || prefetch_is_bound(fd) || socket_has_secrets(fd, cookie) ||
	    prefetch_state(fd, &info) != TCP_CLOSE)
		return false;
	options_read(fd, domain, values);
	return options_can_be_carried(values, defaults);
}

/*
 * True where another descriptor of this process is the same socket (dup), which would be left behind unconnected; also where it cannot be told.
 */
static bool prefetch_has_duplicate(int fd)
{
	struct {
		uint64_t inode, offset;
		uint16_t bytes;
		uint8_t type;
		char name[];
	} *entry;
	_Alignas(8) char listing[2048];
	int folder = kernel_openat(AT_FDCWD, "/proc/thread-self/fd", O_RDONLY | O_DIRECTORY);
	uint64_t cookie = socket_cookie(fd);
	bool found = folder < 0;
	int files = 0;
	for (long n; !found && (n = syscall(SYS_getdents64, folder, listing, sizeof listing)) != 0;) {
		found = n < 0;
		for (long at = 0; at < n && !found; at += entry->bytes) {
			entry = (void *)(listing + at);
			if (entry->name[0] < '0' || entry->name[0] > '9')
				continue;
			int each = (int)observed_number(entry->name);
			if (each == fd || each == folder)
				continue;
			found = ++files > PREFETCH_SAME_FILES || socket_cookie(each) == cookie;
		}
	}
	if (folder >= 0)
		kernel_close(folder);
	return found;
}

/* — Opening — */

/* The idle limit, kept by the kernel (see above). False = it cannot be kept here. */
static bool prefetch_limit(int fd, uint32_t idle_ms, uint32_t try_ms)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 13), /* the TCP header's flags */
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0x07, 6, 0), /* FIN, SYN, RST: pass */
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 12),
		BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 4),
		BPF_STMT(BPF_ALU | BPF_LSH | BPF_K, 2), /* the header's length */
		BPF_STMT(BPF_MISC | BPF_TAX, 0),
		BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_X, 0, 1, 0), /* nothing behind it: drop */
		BPF_STMT(BPF_RET | BPF_K, 0xffffffffu),
		BPF_STMT(BPF_RET | BPF_K, 0),
	};
	struct sock_fprog filter = {.len = sizeof code / sizeof code[0], .filter = code};
	int on = 1, idle_s = idle_ms < 2000 ? 1 : (int)(idle_ms / 1000 > 32000 ? 32000 : idle_ms / 1000), patience_ms = (int)try_ms;
	return syscall(SYS_setsockopt, fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, (socklen_t)sizeof filter) == 0 &&
	       syscall(SYS_setsockopt, fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, (socklen_t)sizeof idle_s) == 0 &&
	       syscall(SYS_setsockopt, fd, IPPROTO_TCP, TCP_KEEPINTVL, &on, (socklen_t)sizeof on) == 0 &&
	       syscall(SYS_setsockopt, fd, IPPROTO_TCP, TCP_KEEPCNT, &on, (socklen_t)sizeof on) == 0 &&
	       syscall(SYS_setsockopt, fd, SOL_SOCKET, SO_KEEPALIVE, &on, (socklen_t)sizeof on) == 0 &&
	       syscall(SYS_setsockopt, fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &patience_ms, (socklen_t)sizeof patience_ms) == 0;
}

static socklen_t prefetch_address(int domain, const struct table_backend *backend, uint16_t port, struct sockaddr_storage *address)
{
	memset(address, 0, sizeof *address);
	if (domain == AF_INET) {
		struct sockaddr_in *v4 = (struct sockaddr_in *)address;
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		memcpy(&v4->sin_addr, backend->address + 12, 4);
		return sizeof *v4;
	}
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)address;
	v6->sin6_family = AF_INET6;
	v6->sin6_port = htons(port);
	memcpy(&v6->sin6_addr, backend->address, 16);
	return sizeof *v6;
}

/* A socket far above the numbers that programs count on, or -1. */
static int prefetch_socket(int domain)
{
	int fd = (int)syscall(SYS_socket, domain, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);
	if (fd < 0)
		return -1;
	struct rlimit limit;
	rlim_t lowest = getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur / 2 < PREFETCH_LOWEST_FD ? limit.rlim_cur / 2 : PREFETCH_LOWEST_FD;
	int high = fcntl(fd, F_DUPFD_CLOEXEC, (int)lowest);
	kernel_close(fd);
	return high;
}

/* Opens one connection ahead; false = no more of them now. */
static bool prefetch_open(struct prefetched *p, int domain, const struct table_service *service, const struct table_backend *backends, uint32_t count,
			  const struct balance_asked *asked)
{
	int index = observed_pick(service, backends, count, asked);
	int fd = index < 0 ? -1 : prefetch_socket(domain);
	if (fd < 0)
		return false;
	const struct table_backend *backend = &backends[index];
	uint16_t port = balance_port(backend, asked->port);
	struct sockaddr_storage address;
	socklen_t bytes = prefetch_address(domain, backend, port, &address);
	uint64_t cookie = socket_cookie(fd);
	if (cookie == 0 || !prefetch_limit(fd, prefetch_idle_ms(service), service->try_ms == 0 ? 1000 : service->try_ms)) {
		kernel_close(fd);
		return false;
	}
	if (syscall(SYS_connect, fd, &address, bytes) != 0 && errno != EINPROGRESS) {
		if (observed_is_failure(errno))
			observed_report(backend, asked->port, errno, 0);
		kernel_close(fd);
		return false;
	}
	*p = (struct prefetched){.fd = fd,
				 .domain = domain,
				 .cookie = cookie,
				 .network = prefetch_network(fd),
				 .user = prefetch_user(fd),
				 .opened_ms = coarse_ms(),
				 .slot = service->slot,
				 .port = port,
				 .backend = *backend};
	atomic_fetch_add_explicit(&prefetch_count, 1, memory_order_relaxed);
	return true;
}

/* — Handing over — */

/* The place of the connection's backend in the present list, where it may be used at all; -1 = it is gone, drained, suspect or ejected. */
static int prefetch_listed(const struct prefetched *p, const struct table_backend *backends, uint32_t count, const struct balance_asked *asked)
{
	uint64_t now_ms = observed_now_ms();
	struct observed_view view = {.block = observed_block(now_ms), .now_ms = now_ms};
	struct balance_question q = {.backends = backends, .count = count, .asked = *asked};
	for (uint32_t i = 0; i < count; i++) {
		const struct table_backend *b = &backends[i];
		if (memcmp(b->address, p->backend.address, 16) != 0 || balance_port(b, asked->port) != p->port || !balance_fits(&q, i))
			continue;
		struct balance_seen seen;
		observed_look(&view, b, p->port, &seen);
		if ((b->flags & BACKEND_SUSPECT) == 0 && !balance_ejected(&seen, now_ms))
			return (int)i;
	}
	return -1;
}

enum prefetch_verdict { PREFETCH_READY, PREFETCH_PENDING, PREFETCH_DEAD };

/* Looks at a connection; what came of a try in vain is reported. */
static enum prefetch_verdict prefetch_look(const struct prefetched *p, uint32_t idle_ms, uint64_t now_ms, uint32_t *rtt_us)
{
	struct tcp_info info;
	char byte;
	if (socket_cookie(p->fd) != p->cookie)
		return PREFETCH_DEAD;
	switch (prefetch_state(p->fd, &info)) {
	case TCP_ESTABLISHED:
		*rtt_us = info.tcpi_rtt;
		if (now_ms - p->opened_ms >= idle_ms)
			return PREFETCH_DEAD;
		/* What the server said first stays there for the program. */
		if (syscall(SYS_recvfrom, p->fd, &byte, (size_t)1, MSG_PEEK | MSG_DONTWAIT, NULL, NULL) > 0 || errno == EAGAIN)
			return PREFETCH_READY;
		return PREFETCH_DEAD;
	case TCP_SYN_SENT: return PREFETCH_PENDING;
	case TCP_CLOSE:
		/* It never was open (a first round trip would have been measured), or it was and is not any more, which is nobody's fault. */
		if (info.tcpi_rtt == 0 && now_ms - p->opened_ms < PREFETCH_REPORT_MS) {
			int error = socket_number(p->fd, SOL_SOCKET, SO_ERROR);
			if (error > 0)
				observed_report(&p->backend, p->port, error, 0);
		}
		return PREFETCH_DEAD;
	default: return PREFETCH_DEAD;
	}
}

/* Puts the connection in the place of the caller's socket. False = nothing happened to that; the connection is of no use any more. */
static bool prefetch_hand_over(const struct prefetched *p, int fd, const struct option_values *values)
{
	int ignored = 0, flags = fcntl(fd, F_GETFD);
	char byte;
	if (flags < 0 || syscall(SYS_setsockopt, p->fd, SOL_SOCKET, SO_DETACH_FILTER, &ignored, (socklen_t)sizeof ignored) != 0 ||
	    !options_carry(p->fd, values, prefetch_defaults_of(p->domain)) || !file_carry(fd, p->fd))
		return false;
	/* Without the filter nothing is hidden: the last look. */
	struct tcp_info info;
	if (prefetch_state(p->fd, &info) != TCP_ESTABLISHED ||
	    (syscall(SYS_recvfrom, p->fd, &byte, (size_t)1, MSG_PEEK | MSG_DONTWAIT, NULL, NULL) <= 0 && errno != EAGAIN))
		return false;
	return syscall(SYS_dup3, p->fd, fd, (flags & FD_CLOEXEC) != 0 ? O_CLOEXEC : 0) == fd;
}

static int prefetch_take_locked(int fd, const struct table_service *service, const struct table_backend *backends, uint32_t count,
				const struct balance_asked *asked)
{
	uint64_t now_ms = coarse_ms();
	struct habit *habit = prefetch_habit(service->slot, now_ms, false);
	/* A first connection shows no habit yet; the second one tells whether its kind of socket can be replaced. */
	if (habit == NULL || habit->refusals >= PREFETCH_REFUSALS)
		return -1;
	int domain = socket_number(fd, SOL_SOCKET, SO_DOMAIN);
	struct option_values values;
	if ((domain != AF_INET && domain != AF_INET6) || socket_number(fd, SOL_SOCKET, SO_PROTOCOL) != IPPROTO_TCP ||
	    !prefetch_can_replace(fd, domain, &values)) {
		habit->refusals++;
		return -1;
	}
	habit->refusals = 0;
	if (atomic_load_explicit(&prefetch_count, memory_order_relaxed) == 0)
		return -1;
	uint64_t network = prefetch_network(fd);
	uid_t user = prefetch_user(fd);
	bool any = false;
	for (;;) {
		struct prefetched *best = NULL;
		uint32_t best_rtt_us = 0, rtt_us = 0;
		for (int i = 0; i < PREFETCH_PLACES; i++) {
			struct prefetched *p = &prefetch_pool[i];
			if (p->fd == 0 || p->slot != service->slot || p->domain != domain || p->network != network || p->user != user)
				continue;
			any = true;
			/* The oldest first: the others last longer. */
			if (best != NULL && best->opened_ms <= p->opened_ms)
				continue;
			enum prefetch_verdict verdict = prefetch_look(p, prefetch_idle_ms(service), now_ms, &rtt_us);
			if (verdict == PREFETCH_PENDING)
				continue;
			if (verdict == PREFETCH_DEAD || prefetch_listed(p, backends, count, asked) < 0) {
				prefetch_drop(p);
				continue;
			}
			best = p;
			best_rtt_us = rtt_us;
		}
		if (best == NULL) {
			/* All are on their way still: one more would have been right. */
			if (any && habit->wanted < service->ahead)
				habit->wanted++;
			return -1;
		}
		if (prefetch_has_duplicate(fd)) {
			habit->refusals++;
			return -1;
		}
		int index = prefetch_listed(best, backends, count, asked);
		bool handed = index >= 0 && prefetch_hand_over(best, fd, &values);
		prefetch_drop(best);
		if (!handed)
			continue;
		observed_report(&backends[index], asked->port, 0, best_rtt_us);
		return index;
	}
}

/*
 * Before a connect of a blocking stream socket to a service with SERVICE_PREFETCH. The index of the backend that `fd` is connected to
 * from now on (its number is the same, its options too, and the outcome is reported), or -1: nothing happened, connect as ever.
 * Never waits. errno may change.
 */
static int prefetch_take(int fd, const struct table_service *service, const struct table_backend *backends, uint32_t count,
			 const struct balance_asked *asked)
{
	if (!prefetch_enter())
		return -1;
	int index = prefetch_take_locked(fd, service, backends, count, asked);
	prefetch_leave();
	return index;
}

static void prefetch_after_locked(int fd, const struct table_service *service, const struct table_backend *backends, uint32_t count,
				  const struct balance_asked *asked)
{
	uint64_t now_ms = coarse_ms();
	struct habit *habit = prefetch_habit(service->slot, now_ms, true);
	uint32_t idle_ms = prefetch_idle_ms(service), there = 0;
	habit->in_row = now_ms - habit->last_ms < idle_ms ? habit->in_row + 1 : 1;
	habit->last_ms = now_ms;
	if (habit->in_row < 2 || habit->refusals != 0)
		return;
	int domain = socket_number(fd, SOL_SOCKET, SO_DOMAIN);
	struct tcp_info info;
	if ((domain != AF_INET && domain != AF_INET6) || socket_number(fd, SOL_SOCKET, SO_PROTOCOL) != IPPROTO_TCP ||
	    prefetch_state(fd, &info) < 0 || info.tcpi_rtt < PREFETCH_WORTH_US)
		return;
	for (int i = 0; i < PREFETCH_PLACES; i++) {
		struct prefetched *p = &prefetch_pool[i];
		if (p->fd == 0)
			continue;
		bool old = now_ms - p->opened_ms >= (p->slot == service->slot ? idle_ms : 10 * 60 * 1000);
		if (old)
			prefetch_drop(p);
		if (old && p->slot == service->slot && habit->wanted > 1)
			habit->wanted--;
		there += p->fd != 0 && p->slot == service->slot && p->domain == domain;
	}
	uint32_t wanted = habit->wanted < service->ahead ? habit->wanted : service->ahead;
	for (int i = 0; i < PREFETCH_PLACES && there < wanted; i++) {
		if (prefetch_pool[i].fd != 0)
			continue;
		if (!prefetch_open(&prefetch_pool[i], domain, service, backends, count, asked))
			return;
		there++;
	}
}

/* After every successful connect of a blocking stream socket to such a service, taken ones included: opens the next ones ahead. Never waits. */
static void prefetch_after(int fd, const struct table_service *service, const struct table_backend *backends, uint32_t count,
			   const struct balance_asked *asked)
{
	if (!prefetch_enter())
		return;
	prefetch_after_locked(fd, service, backends, count, asked);
	prefetch_leave();
}

#endif
