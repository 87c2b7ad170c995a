// A look before the leap: after a failure a socket that does not block is only spent on a backend that answers, however many are dead.

enum { LOOK_DEAD = 11 };

/* A port where no answer comes, at each of these addresses: other hosts that are gone. */
struct gone {
	int listener, filling[2 * LOOK_DEAD];
	uint16_t port;
	char addresses[LOOK_DEAD][24];
};

static void gone_begin(struct gone *g)
{
	g->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in in = v4_address("0.0.0.0", 0);
	socklen_t bytes = sizeof in;
	if (bind(g->listener, ADDRESS(in)) != 0 || listen(g->listener, 0) != 0)
		exit(2);
	getsockname(g->listener, (struct sockaddr *)&in, &bytes);
	g->port = ntohs(in.sin_port);
	for (int i = 0; i < 2 * LOOK_DEAD; i++) {
		in = v4_address("127.0.0.1", g->port);
		g->filling[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		connect_plainly(g->filling[i], ADDRESS(in));
	}
	struct pollfd p = {g->filling[0], POLLOUT, 0};
	poll(&p, 1, 1000);
	for (int i = 0; i < LOOK_DEAD; i++)
		snprintf(g->addresses[i], sizeof g->addresses[i], "127.0.1.%d", i + 1);
}

static void gone_end(struct gone *g)
{
	for (int i = 0; i < 2 * LOOK_DEAD; i++)
		kernel_close(g->filling[i]);
	kernel_close(g->listener);
}

/* All that are gone, and last one that lives. */
static void gone_backends(const struct gone *g, uint16_t alive)
{
	static char addresses[LOOK_DEAD][24];
	memcpy(addresses, g->addresses, sizeof addresses);
	memset(ONE[0].backends, 0, sizeof ONE[0].backends);
	for (int i = 0; i < LOOK_DEAD; i++)
		ONE[0].backends[i] = (struct spec_backend){addresses[i], g->port, 1, 0, 0};
	ONE[0].backends[LOOK_DEAD] = (struct spec_backend){"127.0.0.1", alive, 1, 0, 0};
	table_put(ONE);
}

/* What this process remembers is as if it had just begun, but for the clock. */
static void look_forget(void)
{
	struct observed_block *block = observed_block(observed_now_ms());
	memset(block->entries, 0, sizeof block->entries);
	atomic_store(observed_trouble(block), 0);
	for (int i = 0; i < LOOK_VAIN_PLACES; i++)
		atomic_store(&look_vain[i], 0);
}

/* From the next table on a look may take so long; 0 = as long as ever. */
static void look_patient(uint32_t ms)
{
	look_limit_ms = ms == 0 ? 250 : ms;
	ONE[0].try_ms = ms == 0 ? 100 : ms;
}

/* Connections that came since, each closed; *from is the last one's address. */
static int accepted(int listener, struct sockaddr_in *from)
{
	int count = 0;
	struct pollfd p = {listener, POLLIN, 0};
	while (poll(&p, 1, 20) == 1) {
		socklen_t bytes = sizeof *from;
		int fd = accept(listener, (struct sockaddr *)from, from == NULL ? NULL : &bytes);
		if (fd < 0)
			break;
		kernel_close(fd);
		count++;
	}
	return count;
}

static int open_files(void)
{
	int count = 0;
	for (int fd = 0; fd < 1024; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

/* Longer than the clock's tick, so that it is clear what came first. */
static void tick(void)
{
	poll(NULL, 0, 15);
}

static void case_look(void)
{
	struct gone g;
	uint16_t alive;
	int listener = server(AF_INET, SOCK_STREAM, &alive), files;
	look_patient(5000);
	gone_begin(&g);
	gone_backends(&g, alive);
	look_forget();
	files = open_files();
	/* Nobody knows of anything: it goes to one that is gone, and is given up. */
	int fd = non_blocking(1);
	CHECK_IS(so_error(fd), 0);
	close(fd);
	CHECK_IS(accepted(listener, NULL), 0);
	/* Tried once more: of twelve the one that answers. What came of the look is known before the program has looked itself. */
	fd = non_blocking(1);
	CHECK(seen_of(alive).time_us > 0);
	wait_for(fd);
	CHECK_IS(so_error(fd), 0);
	CHECK_IS(peer_port(fd), alive);
	close(fd);
	CHECK_IS(accepted(listener, NULL), 2);
	CHECK_IS(open_files(), files);
	/* Every further one as well, whichever is tried first. */
	for (int i = 0; i < 5; i++) {
		fd = non_blocking(1);
		wait_for(fd);
		CHECK_IS(peer_port(fd), alive);
		close(fd);
	}
	CHECK_IS(open_files(), files);
	accepted(listener, NULL);
	/* The one that answered was seen well since: it is not asked again, and gets just what programs send. */
	ONE[0].backends[0] = ONE[0].backends[LOOK_DEAD];
	ONE[0].backends[LOOK_DEAD].address = ONE[0].backends[1].address;
	ONE[0].backends[LOOK_DEAD].port = g.port;
	table_put(ONE);
	tick();
	fd = non_blocking(1);
	wait_for(fd);
	CHECK_IS(so_error(fd), 0);
	close(fd);
	accepted(listener, NULL);
	for (int i = 0; i < 5; i++) {
		fd = non_blocking(1);
		wait_for(fd);
		CHECK_IS(so_error(fd), 0);
		close(fd);
	}
	CHECK_IS(accepted(listener, NULL), 5);
	/* Who closes by a system call of its own, as libuv does, or waits still, has had no answer either. */
	for (int way = 0; way < 3; way++) {
		gone_backends(&g, alive);
		look_forget();
		fd = non_blocking(1);
		int kept = fcntl(fd, F_DUPFD_CLOEXEC, 500);
		poll(NULL, 0, way == 2 ? 210 : 25);
		if (way != 2)
			kernel_close(fd);
		if (way == 1)
			CHECK_IS(open("/dev/null", O_RDONLY | O_CLOEXEC), fd); /* another one has its number */
		int again = non_blocking(1);
		CHECK_IS(peer_port(again), alive);
		close(again);
		close(fd);
		close(kept);
	}
	accepted(listener, NULL);
	/* Switched off the next one is lost as well. */
	gone_backends(&g, alive);
	look_forget();
	look_limit_ms = 0;
	close(non_blocking(1));
	fd = non_blocking(1);
	CHECK_IS(peer_port(fd), 0);
	close(fd);
	CHECK_IS(accepted(listener, NULL), 0);
	look_patient(0);
	gone_end(&g);
	close(listener);
}

/* In healthy times, and where there is no choice, nobody is asked. */
static void case_look_not(void)
{
	uint16_t alive, other, dead;
	int listener = server(AF_INET, SOCK_STREAM, &alive), second = server(AF_INET, SOCK_STREAM, &other), refuser = refusing(&dead);
	ONE[0].policy = BALANCE_ROUND_ROBIN;
	backends(2, alive, other);
	look_forget();
	for (int i = 0; i < 10; i++) {
		int fd = non_blocking(1);
		wait_for(fd);
		CHECK_IS(so_error(fd), 0);
		close(fd);
	}
	CHECK_IS(accepted(listener, NULL), 5);
	CHECK_IS(accepted(second, NULL), 5);
	ONE[0].policy = BALANCE_FIRST;
	/* A failure of another service is none of this one's. */
	tick();
	ONE[1].backends[0] = (struct spec_backend){"127.0.0.1", dead, 1, 0, 0};
	backends(2, alive, other);
	int fd = non_blocking(2);
	wait_for(fd);
	CHECK_IS(so_error(fd), ECONNREFUSED);
	close(fd);
	fd = non_blocking(1);
	wait_for(fd);
	close(fd);
	CHECK_IS(accepted(listener, NULL), 1);
	/* The only one is not asked, whatever became of it before. */
	backends(1, dead);
	close(refuser);
	refuser = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in in = v4_address("127.0.0.1", dead);
	CHECK_IS(bind(refuser, ADDRESS(in)), 0);
	CHECK_IS(listen(refuser, 8), 0);
	fd = non_blocking(1);
	wait_for(fd);
	CHECK_IS(so_error(fd), 0);
	close(fd);
	CHECK_IS(accepted(refuser, NULL), 1);
	/* One that failed when it was last tried is asked before a program gets it: once. */
	close(refuser);
	refuser = refusing(&dead);
	backends(2, dead, alive);
	look_forget();
	fd = connected(1, 80);
	close(fd);
	CHECK_IS(accepted(listener, NULL), 1);
	CHECK_IS(seen_of(dead).failures, 1);
	/* Which came first cannot be told in one tick of the clock: it may be asked once. From then on it was seen well since. */
	for (int i = 0; i < 3; i++) {
		tick();
		fd = non_blocking(1);
		wait_for(fd);
		CHECK_IS(peer_port(fd), alive);
		CHECK_IS(so_error(fd), 0);
		close(fd);
		int count = accepted(listener, NULL);
		CHECK(count == 1 || (i == 0 && count == 2));
	}
	/* One that is known to be far away could not answer in time. */
	look_forget();
	struct table_backend far = {.address = {[10] = 0xff, 0xff, 127, 0, 0, 1}, .port = alive}, failed = {.address = {[10] = 0xff, 0xff, 127, 0, 0, 1}, .port = dead};
	observed_report(&far, 80, 0, 200000);
	observed_report(&failed, 80, ECONNREFUSED, 0);
	fd = non_blocking(1);
	wait_for(fd);
	CHECK_IS(peer_port(fd), alive);
	close(fd);
	CHECK_IS(accepted(listener, NULL), 1);
	/* And its answer is waited for. */
	struct attempt slow = {.backend = far};
	CHECK(attempt_patience_us(&slow) >= 500000);
	slow.backend = failed;
	CHECK_IS(attempt_patience_us(&slow), ATTEMPT_SILENT_US);
	memset(ONE[1].backends, 0, sizeof ONE[1].backends);
	close(refuser);
	close(listener);
	close(second);
}

/* What refuses is ejected by the look, as if the program had tried it. */
static void case_look_refused(void)
{
	enum { MANY = 40 };
	uint16_t alive, dead[MANY];
	int listener = server(AF_INET, SOCK_STREAM, &alive), refusers[MANY];
	look_patient(5000);
	memset(ONE[0].backends, 0, sizeof ONE[0].backends);
	for (int i = 0; i < MANY; i++) {
		refusers[i] = refusing(&dead[i]);
		ONE[0].backends[i] = (struct spec_backend){"127.0.0.1", dead[i], 1, 0, BACKEND_SUSPECT};
	}
	ONE[0].backends[MANY] = (struct spec_backend){"127.0.0.1", alive, 1, 0, BACKEND_SUSPECT};
	table_put(ONE);
	look_forget();
	int fd = non_blocking(1);
	for (int i = 0; i < MANY; i++)
		CHECK_IS(seen_of(dead[i]).failures, 1);
	CHECK(seen_of(alive).time_us > 0);
	wait_for(fd);
	CHECK_IS(peer_port(fd), alive);
	close(fd);
	CHECK_IS(accepted(listener, NULL), 2);
	for (int i = 0; i < MANY; i++)
		close(refusers[i]);
	/* The agent's suspicion is enough to ask first, and so is a last try that failed, however long ago. */
	uint16_t other;
	int second = server(AF_INET, SOCK_STREAM, &other);
	for (int i = 0; i < 2; i++) {
		backends(2, alive, other);
		look_forget();
		struct table_backend b = {.address = {[10] = 0xff, 0xff, 127, 0, 0, 1}};
		for (int k = 0; k < 2 && i == 1; k++) {
			b.port = k == 0 ? alive : other;
			observed_report(&b, 80, ECONNREFUSED, 0);
		}
		if (i == 0)
			ONE[0].backends[0].flags = ONE[0].backends[1].flags = BACKEND_SUSPECT;
		table_put(ONE);
		atomic_store(observed_trouble(observed_block(observed_now_ms())), 0);
		fd = non_blocking(1);
		wait_for(fd);
		close(fd);
		CHECK_IS(accepted(listener, NULL) + accepted(second, NULL), 2);
	}
	look_patient(0);
	close(second);
	close(listener);
}

static void *look_connects(void *fds)
{
	for (int i = 0; i < 8; i++)
		((int *)fds)[i] = non_blocking(1);
	return NULL;
}

/* What a program may expect of connect holds while the hook looks. */
static void case_look_odd(void)
{
	struct gone g;
	uint16_t alive;
	int listener = server(AF_INET, SOCK_STREAM, &alive);
	struct sockaddr_in from, own = v4_address("127.0.0.9", 0), a = magic4(1, 80);
	look_patient(5000); /* however slow the machine is */
	gone_begin(&g);
	gone_backends(&g, alive);
	/* From the address that the program's socket is bound to. */
	look_forget();
	close(non_blocking(1));
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	CHECK_IS(bind(fd, ADDRESS(own)), 0);
	CHECK_IS(connect(fd, ADDRESS(a)), -1);
	CHECK_IS(errno, EINPROGRESS);
	wait_for(fd);
	CHECK_IS(peer_port(fd), alive);
	socklen_t bytes = sizeof from;
	int look = accept(listener, (struct sockaddr *)&from, &bytes);
	CHECK_IS(ntohl(from.sin_addr.s_addr), 0x7f000009);
	char byte;
	CHECK_IS(recv(look, &byte, 1, 0), 0); /* and it ends in order */
	kernel_close(look);
	close(fd);
	CHECK_IS(accepted(listener, &from), 1);
	/* Signals wait, and come. */
	struct sigaction action, before;
	memset(&action, 0, sizeof action);
	action.sa_handler = on_signal;
	sigaction(SIGALRM, &action, &before);
	look_forget();
	close(non_blocking(1));
	atomic_store(&signals, 0);
	alarm_every(1000);
	fd = non_blocking(1);
	alarm_every(0);
	wait_for(fd);
	CHECK_IS(peer_port(fd), alive);
	CHECK(atomic_load(&signals) > 0);
	close(fd);
	sigset_t mask;
	sigprocmask(SIG_BLOCK, NULL, &mask);
	CHECK_IS(sigismember(&mask, SIGALRM), 0);
	sigaction(SIGALRM, &before, NULL);
	/* Without descriptors to look with it goes on as ever. */
	look_forget();
	close(non_blocking(1));
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct rlimit limit, none;
	getrlimit(RLIMIT_NOFILE, &limit);
	none = limit;
	none.rlim_cur = 0;
	setrlimit(RLIMIT_NOFILE, &none);
	CHECK_IS(connect(fd, ADDRESS(a)), -1);
	CHECK_IS(errno, EINPROGRESS);
	setrlimit(RLIMIT_NOFILE, &limit);
	CHECK_IS(peer_port(fd), 0);
	close(fd);
	/* One that is connected already hears so, and nobody is asked for it. */
	look_forget();
	close(non_blocking(1));
	fd = non_blocking(1);
	wait_for(fd);
	CHECK_IS(so_error(fd), 0);
	accepted(listener, NULL);
	CHECK_IS(connect(fd, ADDRESS(a)), 0); /* the kernel's answer to who asks first */
	CHECK_IS(connect(fd, ADDRESS(a)), -1);
	CHECK_IS(errno, EISCONN);
	CHECK_IS(accepted(listener, NULL), 0);
	close(fd);
	/* Many threads at once: each gets the one that answers. */
	look_forget();
	close(non_blocking(1));
	pthread_t threads[4];
	int fds[4][8], files;
	for (int i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, look_connects, fds[i]);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < 32; i++) {
		wait_for(fds[i / 8][i % 8]);
		CHECK_IS(peer_port(fds[i / 8][i % 8]), alive);
		close(fds[i / 8][i % 8]);
	}
	accepted(listener, NULL);
	close(listener);
	/* Where nobody answers it ends, leaves nothing open, and is not tried again at once. */
	look_patient(0);
	files = open_files();
	memset(&ONE[0].backends[LOOK_DEAD], 0, sizeof ONE[0].backends[0]);
	table_put(ONE);
	look_forget();
	close(non_blocking(1));
	fd = non_blocking(1);
	CHECK(look_was_vain(1));
	CHECK_IS(peer_port(fd), 0);
	close(fd);
	CHECK_IS(open_files(), files);
	gone_end(&g);
}

/* Who waits gets past a silent one by himself, and past all the others by one look, although his own limit allows but two tries. */
static void case_look_waiting(void)
{
	struct gone g;
	uint16_t alive;
	int listener = server(AF_INET, SOCK_STREAM, &alive);
	struct timeval limit = {1, 40000};
	look_patient(400);
	gone_begin(&g);
	gone_backends(&g, alive);
	struct sockaddr_in a = magic4(1, 80);
	for (int i = 0; i < 2; i++) {
		look_forget();
		look_limit_ms = i == 0 ? 0 : 400;
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
		CHECK_IS(connect(fd, ADDRESS(a)), i == 0 ? -1 : 0);
		CHECK_IS(peer_port(fd), i == 0 ? 0 : alive);
		CHECK(sndtimeo(fd) >= 1000000);
		close(fd);
	}
	CHECK_IS(accepted(listener, NULL), 2);
	/* The next one looks before it leaps; a refusal is passed over without. */
	gone_backends(&g, alive);
	int fd = connected(1, 80);
	CHECK_IS(peer_port(fd), alive);
	close(fd);
	CHECK_IS(accepted(listener, NULL), 2);
	uint16_t dead;
	int refuser = refusing(&dead);
	backends(2, dead, alive);
	look_forget();
	fd = connected(1, 80);
	CHECK_IS(peer_port(fd), alive);
	close(fd);
	CHECK_IS(accepted(listener, NULL), 1);
	look_patient(0);
	close(refuser);
	close(listener);
	gone_end(&g);
}

/* A process of its own for each try, as with curl: what the one gave up makes the next one look. */
static void case_look_after_another(void)
{
	struct gone g;
	uint16_t alive;
	int listener = server(AF_INET, SOCK_STREAM, &alive);
	look_patient(5000);
	gone_begin(&g);
	gone_backends(&g, alive);
	look_forget();
	char file[sizeof observed_folder + 16];
	CHECK(mkdir(observed_folder, 0755) == 0);
	snprintf(file, sizeof file, "%s/%u", observed_folder, (unsigned)geteuid());
	for (int round = 0; round < 3; round++) {
		unlink(file);
		for (int try = 0; try < 2; try++) {
			fflush(stdout);
			pid_t child = fork();
			if (child == 0) {
				/* A program that begins: nothing is known but what the file says. */
				memset(atomic_load(&observed_own_at), 0, sizeof(struct observed_own));
				atomic_store(&observed_mapped, NULL);
				memset(observed_users, 0, sizeof observed_users);
				int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
				struct sockaddr_in a = magic4(1, 80);
				connect(fd, ADDRESS(a));
				struct pollfd p = {fd, POLLOUT, 0};
				bool there = poll(&p, 1, try == 0 ? 5 : 10000) == 1 && peer_port(fd) == alive;
				if (try == 0 && round == 1)
					raise(SIGKILL); /* as `timeout` would, or a unit's limit */
				close(fd);
				_exit(there ? 0 : 1);
			}
			int status = -1;
			waitpid(child, &status, 0);
			CHECK_IS(WIFSIGNALED(status) || WEXITSTATUS(status) == 1, try == 0);
		}
	}
	unlink(file);
	rmdir(observed_folder);
	accepted(listener, NULL);
	close(listener);
	look_patient(0);
	gone_end(&g);
}

/* With TCP_FASTOPEN_CONNECT connect would succeed before anything was sent, where a server gave a cookie before. */
static void case_fast_open(void)
{
	uint16_t alive, dead;
	int listener = server(AF_INET, SOCK_STREAM, &alive), refuser = refusing(&dead), queue = 16, on = 1;
	int sysctl = open("/proc/sys/net/ipv4/tcp_fastopen", O_WRONLY | O_CLOEXEC);
	bool both = sysctl >= 0 && write(sysctl, "3", 1) == 1;
	close(sysctl);
	if (!both || setsockopt(listener, IPPROTO_TCP, OPTION_TCP_FASTOPEN, &queue, sizeof queue) != 0)
		return; /* not root, or by an emulator */
	struct sockaddr_in plain = v4_address("127.0.0.1", alive), a = magic4(1, 80);
	/* The kernel has a cookie from here on: without the hook a connect to who refuses is well. */
	for (int i = 0; i < 2; i++) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		setsockopt(fd, IPPROTO_TCP, OPTION_TCP_FASTOPEN_CONNECT, &on, sizeof on);
		CHECK_IS(connect(fd, ADDRESS(plain)), 0);
		CHECK_IS(send(fd, "x", 1, MSG_NOSIGNAL), 1);
		close(fd);
	}
	plain.sin_port = htons(dead);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(fd, IPPROTO_TCP, OPTION_TCP_FASTOPEN_CONNECT, &on, sizeof on);
	CHECK_IS(connect(fd, ADDRESS(plain)), 0);
	close(fd);
	accepted(listener, NULL);
	ONE[0].policy = BALANCE_FIRST;
	backends(2, dead, alive);
	for (int blocking = 0; blocking < 2; blocking++) {
		look_forget();
		fd = socket(AF_INET, SOCK_STREAM | (blocking ? 0 : SOCK_NONBLOCK), 0);
		setsockopt(fd, IPPROTO_TCP, OPTION_TCP_FASTOPEN_CONNECT, &on, sizeof on);
		CHECK_IS(connect(fd, ADDRESS(a)), blocking ? 0 : -1);
		wait_for(fd);
		CHECK_IS(peer_port(fd), alive);
		CHECK_IS(send(fd, "x", 1, MSG_NOSIGNAL), 1);
		close(fd);
	}
	/* Who fails has his option back. */
	backends(1, dead);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(fd, IPPROTO_TCP, OPTION_TCP_FASTOPEN_CONNECT, &on, sizeof on);
	CHECK_IS(connect(fd, ADDRESS(a)), -1);
	CHECK_IS(errno, ECONNREFUSED);
	CHECK_IS(socket_number(fd, IPPROTO_TCP, OPTION_TCP_FASTOPEN_CONNECT), 1);
	close(fd);
	close(refuser);
	close(listener);
}
