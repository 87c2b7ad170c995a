// A program that knows nothing: resolves a name, connects, says who is there.
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int count, char **words)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *list;
	if (count != 3 || getaddrinfo(words[1], words[2], &hints, &list) != 0)
		return 2;
	int fd = socket(list->ai_family, SOCK_STREAM, 0);
	struct sockaddr_in peer;
	socklen_t bytes = sizeof peer;
	if (connect(fd, list->ai_addr, list->ai_addrlen) != 0 || getpeername(fd, (struct sockaddr *)&peer, &bytes) != 0)
		return 1;
	printf("connected to %d\n", ntohs(peer.sin_port));
	freeaddrinfo(list);
	close(fd);
	return 0;
}
