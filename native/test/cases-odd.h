// Programs that do odd things: threads while tables change, fork, vfork, chroot, descriptors closed, jumps out of handlers, calls before main.

/* Set by a constructor that runs before the hook's own. */
static int early_result = -2, early_errno;

__attribute__((constructor(101))) static void early(void)
{
	struct sockaddr_in a = v4_address("127.128.0.1", 9);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	early_result = connect(fd, ADDRESS(a));
	early_errno = errno;
	close(fd);
}

static void case_early(void)
{
	CHECK_IS(early_result, -1);
	CHECK_IS(early_errno, ECONNREFUSED);
}

static void *thread_looks(void *unused)
{
	(void)unused;
	return (void *)(intptr_t)slot_is_known_now(1);
}

/* The first table of a program that began without one: of many threads that want it at once none goes without. */
static void case_first(void)
{
	uint16_t alive;
	int listener = server(AF_INET, SOCK_STREAM, &alive);
	backends(1, alive);
	for (int round = 0; round < 200; round++) {
		pthread_t threads[4];
		atomic_store(&table_now, -1);
		atomic_store(&own_page()->retry_at, 0);
		for (int i = 0; i < 4; i++)
			pthread_create(&threads[i], NULL, thread_looks, NULL);
		for (int i = 0; i < 4; i++) {
			void *known;
			pthread_join(threads[i], &known);
			CHECK(known != NULL);
		}
	}
	close(listener);
}

static _Atomic int threads_stop;
static _Atomic long threads_connected;

static void *thread_connects(void *number)
{
	while (atomic_load(&threads_stop) == 0) {
		struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *list = NULL;
		CHECK_IS(getaddrinfo("web.service.consul", "80", &hints, &list), 0);
		int fd = socket(AF_INET, SOCK_STREAM | ((long)(intptr_t)number % 2 == 0 ? SOCK_NONBLOCK : 0), 0);
		if (fd >= 0) {
			int result = connect(fd, list->ai_addr, list->ai_addrlen);
			if (result == 0)
				atomic_fetch_add(&threads_connected, 1);
			else
				CHECK_IS(errno, EINPROGRESS);
			if (result != 0) {
				struct pollfd p = {fd, POLLOUT, 0};
				int error = -1;
				socklen_t bytes = sizeof error;
				poll(&p, 1, 5000);
				getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &bytes);
				CHECK_IS(error, 0);
			}
			/* Until the server has taken it: its queue must not fill. */
			char c;
			struct pollfd end = {fd, POLLIN, 0};
			poll(&end, 1, 5000);
			CHECK_IS(recv(fd, &c, 1, 0), 0);
			close(fd);
		}
		freeaddrinfo(list);
	}
	return NULL;
}

static void *thread_accepts(void *listener)
{
	struct pollfd p = {(int)(intptr_t)listener, POLLIN, 0};
	while (atomic_load(&threads_stop) < 2) {
		if (poll(&p, 1, 50) != 1)
			continue;
		int fd = accept(p.fd, NULL, NULL);
		if (fd >= 0)
			close(fd);
	}
	return NULL;
}

/* Each table lists other backends than the one before, and each of them lives: no connect may fail. */
static void case_threads(void)
{
	enum { SERVERS = 3, THREADS = 6 };
	uint16_t ports[SERVERS];
	int listeners[SERVERS];
	pthread_t threads[THREADS], accepters[SERVERS];
	for (int i = 0; i < SERVERS; i++)
		listeners[i] = server(AF_INET, SOCK_STREAM, &ports[i]);
	ONE[0].policy = BALANCE_P2C;
	ONE[0].try_ms = 10000;
	backends(1, ports[0]);
	CHECK(slot_is_known(1)); /* who comes while another one opens the first table goes without */
	atomic_store(&threads_stop, 0);
	for (int i = 0; i < SERVERS; i++)
		pthread_create(&accepters[i], NULL, thread_accepts, (void *)(intptr_t)listeners[i]);
	for (int i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, thread_connects, (void *)(intptr_t)i);
	uint64_t end = now_ms() + 1500;
	for (int i = 0; now_ms() < end; i++) {
		if (i % 3 == 0)
			backends(1, ports[i % SERVERS]);
		else
			backends(2, ports[i % SERVERS], ports[(i + 1) % SERVERS]);
		if (i % 8 == 0) {
			/* A child has no other threads: their holds are not its own, and it goes on with tables of its own. */
			pid_t child = fork();
			if (child == 0) {
				int failed = 0;
				for (int place = 0; place < TABLE_PLACES; place++)
					failed += atomic_load(&own_page()->held[place]) != 0 && atomic_load(&own_page_at) != NULL;
				int fd = connected(1, 80);
				_exit(failed == 0 && fd >= 0 ? 0 : 1);
			}
			int status = -1;
			waitpid(child, &status, 0);
			CHECK_IS(status, 0);
		}
		poll(NULL, 0, 1);
	}
	atomic_store(&threads_stop, 1);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	atomic_store(&threads_stop, 2);
	for (int i = 0; i < SERVERS; i++) {
		pthread_join(accepters[i], NULL);
		close(listeners[i]);
	}
	CHECK(atomic_load(&threads_connected) > 10);
	for (int i = 0; i < TABLE_PLACES; i++)
		CHECK_IS(atomic_load(&own_page()->held[i]), 0);
	ONE[0].policy = BALANCE_FIRST;
	ONE[0].try_ms = 100;
}

static void case_fork(void)
{
	uint16_t alive;
	int listener = server(AF_INET, SOCK_STREAM, &alive);
	backends(1, alive);
	/* vfork, a connect in the child, exec. */
	pid_t child = vfork();
	if (child == 0) {
		int fd = connected(1, 80);
		if (fd < 0)
			_exit(9);
		execl("/bin/true", "true", (char *)NULL);
		_exit(8);
	}
	int status = -1;
	waitpid(child, &status, 0);
	CHECK_IS(status, 0);
	/* A daemon that closes every descriptor; and the table is replaced after that. */
	int pipes[2];
	CHECK_IS(pipe(pipes), 0);
	child = fork();
	if (child == 0) {
		for (int fd = 3; fd < 1024; fd++)
			if (fd != pipes[0])
				close(fd);
		char c;
		if (read(pipes[0], &c, 1) != 1)
			_exit(7);
		int known = slot_is_known(2);
		_exit(connected(1, 80) >= 0 && known ? 0 : 6);
	}
	backends(1, alive);
	CHECK_IS(write(pipes[1], "x", 1), 1);
	waitpid(child, &status, 0);
	CHECK_IS(status, 0);
	close(pipes[0]);
	close(pipes[1]);
	/* The child of a child that is not waited for, with a try lock held by nobody. */
	atomic_store(&own_page()->reopening, coarse_ms());
	child = fork();
	if (child == 0) {
		bool empty = atomic_load(&own_page_at) == NULL || atomic_load(&own_page()->reopening) == 0;
		_exit(empty ? 0 : 5);
	}
	waitpid(child, &status, 0);
	CHECK_IS(status, 0);
	atomic_store(&own_page()->reopening, 0);
	close(listener);
}

/* In a jail the path leads nowhere; newer tables are found all the same, by a handle that does not lead out. */
static void case_chroot(void)
{
	if (geteuid() != 0)
		return;
	uint16_t one, two;
	int listeners[2] = {server(AF_INET, SOCK_STREAM, &one), server(AF_INET, SOCK_STREAM, &two)}, up[2], down[2];
	CHECK_IS(pipe(up), 0);
	CHECK_IS(pipe(down), 0);
	backends(1, one);
	char jail[4200];
	snprintf(jail, sizeof jail, "%s.jail", table_path);
	mkdir(jail, 0755);
	/* A folder with a table that says something else. */
	char decoy[4200], decoy_table[4300];
	snprintf(decoy, sizeof decoy, "%s.decoy", table_path);
	snprintf(decoy_table, sizeof decoy_table, "%s%s", decoy, table_file - 1);
	mkdir(decoy, 0755);
	struct bytes other = table_encode(ONE, 99);
	file_write(decoy_table, other.at, other.size, 0644);
	free(other.at);
	int decoy_folder = open(decoy, O_RDONLY | O_DIRECTORY);
	pid_t child = fork();
	if (child == 0) {
		char c;
		if (chroot(jail) != 0 || chdir("/") != 0)
			_exit(9);
		if (write(up[1], "x", 1) != 1 || read(down[0], &c, 1) != 1)
			_exit(8);
		table_look_now();
		int fd = connected(1, 80);
		int folder = atomic_load(&table_folder);
		if (peer_port(fd) != two)
			_exit(7);
		struct stat root, above;
		if (fstat(folder, &root) != 0 || fstatat(folder, "..", &above, 0) != 0 || root.st_ino != above.st_ino || root.st_dev != above.st_dev)
			_exit(6);
		/* The descriptor is closed, and its number is somebody else's: the last table stays. */
		kernel_close(folder);
		if (dup2(decoy_folder, folder) != folder)
			_exit(5);
		if (write(up[1], "x", 1) != 1 || read(down[0], &c, 1) != 1)
			_exit(4);
		table_look_now();
		_exit(peer_port(connected(1, 80)) == two ? 0 : 3);
	}
	char c;
	CHECK_IS(read(up[0], &c, 1), 1);
	backends(1, two);
	CHECK_IS(write(down[1], "x", 1), 1);
	close(up[1]);
	if (read(up[0], &c, 1) == 1) {
		backends(1, one);
		CHECK_IS(write(down[1], "x", 1), 1);
	}
	int status = -1;
	waitpid(child, &status, 0);
	CHECK_IS(WEXITSTATUS(status), 0);
	close(decoy_folder);
	unlink(decoy_table);
	rmdir(decoy);
	rmdir(jail);
	close(up[0]);
	close(down[0]);
	close(down[1]);
	close(listeners[0]);
	close(listeners[1]);
}

static sigjmp_buf jump;

static void on_alarm_jump(int number)
{
	(void)number;
	siglongjmp(jump, 1);
}

/* Raises SIGALRM in the thread of this number (a pid_t) as soon as that waits for something. */
static void *alarm_who_waits(void *number)
{
	char path[64], line[256];
	snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)(intptr_t)number);
	for (int sleeping = 0; sleeping < 3; poll(NULL, 0, 2)) {
		int fd = kernel_openat(AT_FDCWD, path, O_RDONLY);
		long bytes = syscall(SYS_read, fd, line, sizeof line - 1);
		kernel_close(fd);
		line[bytes < 0 ? 0 : bytes] = 0;
		const char *state = strrchr(line, ')');
		sleeping = state != NULL && state[1] != 0 && state[2] == 'S' ? sleeping + 1 : 0;
	}
	syscall(SYS_tgkill, (int)syscall(SYS_getpid), (int)(intptr_t)number, SIGALRM);
	return NULL;
}

/* wget's way to limit a connect: a jump out of the handler of SIGALRM. */
static void case_jump(void)
{
	struct silent s = silent();
	uint16_t alive;
	int listener = server(AF_INET, SOCK_STREAM, &alive);
	ONE[0].try_ms = 10000;
	backends(2, s.port, alive);
	struct sigaction action, before;
	memset(&action, 0, sizeof action);
	action.sa_handler = on_alarm_jump;
	sigaction(SIGALRM, &action, &before);
	for (int i = 0; i < 2 * TABLE_PLACES; i++) {
		pthread_t alarming;
		backends(2, s.port, alive);
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		if (sigsetjmp(jump, 1) == 0) {
			pthread_create(&alarming, NULL, alarm_who_waits, (void *)(intptr_t)syscall(SYS_gettid));
			struct sockaddr_in a = magic4(1, 80);
			connect(fd, ADDRESS(a));
			CHECK(!"came back");
		}
		pthread_join(alarming, NULL);
		close(fd);
	}
	sigaction(SIGALRM, &before, NULL);
	for (int i = 0; i < TABLE_PLACES; i++)
		CHECK_IS(atomic_load(&own_page()->held[i]), 0);
	backends(1, alive);
	int fd = connected(1, 80);
	CHECK_IS(peer_port(fd), alive);
	close(fd);
	ONE[0].try_ms = 100;
	silent_end(&s);
	close(listener);
}

static _Atomic int handler_connects;
static uint16_t handler_port;

static void on_alarm_connect(int number)
{
	(void)number;
	int errno_before = errno;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	struct sockaddr_in a = magic4(1, 80);
	if (fd >= 0 && (connect(fd, ADDRESS(a)) == 0 || errno == EINPROGRESS))
		atomic_fetch_add(&handler_connects, 1);
	if (fd >= 0)
		close(fd);
	errno = errno_before;
}

/* connect is safe in signal handlers [POSIX]: also while the same thread is in ours. */
static void case_handler(void)
{
	int listener = server(AF_INET, SOCK_STREAM, &handler_port);
	ONE[0].policy = BALANCE_P2C;
	backends(2, handler_port, handler_port);
	struct sigaction action, before;
	memset(&action, 0, sizeof action);
	action.sa_handler = on_alarm_connect;
	action.sa_flags = SA_RESTART;
	sigaction(SIGALRM, &action, &before);
	alarm_every(300);
	uint64_t end = now_ms() + 700;
	for (int i = 0; now_ms() < end; i++) {
		int fd = connected(1, 80);
		CHECK(fd >= 0);
		close(fd);
		struct pollfd p = {listener, POLLIN, 0};
		while (poll(&p, 1, 0) == 1)
			close(accept4(listener, NULL, NULL, SOCK_CLOEXEC));
		if (i % 20 == 0) {
			sigset_t alarm_only, was;
			sigemptyset(&alarm_only);
			sigaddset(&alarm_only, SIGALRM);
			sigprocmask(SIG_BLOCK, &alarm_only, &was);
			backends(2, handler_port, handler_port);
			sigprocmask(SIG_SETMASK, &was, NULL);
		}
	}
	alarm_every(0);
	sigaction(SIGALRM, &before, NULL);
	CHECK(atomic_load(&handler_connects) > 20);
	CHECK_IS(atomic_load(&own_page()->reopening), 0);
	for (int i = 0; i < TABLE_PLACES; i++)
		CHECK_IS(atomic_load(&own_page()->held[i]), 0);
	ONE[0].policy = BALANCE_FIRST;
	close(listener);
}

/* Descriptors beyond the places for attempts. */
static void case_many(void)
{
	struct silent s = silent();
	uint16_t alive;
	int listener = server(AF_INET, SOCK_STREAM, &alive), high = 900;
	backends(1, s.port);
	int fd = non_blocking(1);
	CHECK(fd < high);
	close(fd);
	for (int i = 0; i < 600; i++) {
		fd = non_blocking(1);
		kernel_close(fd);
	}
	backends(1, alive);
	fd = connected(1, 80);
	CHECK_IS(peer_port(fd), alive);
	close(fd);
	silent_end(&s);
	close(listener);
}
