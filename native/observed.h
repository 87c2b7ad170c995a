// What this process has seen of backends, and what it learns from its user's others; where a service is in trouble.
#ifndef TRILITH_OBSERVED_H
#define TRILITH_OBSERVED_H

#include "observed-block.h"

/* The tries of late, of the entry with the same place: a float and the low 32 bits of the time in ms. Of this process alone. */
static _Atomic uint64_t observed_lately[OBSERVED_ENTRIES];

/* Round-robin: the next turn by slot. */
static _Atomic uint32_t observed_turn_slots[OBSERVED_TURNS], observed_turns[OBSERVED_TURNS];
static _Atomic uint64_t observed_drawn;

static inline bool observed_is(struct observed_entry *e, const uint64_t address[2], uint16_t port)
{
	return atomic_load_explicit(&e->port_used, memory_order_acquire) == ((uint32_t)port | (uint32_t)OBSERVED_USED << 16) &&
	       atomic_load_explicit(&e->address[0], memory_order_relaxed) == address[0] &&
	       atomic_load_explicit(&e->address[1], memory_order_relaxed) == address[1];
}

/* A backend's entry; NULL = never seen. It lies within OBSERVED_PROBES places from its hash on. */
static inline struct observed_entry *observed_find(struct observed_block *block, const uint8_t address[16], uint16_t port)
{
	uint64_t words[2];
	memcpy(words, address, 16);
	uint64_t place = balance_address_hash(address, port);
	for (int i = 0; i < OBSERVED_PROBES; i++) {
		struct observed_entry *e = &block->entries[(place + (uint64_t)i) % OBSERVED_ENTRIES];
		if (observed_is(e, words, port))
			return e;
		if (atomic_load_explicit(&e->port_used, memory_order_relaxed) == 0)
			return NULL;
	}
	return NULL;
}

/* The same, made if need be in the place of the one that was not seen for the longest time; NULL = others are just doing that. */
static struct observed_entry *observed_make(struct observed_block *block, const uint8_t address[16], uint16_t port)
{
	struct observed_entry *found = observed_find(block, address, port), *oldest = NULL;
	if (found != NULL)
		return found;
	uint64_t words[2], oldest_ms = UINT64_MAX, place = balance_address_hash(address, port);
	memcpy(words, address, 16);
	uint32_t was = 0;
	for (int i = 0; i < OBSERVED_PROBES; i++) {
		struct observed_entry *e = &block->entries[(place + (uint64_t)i) % OBSERVED_ENTRIES];
		uint32_t port_used = atomic_load(&e->port_used);
		uint64_t changed = port_used == 0 ? 0 : atomic_load_explicit(&e->changed_ms, memory_order_relaxed);
		if (port_used >> 16 > OBSERVED_USED || changed >= oldest_ms)
			continue;
		oldest = e;
		oldest_ms = changed;
		was = port_used;
		if (port_used == 0)
			break;
	}
	if (oldest == NULL || !atomic_compare_exchange_strong(&oldest->port_used, &was, (uint32_t)OBSERVED_CHANGING << 16))
		return NULL;
	atomic_store_explicit(&oldest->address[0], words[0], memory_order_relaxed);
	atomic_store_explicit(&oldest->address[1], words[1], memory_order_relaxed);
	atomic_store_explicit(&oldest->failures_in_row, 0, memory_order_relaxed);
	atomic_store_explicit(&oldest->connects, 0, memory_order_relaxed);
	atomic_store_explicit(&oldest->failures, 0, memory_order_relaxed);
	atomic_store_explicit(&oldest->time_us, 0, memory_order_relaxed);
	atomic_store_explicit(&oldest->last_errno, 0, memory_order_relaxed);
	atomic_store_explicit(&oldest->ejected_until_ms, 0, memory_order_relaxed);
	atomic_store_explicit(&oldest->changed_ms, 1, memory_order_relaxed);
	atomic_store_explicit(&observed_lately[oldest - block->entries], 0, memory_order_relaxed);
	atomic_store_explicit(&oldest->port_used, (uint32_t)port | (uint32_t)OBSERVED_USED << 16, memory_order_release);
	return oldest;
}

static inline float observed_lately_of(struct observed_block *block, struct observed_entry *e, uint64_t now_ms)
{
	uint64_t packed = atomic_load_explicit(&observed_lately[e - block->entries], memory_order_relaxed);
	if (packed == 0)
		return 0;
	uint32_t bits = (uint32_t)(packed >> 32), elapsed = (uint32_t)now_ms - (uint32_t)packed;
	float lately;
	memcpy(&lately, &bits, sizeof lately);
	return balance_fade(lately, elapsed > UINT32_MAX / 2 ? 0 : elapsed);
}

struct observed_view {
	struct observed_block *block;
	uint64_t now_ms;
	int others_count; /* -1 = not looked for yet */
	struct observed_block *others[OBSERVED_OTHERS];
};

/* The blocks of this user's other processes that are at work. */
static void observed_look_around(struct observed_view *view)
{
	struct observed_file *file = atomic_load(&observed_mapped);
	view->others_count = 0;
	if (file == NULL || view->block == &observed_private)
		return;
	for (int i = 0; i < OBSERVED_BLOCKS && view->others_count < OBSERVED_OTHERS; i++) {
		struct observed_block *block = &file->block[i];
		uint64_t used = atomic_load_explicit(&block->used_ms, memory_order_relaxed);
		if (block != view->block && atomic_load_explicit(&block->owner, memory_order_relaxed) != 0 && used + OBSERVED_OTHERS_MS > view->now_ms)
			view->others[view->others_count++] = block;
	}
}

static inline bool observed_is_doubt(struct observed_entry *e)
{
	return atomic_load_explicit(&e->last_errno, memory_order_relaxed) == EINPROGRESS;
}

/* Who was given up without an answer may be ill or not: it is out for a while, and nothing else. */
static void observed_see_doubt(struct observed_entry *e, uint64_t changed_ms, uint64_t now_ms, struct balance_seen *seen)
{
	uint64_t until = changed_ms + OBSERVED_DOUBT_MS;
	if (observed_is_doubt(e) && changed_ms <= now_ms && until > now_ms && until > seen->ejected_until_ms)
		seen->ejected_until_ms = until;
}

/*
 * A short-lived program has seen next to nothing, and one without blocking sockets learns late: where this process has not tried a backend of
 * late, a failure that another process of its user saw counts as its own. To find out whether such a backend is back is for those who saw it go.
 */
static void observed_ask_others(struct observed_view *view, const uint8_t address[16], uint16_t port, struct balance_seen *seen)
{
	if (seen->changed_ms <= view->now_ms && view->now_ms - seen->changed_ms < OBSERVED_STALE_MS)
		return;
	if (view->others_count < 0)
		observed_look_around(view);
	struct observed_entry *last = NULL; /* who saw it last */
	uint64_t last_ms = seen->changed_ms;
	for (int i = 0; i < view->others_count; i++) {
		struct observed_entry *e = observed_find(view->others[i], address, port);
		uint64_t changed = e == NULL ? 0 : atomic_load_explicit(&e->changed_ms, memory_order_relaxed);
		if (changed <= last_ms || changed > view->now_ms)
			continue;
		last = e;
		last_ms = changed;
	}
	if (last == NULL)
		return;
	observed_see_doubt(last, last_ms, view->now_ms, seen);
	uint32_t failures = atomic_load_explicit(&last->failures_in_row, memory_order_relaxed);
	uint64_t until = atomic_load_explicit(&last->ejected_until_ms, memory_order_relaxed);
	if (failures == 0 || until + BALANCE_RETURN_MS <= view->now_ms)
		return;
	if (until <= view->now_ms)
		until = view->now_ms + 1;
	if (until <= seen->ejected_until_ms)
		return;
	seen->ejected_until_ms = until;
	seen->failures = failures;
}

static void observed_look(void *context, const struct table_backend *backend, uint16_t port, struct balance_seen *seen)
{
	struct observed_view *view = context;
	struct observed_entry *e = observed_find(view->block, backend->address, port);
	memset(seen, 0, sizeof *seen);
	if (e == NULL) {
		observed_ask_others(view, backend->address, port, seen);
		return;
	}
	seen->ejected_until_ms = atomic_load_explicit(&e->ejected_until_ms, memory_order_relaxed);
	seen->changed_ms = atomic_load_explicit(&e->changed_ms, memory_order_relaxed);
	seen->failures = atomic_load_explicit(&e->failures_in_row, memory_order_relaxed);
	seen->time_us = atomic_load_explicit(&e->time_us, memory_order_relaxed);
	seen->lately = observed_lately_of(view->block, e, view->now_ms);
	observed_see_doubt(e, seen->changed_ms, view->now_ms, seen);
	observed_ask_others(view, backend->address, port, seen);
}

/* When this process or others of its user last saw the backend well, or last saw it ill or in doubt; 0 = never. */
static uint64_t observed_last(struct observed_view *view, const uint8_t address[16], uint16_t port, bool well)
{
	uint64_t last = 0;
	if (view->others_count < 0)
		observed_look_around(view);
	for (int i = -1; i < view->others_count; i++) {
		struct observed_entry *e = observed_find(i < 0 ? view->block : view->others[i], address, port);
		if (e == NULL || (atomic_load_explicit(&e->failures_in_row, memory_order_relaxed) == 0 && !observed_is_doubt(e)) != well)
			continue;
		uint64_t changed = atomic_load_explicit(&e->changed_ms, memory_order_relaxed);
		if (changed > last && changed <= view->now_ms)
			last = changed;
	}
	return last;
}

static _Atomic uint64_t *observed_trouble(struct observed_block *block)
{
	struct observed_file *file = atomic_load(&observed_mapped);
	return file == NULL || block == &observed_private ? &observed_private_trouble_ms : &file->trouble_ms;
}

/*
 * True where the chosen backend may be as dead as others of its service: it is suspect itself, it failed when it was last tried, or another one failed
 * a moment ago and nobody has seen this one well since. In healthy times that takes no more than a look at it and at the last trouble.
 */
static bool observed_is_doubtful(struct observed_view *view, const struct table_backend *backends, uint32_t count, uint32_t chosen,
				 const struct balance_asked *asked, const struct balance_seen *seen)
{
	const struct table_backend *b = &backends[chosen];
	if ((b->flags & BACKEND_SUSPECT) != 0 || seen->failures != 0 || balance_ejected(seen, view->now_ms))
		return true;
	uint64_t trouble = atomic_load_explicit(observed_trouble(view->block), memory_order_relaxed);
	if (trouble > view->now_ms || view->now_ms - trouble >= OBSERVED_TROUBLE_MS)
		return false;
	uint64_t well = observed_last(view, b->address, balance_port(b, asked->port), true);
	for (uint32_t i = 0; i < count; i++) {
		uint64_t ill = observed_last(view, backends[i].address, balance_port(&backends[i], asked->port), false);
		/* The clock's ticks are long: in the same one anything may have come first. */
		if (ill >= well && ill + OBSERVED_TROUBLE_MS > view->now_ms)
			return true;
	}
	return false;
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

static void observed_connected(struct observed_entry *e, uint64_t micros, uint64_t now_ms)
{
	atomic_fetch_add_explicit(&e->connects, 1, memory_order_relaxed);
	atomic_store_explicit(&e->failures_in_row, 0, memory_order_relaxed);
	if (observed_is_doubt(e))
		atomic_store_explicit(&e->last_errno, 0, memory_order_relaxed);
	uint64_t before = atomic_load_explicit(&e->time_us, memory_order_relaxed), now = micros < 1 ? 1 : micros > UINT32_MAX ? UINT32_MAX : micros;
	atomic_store_explicit(&e->time_us, (uint32_t)(before == 0 ? now : (before * 3 + now) / 4), memory_order_relaxed);
	struct balance_seen seen = {.ejected_until_ms = atomic_load_explicit(&e->ejected_until_ms, memory_order_relaxed)};
	if (balance_ejected(&seen, now_ms))
		atomic_store_explicit(&e->ejected_until_ms, now_ms, memory_order_relaxed);
	atomic_store_explicit(&e->changed_ms, now_ms, memory_order_relaxed);
}

static void observed_failed(struct observed_entry *e, int error, uint64_t now_ms, uint64_t random)
{
	atomic_fetch_add_explicit(&e->failures, 1, memory_order_relaxed);
	atomic_store_explicit(&e->last_errno, (uint32_t)error, memory_order_relaxed);
	struct balance_seen seen = {.ejected_until_ms = atomic_load_explicit(&e->ejected_until_ms, memory_order_relaxed)};
	if (balance_ejected(&seen, now_ms))
		return;
	uint32_t failures = atomic_load_explicit(&e->failures_in_row, memory_order_relaxed);
	if (failures < UINT32_MAX)
		failures++;
	uint64_t until = now_ms + balance_ejection_ms(failures, balance_fraction(random));
	/* Of several threads that fail at once one ejects. */
	if (!atomic_compare_exchange_strong(&e->ejected_until_ms, &seen.ejected_until_ms, until))
		return;
	atomic_store_explicit(&e->failures_in_row, failures, memory_order_relaxed);
	atomic_store_explicit(&e->changed_ms, now_ms, memory_order_relaxed);
}

/* Nobody knows whether it is ill, so it is not ejected. An ejection says more than a doubt. */
static void observed_doubted(struct observed_entry *e, uint64_t now_ms)
{
	struct balance_seen seen = {.ejected_until_ms = atomic_load_explicit(&e->ejected_until_ms, memory_order_relaxed)};
	if (balance_ejected(&seen, now_ms))
		return;
	atomic_store_explicit(&e->last_errno, EINPROGRESS, memory_order_relaxed);
	atomic_store_explicit(&e->changed_ms, now_ms, memory_order_relaxed);
}

/* Its owner was ended while it waited for answers (by `timeout`, a unit's limit …): what it would have said, had it given up. */
static void observed_heed_last_words(struct observed_file *file, struct observed_block *block, uint64_t now_ms)
{
	for (int i = 0; i < OBSERVED_ASKED; i++) {
		uint64_t asked = atomic_exchange(&block->asked[i], 0), place = asked >> 32;
		uint32_t ago = (uint32_t)now_ms - (uint32_t)asked;
		if (place == 0 || place > OBSERVED_ENTRIES || ago >= OBSERVED_DOUBT_MS)
			continue;
		observed_doubted(&block->entries[place - 1], now_ms - ago);
		if (atomic_load(&file->trouble_ms) < now_ms - ago)
			atomic_store(&file->trouble_ms, now_ms - ago);
	}
}

/*
 * Who begins learns what others wait for in vain just now, or waited for when they were ended: one that was killed a moment ago is not always told
 * from one that lives.
 */
static void observed_hear_others(struct observed_file *file, struct observed_block *block, uint64_t now_ms)
{
	for (int i = 0; i < OBSERVED_BLOCKS * OBSERVED_ASKED; i++) {
		struct observed_block *other = &file->block[i / OBSERVED_ASKED];
		uint64_t asked = atomic_load_explicit(&other->asked[i % OBSERVED_ASKED], memory_order_relaxed), place = asked >> 32;
		uint32_t ago = (uint32_t)now_ms - (uint32_t)asked;
		if (other == block || place == 0 || place > OBSERVED_ENTRIES || ago < OBSERVED_SILENT_MS || ago >= OBSERVED_DOUBT_MS)
			continue;
		struct observed_entry *its = &other->entries[place - 1];
		uint32_t port_used = atomic_load(&its->port_used);
		uint64_t address[2] = {atomic_load(&its->address[0]), atomic_load(&its->address[1])};
		uint8_t bytes[16];
		memcpy(bytes, address, sizeof bytes);
		struct observed_entry *own = port_used >> 16 != OBSERVED_USED ? NULL : observed_make(block, bytes, (uint16_t)port_used);
		if (own == NULL || atomic_load(&own->changed_ms) >= now_ms - ago)
			continue;
		observed_doubted(own, now_ms - ago);
		atomic_store(&file->trouble_ms, now_ms - ago);
	}
}

/* `observed_report` with everything that it takes from the machine. */
static void observed_outcome(struct observed_block *block, const struct table_backend *backend, uint16_t port, int error, uint64_t micros,
			     uint64_t now_ms, uint64_t random)
{
	if (error != 0 && error != EINPROGRESS && !observed_is_failure(error))
		return;
	struct observed_entry *e = observed_make(block, backend->address, port);
	if (e == NULL)
		return;
	for (int i = 0; i < OBSERVED_ASKED; i++)
		if (atomic_load_explicit(&block->asked[i], memory_order_relaxed) >> 32 == (uint64_t)(e - block->entries) + 1)
			atomic_store_explicit(&block->asked[i], 0, memory_order_relaxed);
	if (error == 0)
		observed_connected(e, micros, now_ms);
	else if (error == EINPROGRESS)
		observed_doubted(e, now_ms);
	else
		observed_failed(e, error, now_ms, random);
	if (error != 0)
		atomic_store_explicit(observed_trouble(block), now_ms, memory_order_relaxed);
}

/* `observed_pick` with everything that it takes from the machine. */
static int observed_choose(struct observed_block *block, uint8_t policy, const struct table_backend *backends, uint32_t count,
			   const struct balance_asked *asked, uint64_t turn, uint64_t now_ms, uint64_t random)
{
	struct observed_view view = {.block = block, .now_ms = now_ms, .others_count = -1};
	struct balance_question q = {.backends = backends,
				     .count = count,
				     .policy = policy,
				     .asked = *asked,
				     .turn = turn,
				     .now_ms = now_ms,
				     .random = random,
				     .look = observed_look,
				     .context = &view};
	int64_t chosen = balance_choose(&q);
	if (chosen < 0 || policy != BALANCE_LEAST)
		return (int)chosen;
	const struct table_backend *b = &backends[chosen];
	struct observed_entry *e = observed_make(block, b->address, balance_port(b, asked->port));
	if (e != NULL) {
		float lately = observed_lately_of(block, e, now_ms) + 1;
		uint32_t bits;
		memcpy(&bits, &lately, sizeof bits);
		atomic_store_explicit(&observed_lately[e - block->entries], (uint64_t)bits << 32 | (uint32_t)now_ms, memory_order_relaxed);
	}
	return (int)chosen;
}

/* — What the hook calls — */

/* Different in every process and at every call; for choices, not for secrets. */
static uint64_t observed_random(void)
{
	static _Atomic uint64_t common_salt;
	struct observed_own *own = observed_own();
	_Atomic uint64_t *salt = own == NULL ? &common_salt : &own->salt;
	uint64_t value = atomic_load_explicit(salt, memory_order_relaxed);
	if (value == 0) {
		struct timespec t;
		clock_gettime(CLOCK_MONOTONIC, &t);
		value = balance_mix(balance_mix((uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec) ^ (uint64_t)getpid()) | 1;
		atomic_store_explicit(salt, value, memory_order_relaxed);
	}
	return balance_mix(value + atomic_fetch_add_explicit(&observed_drawn, 1, memory_order_relaxed) * 0x9e3779b97f4a7c15u);
}

static uint64_t observed_turn(uint32_t slot, bool take)
{
	for (uint32_t i = 0; i < OBSERVED_TURN_PROBES; i++) {
		uint32_t place = (slot + i) % OBSERVED_TURNS, its = atomic_load_explicit(&observed_turn_slots[place], memory_order_relaxed);
		if (its == 0 && atomic_compare_exchange_strong(&observed_turn_slots[place], &its, slot)) {
			its = slot;
			atomic_fetch_add_explicit(&observed_turns[place], (uint32_t)observed_random() >> 8, memory_order_relaxed);
		}
		if (its == slot)
			return take ? atomic_fetch_add_explicit(&observed_turns[place], 1, memory_order_relaxed)
				    : atomic_load_explicit(&observed_turns[place], memory_order_relaxed);
	}
	return observed_random();
}

/*
 * Chooses a backend of the service: its index in `backends` (`count` of them, the service's own), or -1 if none fits that was not tried.
 * errno stays as it was.
 */
static int observed_pick(const struct table_service *service, const struct table_backend *backends, uint32_t count,
			 const struct balance_asked *asked)
{
	uint64_t now_ms = observed_now_ms();
	struct observed_block *block = observed_block(now_ms);
	uint64_t turn = service->policy == BALANCE_ROUND_ROBIN ? observed_turn(service->slot, !asked->again) : 0;
	return observed_choose(block, service->policy, backends, count, asked, turn, now_ms, observed_random());
}

/*
 * How a try went: error 0 and the microseconds it took, its errno, or EINPROGRESS where a program (or the hook) had no patience to wait for an answer.
 * `callers_port` is used where the backend has none of its own.
 */
static void observed_report(const struct table_backend *backend, uint16_t callers_port, int error, uint64_t micros)
{
	uint64_t now_ms = observed_now_ms();
	observed_outcome(observed_block(now_ms), backend, balance_port(backend, callers_port), error, micros, now_ms, observed_random());
}

/* A connect to it is under way, whose outcome this process will report, unless it is ended before. */
static void observed_asks(const struct table_backend *backend, uint16_t callers_port)
{
	static _Atomic uint32_t next;
	uint64_t now_ms = observed_now_ms();
	struct observed_block *block = observed_block(now_ms);
	struct observed_entry *e = observed_make(block, backend->address, balance_port(backend, callers_port));
	if (e == NULL)
		return;
	uint64_t place = (uint64_t)(e - block->entries) + 1;
	atomic_store_explicit(&block->asked[atomic_fetch_add_explicit(&next, 1, memory_order_relaxed) % OBSERVED_ASKED], place << 32 | (uint32_t)now_ms,
			      memory_order_relaxed);
}

#endif
