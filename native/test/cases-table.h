// The table: what is taken, what is left alone, how it is replaced under readers.

static const struct spec_service ONE_SERVICE[] = {{.slot = 1, .name = "web.service.consul", .backends = {{"127.0.0.1", 1, 1, 0, 0}}}, {0}};

static void case_missing(void)
{
	CHECK(!slot_is_known(1));
	/* The kernel's own answer, and errno is its. */
	CHECK_IS(connected(1, 9), -1);
	CHECK_IS(errno, ECONNREFUSED);
	errno = 77;
	struct magic_answer a;
	CHECK(!magic_of_name("web.service.consul", &a));
	CHECK_IS(errno, 77);
}

static void case_spoilt(void)
{
	struct bytes b = table_encode(ONE_SERVICE, 1);
	/* No table is there yet, so each of these must leave it so. */
	for (size_t cut = 0; cut < b.size; cut += cut < 200 ? 8 : 24) {
		table_put_bytes(b.at, cut, 0644);
		CHECK(!slot_is_known(1));
	}
	static const struct {
		size_t at;
		uint8_t value;
	} wrong[] = {{0, 'X'}, {8, 2}, {12, 191}, {16, 1}, {24, 0xee}, {68, 40}, {70, 1}, {88, 64}, {100, 3}, {104, 4}, {120, 255}, {135, 255}};
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		struct bytes c = table_encode(ONE_SERVICE, 1);
		c.at[wrong[i].at] = (unsigned char)(c.at[wrong[i].at] == wrong[i].value ? wrong[i].value + 1 : wrong[i].value);
		table_put_bytes(c.at, c.size, 0644);
		if (slot_is_known(1))
			printf("byte %zu\n", wrong[i].at);
		CHECK(!slot_is_known(1));
		free(c.at);
		/* A first table is mapped before it is summed: take it away again. */
		atomic_store(&table_now, -1);
		atomic_store(&range_v4, 0);
	}
	/* Any flipped byte behind the part that changes shows in the sum. */
	for (size_t at = 64; at < b.size; at += 5) {
		struct table t;
		unsigned char *copy = malloc(b.size);
		memcpy(copy, b.at, b.size);
		copy[at] ^= 0x40;
		if (table_fits(&t, copy, b.size))
			CHECK(!table_is_sound(&t));
		free(copy);
	}
	unlink(table_path);
	free(b.at);
}

/* Whatever stands in the sections, nothing outside of the bytes is read (the address sanitizer watches). */
static void case_garbage(void)
{
	static const struct spec_service many[] = {
	    {.slot = 1, .name = "web.service.consul", .backends = {{"127.0.0.1", 1, 1, 0, 0}, {"::1", 2, 3, 1, 0}}},
	    {.slot = 5, .name = "db.service.consul", .backends = {{"10.0.0.1", 0, 1, 2, 1}}},
	    {.slot = 9, .name = "a.b.c.d.service.consul", .policy = 5, .backends = {{NULL, 0, 0, 0, 0}}},
	    {0}};
	struct bytes b = table_encode(many, 1);
	uint64_t random = 42;
	int fitted = 0;
	for (int round = 0; round < 30000; round++) {
		unsigned char *copy = malloc(b.size);
		memcpy(copy, b.at, b.size);
		int changes = 1 + (int)(random % 4);
		for (int i = 0; i < changes; i++) {
			random = balance_mix(random);
			size_t at = 64 + random % (b.size - 64);
			copy[at] = (random >> 40) % 3 == 0 ? 0xff : (unsigned char)(random >> 48);
		}
		struct table t;
		if (table_fits(&t, copy, b.size)) {
			fitted++;
			atomic_store(&t.checked, TABLE_GOOD);
			for (const struct spec_service *s = many; s->slot != 0; s++) {
				char name[NAME_BYTES_MAX + 1];
				uint32_t bytes, n;
				name_canonical(s->name, name, &bytes);
				const struct table_service *by[2] = {name_service(&t, name, bytes), table_service_by_slot(&t, s->slot)};
				for (int k = 0; k < 2; k++) {
					if (by[k] == NULL)
						continue;
					const struct table_backend *backends = table_backends_of(&t, by[k], &n);
					struct balance_asked asked = {.families = BALANCE_V4 | BALANCE_V6, .port = 80};
					int index = observed_pick(by[k], backends, n, &asked);
					CHECK(index >= -1 && index < (int)n);
				}
			}
		}
		free(copy);
	}
	CHECK(fitted > 1000);
	free(b.at);
}

static void case_trust(void)
{
	struct bytes b = table_encode(ONE_SERVICE, 1);
	mode_t refused[] = {0666, 0664, 0646, 0622};
	for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
		table_put_bytes(b.at, b.size, refused[i]);
		CHECK(!slot_is_known(1));
	}
	if (geteuid() == 0) {
		table_put_bytes(b.at, b.size, 0644);
		CHECK_IS(chown(table_path, 4711, 4711), 0);
		CHECK(!slot_is_known(1));
	}
	char other[4200];
	snprintf(other, sizeof other, "%s.other", table_path);
	file_write(other, b.at, b.size, 0644);
	unlink(table_path);
	CHECK_IS(symlink(other, table_path), 0);
	CHECK(!slot_is_known(1));
	unlink(table_path);
	CHECK_IS(mkfifo(table_path, 0644), 0);
	CHECK(!slot_is_known(1)); /* and does not wait for a writer */
	unlink(table_path);
	CHECK_IS(mkdir(table_path, 0755), 0);
	CHECK(!slot_is_known(1));
	rmdir(table_path);
	unlink(other);
	free(b.at);
	/* And one that is good is taken by a process that began without. */
	table_put(ONE_SERVICE);
	CHECK(slot_is_known(1));
	CHECK(!slot_is_known(2));
}

static void case_replaced(void)
{
	static struct spec_service services[] = {{.slot = 1, .name = "web.service.consul", .backends = {{"127.0.0.1", 1, 1, 0, 0}}}, {0}};
	table_put(services);
	CHECK(slot_is_known(1));
	int place = atomic_load(&table_now);
	CHECK(slot_is_known(1));
	CHECK_IS(atomic_load(&table_now), place);
	services[0].slot = 2;
	table_put(services);
	CHECK(slot_is_known(2));
	CHECK(!slot_is_known(1));
	/* The mark alone tells; where nobody could set it, a look at the file does, but not at once. */
	services[0].slot = 6;
	atomic_store(&own_page()->compare_at, UINT64_MAX);
	table_put_quietly(services);
	CHECK(slot_is_known_now(6));
	services[0].slot = 7;
	unlink(table_path);
	atomic_store(&own_page()->compare_at, UINT64_MAX);
	table_put_quietly(services);
	CHECK(!slot_is_known_now(7));
	CHECK(slot_is_known_now(6));
	CHECK(slot_is_known(7));
	services[0].slot = 2;
	table_put(services);
	CHECK(slot_is_known(2));
	/* A spoilt one does not take a good one's place; the next good one does. */
	services[0].slot = 3;
	struct bytes b = table_encode(services, 9);
	b.at[b.size - 1] ^= 1;
	b.at[200] ^= 1;
	table_put_bytes(b.at, b.size, 0644);
	CHECK(slot_is_known(2));
	CHECK(!slot_is_known(3));
	free(b.at);
	table_put(services);
	CHECK(slot_is_known(3));
	/* The agent is gone and its file with it: what was known stays. */
	unlink(table_path);
	CHECK(slot_is_known(3));
	table_put(services);
	/* While somebody reads an old one it stays mapped; places are never more than there are. */
	struct table *held = table_hold();
	CHECK(held != NULL);
	for (int i = 0; i < 3 * TABLE_PLACES; i++) {
		services[0].slot = 10 + (uint32_t)i;
		table_put(services);
		CHECK(slot_is_known(services[0].slot));
		CHECK_IS(held->services[0].slot, 3);
	}
	table_release(held);
	services[0].slot = 3;
	table_put(services);
	CHECK(slot_is_known(3));
	table_put(services);
	CHECK(slot_is_known(3));
	int mapped = 0;
	for (int i = 0; i < TABLE_PLACES; i++)
		mapped += table_places[i].bytes != NULL;
	CHECK(mapped <= 2);
	/* Holders that never come back (a thread ended by force) take places; the last table stays then, and nothing waits. */
	struct table *lost[TABLE_PLACES];
	for (int i = 0; i < TABLE_PLACES; i++) {
		lost[i] = table_hold();
		services[0].slot = 100 + (uint32_t)i;
		table_put(services);
		slot_is_known(1);
	}
	CHECK(slot_is_known(100 + TABLE_PLACES - 2));
	for (int i = 0; i < TABLE_PLACES; i++)
		table_release(lost[i]);
	table_put(services);
	CHECK(slot_is_known(100 + TABLE_PLACES - 1));
	/* A lock whose holder is gone is given up. */
	atomic_store(&own_page()->reopening, coarse_ms() - LOCK_STALE_MS - 1);
	services[0].slot = 4;
	table_put(services);
	CHECK(slot_is_known(4));
	atomic_store(&own_page()->reopening, coarse_ms());
	services[0].slot = 5;
	table_put(services);
	CHECK(!slot_is_known(5));
	CHECK(slot_is_known(4));
	atomic_store(&own_page()->reopening, 0);
	CHECK(slot_is_known(5));
}
