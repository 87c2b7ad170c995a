// What a connect costs, measured from inside: `foreign N`, `ours N PORT`, `operations N HOST PORT keep|new`. One line of numbers each.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

static void stop(const char *what)
{
	perror(what);
	exit(1);
}

/* Whole calls: a connect to a foreign address, a setsockopt; the descriptor is none, so that the kernel adds as little as it can. Nanoseconds a call of each. */
static void foreign(long n)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(80), .sin_addr = {htonl(0x0a000001)}};
	uint64_t began = now_ns();
	for (long i = 0; i < n; i++)
		if (connect(-1, (struct sockaddr *)&a, sizeof a) != -1)
			stop("connect");
	uint64_t between = now_ns();
	int on = 1;
	for (long i = 0; i < n; i++)
		if (setsockopt(-1, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != -1)
			stop("setsockopt");
	printf("%.2f %.2f\n", (double)(between - began) / (double)n, (double)(now_ns() - between) / (double)n);
}

/* Connects in turn to the known port and to the service; the medians in microseconds of the calls alone. */
static void ours(long n, const char *port)
{
	struct sockaddr_in at[2] = {{.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)), .sin_addr = {htonl(INADDR_LOOPBACK)}}};
	struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *list;
	if (getaddrinfo("bench.service.consul", "80", &hints, &list) != 0)
		stop("getaddrinfo");
	memcpy(&at[1], list->ai_addr, sizeof at[1]);
	uint64_t *took[2] = {malloc(sizeof(uint64_t) * (size_t)n), malloc(sizeof(uint64_t) * (size_t)n)};
	struct linger reset = {1, 0};
	for (long i = 0; i < 2 * n; i++) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		uint64_t began = now_ns();
		if (connect(fd, (struct sockaddr *)&at[i % 2], sizeof at[0]) != 0)
			stop("connect");
		took[i % 2][i / 2] = now_ns() - began;
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
		close(fd);
	}
	for (int k = 0; k < 2; k++)
		qsort(took[k], (size_t)n, sizeof **took, by_size);
	printf("%.3f %.3f\n", (double)took[0][n / 2] / 1000, (double)took[1][n / 2] / 1000);
}

/* PINGs to a Redis. Operations a second, latency's median and 99th part in microseconds, own CPU microseconds an operation. */
static void operations(long n, const char *host, const char *port, int keep)
{
	uint64_t *took = malloc(sizeof(uint64_t) * (size_t)n), began = now_ns();
	int fd = -1, on = 1;
	struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *list;
	if (getaddrinfo(host, port, &hints, &list) != 0)
		stop("getaddrinfo");
	for (long i = 0; i < n; i++) {
		char answer[16];
		uint64_t start = now_ns();
		if (fd < 0) {
			fd = socket(AF_INET, SOCK_STREAM, 0);
			if (connect(fd, list->ai_addr, list->ai_addrlen) != 0)
				stop("connect");
			setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		}
		if (write(fd, "PING\r\n", 6) != 6 || read(fd, answer, sizeof answer) != 7)
			stop("ping");
		if (!keep) {
			close(fd);
			fd = -1;
		}
		took[i] = now_ns() - start;
	}
	double seconds = (double)(now_ns() - began) / 1e9;
	struct rusage r;
	getrusage(RUSAGE_SELF, &r);
	double cpu = (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1e6 + (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec);
	qsort(took, (size_t)n, sizeof *took, by_size);
	printf("%.0f %.1f %.1f %.2f\n", (double)n / seconds, (double)took[n / 2] / 1000, (double)took[n * 99 / 100] / 1000, cpu / (double)n);
}

int main(int count, char **words)
{
	if (count == 3 && strcmp(words[1], "foreign") == 0)
		foreign(atol(words[2]));
	else if (count == 4 && strcmp(words[1], "ours") == 0)
		ours(atol(words[2]), words[3]);
	else if (count == 6 && strcmp(words[1], "operations") == 0)
		operations(atol(words[2]), words[3], words[4], strcmp(words[5], "keep") == 0);
	else
		return 2;
	return 0;
}
