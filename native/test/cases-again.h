// Sockets that were used before, and what others do with them: old errors, a connect asked for again, ended or closed by a child; locks whose holder a fork left behind.

static void case_again(void)
{
	struct silent s = silent();
	uint16_t alive, dead;
	int listener = server(AF_INET, SOCK_STREAM, &alive), refuser = refusing(&dead);
	struct sockaddr_in a = magic4(1, 80), plain = v4_address("127.0.0.1", dead), none = {.sin_family = AF_UNSPEC}, name;
	socklen_t bytes = sizeof name;
	/* Asked again while it is under way: the kernel's answer, and the same backend. */
	ONE[0].try_ms = 60000;
	backends(1, s.port);
	look_forget();
	int fd = non_blocking(1);
	for (int i = 0; i < 3; i++) {
		CHECK_IS(connect(fd, ADDRESS(a)), -1);
		CHECK_IS(errno, EALREADY);
	}
	CHECK(attempt_maybe(fd));
	/* Given up by AF_UNSPEC it goes where it is sent next. */
	backends(1, alive);
	CHECK_IS(connect(fd, ADDRESS(none)), 0);
	CHECK_IS(connect(fd, ADDRESS(a)), -1);
	CHECK_IS(errno, EINPROGRESS);
	wait_for(fd);
	CHECK_IS(so_error(fd), 0);
	/* Who asks for its peer hears who it is. */
	CHECK_IS(getpeername(fd, (struct sockaddr *)&name, &bytes), 0);
	CHECK(ntohs(name.sin_port) == alive && name.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
	CHECK_IS(connect(fd, ADDRESS(a)), 0); /* the kernel's answer to who asks first */
	CHECK_IS(connect(fd, ADDRESS(a)), -1);
	CHECK_IS(errno, EISCONN);
	close(fd);
	/* An error that nobody has asked for is no matter of the backend that is chosen next, nor of the program: it is no answer to this connect. */
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	CHECK_IS(connect(fd, ADDRESS(plain)), -1);
	CHECK_IS(errno, EINPROGRESS);
	wait_for(fd);
	look_forget();
	CHECK_IS(connect(fd, ADDRESS(a)), -1);
	CHECK_IS(errno, EINPROGRESS);
	CHECK_IS(seen_of(alive).failures, 0);
	wait_for(fd);
	CHECK_IS(peer_port(fd), alive);
	close(fd);
	ONE[0].try_ms = 100;
	silent_end(&s);
	close(refuser);
	close(listener);
}

/* Whose refusal was asked for by SO_ERROR hears of it once more at the next connect (ECONNABORTED): that is no matter of the backend either. */
static void case_old_failure(void)
{
	uint16_t alive, dead;
	int listener = server(AF_INET, SOCK_STREAM, &alive), refuser = refusing(&dead);
	struct sockaddr_in a = magic4(1, 80), plain = v4_address("127.0.0.1", dead);
	backends(1, alive);
	for (int waits = 0; waits < 2; waits++) {
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		CHECK_IS(connect(fd, ADDRESS(plain)), -1);
		CHECK_IS(errno, EINPROGRESS);
		wait_for(fd);
		CHECK_IS(so_error(fd), ECONNREFUSED);
		if (waits)
			CHECK_IS(fcntl(fd, F_SETFL, 0), 0);
		look_forget();
		CHECK_IS(connect(fd, ADDRESS(a)), waits - 1);
		if (!waits)
			wait_for(fd);
		CHECK_IS(peer_port(fd), alive);
		CHECK_IS(seen_of(alive).failures, 0);
		close(fd);
	}
	close(refuser);
	close(listener);
}

static uint16_t refused_before;

/* What some kernels' rules do: the answer is there before anything was sent. */
static int connect_refused_before(int fd, const struct sockaddr *address, socklen_t bytes)
{
	if (address->sa_family == AF_INET && ntohs(((const struct sockaddr_in *)address)->sin_port) == refused_before) {
		errno = ECONNREFUSED;
		return -1;
	}
	return (int)syscall(SYS_connect, fd, address, bytes);
}

static void case_refused_before(void)
{
	uint16_t alive;
	int listener = server(AF_INET, SOCK_STREAM, &alive), refuser = refusing(&refused_before);
	connect_function *real = real_connect();
	backends(2, refused_before, alive);
	look_forget();
	atomic_store(&real_connect_at, connect_refused_before);
	int fd = non_blocking(1);
	wait_for(fd);
	CHECK_IS(peer_port(fd), alive);
	CHECK_IS(seen_of(refused_before).failures, 1);
	close(fd);
	/* Where that is all there is, it is the answer. */
	backends(1, refused_before);
	struct sockaddr_in a = magic4(1, 80);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	CHECK_IS(connect(fd, ADDRESS(a)), -1);
	CHECK_IS(errno, ECONNREFUSED);
	close(fd);
	atomic_store(&real_connect_at, real);
	close(refuser);
	close(listener);
}

/* How often this process saw the backend answer, and how long that took. */
static uint64_t connects_of(uint16_t port, uint32_t *time_us)
{
	uint8_t address[16] = {0};
	memset(address + 10, 0xff, 2);
	inet_pton(AF_INET, "127.0.0.1", address + 12);
	struct observed_entry *e = observed_find(observed_block(observed_now_ms()), address, port);
	*time_us = e == NULL ? 0 : atomic_load(&e->time_us);
	return e == NULL ? 0 : atomic_load(&e->connects);
}

/* A child goes on with its parent's connect: what it hears is of the backend to which that goes, and no backend is taken for a quick one. */
static void case_childs_connect(void)
{
	uint16_t one, two;
	int listeners[2] = {server(AF_INET, SOCK_STREAM, &one), server(AF_INET, SOCK_STREAM, &two)}, status = -1;
	struct sockaddr_in a = magic4(1, 80);
	uint32_t time_us;
	backends(1, one);
	look_forget();
	int fd = non_blocking(1);
	wait_for(fd);
	backends(1, two);
	fflush(stdout);
	pid_t child = fork();
	if (child == 0) {
		/* The kernel says it once by 0, then by EISCONN. */
		if (connect(fd, ADDRESS(a)) != 0 || peer_port(fd) != one)
			_exit(1);
		_exit(connects_of(one, &time_us) != 1 ? 2 : connects_of(two, &time_us) != 0 ? 3 : 0);
	}
	waitpid(child, &status, 0);
	CHECK_IS(WEXITSTATUS(status), 0);
	CHECK(attempt_maybe(fd));
	close(fd);
	/* A program that knows nothing of it, as after exec, learns nothing by it: it is another backend's. */
	look_forget();
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct sockaddr_in plain = v4_address("127.0.0.1", one);
	CHECK_IS(connect(fd, ADDRESS(plain)), -1);
	wait_for(fd);
	CHECK_IS(connect(fd, ADDRESS(a)), 0);
	CHECK_IS(peer_port(fd), one);
	CHECK_IS(connects_of(two, &time_us), 0);
	close(fd);
	close(listeners[0]);
	close(listeners[1]);
}

/* A child that closes what its parent has under way gives nothing up, and its parent's is not forgotten. */
static void case_childs_close(void)
{
	struct silent s = silent();
	ONE[0].try_ms = 20;
	backends(1, s.port);
	look_forget();
	int fd = non_blocking(1), status = -1;
	poll(NULL, 0, 40);
	fflush(stdout);
	pid_t child = fork();
	if (child == 0) {
		close(fd);
		_exit(seen_of(s.port).failures == 0 ? 0 : 1);
	}
	waitpid(child, &status, 0);
	CHECK_IS(status, 0);
	child = vfork();
	if (child == 0) {
		close(fd);
		_exit(0);
	}
	waitpid(child, &status, 0);
	CHECK_IS(status, 0);
	CHECK(attempt_maybe(fd));
	CHECK_IS(seen_of(s.port).failures, 0);
	close(fd);
	CHECK_IS(seen_of(s.port).failures, 1);
	ONE[0].try_ms = 100;
	silent_end(&s);
}

/* What another thread held when this one forked nobody holds in the child. */
static void case_left_locked(void)
{
	_Atomic uint32_t lock = 0;
	uint16_t port;
	int one = server(AF_INET, SOCK_DGRAM, &port), fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), status = -1;
	struct sockaddr_in a = magic4(1, 53), from;
	backends(1, port);
	CHECK(lock_try(&lock));
	CHECK(!lock_try(&lock));
	CHECK(lock_try(&replies[(uint32_t)fd % REPLY_PLACES].lock));
	CHECK(lock_try(&flow_at(socket_cookie(fd), 1)->lock));
	CHECK(lock_try(&attempts[(uint32_t)fd % ATTEMPT_PLACES].lock));
	fflush(stdout);
	pid_t child = fork();
	if (child == 0) {
		socklen_t bytes = sizeof from;
		char data[8];
		if (!lock_try(&lock) || lock_try(&lock))
			_exit(1);
		lock_leave(&lock);
		if (!lock_try(&lock))
			_exit(2);
		if (!lock_try(&attempts[(uint32_t)fd % ATTEMPT_PLACES].lock))
			_exit(3);
		if (sendto(fd, "abc", 3, 0, ADDRESS(a)) != 3 || flow_at(socket_cookie(fd), 1)->cookie != socket_cookie(fd))
			_exit(4);
		if (recvfrom(one, data, sizeof data, 0, (struct sockaddr *)&from, &bytes) != 3 || sendto(one, "xyz", 3, 0, ADDRESS(from)) != 3 ||
		    recvfrom(fd, data, sizeof data, 0, (struct sockaddr *)&from, &bytes) != 3)
			_exit(5);
		_exit(from.sin_addr.s_addr == a.sin_addr.s_addr && from.sin_port == a.sin_port ? 0 : 6); /* it appears to come from where it was sent */
	}
	waitpid(child, &status, 0);
	CHECK_IS(WEXITSTATUS(status), 0);
	CHECK(!lock_try(&lock));
	lock_leave(&replies[(uint32_t)fd % REPLY_PLACES].lock);
	lock_leave(&flow_at(socket_cookie(fd), 1)->lock);
	lock_leave(&attempts[(uint32_t)fd % ATTEMPT_PLACES].lock);
	close(fd);
	close(one);
}
