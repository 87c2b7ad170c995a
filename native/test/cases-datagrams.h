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
