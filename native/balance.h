// Chooses a backend by docs/balancing.md: pure, time and randomness are arguments; no allocation, no system call, time in proportion to the list.
#ifndef TRILITH_BALANCE_H
#define TRILITH_BALANCE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "table-records.h"

enum { BALANCE_V4 = 1, BALANCE_V6 = 2 };

enum {
	BALANCE_RETURN_MS = 10000,
	BALANCE_LONGEST_EJECTION_MS = 30000,
	BALANCE_FRESH_MS = 30000,
	BALANCE_NOISE_US = 250,
	BALANCE_HALF_LIFE_MS = 10000,
	BALANCE_MEDIAN_OF = 256,
	BALANCE_CACHED = 512
};

/* What was seen of one backend. All zero = nothing. */
struct balance_seen {
	uint64_t ejected_until_ms;
	uint64_t changed_ms;
	uint32_t failures; /* in a row */
	uint32_t time_us;  /* smoothed; 0 = unknown */
	float lately;	   /* tries, decayed to now */
};

/* Who wants to connect, and how. */
struct balance_asked {
	uint8_t families; /* BALANCE_V4 | BALANCE_V6: what the socket can reach */
	bool datagrams;	  /* UDP */
	uint16_t port;	  /* the caller's own, for backends with port 0 */
	uint64_t caller;  /* for sticky */
	const uint32_t *tried; /* indices not to be chosen again */
	uint32_t tried_count;
	bool again; /* a further try of the same connect: takes no turn of its own */
};

typedef void balance_look(void *context, const struct table_backend *backend, uint16_t port, struct balance_seen *seen);

struct balance_question {
	const struct table_backend *backends;
	uint32_t count;
	uint8_t policy; /* BALANCE_P2C … */
	struct balance_asked asked;
	uint64_t turn; /* for round-robin: one more with every pick of the service */
	uint64_t now_ms;
	uint64_t random;
	balance_look *look;
	void *context;
};

static inline uint64_t balance_mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u; /* splitmix64 */
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

/* In [0, 1). */
static inline double balance_fraction(uint64_t random)
{
	return (double)(random >> 11) * 0x1p-53;
}

static inline uint64_t balance_address_hash(const uint8_t address[16], uint16_t port)
{
	uint64_t low, high;
	memcpy(&high, address, 8);
	memcpy(&low, address + 8, 8);
	return balance_mix(balance_mix(high ^ port) ^ low);
}

static inline bool balance_is_v4(const uint8_t address[16])
{
	static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
	return memcmp(address, mapped, sizeof mapped) == 0;
}

static inline uint16_t balance_port(const struct table_backend *backend, uint16_t callers)
{
	return backend->port == 0 ? callers : backend->port;
}

/* ln x for 0 < x, without libm; exact to about 1e-9. */
static inline double balance_ln(double x)
{
	uint64_t bits;
	memcpy(&bits, &x, sizeof bits);
	int exponent = (int)((bits >> 52) & 0x7ff) - 1023;
	bits = (bits & 0x000fffffffffffffu) | 0x3ff0000000000000u;
	double m;
	memcpy(&m, &bits, sizeof m);
	if (m > 1.4142135623730951) {
		m *= 0.5;
		exponent++;
	}
	double s = (m - 1) / (m + 1), q = s * s;
	double series = 1 + q * (1.0 / 3 + q * (1.0 / 5 + q * (1.0 / 7 + q * (1.0 / 9 + q * (1.0 / 11)))));
	return exponent * 0.6931471805599453 + 2 * s * series;
}

/* `lately` as it has faded after so many milliseconds; what is left of one try after seven half-lives is nothing. */
static inline float balance_fade(float lately, uint64_t elapsed_ms)
{
	uint64_t halves = elapsed_ms / BALANCE_HALF_LIFE_MS;
	if (halves > 40)
		return 0;
	double f = (double)(elapsed_ms % BALANCE_HALF_LIFE_MS) * (0.6931471805599453 / BALANCE_HALF_LIFE_MS);
	double share = 1 - f * (1 - f / 2 * (1 - f / 3 * (1 - f / 4 * (1 - f / 5))));
	double faded = lately * share / (double)(1ull << halves);
	return faded < 1.0 / 128 ? 0 : (float)faded;
}

/* Milliseconds of ejection after so many failures in a row; `fraction` in [0, 1) shortens it by up to a fifth. */
static inline uint64_t balance_ejection_ms(uint32_t failures, double fraction)
{
	uint64_t ms = failures == 0 ? 0 : failures > 5 ? BALANCE_LONGEST_EJECTION_MS : 1000ull << (failures - 1);
	return (uint64_t)((double)ms * (1 - fraction / 5));
}

static inline bool balance_ejected(const struct balance_seen *seen, uint64_t now_ms)
{
	return seen->ejected_until_ms > now_ms && seen->ejected_until_ms - now_ms <= BALANCE_LONGEST_EJECTION_MS;
}

/* How often a backend takes part: 0 ejected, 1 whole, between while it comes back. */
static inline double balance_share(const struct balance_seen *seen, uint64_t now_ms)
{
	if (balance_ejected(seen, now_ms)) return 0;
	if (seen->ejected_until_ms == 0 || seen->ejected_until_ms > now_ms) return 1;
	uint64_t elapsed = now_ms - seen->ejected_until_ms;
	if (elapsed >= BALANCE_RETURN_MS) return 1;
	double share = (double)elapsed / BALANCE_RETURN_MS;
	return share < 1.0 / 16 ? 1.0 / 16 : share;
}

enum { BALANCE_NO_GROUP = 255 };

static inline bool balance_fits(const struct balance_question *q, uint32_t index)
{
	const struct table_backend *b = &q->backends[index];
	if ((b->flags & (q->asked.datagrams ? BACKEND_TCP_ONLY : BACKEND_UDP_ONLY)) != 0) return false;
	if ((q->asked.families & (balance_is_v4(b->address) ? BALANCE_V4 : BALANCE_V6)) == 0) return false;
	for (uint32_t i = 0; i < q->asked.tried_count; i++)
		if (q->asked.tried[i] == index) return false;
	return true;
}

/* Which group a backend belongs to in this pick; lower ones come first. The same for the same question, however often asked. */
static inline uint8_t balance_group(const struct balance_question *q, uint32_t index)
{
	if (!balance_fits(q, index)) return BALANCE_NO_GROUP;
	const struct table_backend *b = &q->backends[index];
	bool out = (b->flags & BACKEND_SUSPECT) != 0;
	if (!out) {
		struct balance_seen seen;
		q->look(q->context, b, balance_port(b, q->asked.port), &seen);
		double share = balance_share(&seen, q->now_ms);
		if (share < 1) {
			uint64_t chance = q->policy == BALANCE_STICKY
						  ? q->asked.caller ^ balance_address_hash(b->address, balance_port(b, q->asked.port))
						  : q->random + index;
			out = balance_fraction(balance_mix(chance ^ 0x72657475726eu)) >= share;
		}
	}
	uint8_t tier = b->tier > 2 ? 2 : b->tier;
	return (uint8_t)((out ? 6 : 0) + (b->weight == 0 ? 3 : 0) + tier);
}

/* The group chosen from, and what one pass over the list told about it. */
struct balance_picture {
	const struct balance_question *q;
	uint8_t best;
	uint32_t members;
	uint32_t first;
	uint64_t total; /* of the weights */
	uint8_t cached[BALANCE_CACHED];
};

static inline bool balance_member(const struct balance_picture *p, uint32_t index)
{
	return (index < BALANCE_CACHED ? p->cached[index] : balance_group(p->q, index)) == p->best;
}

static inline uint32_t balance_weight(const struct balance_picture *p, uint32_t index)
{
	uint16_t weight = p->q->backends[index].weight;
	return weight == 0 ? 1 : weight;
}

/* The member at a place in [0, total) on the line of weights. */
static inline uint32_t balance_at(const struct balance_picture *p, uint64_t place)
{
	for (uint32_t i = p->first; i < p->q->count; i++) {
		if (!balance_member(p, i)) continue;
		uint32_t weight = balance_weight(p, i);
		if (place < weight) return i;
		place -= weight;
	}
	return p->first; /* what is remembered changed meanwhile */
}

static inline uint32_t balance_draw(const struct balance_picture *p, uint64_t random)
{
	if (p->members == 1) return p->first;
	return balance_at(p, (uint64_t)(balance_fraction(balance_mix(random)) * (double)p->total));
}

static inline void balance_look_at(const struct balance_picture *p, uint32_t index, struct balance_seen *seen)
{
	const struct table_backend *b = &p->q->backends[index];
	p->q->look(p->q->context, b, balance_port(b, p->q->asked.port), seen);
	bool fresh = seen->changed_ms + BALANCE_FRESH_MS > p->q->now_ms;
	if (!fresh) seen->time_us = 0;
	else if (seen->time_us != 0 && seen->time_us < BALANCE_NOISE_US) seen->time_us = BALANCE_NOISE_US;
}

/* The lower median of the known times of the group, of at most BALANCE_MEDIAN_OF; 0 = none is known. */
static inline uint32_t balance_median(const struct balance_picture *p)
{
	uint32_t times[BALANCE_MEDIAN_OF], known = 0;
	for (uint32_t i = p->first; i < p->q->count && known < BALANCE_MEDIAN_OF; i++) {
		struct balance_seen seen;
		if (!balance_member(p, i)) continue;
		balance_look_at(p, i, &seen);
		if (seen.time_us != 0) times[known++] = seen.time_us;
	}
	if (known == 0) return 0;
	uint32_t wanted = (known - 1) / 2, low = 0, high = known - 1;
	while (low < high) { /* Hoare's selection */
		uint32_t pivot = times[low + (high - low) / 2], i = low, j = high;
		for (;;) {
			while (times[i] < pivot) i++;
			while (times[j] > pivot) j--;
			if (i >= j) break;
			uint32_t swapped = times[i];
			times[i++] = times[j];
			times[j--] = swapped;
		}
		if (wanted <= j) high = j;
		else low = j + 1;
	}
	return times[wanted];
}

static inline uint32_t balance_p2c(const struct balance_picture *p)
{
	uint32_t one = balance_draw(p, p->q->random ^ 0x6f6e65), other = balance_draw(p, p->q->random ^ 0x74776f);
	if (one == other) return one;
	struct balance_seen a, b;
	balance_look_at(p, one, &a);
	balance_look_at(p, other, &b);
	if (a.time_us == 0 || b.time_us == 0) {
		uint32_t median = a.time_us == b.time_us ? 1 : balance_median(p);
		if (median == 0) median = 1;
		if (a.time_us == 0) a.time_us = median;
		if (b.time_us == 0) b.time_us = median;
	}
	return (uint64_t)b.time_us * (1ull + b.failures) < (uint64_t)a.time_us * (1ull + a.failures) ? other : one;
}

static inline uint64_t balance_gcd(uint64_t a, uint64_t b)
{
	while (b != 0) {
		uint64_t rest = a % b;
		a = b;
		b = rest;
	}
	return a;
}

static inline uint32_t balance_round_robin(const struct balance_picture *p)
{
	uint64_t common = 0;
	for (uint32_t i = p->first; i < p->q->count && common != 1; i++)
		if (balance_member(p, i)) common = balance_gcd(balance_weight(p, i), common);
	if (common == 0) return p->first;
	uint64_t round = p->total / common, stride = 1;
	if (round > p->members) { /* unequal: steps of the golden section of the round spread each one's turns out */
		stride = (uint64_t)((double)round * 0.6180339887498949);
		while (stride == 0 || balance_gcd(stride, round) != 1) stride++;
	}
	return balance_at(p, p->q->turn % round * stride % round * common);
}

static inline uint32_t balance_least(const struct balance_picture *p)
{
	uint32_t chosen = p->first;
	uint64_t equals = 0;
	double least = 0;
	for (uint32_t i = p->first; i < p->q->count; i++) {
		if (!balance_member(p, i)) continue;
		struct balance_seen seen;
		balance_look_at(p, i, &seen);
		uint32_t weight = balance_weight(p, i);
		double load = (double)seen.lately / weight;
		if (equals != 0 && load > least) continue;
		equals = equals == 0 || load < least ? weight : equals + weight;
		least = load;
		if (balance_fraction(balance_mix(p->q->random ^ ((uint64_t)i << 20))) * (double)equals < weight) chosen = i;
	}
	return chosen;
}

static inline uint32_t balance_sticky(const struct balance_picture *p)
{
	uint32_t chosen = p->first;
	double highest = -1;
	for (uint32_t i = p->first; i < p->q->count; i++) {
		if (!balance_member(p, i)) continue;
		const struct table_backend *b = &p->q->backends[i];
		uint64_t hash = balance_mix(p->q->asked.caller ^ balance_address_hash(b->address, balance_port(b, p->q->asked.port)));
		double score = balance_weight(p, i) / -balance_ln(balance_fraction(hash) + 0x1p-54);
		if (score <= highest) continue;
		highest = score;
		chosen = i;
	}
	return chosen;
}

/* The index of the chosen backend; -1 = there is none that fits and was not tried. */
static inline int64_t balance_choose(const struct balance_question *q)
{
	struct balance_picture p;
	p.q = q;
	p.best = BALANCE_NO_GROUP;
	p.members = 0;
	p.first = 0;
	p.total = 0;
	for (uint32_t i = 0; i < q->count; i++) {
		uint8_t group = balance_group(q, i);
		if (i < BALANCE_CACHED) p.cached[i] = group;
		if (group > p.best || group == BALANCE_NO_GROUP) continue;
		if (group < p.best) {
			p.best = group;
			p.members = 0;
			p.first = i;
			p.total = 0;
		}
		p.members++;
		p.total += balance_weight(&p, i);
	}
	if (p.members == 0) return -1;
	if (p.members == 1) return p.first;
	switch (q->policy) {
	case BALANCE_FIRST: return p.first;
	case BALANCE_RANDOM: return balance_draw(&p, q->random);
	case BALANCE_ROUND_ROBIN: return balance_round_robin(&p);
	case BALANCE_LEAST: return balance_least(&p);
	case BALANCE_STICKY: return balance_sticky(&p);
	default: return balance_p2c(&p);
	}
}

#endif
