// UDP: connect, sendto, sendmsg and sendmmsg to a service; one backend per socket.

static int received(int fd)
{
	char data[16];
	struct pollfd p = {fd, POLLIN, 0};
	int n = 0;
	while (poll(&p, 1, n == 0 ? 2000 : 0) == 1 && recv(fd, data, sizeof data, MSG_DONTWAIT) >= 0)
		n++;
	return n;
}

static void case_datagrams(void)
{
	uint16_t ports[2];
	int servers[2];
	for (int i = 0; i < 2; i++)
		servers[i] = server(AF_INET, SOCK_DGRAM, &ports[i]);
	ONE[0].policy = BALANCE_ROUND_ROBIN;
	backends(2, ports[0], ports[1]);
	struct sockaddr_in a = magic4(1, 53);
	/* A program that began before there was a table, and sends before it asks for a name or connects. */
	for (int way = 0; way < 3; way++) {
		int early = socket(AF_INET, SOCK_DGRAM, 0);
		struct iovec part = {(void *)(uintptr_t) "abc", 3};
		struct mmsghdr one_message = {.msg_hdr = {.msg_name = &a, .msg_namelen = sizeof a, .msg_iov = &part, .msg_iovlen = 1}};
		atomic_store(&table_now, -1);
		atomic_store(&range_v4, 0);
		table_look_now();
		CHECK_IS(way == 0 ? sendto(early, "abc", 3, 0, ADDRESS(a)) : way == 1 ? sendmsg(early, &one_message.msg_hdr, 0) : 3 * sendmmsg(early, &one_message, 1, 0), 3);
		struct pollfd both[2] = {{servers[0], POLLIN, 0}, {servers[1], POLLIN, 0}};
		CHECK_IS(poll(both, 2, 5000), 1);
		CHECK_IS(received(both[0].revents != 0 ? servers[0] : servers[1]), 1);
		close(early);
	}
	/* Connected: two sockets, two servers. */
	int one = socket(AF_INET, SOCK_DGRAM, 0), two = socket(AF_INET, SOCK_DGRAM, 0);
	CHECK_IS(connect(one, ADDRESS(a)), 0);
	CHECK_IS(connect(two, ADDRESS(a)), 0);
	CHECK(peer_port(one) != peer_port(two));
	CHECK(peer_port(one) == ports[0] || peer_port(one) == ports[1]);
	close(one);
	close(two);
	/* Not connected: all of a socket's datagrams go to one. */
	one = socket(AF_INET, SOCK_DGRAM, 0);
	errno = 77;
	for (int i = 0; i < 6; i++)
		CHECK_IS(sendto(one, "abc", 3, 0, ADDRESS(a)), 3);
	struct iovec part = {(void *)(uintptr_t) "defg", 4};
	struct msghdr message = {.msg_name = &a, .msg_namelen = sizeof a, .msg_iov = &part, .msg_iovlen = 1};
	CHECK_IS(sendmsg(one, &message, 0), 4);
	CHECK(message.msg_name == &a && a.sin_port == htons(53));
	struct mmsghdr many[40];
	memset(many, 0, sizeof many);
	struct sockaddr_in plain = v4_address("127.0.0.1", ports[0]);
	for (int i = 0; i < 40; i++)
		many[i].msg_hdr = message;
	many[3].msg_hdr.msg_name = &plain;
	CHECK_IS(sendmmsg(one, many, 40, 0), 40);
	for (int i = 0; i < 40; i++) {
		CHECK_IS(many[i].msg_len, 4);
		CHECK(many[i].msg_hdr.msg_name == (i == 3 ? &plain : &a));
	}
	CHECK_IS(errno, 77);
	int got[2] = {received(servers[0]), received(servers[1])};
	CHECK_IS(got[0] + got[1], 47);
	CHECK(got[0] <= 1 || got[1] == 0);
	int chosen = got[0] > 1 ? 0 : 1;
	/* Its backend is taken from the table: the other one. */
	backends(1, ports[1 - chosen]);
	CHECK_IS(sendto(one, "abc", 3, 0, ADDRESS(a)), 3);
	CHECK_IS(received(servers[1 - chosen]), 1);
	/* None, or none that fits. */
	backends(0);
	CHECK_IS(sendto(one, "abc", 3, 0, ADDRESS(a)), -1);
	CHECK_IS(errno, ECONNREFUSED);
	CHECK_IS(sendmmsg(one, many, 2, 0), -1);
	CHECK_IS(errno, ECONNREFUSED);
	CHECK_IS(sendmmsg(one, many + 3, 5, 0), 1); /* up to the one that cannot go */
	CHECK_IS(received(servers[0]), 1);
	backends(1, ports[0]);
	ONE[0].backends[0].flags = BACKEND_TCP_ONLY;
	table_put(ONE);
	CHECK_IS(connect(one, ADDRESS(a)), 0);
	CHECK_IS(peer_port(one), 53); /* the magic address itself: perhaps the agent's proxy has a way */
	close(one);
	/* An IPv6 socket, by both of its addresses. */
	backends(1, ports[0]);
	int six = socket(AF_INET6, SOCK_DGRAM, 0);
	struct sockaddr_in6 a6 = magic6(1, 53), mapped = v6_address("::ffff:127.128.0.1", 53);
	CHECK_IS(sendto(six, "abc", 3, 0, ADDRESS(a6)), 3);
	CHECK_IS(sendto(six, "abc", 3, 0, ADDRESS(mapped)), 3);
	CHECK_IS(received(servers[0]), 2);
	close(six);
	/* Foreign ones and odd arguments are the kernel's. */
	one = socket(AF_INET, SOCK_DGRAM, 0);
	CHECK_IS(sendto(one, "abc", 3, 0, ADDRESS(plain)), 3);
	CHECK_IS(received(servers[0]), 1);
	CHECK_IS(sendto(one, "abc", 3, 0, NULL, 0), -1);
	CHECK_IS(errno, EDESTADDRREQ);
	CHECK_IS(sendto(one, "abc", 3, 0, (struct sockaddr *)(uintptr_t)-1, sizeof a), -1);
	CHECK_IS(errno, EFAULT);
	CHECK_IS(sendmmsg(one, many, 0, 0), 0);
	close(one);
	/* Data with the opening of a stream. */
	uint16_t stream;
	int listener = server(AF_INET, SOCK_STREAM, &stream);
	backends(1, stream);
	one = socket(AF_INET, SOCK_STREAM, 0);
	CHECK_IS(sendto(one, "abc", 3, MSG_FASTOPEN, ADDRESS(a)), 3);
	CHECK_IS(peer_port(one), stream);
	close(one);
	close(listener);
	close(servers[0]);
	close(servers[1]);
	ONE[0].policy = BALANCE_FIRST;
}

/* Sends to `said`; the server answers; the socket that got it through. */
static void answered(int fd, int server_fd, const void *said, socklen_t said_bytes)
{
	char data[16];
	struct sockaddr_in6 from;
	socklen_t bytes = sizeof from;
	CHECK_IS(sendto(fd, "ask", 3, 0, said, said_bytes), 3);
	CHECK_IS(recvfrom(server_fd, data, sizeof data, 0, (struct sockaddr *)&from, &bytes), 3);
	for (int i = 0; i < 6; i++)
		CHECK_IS(sendto(server_fd, "reply", 5, 0, (struct sockaddr *)&from, bytes), 5);
}

/* Each way to receive shows the address that was sent to. */
static void replies_are_from(int fd, const void *said, socklen_t said_bytes)
{
	char data[16];
	struct sockaddr_in6 from;
	socklen_t bytes = sizeof from;
	struct pollfd p = {fd, POLLIN, 0};
	CHECK_IS(poll(&p, 1, 5000), 1);
	errno = 77;
	CHECK_IS(recvfrom(fd, data, sizeof data, 0, (struct sockaddr *)&from, &bytes), 5);
	CHECK_IS(errno, 77);
	CHECK_IS(bytes, said_bytes);
	CHECK(memcmp(&from, said, 8) == 0 && memcmp(&from, said, said_bytes) == 0);
#ifdef __GLIBC__
	extern ssize_t __recvfrom_chk(int, void *, size_t, size_t, int, struct sockaddr *, socklen_t *);
	bytes = sizeof from;
	CHECK_IS(__recvfrom_chk(fd, data, sizeof data, sizeof data, 0, (struct sockaddr *)&from, &bytes), 5);
	CHECK(memcmp(&from, said, said_bytes) == 0);
#else
	recv(fd, data, sizeof data, 0);
#endif
	struct iovec part = {data, sizeof data};
	struct msghdr message = {.msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &part, .msg_iovlen = 1};
	memset(&from, 0, sizeof from);
	CHECK_IS(recvmsg(fd, &message, 0), 5);
	CHECK_IS(message.msg_namelen, said_bytes);
	CHECK(memcmp(&from, said, said_bytes) == 0);
	struct mmsghdr many[2] = {{.msg_hdr = message}, {.msg_hdr = message}};
	struct sockaddr_in6 names[2];
	for (int i = 0; i < 2; i++) {
		many[i].msg_hdr.msg_name = &names[i];
		many[i].msg_hdr.msg_namelen = sizeof names[i];
	}
	CHECK_IS(recvmmsg(fd, many, 2, MSG_DONTWAIT, NULL), 2);
	CHECK(memcmp(&names[0], said, said_bytes) == 0 && memcmp(&names[1], said, said_bytes) == 0);
	/* Less room than an address, and none. */
	char little[4] = {1, 2, 3, 4};
	bytes = 2;
	CHECK_IS(recvfrom(fd, data, sizeof data, 0, (struct sockaddr *)little, &bytes), 5);
	CHECK(little[2] == 3 && little[3] == 4);
}

/* A connect with its first data (MSG_FASTOPEN): who refuses is left for the next one, as by connect. */
static void case_first_data(void)
{
	uint16_t alive, dead;
	int listener = server(AF_INET, SOCK_STREAM, &alive), refuser = refusing(&dead);
	struct sockaddr_in a = magic4(1, 80);
	struct iovec vector = {"abc", 3};
	struct msghdr message = {.msg_name = &a, .msg_namelen = sizeof a, .msg_iov = &vector, .msg_iovlen = 1};
	char data[4];
	for (int kind = 0; kind < 4; kind++) {
		bool waits = kind < 2;
		backends(2, dead, alive);
		look_forget();
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | (waits ? 0 : SOCK_NONBLOCK), 0);
		errno = 77;
		ssize_t sent = kind % 2 == 0 ? sendto(fd, "abc", 3, MSG_FASTOPEN | MSG_NOSIGNAL, ADDRESS(a)) : sendmsg(fd, &message, MSG_FASTOPEN | MSG_NOSIGNAL);
		CHECK_IS(sent, waits ? 3 : -1);
		CHECK_IS(errno, waits ? 77 : EINPROGRESS);
		if (!waits) {
			wait_for(fd);
			CHECK_IS(so_error(fd), 0);
			CHECK_IS(send(fd, "abc", 3, MSG_NOSIGNAL), 3);
		}
		CHECK_IS(peer_port(fd), alive);
		CHECK_IS(seen_of(dead).failures, 1);
		int accepted_fd = accept(listener, NULL, NULL);
		CHECK_IS(recv(accepted_fd, data, sizeof data, 0), 3);
		CHECK_IS(memcmp(data, "abc", 3), 0);
		if (waits) {
			CHECK_IS(sendto(fd, "abc", 3, MSG_FASTOPEN | MSG_NOSIGNAL, ADDRESS(a)), -1);
			CHECK_IS(errno, EISCONN);
		}
		kernel_close(accepted_fd);
		close(fd);
	}
	CHECK(message.msg_name == &a && message.msg_namelen == sizeof a);
	/* Who may not wait for this one call does not, although his socket could; with none left a refusal is the program's. */
	struct silent s = silent();
	backends(1, s.port);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	/* Where the kernel has a cookie of the host it takes them at once. */
	CHECK(sendto(fd, "abc", 3, MSG_FASTOPEN | MSG_NOSIGNAL | MSG_DONTWAIT, ADDRESS(a)) == 3 || errno == EINPROGRESS);
	close(fd);
	silent_end(&s);
	backends(1, dead);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK_IS(sendto(fd, "abc", 3, MSG_FASTOPEN | MSG_NOSIGNAL, ADDRESS(a)), -1);
	CHECK_IS(errno, ECONNREFUSED);
	close(fd);
	/* Without the flag an address is nothing that a stream socket goes by. */
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK_IS(sendto(fd, "abc", 3, MSG_NOSIGNAL, ADDRESS(a)), -1);
	CHECK_IS(errno, EPIPE);
	close(fd);
	close(refuser);
	close(listener);
}

static void case_replies(void)
{
	uint16_t port, other;
	int one = server(AF_INET, SOCK_DGRAM, &port), two = server(AF_INET, SOCK_DGRAM, &other);
	backends(1, port);
	struct sockaddr_in a = magic4(1, 53);
	struct sockaddr_in6 a6 = magic6(1, 53), mapped = v6_address("::ffff:127.128.0.1", 53);
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	answered(fd, one, &a, sizeof a);
	replies_are_from(fd, &a, sizeof a);
	/* What comes from elsewhere says so. */
	struct sockaddr_in own, from;
	socklen_t bytes = sizeof own;
	char data[16];
	getsockname(fd, (struct sockaddr *)&own, &bytes);
	own.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	CHECK_IS(sendto(two, "x", 1, 0, ADDRESS(own)), 1);
	bytes = sizeof from;
	CHECK_IS(recvfrom(fd, data, sizeof data, 0, (struct sockaddr *)&from, &bytes), 1);
	CHECK_IS(ntohs(from.sin_port), other);
	CHECK_IS(recvfrom(fd, data, sizeof data, MSG_DONTWAIT, NULL, NULL), -1);
	CHECK_IS(errno, EAGAIN);
	CHECK_IS(recvfrom(fd, data, sizeof data, MSG_DONTWAIT, (struct sockaddr *)&from, &bytes), -1);
	CHECK_IS(errno, EAGAIN);
	/* The number is another socket's now, which talks to the same server by its own address. */
	kernel_close(fd);
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	struct sockaddr_in plain = v4_address("127.0.0.1", port);
	answered(fd, one, &plain, sizeof plain);
	bytes = sizeof from;
	CHECK_IS(recvfrom(fd, data, sizeof data, 0, (struct sockaddr *)&from, &bytes), 5);
	CHECK_IS(ntohs(from.sin_port), port);
	CHECK_IS(from.sin_addr.s_addr, htonl(INADDR_LOOPBACK));
	close(fd);
	fd = socket(AF_INET6, SOCK_DGRAM, 0);
	answered(fd, one, &a6, sizeof a6);
	replies_are_from(fd, &a6, sizeof a6);
	close(fd);
	fd = socket(AF_INET6, SOCK_DGRAM, 0);
	answered(fd, one, &mapped, sizeof mapped);
	replies_are_from(fd, &mapped, sizeof mapped);
	close(fd);
	close(one);
	close(two);
}
