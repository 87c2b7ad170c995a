// A link with a delay between two network namespaces: what one sends arrives at the other so many microseconds later. Used where the kernel has no netem.
//
// _delayed-link NAMESPACE-A NAMESPACE-B DELAY-US (paths of namespaces): makes the TUN device "wire" in each, says "ready", carries packets until its
// standard input ends.
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { PACKETS = 8192, PACKET_BYTES = 2048 };

struct packet {
	uint64_t due_us;
	int to;
	ssize_t bytes;
	char data[PACKET_BYTES];
};

static struct packet waiting[PACKETS];
static unsigned first, count;

static uint64_t now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static int device_in(const char *space)
{
	int ns = open(space, O_RDONLY), fd;
	struct ifreq request;
	memset(&request, 0, sizeof request);
	strcpy(request.ifr_name, "wire");
	request.ifr_flags = IFF_TUN | IFF_NO_PI;
	if (ns < 0 || setns(ns, CLONE_NEWNET) != 0)
		fail(space);
	fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &request) != 0)
		fail("/dev/net/tun");
	close(ns);
	return fd;
}

int main(int words, char **word)
{
	if (words != 4)
		return 2;
	uint64_t delay_us = strtoull(word[3], NULL, 10);
	struct pollfd ends[3] = {{device_in(word[1]), POLLIN, 0}, {device_in(word[2]), POLLIN, 0}, {0, POLLIN, 0}};
	prctl(PR_SET_TIMERSLACK, 1);
	printf("ready\n");
	fflush(stdout);
	for (;;) {
		struct timespec wait = {3600, 0};
		if (count > 0) {
			uint64_t now = now_us(), due = waiting[first].due_us;
			uint64_t left = due > now ? due - now : 0;
			wait.tv_sec = (time_t)(left / 1000000u);
			wait.tv_nsec = (long)(left % 1000000u) * 1000;
		}
		ppoll(ends, 3, &wait, NULL);
		char end;
		if (ends[2].revents != 0 && read(0, &end, 1) <= 0)
			return 0;
		for (int i = 0; i < 2; i++) {
			while (count < PACKETS) {
				struct packet *p = &waiting[(first + count) % PACKETS];
				p->bytes = read(ends[i].fd, p->data, sizeof p->data);
				if (p->bytes <= 0)
					break;
				p->due_us = now_us() + delay_us;
				p->to = ends[1 - i].fd;
				count++;
			}
		}
		while (count > 0 && waiting[first].due_us <= now_us()) {
			if (write(waiting[first].to, waiting[first].data, (size_t)waiting[first].bytes) < 0) {
				/* A full device drops it, as a link does. */
			}
			first = (first + 1) % PACKETS;
			count--;
		}
	}
}
