// Connections opened ahead, held to what connect promises: the library and these cases in one program. TRILITH_HOOK_TABLE names a file in an empty folder.
#define _GNU_SOURCE
static unsigned prefetch_worth_us; /* on loopback nothing is far */
#define PREFETCH_WORTH_US prefetch_worth_us
#include "../libtrilith.c"

#include "check.h"

/* A service of one listener of our own, and one list of backends. */
static uint16_t port, other_port;
static int listener;
static struct table_service service = {.slot = 7, .policy = BALANCE_FIRST, .flags = SERVICE_PREFETCH, .ahead = 1, .idle_ms = 10000, .try_ms = 200};
static struct table_backend listed[2];
static uint32_t listed_count = 1;
static struct balance_asked asked = {.families = BALANCE_V4, .port = 80};

static struct table_backend at_loopback(uint16_t its_port)
{
	struct table_backend b;
	memset(&b, 0, sizeof b);
	memset(b.address + 10, 0xff, 2);
	inet_pton(AF_INET, "127.0.0.1", b.address + 12);
	b.port = its_port;
	b.weight = 1;
	return b;
}

static void forget_all(void)
{
	for (int i = 0; i < PREFETCH_PLACES; i++)
		if (prefetch_pool[i].fd != 0)
			prefetch_drop(&prefetch_pool[i]);
	memset(prefetch_habits, 0, sizeof prefetch_habits);
}

static void begin(void)
{
	forget_all();
	listener = server(AF_INET, SOCK_STREAM, &port);
	listed[0] = at_loopback(port);
	listed_count = 1;
	asked = (struct balance_asked){.families = BALANCE_V4, .port = 80};
	service.ahead = 1;
	service.idle_ms = 10000;
}

static void finish(void)
{
	forget_all();
	close(listener);
}

static int fresh(void)
{
	return socket(AF_INET, SOCK_STREAM, 0);
}

/* What the hook does with a blocking socket: 1 = taken over, 0 = connected as ever. */
static int reach(int fd)
{
	int index = prefetch_take(fd, &service, listed, listed_count, &asked);
	if (index < 0) {
		struct sockaddr_in a = v4_address("127.0.0.1", ntohs(0));
		a.sin_port = htons(listed[0].port);
		CHECK_IS(connect_plainly(fd, ADDRESS(a)), 0);
	} else {
		CHECK_IS(peer_port(fd), listed[index].port);
	}
	prefetch_after(fd, &service, listed, listed_count, &asked);
	return index >= 0;
}

static int reach_fresh(void)
{
	int fd = fresh();
	CHECK_IS(reach(fd), 0);
	return fd;
}

/* What does not come fails the check that waits for it. */
static void never_hang(int fd)
{
	struct timeval limit = {4, 0};
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
}

static int accepted(void)
{
	struct pollfd p = {listener, POLLIN, 0};
	CHECK_IS(poll(&p, 1, 5000), 1);
	int fd = accept(listener, NULL, NULL);
	CHECK(fd >= 0);
	never_hang(fd);
	return fd;
}

static bool nobody_waits(void)
{
	struct pollfd p = {listener, POLLIN, 0};
	return poll(&p, 1, 50) == 0;
}

static struct prefetched *only(void)
{
	struct prefetched *found = NULL;
	for (int i = 0; i < PREFETCH_PLACES; i++)
		if (prefetch_pool[i].fd != 0) {
			CHECK(found == NULL);
			found = &prefetch_pool[i];
		}
	return found;
}

/* Two connects, so that a third one is opened ahead; *ahead is the server's end of that. */
static void get_used(int *ahead)
{
	int one = reach_fresh();
	CHECK(only() == NULL);
	int two = reach_fresh();
	CHECK(only() != NULL);
	close(accepted());
	close(accepted());
	*ahead = accepted();
	close(one);
	close(two);
}

/* Until the server's bytes or end have reached the connection opened ahead. */
static void settle(void)
{
	struct pollfd p = {only()->fd, POLLIN | POLLRDHUP, 0};
	CHECK_IS(poll(&p, 1, 5000), 1);
}

static void same_connection(int ours, int theirs)
{
	char got[4] = {0};
	never_hang(ours);
	CHECK_IS(write(ours, "abc", 3), 3);
	CHECK_IS(read(theirs, got, 3), 3);
	CHECK_IS(memcmp(got, "abc", 3), 0);
	CHECK_IS(write(theirs, "xyz", 3), 3);
	CHECK_IS(read(ours, got, 3), 3);
	CHECK_IS(memcmp(got, "xyz", 3), 0);
}

static void case_handed_over(void)
{
	int ahead;
	begin();
	uint64_t before = monotonic_us();
	struct observed_entry *e = observed_make(observed_block(observed_now_ms()), listed[0].address, port);
	uint64_t connects = atomic_load(&e->connects);
	get_used(&ahead);
	CHECK(only()->fd >= PREFETCH_LOWEST_FD || only()->fd >= 100);
	int fd = fresh();
	CHECK_IS(reach(fd), 1);
	same_connection(fd, ahead);
	/* Counted when it was taken, with its own round trip; and the next one is on its way. */
	CHECK_IS(atomic_load(&e->connects), connects + 1);
	CHECK(atomic_load(&e->time_us) > 0 && atomic_load(&e->time_us) <= monotonic_us() - before);
	CHECK(only() != NULL);
	close(accepted());
	close(fd);
	char byte;
	CHECK_IS(read(ahead, &byte, 1), 0); /* nothing else holds it open */
	close(ahead);
	finish();
}

static void case_first_words(void)
{
	int ahead;
	char text[32] = {0};
	begin();
	get_used(&ahead);
	CHECK_IS(write(ahead, "220 mail.example\r\n", 18), 18);
	settle();
	int fd = fresh();
	CHECK_IS(reach(fd), 1);
	CHECK_IS(recv(fd, text, sizeof text, 0), 18);
	CHECK_IS(strcmp(text, "220 mail.example\r\n"), 0);
	same_connection(fd, ahead);
	close(fd);
	close(ahead);
	finish();
}

static void case_closed_meanwhile(void)
{
	/* By an orderly end, after words, by a reset: each time connect makes a connection of its own, and nobody is blamed. */
	for (int how = 0; how < 3; how++) {
		int ahead;
		begin();
		get_used(&ahead);
		struct linger now = {1, 0};
		if (how == 1)
			CHECK_IS(write(ahead, "421 idle\r\n", 10), 10);
		if (how == 2)
			setsockopt(ahead, SOL_SOCKET, SO_LINGER, &now, sizeof now);
		close(ahead);
		struct pollfd p = {only()->fd, POLLRDHUP, 0};
		CHECK_IS(poll(&p, 1, 5000), 1);
		int fd = fresh();
		CHECK_IS(reach(fd), 0);
		same_connection(fd, accepted());
		CHECK_IS(seen_of(port).failures, 0);
		close(fd);
		finish();
	}
}

static int number(int fd, int level, int option)
{
	return socket_number(fd, level, option);
}

static void case_options(void)
{
	int ahead, ahead_2;
	static struct option_values set, got, plain;
	begin();
	get_used(&ahead);
	/* A socket with nothing set is like any other connected one. */
	int fd = fresh(), control = fresh();
	struct sockaddr_in a = v4_address("127.0.0.1", port);
	CHECK_IS(connect_plainly(control, ADDRESS(a)), 0);
	close(accepted());
	CHECK_IS(reach(fd), 1);
	ahead_2 = accepted();
	options_read(fd, AF_INET, &got);
	options_read(control, AF_INET, &plain);
	for (int i = 0; i < OPTIONS; i++)
		if (socket_options[i].kind != OPTION_BEFORE && !option_is_default(&got, &plain, i)) {
			printf("level %d option %d\n", socket_options[i].level, socket_options[i].name);
			CHECK(option_is_default(&got, &plain, i));
		}
	CHECK(!socket_has_secrets(fd, socket_cookie(fd)));
	CHECK_IS(fcntl(fd, F_GETFD), 0);
	CHECK_IS(fcntl(fd, F_GETFL), O_RDWR);
	close(control);
	close(fd);
	close(ahead);

	/* Everything that can be set is carried over. */
	fd = fresh();
	int one = 1, owner_signal = SIGUSR1;
	struct linger linger = {1, 7};
	struct timeval timeout = {3, 500000};
	char congestion[16] = "reno";
	struct {
		int level, name, value;
	} numbers[] = {{SOL_SOCKET, SO_KEEPALIVE, 1},	{IPPROTO_TCP, TCP_NODELAY, 1},	  {IPPROTO_TCP, TCP_KEEPIDLE, 33},  {IPPROTO_TCP, TCP_KEEPINTVL, 5},
		       {IPPROTO_TCP, TCP_KEEPCNT, 4},	{IPPROTO_TCP, TCP_USER_TIMEOUT, 4321}, {IPPROTO_TCP, TCP_SYNCNT, 3},   {IPPROTO_TCP, TCP_LINGER2, 20},
		       {SOL_SOCKET, SO_REUSEADDR, 1},	{SOL_SOCKET, SO_OOBINLINE, 1},	  {SOL_SOCKET, SO_SNDBUF, 70000},   {SOL_SOCKET, SO_PRIORITY, 5},
		       {SOL_SOCKET, SO_RCVLOWAT, 1},	{IPPROTO_IP, IP_TOS, 0x10},	  {IPPROTO_IP, IP_TTL, 40},	    {IPPROTO_IP, IP_RECVERR, 1},
		       {IPPROTO_IP, IP_MTU_DISCOVER, 0}, {SOL_SOCKET, SO_TIMESTAMP, 1},	  {SOL_SOCKET, OPTION_SO_ZEROCOPY, 1}, {IPPROTO_TCP, OPTION_TCP_NOTSENT_LOWAT, 16384},
		       {IPPROTO_TCP, OPTION_TCP_INQ, 1}, {IPPROTO_TCP, TCP_CORK, 1},	  {SOL_SOCKET, OPTION_SO_MAX_PACING_RATE, 1000000000}};
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
		CHECK_IS(setsockopt(fd, numbers[i].level, numbers[i].name, &numbers[i].value, sizeof(int)), 0);
	CHECK_IS(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
	CHECK_IS(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout), 0);
	timeout.tv_sec = 4;
	CHECK_IS(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout), 0);
	CHECK_IS(setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, congestion, 4), 0);
	CHECK_IS(fcntl(fd, F_SETFD, FD_CLOEXEC), 0);
	CHECK_IS(fcntl(fd, F_SETOWN, getpid()), 0);
	CHECK_IS(fcntl(fd, F_SETSIG, owner_signal), 0);
	options_read(fd, AF_INET, &set);
	CHECK_IS(reach(fd), 1);
	options_read(fd, AF_INET, &got);
	for (int i = 0; i < OPTIONS; i++)
		if (socket_options[i].kind != OPTION_BEFORE && !option_is_default(&got, &set, i)) {
			printf("level %d option %d\n", socket_options[i].level, socket_options[i].name);
			CHECK(option_is_default(&got, &set, i));
		}
	CHECK_IS(number(fd, SOL_SOCKET, SO_SNDBUF), 140000);
	CHECK_IS(fcntl(fd, F_GETFD), FD_CLOEXEC);
	CHECK_IS(fcntl(fd, F_GETOWN), getpid());
	CHECK_IS(fcntl(fd, F_GETSIG), owner_signal);
	int zero = 0;
	setsockopt(fd, IPPROTO_TCP, TCP_CORK, &zero, sizeof zero);
	same_connection(fd, ahead_2);
	(void)one;
	close(fd);
	close(ahead_2);
	finish();
}

static void case_left_alone(void)
{
	enum { RCVBUF, MARK, DEVICE, MAXSEG, CLAMP, FASTOPEN, FILTER, LOCAL_PORTS, QUICKACK, KEY, FORCED, BOUND, BOUND_ADDRESS, EPOLL, DUPLICATE, MULTIPATH, KINDS };
	for (int kind = 0; kind < KINDS; kind++) {
		int ahead, value = 1, extra = -1;
		begin();
		get_used(&ahead);
		int fd = kind == MULTIPATH ? socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP) : fresh();
		struct sockaddr_in own = v4_address("127.0.0.1", 0);
		struct sock_filter pass = BPF_STMT(BPF_RET | BPF_K, 0xffffffffu);
		struct sock_fprog filter = {1, &pass};
		struct epoll_event event = {.events = EPOLLIN};
		/* For somebody else than the server: who has a key for it does not speak with others. */
		struct tcp_md5sig key = {.tcpm_keylen = 3, .tcpm_key = "key"};
		struct sockaddr_in other = v4_address("127.0.0.77", 0);
		memcpy(&key.tcpm_addr, &other, sizeof other);
		int set = 0;
		switch (kind) {
		case RCVBUF:
			value = 50000;
			set = setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &value, sizeof value);
			break;
		case MARK: set = setsockopt(fd, SOL_SOCKET, SO_MARK, &value, sizeof value); break;
		case DEVICE: set = setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3); break;
		case MAXSEG:
			value = 700;
			set = setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &value, sizeof value);
			break;
		case CLAMP:
			value = 5000;
			set = setsockopt(fd, IPPROTO_TCP, TCP_WINDOW_CLAMP, &value, sizeof value);
			break;
		case FASTOPEN: set = setsockopt(fd, IPPROTO_TCP, OPTION_TCP_FASTOPEN_CONNECT, &value, sizeof value); break;
		case FILTER: set = setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter); break;
		case LOCAL_PORTS:
			value = (int)(50000u << 16 | 40000u);
			set = setsockopt(fd, IPPROTO_IP, OPTION_IP_LOCAL_PORT_RANGE, &value, sizeof value);
			break;
		case QUICKACK:
			value = 0;
			set = setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &value, sizeof value);
			break;
		case KEY: set = setsockopt(fd, IPPROTO_TCP, OPTION_TCP_MD5SIG, &key, sizeof key); break;
		case FORCED: /* more than the host's limit */
			value = 64 << 20;
			set = setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &value, sizeof value);
			break;
		case BOUND: set = bind(fd, ADDRESS(own)); break;
		case BOUND_ADDRESS:
			setsockopt(fd, IPPROTO_IP, OPTION_IP_BIND_ADDRESS_NO_PORT, &value, sizeof value);
			set = bind(fd, ADDRESS(own));
			break;
		case EPOLL:
			extra = epoll_create1(EPOLL_CLOEXEC);
			set = epoll_ctl(extra, EPOLL_CTL_ADD, fd, &event);
			break;
		case DUPLICATE: extra = dup(fd); break;
		default: break;
		}
		if (fd < 0 || (set != 0 && (errno == EPERM || errno == ENOPROTOOPT))) {
			/* This kernel or user has no such socket. */
			printf("kind %d cannot be had here: %s\n", kind, strerror(errno));
			if (fd >= 0)
				close(fd);
		} else {
			CHECK_IS(set, 0);
			CHECK(only() != NULL);
			int taken = reach(fd);
			if (taken != 0)
				printf("kind %d\n", kind);
			CHECK_IS(taken, 0);
			int theirs = accepted();
			same_connection(fd, theirs);
			if (kind == DUPLICATE)
				same_connection(extra, theirs);
			close(theirs);
			close(fd);
		}
		if (extra >= 0)
			close(extra);
		close(ahead);
		finish();
	}
}

static void case_sockets_that_never_fit(void)
{
	/* Who binds all of its sockets gets nothing opened ahead, and soon nothing is looked at. */
	begin();
	for (int i = 0; i < 8; i++) {
		int fd = fresh();
		struct sockaddr_in own = v4_address("127.0.0.1", 0);
		CHECK_IS(bind(fd, ADDRESS(own)), 0);
		CHECK_IS(reach(fd), 0);
		close(accepted());
		close(fd);
	}
	CHECK(nobody_waits());
	CHECK(only() == NULL);
	CHECK_IS(prefetch_habit(service.slot, 0, false)->refusals, PREFETCH_REFUSALS);
	finish();
}

static void case_near(void)
{
	/* Where a connect takes next to no time nothing is opened ahead. */
	begin();
	prefetch_worth_us = 5000000;
	for (int i = 0; i < 4; i++)
		close(reach_fresh());
	CHECK(only() == NULL);
	prefetch_worth_us = 0;
	close(reach_fresh());
	CHECK(only() != NULL);
	finish();
}

static void case_idle(void)
{
	/* The kernel ends it by itself, with and without words from the server, and the server is told. */
	int silent_one, speaking;
	begin();
	service.ahead = 2;
	service.idle_ms = 1000;
	close(reach_fresh());
	prefetch_habit(service.slot, 0, false)->wanted = 2;
	close(reach_fresh());
	close(accepted());
	close(accepted());
	silent_one = accepted();
	speaking = accepted();
	CHECK_IS(write(speaking, "hello", 5), 5);
	uint64_t began = now_ms();
	for (int i = 0; i < 2; i++) {
		int fd = i == 0 ? silent_one : speaking;
		struct pollfd p = {fd, POLLIN, 0};
		char byte;
		CHECK_IS(poll(&p, 1, 15000), 1);
		CHECK_IS(read(fd, &byte, 1), -1);
		CHECK_IS(errno, ECONNRESET);
		CHECK(now_ms() - began >= 900);
		close(fd);
	}
	/* And what is left of them here is of no use to the next one. */
	int fd = fresh();
	CHECK_IS(reach(fd), 0);
	CHECK_IS(seen_of(port).failures, 0);
	same_connection(fd, accepted());
	close(fd);
	finish();
}

static void case_fork_closes(void)
{
	int ahead, out[2];
	begin();
	get_used(&ahead);
	CHECK_IS(pipe(out), 0);
	int kept = only()->fd;
	pid_t child = fork();
	if (child == 0) {
		/* The parent's connection is not here, and one of the child's own can be. */
		char answer = fcntl(kept, F_GETFD) == -1 && errno == EBADF && only() == NULL ? 'y' : 'n';
		if (write(out[1], &answer, 1) != 1)
			_exit(1);
		pause();
	}
	char answer = 0, byte;
	CHECK_IS(read(out[0], &answer, 1), 1);
	CHECK_IS(answer, 'y');
	int fd = fresh();
	CHECK_IS(reach(fd), 1);
	same_connection(fd, ahead);
	close(fd);
	CHECK_IS(read(ahead, &byte, 1), 0);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	close(ahead);
	close(out[0]);
	close(out[1]);
	finish();
}

static void case_vfork(void)
{
	/* Its memory is ours, its descriptors are not. */
	int ahead;
	begin();
	get_used(&ahead);
	pid_t child = vfork();
	if (child == 0) {
		int fd = fresh();
		_exit(prefetch_take(fd, &service, listed, 1, &asked) == -1 ? 0 : 1);
	}
	int status = -1;
	waitpid(child, &status, 0);
	CHECK_IS(status, 0);
	int fd = fresh();
	CHECK_IS(reach(fd), 1);
	close(fd);
	char byte;
	CHECK_IS(read(ahead, &byte, 1), 0);
	close(ahead);
	finish();
}

static void case_elsewhere(void)
{
	if (geteuid() != 0)
		return;
	int ahead, here = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	begin();
	get_used(&ahead);
	/* A socket of another user, and one of another network. */
	CHECK_IS(seteuid(65534), 0);
	int fd = fresh();
	CHECK_IS(prefetch_take(fd, &service, listed, 1, &asked), -1);
	CHECK_IS(seteuid(0), 0);
	close(fd);
	if (unshare(CLONE_NEWNET) == 0) {
		fd = fresh();
		CHECK_IS(prefetch_take(fd, &service, listed, 1, &asked), -1);
		close(fd);
		CHECK_IS(setns(here, CLONE_NEWNET), 0);
	}
	fd = fresh();
	CHECK_IS(reach(fd), 1);
	same_connection(fd, ahead);
	close(fd);
	close(ahead);
	close(here);
	finish();
}

static void case_strangers_number(void)
{
	/* A program that closes all it does not know, and then uses the number itself. */
	int ahead, pipes[2];
	begin();
	get_used(&ahead);
	int number_of_ours = only()->fd;
	CHECK_IS(kernel_openat(AT_FDCWD, "/dev/null", O_RDONLY) >= 0, 1);
	kernel_close(number_of_ours);
	CHECK_IS(pipe(pipes), 0);
	CHECK_IS(dup2(pipes[0], number_of_ours), number_of_ours);
	int fd = fresh();
	CHECK_IS(reach(fd), 0);
	struct stat s;
	CHECK(fstat(number_of_ours, &s) == 0 && S_ISFIFO(s.st_mode)); /* still the program's */
	close(accepted());
	close(fd);
	close(number_of_ours);
	close(pipes[0]);
	close(pipes[1]);
	close(ahead);
	finish();
}

static void case_lists_change(void)
{
	int ahead;
	begin();
	get_used(&ahead);
	/* Drained: no longer listed. */
	int other = server(AF_INET, SOCK_STREAM, &other_port);
	listed[0] = at_loopback(other_port);
	int fd = fresh();
	CHECK_IS(reach(fd), 0);
	CHECK_IS(peer_port(fd), other_port);
	char byte;
	CHECK_IS(read(ahead, &byte, 1), 0);
	close(fd);
	close(ahead);
	close(other);
	finish();
	/* Suspect. */
	begin();
	get_used(&ahead);
	listed[0].flags = BACKEND_SUSPECT;
	fd = fresh();
	CHECK_IS(reach(fd), 0);
	close(fd);
	close(ahead);
	finish();
	/* Of another family than the caller's. */
	begin();
	get_used(&ahead);
	asked.families = BALANCE_V6;
	fd = fresh();
	CHECK_IS(prefetch_take(fd, &service, listed, 1, &asked), -1);
	close(fd);
	close(ahead);
	finish();
}

static void case_refused_ahead(void)
{
	begin();
	int one = reach_fresh();
	CHECK_IS(seen_of(port).failures, 0);
	struct table_backend gone = listed[0];
	int refuser = refusing(&other_port);
	listed[0] = at_loopback(other_port);
	/* The ordinary connect goes to the living one; what is opened ahead goes to the one that refuses. */
	int two = fresh();
	CHECK_IS(prefetch_take(two, &service, listed, 1, &asked), -1);
	struct sockaddr_in a = v4_address("127.0.0.1", gone.port);
	CHECK_IS(connect_plainly(two, ADDRESS(a)), 0);
	prefetch_after(two, &service, listed, 1, &asked);
	int three = fresh();
	CHECK_IS(prefetch_take(three, &service, listed, 1, &asked), -1);
	CHECK_IS(seen_of(other_port).failures, 1);
	CHECK(only() == NULL);
	close(one);
	close(two);
	close(three);
	close(refuser);
	finish();
}

static void case_bounded(void)
{
	begin();
	for (uint32_t slot = 100; slot < 160; slot++) {
		service.slot = slot;
		service.ahead = 3;
		for (int i = 0; i < 3; i++) {
			int fd = fresh();
			reach(fd);
			prefetch_habit(slot, now_ms(), true)->wanted = 100;
			close(fd);
		}
	}
	uint32_t open = 0;
	for (int i = 0; i < PREFETCH_PLACES; i++)
		open += prefetch_pool[i].fd != 0;
	CHECK_IS(open, PREFETCH_PLACES);
	CHECK_IS(atomic_load(&prefetch_count), PREFETCH_PLACES);
	service.slot = 7;
	finish();
}

static void case_v6(void)
{
	begin();
	int six = server(AF_INET6, SOCK_STREAM, &other_port);
	memset(listed[0].address, 0, 16);
	listed[0].address[15] = 1;
	listed[0].port = other_port;
	listed[1] = at_loopback(port);
	asked.families = BALANCE_V4 | BALANCE_V6;
	/* First the service's IPv6 backend, then its IPv4 one by a v4-mapped address; an IPv4 socket gets neither of an IPv6 one's. */
	for (int mapped = 0; mapped < 2; mapped++) {
		if (mapped == 1)
			listed[0] = listed[1];
		struct sockaddr_storage a;
		socklen_t bytes = prefetch_address(AF_INET6, &listed[0], listed[0].port, &a);
		for (int i = 0; i < 2; i++) {
			int fd = socket(AF_INET6, SOCK_STREAM, 0);
			CHECK_IS(prefetch_take(fd, &service, listed, 1, &asked), -1);
			CHECK_IS(connect_plainly(fd, (struct sockaddr *)&a, bytes), 0);
			prefetch_after(fd, &service, listed, 1, &asked);
			close(fd);
		}
		int v4 = fresh(), v6 = socket(AF_INET6, SOCK_STREAM, 0);
		asked.families = BALANCE_V4;
		CHECK_IS(prefetch_take(v4, &service, listed, 1, &asked), -1);
		asked.families = BALANCE_V4 | BALANCE_V6;
		if (mapped == 0 || only() != NULL)
			CHECK_IS(prefetch_take(v6, &service, listed, 1, &asked), 0);
		CHECK_IS(peer_port(v6), listed[0].port);
		close(v4);
		close(v6);
		forget_all();
	}
	close(six);
	finish();
}

/* — Through connect itself, by many threads — */

static struct spec_service HOOKED[] = {{.slot = 1, .name = "web.service.consul", .flags = SERVICE_PREFETCH, .try_ms = 1000}, {0}};
static _Atomic int stopping;

static void case_through_connect(void)
{
	begin();
	HOOKED[0].backends[0] = (struct spec_backend){"127.0.0.1", port, 1, 0, 0};
	table_put(HOOKED);
	for (int i = 0; i < 2; i++) {
		int fd = connected(1, 80);
		CHECK(fd >= 0);
		close(accepted());
		close(fd);
	}
	int ahead = accepted();
	CHECK_IS(only()->slot, 1);
	errno = 77;
	int fd = connected(1, 80);
	CHECK_IS(errno, 77);
	same_connection(fd, ahead);
	CHECK_IS(peer_port(fd), port);
	close(fd);
	close(ahead);
	/* One that does not wait is never handed a connection. */
	ahead = accepted();
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	struct sockaddr_in a = magic4(1, 80);
	CHECK(connect(fd, ADDRESS(a)) == 0 || errno == EINPROGRESS);
	close(accepted());
	close(fd);
	close(ahead);
	finish();
}

/* Sends back each byte; connections opened ahead wait. */
static void *echo_server(void *argument)
{
	static struct pollfd polled[1024];
	nfds_t count = 1;
	polled[0] = (struct pollfd){*(int *)argument, POLLIN, 0};
	while (atomic_load(&stopping) == 0) {
		poll(polled, count, 20);
		for (nfds_t i = count - 1; i > 0; i--) {
			char byte;
			if (polled[i].revents == 0)
				continue;
			if (read(polled[i].fd, &byte, 1) == 1 && write(polled[i].fd, &byte, 1) == 1)
				continue;
			close(polled[i].fd);
			polled[i] = polled[--count];
		}
		int one = polled[0].revents == 0 || count == 1024 ? -1 : accept4(polled[0].fd, NULL, NULL, SOCK_CLOEXEC);
		if (one >= 0)
			polled[count++] = (struct pollfd){one, POLLIN, 0};
	}
	while (count > 1)
		close(polled[--count].fd);
	return NULL;
}

static _Atomic int answered;

static void *connecting(void *argument)
{
	(void)argument;
	for (int i = 0; i < 150; i++) {
		struct timeval limit = {20, 0};
		int fd = connected(1, 80);
		CHECK(fd >= 0);
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
		char byte = 0;
		CHECK_IS(write(fd, "q", 1), 1);
		ssize_t n;
		while ((n = read(fd, &byte, 1)) < 0 && errno == EINTR)
			continue; /* with a time limit even the end of another thread's child interrupts it */
		CHECK_IS(n, 1);
		CHECK_IS(byte, 'q');
		close(fd);
		atomic_fetch_add(&answered, 1);
	}
	return NULL;
}

static void case_threads_and_forks(void)
{
	begin();
	HOOKED[0].backends[0] = (struct spec_backend){"127.0.0.1", port, 1, 0, 0};
	table_put(HOOKED);
	/* While one thread takes the new table, others may go by the old one, whose backend is gone. */
	int first = connected(1, 80);
	CHECK(first >= 0);
	CHECK_IS(peer_port(first), port);
	close(first);
	pthread_t threads[6], echo;
	pthread_create(&echo, NULL, echo_server, &listener);
	for (int i = 0; i < 6; i++)
		pthread_create(&threads[i], NULL, connecting, NULL);
	for (int i = 0; i < 20; i++) {
		pid_t child = fork();
		if (child == 0)
			_exit(only() == NULL && atomic_load(&prefetch_lock) == 0 ? 0 : 1);
		int status = -1;
		waitpid(child, &status, 0);
		CHECK_IS(status, 0);
	}
	for (int i = 0; i < 6; i++)
		pthread_join(threads[i], NULL);
	CHECK_IS(atomic_load(&answered), 900);
	atomic_store(&stopping, 1);
	pthread_join(echo, NULL);
	finish();
}

#define CASE(name) {#name, case_##name}
static const struct {
	const char *name;
	void (*run)(void);
} cases[] = {CASE(handed_over), CASE(first_words), CASE(closed_meanwhile), CASE(options), CASE(left_alone), CASE(sockets_that_never_fit),
	     CASE(near), CASE(idle),	CASE(fork_closes), CASE(vfork), CASE(elsewhere), CASE(strangers_number), CASE(lists_change), CASE(refused_ahead), CASE(bounded),
	     CASE(v6),		CASE(through_connect), CASE(threads_and_forks)};

/* Runs the named cases, or all. */
int main(int count, char **names)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		bool named = count < 2;
		for (int k = 1; k < count; k++)
			named = named || strcmp(names[k], cases[i].name) == 0;
		if (!named)
			continue;
		case_name = cases[i].name;
		cases[i].run();
		printf("ran %s\n", case_name);
	}
	printf(checks_failed == 0 ? "all checks hold\n" : "%d checks failed\n", checks_failed);
	return checks_failed == 0 ? 0 : 1;
}
