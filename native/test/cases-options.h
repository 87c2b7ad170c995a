// What sockets are told before their connect: all of it is known, and a look's own sockets go the program's way or are not sent.

/* A value of so many bytes for a try at an option. */
struct option_try {
	int bytes;
	unsigned char value[16];
};

enum { OPTION_NUMBERS = 128, OPTION_TRIES = 60 };

static int option_tries(struct option_try tries[OPTION_TRIES])
{
	static const int64_t numbers[] = {1, 0, 2, 5, 40, 700, 16384, 50000, -1, 0x10, 1000000, (int64_t)50000 << 16 | 40000};
	static const int lengths[] = {4, 8, 1, 16, 0};
	int count = 0;
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
		for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++) {
			tries[count] = (struct option_try){.bytes = lengths[k]};
			memcpy(tries[count++].value, &numbers[i], sizeof numbers[i]);
		}
	return count;
}

struct option_read {
	int result;
	socklen_t bytes;
	unsigned char value[256];
};

static struct option_read option_read(int fd, int level, int name)
{
	struct option_read r;
	memset(&r, 0, sizeof r);
	r.bytes = sizeof r.value;
	r.result = (int)syscall(SYS_getsockopt, fd, level, name, r.value, &r.bytes);
	return r;
}

static bool option_is_listed(int level, int name)
{
	for (int i = 0; i < OPTIONS; i++)
		if (socket_options[i].level == level && socket_options[i].name == name)
			return true;
	return false;
}

/* Other names of listed ones, what acts at once, and what a connected socket's own doings change all the time. */
static bool option_leaves_nothing(int level, int name)
{
	enum { SNDBUFFORCE = 32, RCVBUFFORCE = 33, INCOMING_CPU = 49, CNX_ADVICE = 53, RCVTIMEO_NEW = 66, SNDTIMEO_NEW = 67, DEVMEM_DONTNEED = 80 };
	return level == SOL_SOCKET && (name == SNDBUFFORCE || name == RCVBUFFORCE || name == INCOMING_CPU || name == CNX_ADVICE || name == RCVTIMEO_NEW ||
				       name == SNDTIMEO_NEW || name == DEVMEM_DONTNEED);
}

/* Whatever this kernel lets a socket be told stands in the list, or is known to be what nobody can read back. */
static void case_options_known(void)
{
	static const int levels[] = {SOL_SOCKET, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP};
	struct option_try tries[OPTION_TRIES];
	int count = option_tries(tries), taken = 0, secrets = 0;
	for (size_t l = 0; l < sizeof levels / sizeof *levels; l++)
		for (int name = 0; name < OPTION_NUMBERS; name++) {
			int level = levels[l];
			if (option_is_listed(level, name) || option_leaves_nothing(level, name))
				continue;
			for (int i = 0; i < count; i++) {
				int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
				struct option_read before = option_read(fd, level, name);
				if (setsockopt(fd, level, name, tries[i].value, (socklen_t)tries[i].bytes) == 0) {
					struct option_read after = option_read(fd, level, name);
					bool is_secret = socket_has_secrets(fd, socket_cookie(fd)), is_same = memcmp(&before, &after, sizeof before) == 0;
					taken++;
					secrets += is_secret;
					if (!is_secret && (!is_same || after.result != 0)) {
						printf("level %d option %d is not in the list\n", level, name);
						CHECK(is_secret);
						i = count;
					}
				}
				close(fd);
			}
		}
	CHECK(taken > 0);
	CHECK(secrets > 0); /* IPV6_MTU */
}

/* A look's socket beside one of the program's: true where it goes the same way. */
static bool looks_like(int fd, int *look_fd)
{
	struct look look;
	memset(&look, 0, sizeof look);
	look.fd = fd;
	look.domain = socket_number(fd, SOL_SOCKET, SO_DOMAIN);
	*look_fd = socket(look.domain, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return look_goes_the_same_way(&look, *look_fd);
}

static void case_look_options(void)
{
	/* Told again: what decides the way. */
	static const struct {
		int domain, level, name, value;
	} same[] = {
	    {AF_INET, SOL_SOCKET, SO_MARK, 7},
	    {AF_INET, SOL_SOCKET, SO_DONTROUTE, 1},
	    {AF_INET, SOL_SOCKET, SO_PRIORITY, 5},
	    {AF_INET, IPPROTO_IP, IP_TOS, 0x10},
	    {AF_INET, IPPROTO_IP, IP_TTL, 3},
	    {AF_INET, IPPROTO_IP, IP_MINTTL, 2},
	    {AF_INET, IPPROTO_IP, IP_TRANSPARENT, 1},
	    {AF_INET, IPPROTO_IP, IP_FREEBIND, 1},
	    {AF_INET, IPPROTO_IP, OPTION_IP_BIND_ADDRESS_NO_PORT, 1},
	    {AF_INET, IPPROTO_IP, OPTION_IP_LOCAL_PORT_RANGE, (int)(50000u << 16 | 40000u)},
	    {AF_INET6, IPPROTO_IPV6, IPV6_V6ONLY, 1},
	    {AF_INET6, IPPROTO_IPV6, IPV6_TCLASS, 0x10},
	    {AF_INET6, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 9},
	    {AF_INET6, IPPROTO_IPV6, IPV6_ADDR_PREFERENCES, 1},
	    {AF_INET6, IPPROTO_IPV6, OPTION_IPV6_TRANSPARENT, 1},
	    {AF_INET6, IPPROTO_IPV6, OPTION_IPV6_FREEBIND, 1},
	    {AF_INET6, IPPROTO_IP, IP_TOS, 0x10},
	};
	int look_fd, set = 0, on = 1;
	for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
		int fd = socket(same[i].domain, SOCK_STREAM | SOCK_CLOEXEC, 0), plain = socket(same[i].domain, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (setsockopt(fd, same[i].level, same[i].name, &same[i].value, sizeof(int)) == 0) {
			set++;
			if (!looks_like(fd, &look_fd) || socket_number(look_fd, same[i].level, same[i].name) != socket_number(fd, same[i].level, same[i].name) ||
			    socket_number(plain, same[i].level, same[i].name) == socket_number(fd, same[i].level, same[i].name)) {
				printf("level %d option %d\n", same[i].level, same[i].name);
				CHECK(!"the look's socket was told the same");
			}
			close(look_fd);
		}
		close(fd);
		close(plain);
	}
	CHECK(set > 3);
	/* The device, and an address that is this host's only by its own word. */
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char device[16] = "";
	socklen_t bytes = sizeof device;
	/* Emulators do not give the name back. */
	if (setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3) == 0 && getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, device, &bytes) == 0 &&
	    strcmp(device, "lo") == 0) {
		memset(device, 0, sizeof device);
		bytes = sizeof device;
		CHECK(looks_like(fd, &look_fd));
		CHECK_IS(getsockopt(look_fd, SOL_SOCKET, SO_BINDTODEVICE, device, &bytes), 0);
		CHECK_TEXT(device, "lo");
		close(look_fd);
	}
	close(fd);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (setsockopt(fd, IPPROTO_IP, IP_TRANSPARENT, &on, sizeof on) == 0) {
		struct sockaddr_in foreign = v4_address("192.0.2.7", 0), name;
		socklen_t bytes = sizeof name;
		CHECK_IS(bind(fd, ADDRESS(foreign)), 0);
		CHECK(looks_like(fd, &look_fd));
		CHECK_IS(getsockname(look_fd, (struct sockaddr *)&name, &bytes), 0);
		CHECK_IS(name.sin_addr.s_addr, foreign.sin_addr.s_addr);
		close(look_fd);
	}
	close(fd);
	/* What is no matter of the way is not told, and no reason to do without. */
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int size = 50000;
	CHECK_IS(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size), 0);
	CHECK_IS(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), 0);
	CHECK(looks_like(fd, &look_fd));
	CHECK_IS(socket_number(look_fd, IPPROTO_TCP, TCP_NODELAY), 0);
	close(look_fd);
	close(fd);
	/* What cannot be told again: a source route, keys, a filter, repair. */
	enum { ROUTE, MD5, FILTER, REPAIR, MTU, KINDS };
	for (int kind = 0; kind < KINDS; kind++) {
		fd = socket(kind == MTU ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		int result = -1, mtu = 1300;
		unsigned char route[4] = {0x01, 0x01, 0x01, 0x00}; /* three times no operation [RFC791] */
		struct tcp_md5sig key;
		struct sock_filter pass = BPF_STMT(BPF_RET | BPF_K, 0xffffffffu);
		struct sock_fprog filter = {1, &pass};
		memset(&key, 0, sizeof key);
		struct sockaddr_in peer = v4_address("127.0.0.1", 0);
		memcpy(&key.tcpm_addr, &peer, sizeof peer);
		key.tcpm_keylen = 3;
		memcpy(key.tcpm_key, "key", 3);
		switch (kind) {
		case ROUTE: result = setsockopt(fd, IPPROTO_IP, IP_OPTIONS, route, sizeof route); break;
		case MD5: result = setsockopt(fd, IPPROTO_TCP, OPTION_TCP_MD5SIG, &key, sizeof key); break;
		case FILTER: result = setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter); break;
		case REPAIR: result = setsockopt(fd, IPPROTO_TCP, OPTION_TCP_REPAIR, &on, sizeof on); break;
		default: result = setsockopt(fd, IPPROTO_IPV6, OPTION_IPV6_MTU, &mtu, sizeof mtu); break;
		}
		if (result != 0) {
			printf("kind %d cannot be had here: %s\n", kind, strerror(errno));
		} else {
			if (looks_like(fd, &look_fd)) {
				printf("kind %d\n", kind);
				CHECK(!"such a socket is not looked for");
			}
			close(look_fd);
		}
		close(fd);
	}
}

/* From the program's own call on: a look's connection has a port of the program's range, and nobody is asked for a socket that has a key. */
static void case_look_same_way(void)
{
	struct gone g;
	uint16_t alive;
	int listener = server(AF_INET, SOCK_STREAM, &alive), range = (int)(33000u << 16 | 32900u);
	struct sockaddr_in a = magic4(1, 80), from;
	socklen_t bytes = sizeof from;
	look_patient(5000);
	gone_begin(&g);
	gone_backends(&g, alive);
	look_forget();
	close(non_blocking(1));
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (setsockopt(fd, IPPROTO_IP, OPTION_IP_LOCAL_PORT_RANGE, &range, sizeof range) == 0) {
		CHECK_IS(connect(fd, ADDRESS(a)), -1);
		wait_for(fd);
		CHECK_IS(peer_port(fd), alive);
		int look = accept(listener, (struct sockaddr *)&from, &bytes);
		CHECK(ntohs(from.sin_port) >= 32900 && ntohs(from.sin_port) <= 33000);
		kernel_close(look);
	}
	close(fd);
	accepted(listener, NULL);
	look_forget();
	close(non_blocking(1));
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	cookies_add(&sockets_with_secrets, fd);
	CHECK_IS(connect(fd, ADDRESS(a)), -1);
	CHECK_IS(errno, EINPROGRESS);
	CHECK_IS(peer_port(fd), 0);
	close(fd);
	CHECK_IS(accepted(listener, NULL), 0);
	look_patient(0);
	gone_end(&g);
	close(listener);
}
