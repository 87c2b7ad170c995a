// Names: what getaddrinfo and gethostbyname* give for a service, and that everything else is libc's.

static const struct spec_service NAMED[] = {
    {.slot = 1, .name = "four.service.consul", .backends = {{"10.0.0.1", 1, 1, 0, 0}, {"10.0.0.2", 1, 1, 0, 0}, {"10.0.0.3", 1, 1, 0, 0}, {"10.0.0.4", 1, 1, 0, 0}}},
    {.slot = 2, .name = "six.service.consul", .backends = {{"2001:db8::1", 1, 1, 0, 0}}},
    {.slot = 70000, .name = "both.service.consul", .backends = {{"10.0.0.1", 1, 1, 0, 0}, {"2001:db8::1", 1, 1, 0, 0}, {"2001:db8::2", 1, 1, 0, 0}}},
    {.slot = 70001, .name = "empty.service.consul"},
    {0}};

/* The addresses as text, with blanks between. */
static const char *resolved(const char *name, const char *service, int family, int flags)
{
	static char text[2048];
	struct addrinfo hints = {.ai_family = family, .ai_socktype = SOCK_STREAM, .ai_flags = flags}, *list = NULL;
	int error = getaddrinfo(name, service, &hints, &list);
	text[0] = 0;
	if (error != 0) {
		snprintf(text, sizeof text, "error %d", error);
		return text;
	}
	for (struct addrinfo *a = list; a != NULL; a = a->ai_next) {
		char host[64], port[16];
		CHECK_IS(a->ai_socktype, SOCK_STREAM);
		CHECK_IS(a->ai_protocol, IPPROTO_TCP);
		CHECK_IS(a->ai_addr->sa_family, a->ai_family);
		getnameinfo(a->ai_addr, a->ai_addrlen, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
		snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s:%s", a == list ? "" : " ", host, port);
	}
	if ((flags & AI_CANONNAME) != 0)
		snprintf(text + strlen(text), sizeof text - strlen(text), " is %s", list->ai_canonname);
	freeaddrinfo(list);
	return text;
}

#ifdef __GLIBC__
#define COPIES(one, more) one more
#else
#define COPIES(one, more) one /* musl's lists cannot be joined */
#endif

static void is_text(const char *is, const char *expected, int line)
{
	if (strcmp(is, expected) != 0) {
		printf("FAILED %s: line %d: \"%s\" and not \"%s\"\n", case_name, line, is, expected);
		checks_failed++;
	}
}
#define CHECK_TEXT(is, expected) is_text(is, expected, __LINE__)

static void case_addresses(void)
{
	table_put(NAMED);
	CHECK_TEXT(resolved("four.service.consul", "80", AF_UNSPEC, 0), COPIES("127.128.0.1:80", " 127.128.0.1:80 127.128.0.1:80"));
	CHECK_TEXT(resolved("FOUR.Service.Consul.", "http", AF_INET, 0), COPIES("127.128.0.1:80", " 127.128.0.1:80 127.128.0.1:80"));
	CHECK_TEXT(resolved("four.service.consul", NULL, AF_INET, AI_ADDRCONFIG), COPIES("127.128.0.1:0", " 127.128.0.1:0 127.128.0.1:0"));
	CHECK_TEXT(resolved("four.service.consul", "1", AF_INET6, 0), "fd01:203:405::1:1");
	CHECK_TEXT(resolved("four.service.consul", "1", AF_INET6, AI_V4MAPPED),
		   COPIES("::ffff:127.128.0.1:1", " ::ffff:127.128.0.1:1 ::ffff:127.128.0.1:1"));
	CHECK_TEXT(resolved("six.service.consul", "1", AF_UNSPEC, 0), "fd01:203:405::2:1");
	CHECK_TEXT(resolved("six.service.consul", "1", AF_INET6, AI_V4MAPPED), "fd01:203:405::2:1");
	CHECK_TEXT(resolved("both.service.consul", "1", AF_UNSPEC, 0), COPIES("fd01:203:405::1:1170:1", " fd01:203:405::1:1170:1 127.129.17.112:1"));
	CHECK_TEXT(resolved("both.service.consul", "1", AF_INET6, AI_V4MAPPED | AI_ALL),
		   COPIES("fd01:203:405::1:1170:1", " fd01:203:405::1:1170:1 ::ffff:127.129.17.112:1"));
	CHECK_TEXT(resolved("empty.service.consul", "1", AF_UNSPEC, 0), "127.129.17.113:1");
	CHECK_TEXT(resolved("empty.service.consul", "1", AF_UNSPEC, AI_CANONNAME), "127.129.17.113:1 is empty.service.consul");
	CHECK_TEXT(resolved("four.service.CONSUL", "1", AF_INET, AI_CANONNAME),
		   COPIES("127.128.0.1:1", " 127.128.0.1:1 127.128.0.1:1") " is four.service.consul");
	/* As libc has it. */
	char expected[32];
	table_without_v6 = true;
	table_put(NAMED);
	CHECK(strncmp(resolved("four.service.consul", "1", AF_INET6, 0), "error", 5) == 0);
	CHECK_TEXT(resolved("both.service.consul", "1", AF_UNSPEC, 0), "127.129.17.112:1");
	table_without_v6 = false;
	table_put(NAMED);
	snprintf(expected, sizeof expected, "error %d", EAI_NONAME);
	CHECK_TEXT(resolved("four.service.consul", "1", AF_INET, AI_NUMERICHOST), expected);
	CHECK_TEXT(resolved("127.0.0.7", "1", AF_INET, 0), "127.0.0.7:1");
	CHECK_TEXT(resolved(NULL, "1", AF_INET, 0), "127.0.0.1:1");
	snprintf(expected, sizeof expected, "error %d", EAI_SERVICE);
	CHECK_TEXT(resolved("four.service.consul", "no-such-service", AF_INET, 0), expected);
	if (geteuid() == 0) {
		/* A host without any address of its own has its instances all the same. */
		pid_t child = fork();
		if (child == 0) {
			bool apart = unshare(CLONE_NEWNET) != 0 || strncmp(resolved("four.service.consul", "1", AF_INET, AI_ADDRCONFIG), "127.", 4) == 0;
			_exit(apart ? 0 : 1);
		}
		int status = -1;
		waitpid(child, &status, 0);
		CHECK_IS(status, 0);
	}
	/* A magic address is an address like any other to who asks for its text, and to who has it already. */
	struct sockaddr_in four = magic4(1, 80);
	struct sockaddr_in6 six = magic6(1, 80);
	char host[64], port[16];
	CHECK_IS(getnameinfo(ADDRESS(four), host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV), 0);
	CHECK_TEXT(host, "127.128.0.1");
	CHECK_IS(getnameinfo(ADDRESS(six), host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV), 0);
	CHECK_TEXT(host, "fd01:203:405::1");
	CHECK_TEXT(resolved("127.128.0.1", "80", AF_UNSPEC, AI_NUMERICHOST), "127.128.0.1:80");
	CHECK_TEXT(resolved("fd01:203:405::1", "80", AF_INET6, 0), "fd01:203:405::1:80");
	CHECK_TEXT(resolved("127.128.0.1", "80", AF_INET, AI_CANONNAME), "127.128.0.1:80 is 127.128.0.1");
	struct addrinfo *list = NULL;
	CHECK_IS(getaddrinfo("four.service.consul", "443", NULL, &list), 0);
	CHECK(list != NULL && ((struct sockaddr_in *)list->ai_addr)->sin_port == htons(443));
	freeaddrinfo(list);
	/* Names that are none, as long as one likes. */
	char *longest = malloc(100001);
	memset(longest, 'a', 100000);
	longest[100000] = 0;
	struct magic_answer a;
	CHECK(!magic_of_name(longest, &a));
	CHECK(!magic_of_name("", &a));
	CHECK(!magic_of_name(".", &a));
	longest[NAME_BYTES_MAX] = '.';
	longest[NAME_BYTES_MAX + 1] = 0;
	CHECK(!magic_of_name(longest, &a));
	free(longest);
	CHECK(magic_of_name("four.service.consul.", &a));
	CHECK(!magic_of_name("four.service.consul..", &a));
}

static void case_hosts(void)
{
	struct hostent *host = gethostbyname("Four.service.consul");
	uint32_t address = htonl(0x7f800001);
	CHECK(host != NULL && host->h_addrtype == AF_INET && memcmp(host->h_addr_list[0], &address, 4) == 0);
	if (host != NULL)
		CHECK_TEXT(host->h_name, "four.service.consul");
	host = gethostbyname2("four.service.consul", AF_INET6);
	struct sockaddr_in6 six = magic6(1, 0);
	CHECK(host != NULL && host->h_addrtype == AF_INET6 && host->h_length == 16 && memcmp(host->h_addr_list[0], &six.sin6_addr, 16) == 0);
	host = gethostbyname("127.0.0.9");
	if (host != NULL)
		CHECK_TEXT(host->h_name, "127.0.0.9");
	struct hostent own, *result = NULL;
	char buffer[1024];
	int h_error = 0;
	CHECK_IS(gethostbyname_r("four.service.consul", &own, buffer, sizeof buffer, &result, &h_error), 0);
	CHECK(result == &own && memcmp(own.h_addr_list[0], &address, 4) == 0);
	if (result != NULL)
		CHECK_TEXT(own.h_name, "four.service.consul");
	CHECK_IS(gethostbyname2_r("four.service.consul", AF_INET6, &own, buffer, sizeof buffer, &result, &h_error), 0);
	CHECK(result == &own && memcmp(own.h_addr_list[0], &six.sin6_addr, 16) == 0);
	CHECK_IS(gethostbyname_r("four.service.consul", &own, buffer, 4, &result, &h_error), ERANGE);
}
