// connect: a backend's address and port; the next one when one fails; every errno the kernel's.

/* A service on slot 1 of refusing, silent and living backends. */
static struct spec_service ONE[] = {{.slot = 1, .name = "web.service.consul", .policy = BALANCE_FIRST, .try_ms = 100}, {.slot = 2, .name = "none.service.consul"}, {0}};

static void backends(uint32_t count, ...)
{
	va_list list;
	va_start(list, count);
	memset(ONE[0].backends, 0, sizeof ONE[0].backends);
	for (uint32_t i = 0; i < count; i++) {
		ONE[0].backends[i].address = "127.0.0.1";
		ONE[0].backends[i].port = (uint16_t)va_arg(list, unsigned);
	}
	va_end(list);
	table_put(ONE);
}

static uint64_t sndtimeo(int fd)
{
	return timeout_us(fd);
}

static void case_blocking(void)
{
	uint16_t dead, alive;
	int refuser = refusing(&dead), listener = server(AF_INET, SOCK_STREAM, &alive);
	backends(2, dead, alive);
	errno = 77;
	int fd = connected(1, 80);
	CHECK(fd >= 0);
	CHECK_IS(errno, 77);
	CHECK_IS(peer_port(fd), alive);
	CHECK_IS(sndtimeo(fd), 0);
	CHECK_IS(seen_of(dead).failures, 1);
	CHECK_IS(seen_of(alive).failures, 0);
	CHECK(seen_of(alive).time_us > 0);
	struct sockaddr_in a = magic4(1, 80);
	CHECK_IS(connect(fd, ADDRESS(a)), -1);
	CHECK_IS(errno, EISCONN);
	close(fd);
	/* All refuse, there are none, nobody has the address: the kernel's answers. */
	backends(1, dead);
	CHECK_IS(connected(1, 80), -1);
	CHECK_IS(errno, ECONNREFUSED);
	backends(0);
	CHECK_IS(connected(1, 80), -1);
	CHECK_IS(errno, ECONNREFUSED);
	CHECK_IS(connected(2, 80), -1);
	CHECK_IS(errno, ECONNREFUSED);
	CHECK_IS(connected(3, 80), -1);
	CHECK_IS(errno, ECONNREFUSED);
	/* A backend without a port of its own keeps the caller's. */
	backends(1, 0);
	fd = connected(1, alive);
	CHECK_IS(peer_port(fd), alive);
	close(fd);
	/* More backends that refuse than one call can remember: it ends. */
	memset(ONE[0].backends, 0, sizeof ONE[0].backends);
	for (int i = 0; i < 79; i++)
		ONE[0].backends[i] = (struct spec_backend){"127.0.0.1", dead, 1, 0, 0};
	table_put(ONE);
	CHECK_IS(connected(1, 80), -1);
	CHECK_IS(errno, ECONNREFUSED);
	/* 60 different ones and then one that lives. */
	static char texts[60][24];
	for (int i = 0; i < 60; i++) {
		snprintf(texts[i], sizeof texts[i], "127.0.1.%d", i + 1);
		ONE[0].backends[i].address = texts[i];
	}
	memset(&ONE[0].backends[60], 0, sizeof ONE[0].backends[60] * 20);
	ONE[0].backends[60] = (struct spec_backend){"127.0.0.1", alive, 1, 0, 0};
	table_put(ONE);
	fd = connected(1, 80);
	CHECK_IS(peer_port(fd), alive);
	close(fd);
	/* UDP-only ones are not for streams. */
	backends(1, alive);
	ONE[0].backends[0].flags = BACKEND_UDP_ONLY;
	table_put(ONE);
	CHECK_IS(connected(1, 80), -1);
	CHECK_IS(errno, ECONNREFUSED);
	close(refuser);
	close(listener);
}

static void case_spread(void)
{
	uint16_t ports[3];
	int listeners[3], counts[3] = {0, 0, 0};
	for (int i = 0; i < 3; i++)
		listeners[i] = server(AF_INET, SOCK_STREAM, &ports[i]);
	ONE[0].policy = BALANCE_ROUND_ROBIN;
	backends(3, ports[0], ports[1], ports[2]);
	for (int i = 0; i < 30; i++) {
		int fd = connected(1, 80);
		for (int k = 0; k < 3; k++)
			counts[k] += peer_port(fd) == ports[k];
		close(fd);
	}
	for (int i = 0; i < 3; i++) {
		CHECK_IS(counts[i], 10);
		close(listeners[i]);
	}
	ONE[0].policy = BALANCE_FIRST;
}

static int so_error(int fd)
{
	int error = -1;
	socklen_t bytes = sizeof error;
	errno = 77;
	CHECK_IS(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &bytes), 0);
	CHECK_IS(errno, 77);
	return error;
}

static _Atomic int emptying;

static void *empty_later(void *silent_one)
{
	struct silent *s = silent_one;
	poll(NULL, 0, 300);
	while (atomic_load(&emptying) != 0) {
		struct pollfd p = {s->listener, POLLIN, 0};
		if (poll(&p, 1, 10) == 1)
			kernel_close(accept(s->listener, NULL, NULL));
	}
	return NULL;
}

static void case_slow(void)
{
	/* Slower than a try, and the only one that lives: it is gone back to. */
	uint16_t dead;
	int refuser = refusing(&dead);
	struct silent s = silent();
	pthread_t emptier;
	backends(2, s.port, dead);
	atomic_store(&emptying, 1);
	pthread_create(&emptier, NULL, empty_later, &s);
	int fd = connected(1, 80);
	CHECK(fd >= 0);
	CHECK_IS(sndtimeo(fd), 0);
	atomic_store(&emptying, 0);
	pthread_join(emptier, NULL);
	close(fd);
	silent_end(&s);
	/* The program's own limit holds there, too, and its error is the kernel's. */
	s = silent();
	backends(2, s.port, dead);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	struct timeval limit = {0, 260000};
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
	struct sockaddr_in a = magic4(1, 80);
	uint64_t began = now_ms();
	CHECK_IS(connect(fd, ADDRESS(a)), -1);
	CHECK_IS(errno, EINPROGRESS);
	uint64_t took = now_ms() - began;
	CHECK(took >= 250 && took < 5000);
	CHECK(attempt_maybe(fd));
	close(fd);
	silent_end(&s);
	close(refuser);
}

static void case_silent(void)
{
	struct silent s = silent();
	uint16_t alive;
	int listener = server(AF_INET, SOCK_STREAM, &alive);
	backends(2, s.port, alive);
	uint64_t began = now_ms();
	int fd = connected(1, 80);
	uint64_t took = now_ms() - began;
	CHECK_IS(peer_port(fd), alive);
	CHECK(took >= 90 && took < 5000);
	CHECK_IS(sndtimeo(fd), 0);
	CHECK_IS(so_error(fd), 0);
	CHECK_IS(send(fd, "x", 1, MSG_NOSIGNAL), 1);
	close(fd);
	CHECK_IS(seen_of(s.port).failures, 1);
	close(listener);
	/* The program's own limit, on a service where nobody answers: what the kernel says then, and the limit is as it was. */
	struct silent other = silent();
	backends(2, s.port, other.port);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	struct timeval limit = {0, 260000};
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
	uint64_t before = sndtimeo(fd);
	struct sockaddr_in a = magic4(1, 80);
	began = now_ms();
	CHECK_IS(connect(fd, ADDRESS(a)), -1);
	CHECK_IS(errno, EINPROGRESS);
	took = now_ms() - began;
	CHECK(took >= 250 && took < 5000);
	CHECK_IS(sndtimeo(fd), before);
	close(fd);
	/* And one that is shorter than a try. */
	ONE[0].try_ms = 60000;
	backends(2, s.port, other.port);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	limit.tv_usec = 120000;
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
	before = sndtimeo(fd);
	began = now_ms();
	CHECK_IS(connect(fd, ADDRESS(a)), -1);
	CHECK_IS(errno, EINPROGRESS);
	took = now_ms() - began;
	CHECK(took >= 110 && took < 5000);
	CHECK_IS(sndtimeo(fd), before);
	close(fd);
	ONE[0].try_ms = 100;
	silent_end(&s);
	silent_end(&other);
}

static _Atomic int signals;

static void on_signal(int number)
{
	(void)number;
	atomic_fetch_add(&signals, 1);
}

static void alarm_every(int us)
{
	struct itimerval t = {{0, us}, {0, us}};
	setitimer(ITIMER_REAL, &t, NULL);
}

static void case_signals(void)
{
	struct silent s = silent();
	uint16_t alive;
	int listener = server(AF_INET, SOCK_STREAM, &alive);
	struct sigaction action, before;
	memset(&action, 0, sizeof action);
	action.sa_handler = on_signal;
	action.sa_flags = SA_RESTART;
	/* Without the hook the kernel would have gone on. */
	sigaction(SIGALRM, &action, &before);
	backends(2, s.port, alive);
	alarm_every(15000);
	atomic_store(&signals, 0);
	int fd = connected(1, 80);
	alarm_every(0);
	CHECK_IS(peer_port(fd), alive);
	CHECK(atomic_load(&signals) > 2);
	CHECK_IS(sndtimeo(fd), 0);
	close(fd);
	/* Without SA_RESTART the call ends, the connect goes on, and asking again is about the same backend. */
	action.sa_flags = 0;
	sigaction(SIGALRM, &action, NULL);
	ONE[0].try_ms = 10000;
	struct silent other = silent();
	backends(2, other.port, alive);
	alarm_every(50000);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in a = magic4(1, 80);
	CHECK_IS(connect(fd, ADDRESS(a)), -1);
	CHECK_IS(errno, EINTR);
	CHECK_IS(sndtimeo(fd), 0);
	CHECK_IS(connect(fd, ADDRESS(a)), -1);
	CHECK(errno == EINTR || errno == EALREADY);
	alarm_every(0);
	struct attempt attempt;
	CHECK(attempt_find(fd, &attempt, false));
	CHECK_IS(attempt.backend.port, other.port);
	close(fd);
	CHECK(!attempt_maybe(fd));
	sigaction(SIGALRM, &before, NULL);
	ONE[0].try_ms = 100;
	silent_end(&s);
	silent_end(&other);
	close(listener);
}

static int non_blocking(uint32_t slot)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct sockaddr_in a = magic4(slot, 80);
	errno = 0;
	CHECK_IS(connect(fd, ADDRESS(a)), -1);
	CHECK_IS(errno, EINPROGRESS);
	return fd;
}

static void wait_for(int fd)
{
	struct pollfd p = {fd, POLLOUT, 0};
	CHECK_IS(poll(&p, 1, 5000), 1);
}

/* False on qemu's kernel. */
static bool socket_tells_times(int fd)
{
	struct tcp_info info;
	socklen_t bytes = sizeof info;
	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &bytes) == 0 && bytes > 72;
}

/* A backend on this host has refused by the time that connect returns: nobody needs to hear of it while there is another. */
static void case_refused_at_once(void)
{
	uint16_t dead[3], alive;
	int refusers[3], listener = server(AF_INET, SOCK_STREAM, &alive);
	for (int i = 0; i < 3; i++)
		refusers[i] = refusing(&dead[i]);
	backends(4, dead[0], dead[1], dead[2], alive);
	/* The weights are equal: whoever is chosen first, in the end it is the one that lives. */
	for (int i = 0; i < 20; i++) {
		int fd = non_blocking(1);
		CHECK(attempt_maybe(fd));
		wait_for(fd);
		CHECK_IS(so_error(fd), 0);
		CHECK_IS(peer_port(fd), alive);
		CHECK_IS(send(fd, "x", 1, MSG_NOSIGNAL), 1);
		close(fd);
	}
	/* epoll tells nothing of those that refused. */
	int epoll = epoll_create1(EPOLL_CLOEXEC), fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	backends(4, dead[2], dead[1], dead[0], alive);
	struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET};
	struct sockaddr_in a = magic4(1, 80);
	CHECK_IS(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), 0);
	CHECK_IS(connect(fd, ADDRESS(a)), -1);
	CHECK_IS(errno, EINPROGRESS);
	CHECK_IS(epoll_wait(epoll, &event, 1, 5000), 1);
	CHECK_IS(event.events & (EPOLLOUT | EPOLLERR | EPOLLHUP), EPOLLOUT);
	CHECK_IS(so_error(fd), 0);
	close(fd);
	close(epoll);
	close(listener);
	/* With none left the last one's refusal is the program's to find. */
	backends(3, dead[0], dead[1], dead[2]);
	fd = non_blocking(1);
	wait_for(fd);
	CHECK_IS(so_error(fd), ECONNREFUSED);
	close(fd);
	for (int i = 0; i < 3; i++) {
		CHECK(seen_of(dead[i]).failures > 0);
		close(refusers[i]);
	}
}

static void case_non_blocking(void)
{
	uint16_t dead, alive;
	int refuser = refusing(&dead), listener = server(AF_INET, SOCK_STREAM, &alive);
	/* curl, node, nginx: SO_ERROR. The next one goes elsewhere. */
	backends(1, dead);
	int fd = non_blocking(1);
	wait_for(fd);
	CHECK_IS(seen_of(dead).failures, 0);
	CHECK_IS(so_error(fd), ECONNREFUSED);
	CHECK_IS(seen_of(dead).failures, 1);
	CHECK_IS(so_error(fd), 0);
	close(fd);
	backends(2, dead, alive);
	fd = non_blocking(1);
	wait_for(fd);
	CHECK_IS(so_error(fd), 0);
	CHECK_IS(peer_port(fd), alive);
	CHECK(seen_of(alive).time_us > 0 && seen_of(alive).time_us < 1000000);
	CHECK(!attempt_maybe(fd));
	close(fd);
	close(refuser);
	/* HAProxy, hiredis: connect again. */
	refuser = refusing(&dead);
	backends(1, dead);
	struct sockaddr_in a = magic4(1, 80);
	fd = non_blocking(1);
	wait_for(fd);
	CHECK_IS(connect(fd, ADDRESS(a)), -1);
	CHECK_IS(errno, ECONNREFUSED);
	CHECK_IS(seen_of(dead).failures, 1);
	backends(2, dead, alive);
	/* The same descriptor once more: another backend. */
	CHECK_IS(connect(fd, ADDRESS(a)), -1);
	CHECK_IS(errno, EINPROGRESS);
	wait_for(fd);
	errno = 77;
	CHECK_IS(connect(fd, ADDRESS(a)), 0);
	CHECK_IS(errno, 77);
	CHECK_IS(peer_port(fd), alive);
	CHECK_IS(connect(fd, ADDRESS(a)), -1);
	CHECK_IS(errno, EISCONN);
	close(fd);
	close(refuser);
	/* Who just closes it. */
	refuser = refusing(&dead);
	backends(1, dead);
	fd = non_blocking(1);
	wait_for(fd);
	close(fd);
	CHECK_IS(seen_of(dead).failures, 1);
	close(refuser);
	/* Who closes a duplicate: the other one has the error still. */
	refuser = refusing(&dead);
	backends(1, dead);
	fd = non_blocking(1);
	wait_for(fd);
	int duplicate = dup(fd);
	close(fd);
	CHECK_IS(seen_of(dead).failures, 1);
	if (socket_tells_times(duplicate))
		CHECK_IS(so_error(duplicate), ECONNREFUSED);
	close(duplicate);
	close(refuser);
	/* Who finds out by writing. */
	refuser = refusing(&dead);
	backends(1, dead);
	fd = non_blocking(1);
	wait_for(fd);
	CHECK_IS(send(fd, "x", 1, MSG_NOSIGNAL), -1);
	close(fd);
	CHECK_IS(seen_of(dead).failures, 1);
	/* One that was connected and broke later is no failed connect. */
	uint16_t breaking;
	int breaker = server(AF_INET, SOCK_STREAM, &breaking);
	backends(1, breaking);
	fd = non_blocking(1);
	wait_for(fd);
	int accepted = accept(breaker, NULL, NULL);
	struct linger now = {1, 0};
	setsockopt(accepted, SOL_SOCKET, SO_LINGER, &now, sizeof now);
	close(accepted);
	struct pollfd p = {fd, POLLIN, 0};
	CHECK_IS(poll(&p, 1, 5000), 1);
	close(fd);
	close(breaker);
	CHECK_IS(seen_of(breaking).failures, 0);
	/* Given up before there was an answer: not ejected, but the next one goes elsewhere; after `try` it has failed. */
	struct silent s = silent();
	ONE[0].try_ms = 60000; /* however slow the machine is */
	backends(2, s.port, alive);
	fd = non_blocking(1);
	close(fd);
	CHECK_IS(seen_of(s.port).failures, 0);
	fd = non_blocking(1);
	wait_for(fd);
	CHECK_IS(peer_port(fd), alive);
	close(fd);
	ONE[0].try_ms = 100;
	backends(1, s.port);
	fd = non_blocking(1);
	CHECK_IS(so_error(fd), 0); /* asked too early */
	CHECK(attempt_maybe(fd));
	poll(NULL, 0, 120);
	close(fd);
	CHECK_IS(seen_of(s.port).failures, 1);
	/* A descriptor that was closed behind our back and is another socket now, going to another service. */
	ONE[1].backends[0] = (struct spec_backend){"127.0.0.1", alive, 1, 0, 0};
	backends(1, s.port);
	fd = non_blocking(1);
	kernel_close(fd);
	int again = non_blocking(2);
	CHECK_IS(again, fd);
	wait_for(again);
	CHECK_IS(so_error(again), 0);
	CHECK_IS(peer_port(again), alive);
	close(again);
	memset(ONE[1].backends, 0, sizeof ONE[1].backends);
	/* AF_UNSPEC ends what was under way. */
	backends(1, s.port);
	fd = non_blocking(1);
	struct sockaddr none = {.sa_family = AF_UNSPEC};
	CHECK_IS(connect(fd, ADDRESS(none)), 0);
	CHECK(!attempt_maybe(fd));
	close(fd);
	silent_end(&s);
	close(listener);
}

static void case_families(void)
{
	uint16_t four, six;
	int listener4 = server(AF_INET, SOCK_STREAM, &four), listener6 = server(AF_INET6, SOCK_STREAM, &six), one = 1;
	ONE[0].backends[0] = (struct spec_backend){"127.0.0.1", four, 1, 0, 0};
	ONE[0].backends[1] = (struct spec_backend){NULL, 0, 0, 0, 0};
	table_put(ONE);
	struct sockaddr_in6 a = magic6(1, 80), mapped = v6_address("::ffff:127.128.0.1", 80);
	int fd = socket(AF_INET6, SOCK_STREAM, 0);
	CHECK_IS(connect(fd, ADDRESS(a)), 0);
	CHECK_IS(peer_port(fd), four);
	close(fd);
	fd = socket(AF_INET6, SOCK_STREAM, 0);
	CHECK_IS(connect(fd, ADDRESS(mapped)), 0);
	CHECK_IS(peer_port(fd), four);
	close(fd);
	/* The kernel takes an address without a scope. */
	fd = socket(AF_INET6, SOCK_STREAM, 0);
	CHECK_IS(connect(fd, (struct sockaddr *)&a, SOCKADDR_IN6_LEAST), 0);
	close(fd);
	fd = socket(AF_INET6, SOCK_STREAM, 0);
	CHECK_IS(connect(fd, (struct sockaddr *)&a, SOCKADDR_IN6_LEAST - 1), -1);
	CHECK_IS(errno, EINVAL);
	setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
	CHECK_IS(connect(fd, ADDRESS(a)), -1);
	CHECK_IS(errno, ENETUNREACH);
	CHECK_IS(connect(fd, ADDRESS(mapped)), -1);
	CHECK_IS(errno, ENETUNREACH);
	/* Nobody has this one, and nothing is sent off the host for it. */
	struct sockaddr_in6 nobodys = magic6(77, 80);
	CHECK_IS(connect(fd, ADDRESS(nobodys)), -1);
	CHECK_IS(errno, ECONNREFUSED);
	ONE[0].backends[1] = (struct spec_backend){"::1", six, 1, 0, 0};
	table_put(ONE);
	CHECK_IS(connect(fd, ADDRESS(a)), 0);
	CHECK_IS(peer_port(fd), six);
	CHECK_IS(seen_of(four).failures, 0); /* it was not even tried */
	close(fd);
	/* IPv4 sockets get IPv4 backends, though the other one is the first choice. */
	ONE[0].backends[0] = (struct spec_backend){"::1", six, 1, 0, 0};
	ONE[0].backends[1] = (struct spec_backend){"127.0.0.1", four, 1, 0, 0};
	table_put(ONE);
	fd = connected(1, 80);
	CHECK_IS(peer_port(fd), four);
	close(fd);
	ONE[0].backends[1] = (struct spec_backend){NULL, 0, 0, 0, 0};
	table_put(ONE);
	CHECK_IS(connected(1, 80), -1);
	CHECK_IS(errno, ECONNREFUSED);
	/* … while the agent's proxy, which reaches it, listens on the magic address. */
	struct sockaddr_in proxy = magic4(1, 0);
	int proxy_listener = socket(AF_INET, SOCK_STREAM, 0);
	CHECK_IS(bind(proxy_listener, ADDRESS(proxy)), 0);
	CHECK_IS(listen(proxy_listener, 5), 0);
	socklen_t proxy_bytes = sizeof proxy;
	getsockname(proxy_listener, (struct sockaddr *)&proxy, &proxy_bytes);
	fd = connected(1, ntohs(proxy.sin_port));
	CHECK(fd >= 0);
	close(fd);
	close(proxy_listener);
	/* An IPv4 address on an IPv6 socket is the kernel's business. */
	struct sockaddr_in a4 = magic4(1, 80);
	fd = socket(AF_INET6, SOCK_STREAM, 0);
	CHECK_IS(connect(fd, ADDRESS(a4)), -1);
	CHECK_IS(errno, EINVAL);
	close(fd);
	close(listener4);
	close(listener6);
}

/* What is not ours comes out as the kernel has it. */
static void case_foreign(void)
{
	uint16_t alive;
	int listener = server(AF_INET, SOCK_STREAM, &alive);
	backends(1, alive);
	struct sockaddr_in plain = v4_address("127.0.0.1", alive), ours = magic4(1, 80);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	CHECK_IS(connect(fd, (struct sockaddr *)(uintptr_t)-1, sizeof plain), -1);
	CHECK_IS(errno, EFAULT);
	CHECK_IS(connect(fd, NULL, sizeof plain), -1);
	CHECK_IS(errno, EFAULT);
	CHECK_IS(connect(fd, (struct sockaddr *)&ours, 3), -1);
	CHECK_IS(errno, EINVAL);
	CHECK_IS(connect(-1, ADDRESS(ours)), -1);
	CHECK_IS(errno, EBADF);
	CHECK_IS(connect(999999, ADDRESS(ours)), -1);
	CHECK_IS(errno, EBADF);
	int file = open("/dev/null", O_RDONLY);
	CHECK_IS(connect(file, ADDRESS(ours)), -1);
	CHECK_IS(errno, ENOTSOCK);
	close(file);
	CHECK_IS(close(-1), -1);
	CHECK_IS(errno, EBADF);
	errno = 77;
	CHECK_IS(connect(fd, ADDRESS(plain)), 0);
	CHECK_IS(errno, 77);
	CHECK_IS(peer_port(fd), alive);
	close(fd);
	/* Other kinds of socket with an address that looks like ours. */
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	CHECK_IS(connect(fd, ADDRESS(ours)), -1);
	CHECK_IS(errno, EINVAL);
	struct sockaddr_un nobody = {.sun_family = AF_UNIX, .sun_path = "/nonexistent/socket"};
	CHECK_IS(connect(fd, ADDRESS(nobody)), -1);
	CHECK_IS(errno, ENOENT);
	close(fd);
	fd = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
	if (fd >= 0) {
		CHECK_IS(connect(fd, ADDRESS(ours)), 0);
		struct sockaddr_in name;
		socklen_t bytes = sizeof name;
		CHECK_IS(getpeername(fd, (struct sockaddr *)&name, &bytes), 0);
		CHECK_IS(ntohl(name.sin_addr.s_addr), 0x7f800001);
		close(fd);
	}
	close(listener);
}
