// Connections opened ahead: where a process makes the same connection again and again, the next one is there already.
#ifndef TRILITH_PREFETCH_H
#define TRILITH_PREFETCH_H

#include "observed.h"

/* epoll_ctl(EPOLL_CTL_ADD) was called for this descriptor: its socket is never replaced. */
static void prefetch_watched(int fd)
{
	(void)fd;
}

/*
 * Before a connect of a blocking stream socket to a service with SERVICE_PREFETCH. The index of the backend that `fd` is connected to
 * from now on (its number is the same, its options too, and the outcome is reported), or -1: nothing happened, connect as ever.
 * Never waits.
 */
static int prefetch_take(int fd, const struct table_service *service, const struct table_backend *backends, uint32_t count,
			 const struct balance_asked *asked)
{
	(void)fd, (void)service, (void)backends, (void)count, (void)asked;
	return -1;
}

/* After every successful connect of a blocking stream socket to such a service, taken ones included: opens the next ones ahead. Never waits. */
static void prefetch_after(int fd, const struct table_service *service, const struct table_backend *backends, uint32_t count,
			 const struct balance_asked *asked)
{
	(void)fd, (void)service, (void)backends, (void)count, (void)asked;
}

#endif
