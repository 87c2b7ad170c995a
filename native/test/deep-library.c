// A library that a program opens with RTLD_DEEPBIND: it calls libc's functions by name, by an address that it takes, and by one that stands in its data.
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#ifdef WITH_ITS_OWN
/* What a library brings itself it is to keep. */
int connect(int fd, const struct sockaddr *address, socklen_t bytes)
{
	(void)fd, (void)address, (void)bytes;
	return -7;
}

int setsockopt(int fd, int level, int option, const void *value, socklen_t bytes)
{
	(void)fd, (void)level, (void)option, (void)value, (void)bytes;
	return -70;
}
#endif

typedef int connecting(int, const struct sockaddr *, socklen_t);
static connecting *volatile kept = connect;

/* Where nobody calls it: at an odd place, and in pages that are not to be written. */
__attribute__((used)) static struct __attribute__((packed)) {
	char first;
	connecting *odd;
} packed = {0, connect};
#ifdef IN_ITS_TEXT
__asm__(".section .rodata\n.balign 8\n.quad connect\n.previous");
#endif

/* The peer's port; negative: what connect and setsockopt said. */
int reach(const char *name, const char *port, int how)
{
	struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *list;
	if (getaddrinfo(name, port, &hints, &list) != 0)
		return -2;
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	connecting *volatile taken = connect;
	int result = how == 0 ? connect(fd, list->ai_addr, list->ai_addrlen)
			      : (how == 1 ? taken : kept)(fd, list->ai_addr, list->ai_addrlen);
	struct sockaddr_in peer;
	socklen_t bytes = sizeof peer;
	if (result == 0)
		result = getpeername(fd, (struct sockaddr *)&peer, &bytes) != 0 ? -3 : ntohs(peer.sin_port);
	result += setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &bytes, sizeof bytes);
	freeaddrinfo(list);
	close(fd);
	return result;
}
