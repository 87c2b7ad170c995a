// Tables of an agent in another network namespace: its loopback is reached by its host's address.

/* Puts a table that an agent in that network wrote, on a host that others reach at 127.0.0.2 and fd00::2 (zeros with `silent`). */
static void table_put_from(const struct spec_service *services, uint64_t inode, uint64_t device, bool silent)
{
	static uint64_t generation = 1000;
	struct bytes b = table_encode(services, generation++);
	struct table_header h;
	memcpy(&h, b.at, sizeof h);
	h.network_inode = inode;
	h.network_device = device;
	if (!silent) {
		memcpy(h.host_v4, "\x7f\0\0\x02", 4);
		memcpy(h.host_v6, "\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x02", 16);
	}
	memcpy(b.at, &h, sizeof h);
	h.crc = crc32_of(b.at + 64, b.size - 64);
	memcpy(b.at, &h, sizeof h);
	table_put_bytes(b.at, b.size, 0644);
	table_look_now();
	free(b.at);
}

static uint32_t peer_v4(int fd)
{
	struct sockaddr_in name = {0};
	socklen_t bytes = sizeof name;
	return getpeername(fd, (struct sockaddr *)&name, &bytes) == 0 ? ntohl(name.sin_addr.s_addr) : 0;
}

/* True where every reader in this process finds a backend at this address. */
static bool backend_is_at(uint32_t slot, uint32_t which, const char *text)
{
	uint8_t expected[16];
	CHECK_IS(inet_pton(AF_INET6, text, expected), 1);
	struct table *t = table_hold();
	uint32_t n = 0;
	const struct table_service *s = t == NULL ? NULL : table_service_by_slot(t, slot);
	const struct table_backend *backends = s == NULL ? NULL : table_backends_of(t, s, &n);
	bool is = which < n && memcmp(backends[which].address, expected, sizeof expected) == 0;
	if (t != NULL)
		table_release(t);
	return is;
}

static void case_network(void)
{
	struct stat own;
	CHECK_IS(stat("/proc/self/ns/net", &own), 0);
	uint64_t inode = own.st_ino, device = own.st_dev;
	/* Two servers on one port: one where the agent's loopback would be this program's own, one at the host's address. */
	uint16_t port;
	int here = server(AF_INET, SOCK_STREAM, &port), host = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in there = v4_address("127.0.0.2", port);
	CHECK_IS(bind(host, ADDRESS(there)), 0);
	CHECK_IS(listen(host, 8), 0);
	const struct spec_service services[] = {
	    {.slot = 1, .name = "web.service.consul", .backends = {{"127.0.0.1", port, 1, 0, 0}}},
	    {.slot = 2,
	     .name = "all.service.consul",
	     .backends = {{"127.9.9.9", 1, 1, 0, 0}, {"::1", 2, 1, 0, 0}, {"10.0.0.1", 3, 1, 0, 0}, {"126.0.0.1", 4, 1, 0, 0}, {"::7f00:1", 5, 1, 0, 0}, {"::2", 6, 1, 0, 0}}},
	    {0}};
	static const char *const plain[] = {"::ffff:127.9.9.9", "::1", "::ffff:10.0.0.1", "::ffff:126.0.0.1", "::127.0.0.1", "::2"};
	static const char *const seen[] = {"::ffff:127.0.0.2", "fd00::2", "::ffff:10.0.0.1", "::ffff:126.0.0.1", "::127.0.0.1", "::2"};
	const struct {
		uint64_t inode, device;
		bool silent, elsewhere;
	} tables[] = {{inode + 1, device, false, true}, {inode, device, false, false}, {inode, device + 1, false, true},
		      {0, 0, false, false},		{inode + 1, device, true, false}, {inode + 1, device, false, true}};
	for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
		table_put_from(services, tables[i].inode, tables[i].device, tables[i].silent);
		int fd = connected(1, 80);
		CHECK(fd >= 0);
		CHECK_IS(peer_v4(fd), tables[i].elsewhere ? 0x7f000002 : 0x7f000001);
		close(fd);
		for (uint32_t k = 0; k < 6; k++) {
			const char *expected = (tables[i].elsewhere ? seen : plain)[k];
			if (!backend_is_at(2, k, expected))
				printf("table %zu, backend %u\n", i, k);
			CHECK(backend_is_at(2, k, expected));
		}
	}
	/* What fails there is not held against the agent's loopback, which this user's programs on the host reach. */
	uint32_t before = seen_of(port).failures;
	close(host);
	CHECK_IS(connected(1, 80), -1);
	CHECK_IS(errno, ECONNREFUSED);
	CHECK_IS(seen_of(port).failures, before);
	close(here);
	/* Old ones are unmapped whole. */
	for (int i = 0; i < 3 * TABLE_PLACES; i++) {
		table_put_from(services, inode + 1, device, false);
		CHECK(slot_is_known(2));
	}
	int translated = 0;
	for (int i = 0; i < TABLE_PLACES; i++)
		translated += table_places[i].translated != NULL;
	CHECK(translated <= 2);
}
