// The C picker as a program: reads commands line by line (clock, list, policy, outcomes) and prints what is chosen; test/conformance/balance.test.ts drives it.
//
//   at MS                           the clock
//   list ADDR/PORT/WEIGHT/TIER/FLAGS …   the backends (flags as in the table); ADDR as inet_pton reads it
//   policy N                        as in the table
//   ask FAMILIES DATAGRAMS PORT     who connects: what fits (bits 1 IPv4, 2 IPv6), UDP, the caller's own port
//   pick COUNT CALLER               so many choices, one line of indices
//   order CALLER                    one choice and all of its fall-backs, one line
//   outcome INDEX ERRNO MICROS      how a try went; 0 = connected
#include <arpa/inet.h>
#include <inttypes.h>
#include <stdlib.h>

#include "../observed.h"

enum { MOST = 20000 };

static struct table_backend backends[MOST];
static uint32_t count, tried[MOST];
static uint64_t now_ms, seed;
static uint8_t policy;
static struct balance_asked asked = {.families = BALANCE_V4 | BALANCE_V6};

static uint64_t next_random(void)
{
	return balance_mix(seed++);
}

static void fail(const char *line)
{
	fprintf(stderr, "picker: cannot read: %s", line);
	exit(2);
}

static void read_list(char *line)
{
	count = 0;
	for (char *word = strtok(line + 4, " \n"); word != NULL; word = strtok(NULL, " \n")) {
		char address[64];
		unsigned port, weight, tier, flags;
		struct table_backend *b = &backends[count];
		memset(b, 0, sizeof *b);
		if (count == MOST || sscanf(word, "%63[^/]/%u/%u/%u/%u", address, &port, &weight, &tier, &flags) != 5)
			fail(word);
		if (inet_pton(AF_INET6, address, b->address) != 1) {
			b->address[10] = b->address[11] = 0xff;
			if (inet_pton(AF_INET, address, b->address + 12) != 1)
				fail(word);
		}
		b->port = (uint16_t)port;
		b->weight = (uint16_t)weight;
		b->tier = (uint8_t)tier;
		b->flags = (uint8_t)flags;
		count++;
	}
}

static int choose(void)
{
	return observed_choose(&observed_private, policy, backends, count, &asked, observed_turn(1, asked.tried_count == 0), now_ms, next_random());
}

int main(int argc, char **argv)
{
	static char line[2000000];
	seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
	/* Turns begin at a random place; here the same one for the same seed. */
	observed_own()->salt = balance_mix(seed) | 1;
	while (fgets(line, sizeof line, stdin) != NULL) {
		uint64_t number;
		unsigned families, datagrams, port, chosen;
		int error;
		if (sscanf(line, "at %" SCNu64, &number) == 1)
			now_ms = number;
		else if (strncmp(line, "list", 4) == 0)
			read_list(line);
		else if (sscanf(line, "policy %" SCNu64, &number) == 1)
			policy = (uint8_t)number;
		else if (sscanf(line, "ask %u %u %u", &families, &datagrams, &port) == 3)
			asked = (struct balance_asked){.families = (uint8_t)families, .datagrams = datagrams != 0, .port = (uint16_t)port};
		else if (sscanf(line, "pick %" SCNu64 " %" SCNu64, &number, &asked.caller) == 2) {
			while (number-- > 0)
				printf("%d ", choose());
			printf("\n");
		} else if (sscanf(line, "order %" SCNu64, &asked.caller) == 1) {
			asked.tried = tried;
			for (int index; (index = choose()) >= 0; tried[asked.tried_count++] = (uint32_t)index)
				printf("%d ", index);
			asked.tried = NULL;
			asked.tried_count = 0;
			printf("\n");
		} else if (sscanf(line, "outcome %u %d %" SCNu64, &chosen, &error, &number) == 3 && chosen < count)
			observed_outcome(&observed_private, &backends[chosen], balance_port(&backends[chosen], asked.port), error, number, now_ms, next_random());
		else
			fail(line);
	}
	return 0;
}
