// Chooses a backend for a magic address out of the present table, and copies what the caller needs: the table is not held during a connect.
#ifndef TRILITH_CHOOSE_H
#define TRILITH_CHOOSE_H

#include "prepare.h"

enum { TRIES_MAX = 64 };

/* Backends that one call has tried. Kept by address, since the table may be replaced between two tries. */
struct tries {
	uint32_t count;
	struct {
		uint8_t address[16];
		uint16_t port;
	} at[TRIES_MAX];
};

static void tries_add(struct tries *tries, const struct table_backend *backend)
{
	if (tries->count == TRIES_MAX)
		return;
	memcpy(tries->at[tries->count].address, backend->address, 16);
	tries->at[tries->count++].port = backend->port;
}

static bool tries_have(const struct tries *tries, const struct table_backend *backend)
{
	for (uint32_t i = 0; i < tries->count; i++)
		if (tries->at[i].port == backend->port && memcmp(tries->at[i].address, backend->address, 16) == 0)
			return true;
	return false;
}

enum choice {
	CHOICE_MADE,
	CHOICE_TAKEN,	  /* the descriptor is connected to it already, opened ahead */
	CHOICE_NOT_OURS,  /* nobody has this address */
	CHOICE_EMPTY,	  /* the service has no backends */
	CHOICE_UNFITTING, /* it has none that this socket can reach */
	CHOICE_NO_MORE	  /* all were tried */
};

struct chosen {
	struct table_backend backend;
	uint8_t service_flags;
	uint32_t try_ms;
	bool others; /* more could be tried after this one */
	bool doubtful; /* others are there, and this one may be dead */
	uint32_t time_us; /* of a doubtful one: what a connect takes; 0 = not known */
};

struct wish {
	const struct target *target;
	const struct sockaddr *address; /* as the program said it */
	socklen_t bytes;
	uint8_t families;
	bool datagrams;
	uint64_t caller;
	bool waits; /* a stream socket that blocks */
	bool looks; /* asks whether what is chosen is doubtful */
	int fd;	    /* of such a one, that may be handed a connection opened ahead; else -1 */
};

static void asked_of(const struct wish *wish, struct balance_asked *asked)
{
	memset(asked, 0, sizeof *asked);
	asked->families = wish->families;
	asked->datagrams = wish->datagrams;
	asked->port = wish->target->port;
	asked->caller = wish->caller;
}

static bool choose_fits(const struct wish *wish, const struct table_backend *backend)
{
	if ((backend->flags & (wish->datagrams ? BACKEND_TCP_ONLY : BACKEND_UDP_ONLY)) != 0)
		return false;
	return (wish->families & (balance_is_v4(backend->address) ? BALANCE_V4 : BALANCE_V6)) != 0;
}

/* Apart, so that the stack of a plain connect stays small. */
__attribute__((noinline)) static int choose_opened_ahead(int fd, const struct table_service *service, const struct table_backend *backends,
							 const struct balance_asked *asked)
{
	return prefetch_take(fd, service, backends, service->count, asked);
}

/* The service of the target in a held table, as a copy whose `count` is true; NULL = unknown. */
static const struct table_backend *choose_service(struct table *t, const struct wish *wish, struct table_service *service)
{
	const struct table_service *s = table_service_by_slot(t, wish->target->slot);
	if (s == NULL)
		return NULL;
	memcpy(service, s, sizeof *service);
	uint32_t n;
	const struct table_backend *backends = table_backends_of(t, service, &n);
	service->count = n;
	return backends;
}

static bool choose_is_doubtful(const struct table_backend *backends, uint32_t count, uint32_t chosen, const struct balance_asked *asked,
			       uint32_t *time_us)
{
	uint64_t now_ms = observed_now_ms();
	struct observed_view view = {.block = observed_block(now_ms), .now_ms = now_ms, .others_count = -1};
	struct balance_seen seen;
	observed_look(&view, &backends[chosen], balance_port(&backends[chosen], asked->port), &seen);
	*time_us = seen.time_us;
	return observed_is_doubtful(&view, backends, count, chosen, asked, &seen);
}

/* errno stays as it was. */
static enum choice choose(const struct wish *wish, const struct tries *tries, struct chosen *chosen)
{
	if (tries->count == TRIES_MAX)
		return CHOICE_NO_MORE;
	struct table *t = table_hold();
	if (t == NULL)
		return CHOICE_NOT_OURS;
	enum choice result = CHOICE_NOT_OURS;
	struct table_service service;
	const struct table_backend *backends = choose_service(t, wish, &service);
	if (backends == NULL)
		goto done;
	result = CHOICE_EMPTY;
	if (service.count == 0)
		goto done;

	int errno_before = errno;
	struct balance_asked asked;
	asked_of(wish, &asked);
	uint32_t tried[TRIES_MAX], fitting = 0;
	asked.tried = tried;
	asked.again = tries->count != 0;
	if (tries->count != 0)
		for (uint32_t i = 0; i < service.count && asked.tried_count < TRIES_MAX; i++)
			if (tries_have(tries, &backends[i]))
				tried[asked.tried_count++] = i;
	for (uint32_t i = 0; i < service.count && fitting < asked.tried_count + 2; i++)
		fitting += choose_fits(wish, &backends[i]);

	int index = -1;
	if (wish->fd >= 0 && tries->count == 0 && (service.flags & SERVICE_PREFETCH) != 0)
		index = choose_opened_ahead(wish->fd, &service, backends, &asked);
	result = index >= 0 ? CHOICE_TAKEN : CHOICE_MADE;
	if (index < 0)
		index = observed_pick(&service, backends, service.count, &asked);
	errno = errno_before;
	if (index < 0 || (uint32_t)index >= service.count) {
		result = fitting == 0 ? CHOICE_UNFITTING : CHOICE_NO_MORE;
		goto done;
	}
	chosen->backend = backends[index];
	chosen->service_flags = service.flags;
	chosen->try_ms = service.try_ms == 0 ? 1000 : service.try_ms;
	chosen->others = tries->count < TRIES_MAX - 1 && fitting > asked.tried_count + 1;
	chosen->time_us = 0;
	chosen->doubtful = wish->looks && chosen->others && choose_is_doubtful(backends, service.count, (uint32_t)index, &asked, &chosen->time_us);
done:
	table_release(t);
	return result;
}

/* After a connect that succeeded where connections are opened ahead. errno stays as it was. */
static void choose_ahead(const struct wish *wish)
{
	struct table *t = table_hold();
	if (t == NULL)
		return;
	int errno_before = errno;
	struct table_service service;
	const struct table_backend *backends = choose_service(t, wish, &service);
	if (backends != NULL && service.count != 0) {
		struct balance_asked asked;
		asked_of(wish, &asked);
		prefetch_after(wish->fd, &service, backends, service.count, &asked);
	}
	errno = errno_before;
	table_release(t);
}

#endif
