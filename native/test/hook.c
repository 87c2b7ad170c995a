// The hook's own tests: the library and its cases in one program, so that the sanitizers see both. TRILITH_HOOK_TABLE names a file in an empty folder.
#define _GNU_SOURCE
#include "../libtrilith.c"

#include <net/if.h>
#include <sys/ioctl.h>

#include "check.h"

#include "cases-table.h"

#include "cases-resolve.h"

#include "cases-connect.h"

#include "cases-look.h"

#include "cases-options.h"

#include "cases-datagrams.h"

#include "cases-again.h"

#include "cases-network.h"

#include "cases-odd.h"

#define CASE(name) {#name, case_##name}
static const struct {
	const char *name;
	void (*run)(void);
} cases[] = {CASE(early),    CASE(missing),	 CASE(spoilt),	 CASE(garbage),	  CASE(trust), CASE(replaced), CASE(addresses), CASE(hosts),
	     CASE(blocking), CASE(spread),	 CASE(silent), CASE(slow),	 CASE(signals),	  CASE(refused_at_once), CASE(non_blocking), CASE(look), CASE(look_not), CASE(look_refused), CASE(look_odd), CASE(look_waiting), CASE(look_after_another), CASE(options_known), CASE(look_options), CASE(look_same_way), CASE(fast_open), CASE(families), CASE(foreign), CASE(datagrams), CASE(first_data), CASE(again), CASE(old_failure), CASE(refused_before), CASE(childs_connect), CASE(childs_close), CASE(left_locked), CASE(replies),
	     CASE(network), CASE(first), CASE(threads),  CASE(fork),	 CASE(chroot),	 CASE(jump),	  CASE(handler), CASE(many)};

/* Thousands of connections a second fill the host's connection tracking, and others' tests with it: a network of our own, where that may be had. */
static void own_network(void)
{
	if (unshare(CLONE_NEWNET) != 0)
		return;
	struct ifreq loopback = {.ifr_name = "lo"};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	loopback.ifr_flags = IFF_UP;
	if (ioctl(fd, SIOCSIFFLAGS, &loopback) != 0)
		perror("lo");
	kernel_close(fd);
}

/* Runs the named cases, or all but those named with a minus before them. */
int main(int count, char **names)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGPIPE, SIG_IGN);
	if (strcmp(table_path, TABLE_DEFAULT_PATH) == 0) {
		printf("TRILITH_HOOK_TABLE is not set\n");
		return 2;
	}
	own_network();
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		bool some = false, named = false, without = false;
		for (int k = 1; k < count; k++) {
			some = some || names[k][0] != '-';
			named = named || strcmp(names[k], cases[i].name) == 0;
			without = without || (names[k][0] == '-' && strcmp(names[k] + 1, cases[i].name) == 0);
		}
		if (without || (some && !named))
			continue;
		case_name = cases[i].name;
		look_forget(); /* a port may be another server's now that failed before */
		cases[i].run();
		printf("ran %s\n", case_name);
	}
	printf(checks_failed == 0 ? "all checks hold\n" : "%d checks failed\n", checks_failed);
	return checks_failed == 0 ? 0 : 1;
}
