// What must be there before the first hooked call does anything of ours; made once, by the constructor or by the first call.
#ifndef TRILITH_PREPARE_H
#define TRILITH_PREPARE_H

#include "names.h"
#include "observed.h"
#include "prefetch.h"
#include "real.h"

/* A function that stands before libc's of the same name. */
#define HOOK(result, name, ...)                                                                                                                      \
	result hook_##name(__VA_ARGS__) __asm__(#name);                                                                                              \
	__attribute__((visibility("default"), used)) result hook_##name(__VA_ARGS__)

static _Atomic int prepared_state; /* 0 not, 1 somebody is at it, 2 done */
static uint64_t caller_key;	   /* who this program is, for services with the sticky policy */

static void prepare_caller(void)
{
	extern char *program_invocation_short_name;
	const char *name = program_invocation_short_name == NULL ? "" : program_invocation_short_name;
	uint64_t key = geteuid();
	for (; *name != 0; name++)
		key = balance_mix(key ^ (unsigned char)*name);
	caller_key = balance_mix(key);
}

static uint32_t look_limit_ms = 250; /* so long may a look take (look.h); 0 = none is taken */

static void prepare_look(void)
{
	const char *ms = getauxval(AT_SECURE) != 0 ? NULL : getenv("TRILITH_HOOK_LOOK");
	if (ms != NULL && *ms >= '0' && *ms <= '9')
		look_limit_ms = (uint32_t)(observed_number(ms) > 1000 ? 1000 : observed_number(ms));
}

static void prepare(void)
{
	int nobody = 0;
	if (!atomic_compare_exchange_strong(&prepared_state, &nobody, 1))
		return;
	int errno_before = errno;
	real_prepare();
	own_page_prepare();
	prepare_caller();
	prepare_look();
	table_prepare();
	observed_start(table_path);
	errno = errno_before;
	atomic_store_explicit(&prepared_state, 2, memory_order_release);
}

/* False where this thread is at it itself, in something that preparing calls or under a signal handler: such a call falls through. */
static inline bool prepared(void)
{
	if (__builtin_expect(atomic_load_explicit(&prepared_state, memory_order_acquire) == 2, 1))
		return true;
	prepare();
	for (int i = 0; i < PATIENCE && atomic_load_explicit(&prepared_state, memory_order_acquire) != 2; i++)
		rest();
	return atomic_load_explicit(&prepared_state, memory_order_acquire) == 2;
}

__attribute__((constructor)) static void prepare_at_start(void)
{
	prepare();
}

#endif
