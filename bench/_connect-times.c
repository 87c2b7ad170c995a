// A client of the plainest kind for bench/prefetch.ts, and its server. It knows nothing of Trilith.
//
// _connect-times serve                       listens, prints the port, sends each byte back, until its standard input ends
// _connect-times ADDRESS PORT ROUNDS PAUSE-US   prints for each round how many microseconds connect, and all of connect, question and answer, took
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int serve(void)
{
	static struct pollfd polled[1024];
	struct sockaddr_in own = {.sin_family = AF_INET};
	socklen_t bytes = sizeof own;
	nfds_t count = 2;
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(listener, (struct sockaddr *)&own, sizeof own) != 0 || listen(listener, 512) != 0)
		return 1;
	getsockname(listener, (struct sockaddr *)&own, &bytes);
	printf("%d\n", ntohs(own.sin_port));
	fflush(stdout);
	polled[0] = (struct pollfd){0, POLLIN, 0};
	polled[1] = (struct pollfd){listener, POLLIN, 0};
	for (;;) {
		char byte;
		poll(polled, count, -1);
		if (polled[0].revents != 0 && read(0, &byte, 1) <= 0)
			return 0;
		for (nfds_t i = count - 1; i > 1; i--) {
			if (polled[i].revents == 0)
				continue;
			if (read(polled[i].fd, &byte, 1) == 1 && write(polled[i].fd, &byte, 1) == 1)
				continue;
			close(polled[i].fd);
			polled[i] = polled[--count];
		}
		if (polled[1].revents != 0 && count < 1024)
			polled[count++] = (struct pollfd){accept(listener, NULL, NULL), POLLIN, 0};
	}
}

int main(int words, char **word)
{
	if (words == 2 && strcmp(word[1], "serve") == 0)
		return serve();
	if (words != 5)
		return 2;
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(word[2]))};
	if (inet_pton(AF_INET, word[1], &to.sin_addr) != 1)
		return 2;
	for (int i = 0, rounds = atoi(word[3]); i < rounds; i++) {
		int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
		char byte = 'q';
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		double began = now_us();
		if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0) {
			perror("connect");
			return 1;
		}
		double connected = now_us();
		if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1) {
			perror("question");
			return 1;
		}
		printf("%.1f %.1f\n", connected - began, now_us() - began);
		close(fd);
		usleep((useconds_t)atoi(word[4]));
	}
	return 0;
}
