// The counter file: who gets which block, what a dead process leaves, whom it trusts. Its argument is an empty folder; run as root it tries more.
#define _GNU_SOURCE
#include "../observed.h"
#include "../real.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/wait.h>

static int checks_failed;
static const char *case_name = "";
static char table_path[3000];

#define CHECK(condition)                                                                                                                             \
	do {                                                                                                                                         \
		if (!(condition)) {                                                                                                                  \
			printf("FAILED %s: %s:%d: %s (errno %d)\n", case_name, __FILE__, __LINE__, #condition, errno);                               \
			checks_failed++;                                                                                                             \
		}                                                                                                                                    \
	} while (0)

static struct table_backend backend(uint16_t port)
{
	struct table_backend b;
	memset(&b, 0, sizeof b);
	b.address[10] = b.address[11] = 0xff;
	b.address[12] = 10;
	b.port = port;
	b.weight = 1;
	return b;
}

static void report(uint16_t port, int error)
{
	struct table_backend b = backend(port);
	observed_report(&b, 0, error, 1000);
}

static uint64_t connects_of(uint16_t port)
{
	struct table_backend b = backend(port);
	struct observed_entry *e = observed_find(observed_block(observed_now_ms()), b.address, port);
	return e == NULL ? 0 : atomic_load(&e->connects);
}

static char *user_path(void)
{
	static char path[4200];
	snprintf(path, sizeof path, "%s/%u", observed_folder, (unsigned)geteuid());
	return path;
}

/* A process that has mapped nothing yet. */
static void begin_anew(void)
{
	struct observed_own *own = atomic_load(&observed_own_at);
	if (own != NULL)
		memset(own, 0, sizeof *own);
	atomic_store(&observed_mapped, NULL);
	memset(observed_users, 0, sizeof observed_users);
	memset(&observed_private, 0, sizeof observed_private);
}

static bool is_private(void)
{
	return observed_block(observed_now_ms()) == &observed_private;
}

static int index_of(struct observed_block *block)
{
	return (int)(block - atomic_load(&observed_mapped)->block);
}

/* Runs in a child of its own, which begins anew; its exit status. */
static int in_child(int (*work)(void))
{
	fflush(stdout);
	pid_t child = fork();
	if (child == 0) {
		begin_anew();
		_exit(work());
	}
	int status = -1;
	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void clean(void)
{
	begin_anew();
	unlink(user_path());
}

static int sees_then_adds(void)
{
	int before = (int)connects_of(80);
	report(80, 0);
	report(81, ECONNREFUSED);
	return before;
}

static void case_after_another(void)
{
	clean();
	/* Each process goes on where the one before ended. */
	for (int i = 0; i < 5; i++)
		CHECK(in_child(sees_then_adds) == i);
	struct stat s;
	CHECK(stat(user_path(), &s) == 0 && s.st_size == 1052736 && (s.st_mode & 07777) == 0600 && s.st_blocks >= 2056);
	CHECK(access(user_path(), F_OK) == 0);
	errno = 77;
	CHECK(connects_of(80) == 5);
	CHECK(errno == 77);
	struct balance_asked asked = {.families = BALANCE_V4};
	struct table_backend list[2] = {backend(81), backend(80)};
	struct table_service service = {.slot = 1, .policy = BALANCE_FIRST};
	CHECK(observed_pick(&service, list, 2, &asked) == 1); /* 81 was ejected by processes that are gone */
}

static int first_of_two(void)
{
	struct balance_asked asked = {.families = BALANCE_V4};
	struct table_backend list[2] = {backend(81), backend(80)};
	struct table_service service = {.slot = 1, .policy = BALANCE_FIRST};
	return observed_pick(&service, list, 2, &asked);
}

/* What this process has not tried of late, another one of its user knows that is at work. */
static void case_beside_another(void)
{
	clean();
	int ready[2], release[2];
	CHECK(pipe(ready) == 0 && pipe(release) == 0);
	report(80, 0);
	CHECK(first_of_two() == 0);
	fflush(stdout);
	pid_t child = fork();
	if (child == 0) {
		close(release[1]);
		char byte = 0;
		report(81, ECONNREFUSED);
		_exit(write(ready[1], &byte, 1) == 1 && read(release[0], &byte, 1) == 0 ? 0 : 1);
	}
	char byte;
	CHECK(read(ready[0], &byte, 1) == 1);
	CHECK(first_of_two() == 1);
	/* Whether it is back is for the other one to find out, within the time of return. */
	struct table_backend failed = backend(81);
	struct observed_entry *others = NULL;
	for (int i = 0; i < OBSERVED_BLOCKS && others == NULL; i++)
		others = observed_find(&atomic_load(&observed_mapped)->block[i], failed.address, 81);
	CHECK(others != NULL);
	atomic_store(&others->ejected_until_ms, observed_now_ms() - BALANCE_RETURN_MS / 2);
	for (int i = 0; i < 50; i++)
		CHECK(first_of_two() == 1);
	atomic_store(&others->ejected_until_ms, observed_now_ms() - BALANCE_RETURN_MS);
	CHECK(first_of_two() == 0);
	atomic_store(&others->ejected_until_ms, observed_now_ms() + 1000);
	CHECK(first_of_two() == 1);
	/* Its own experience counts for more, as long as it is fresh. */
	report(81, 0);
	CHECK(first_of_two() == 0);
	close(release[1]);
	CHECK(waitpid(child, NULL, 0) == child);
	close(ready[0]);
	close(ready[1]);
	close(release[0]);
}

static int hold(int ready, int release, bool kill_self)
{
	char byte = (char)index_of(observed_block(observed_now_ms()));
	report(90, 0);
	if (write(ready, &byte, 1) != 1)
		return 1;
	if (kill_self)
		raise(SIGKILL);
	return read(release, &byte, 1) == 0 ? 0 : 1;
}

static void case_each_its_own(void)
{
	enum { CHILDREN = 20 };
	int ready[2], release[2];
	bool taken[OBSERVED_BLOCKS] = {false};
	pid_t children[CHILDREN];
	clean();
	CHECK(pipe(ready) == 0 && pipe(release) == 0);
	report(90, 0);
	taken[index_of(observed_block(observed_now_ms()))] = true;
	fflush(stdout);
	for (int i = 0; i < CHILDREN; i++) {
		children[i] = fork(); /* no new beginning: a fork alone must be enough */
		if (children[i] == 0) {
			close(release[1]);
			_exit(hold(ready[1], release[0], false));
		}
	}
	for (int i = 0; i < CHILDREN; i++) {
		char byte;
		CHECK(read(ready[0], &byte, 1) == 1);
		CHECK(!taken[(int)byte]);
		taken[(int)byte] = true;
	}
	CHECK(connects_of(90) == 1); /* and the parent's is its own still */
	close(release[1]);
	for (int i = 0; i < CHILDREN; i++) {
		int status = -1;
		waitpid(children[i], &status, 0);
		CHECK(status == 0);
	}
	close(release[0]);
	close(ready[0]);
	close(ready[1]);
}

static void case_killed(void)
{
	int ready[2];
	clean();
	CHECK(pipe(ready) == 0);
	fflush(stdout);
	char blocks[2];
	for (int i = 0; i < 2; i++) {
		pid_t child = fork();
		if (child == 0) {
			begin_anew();
			_exit(hold(ready[1], -1, true));
		}
		int status = -1;
		CHECK(read(ready[0], &blocks[i], 1) == 1);
		waitpid(child, &status, 0);
		CHECK(WIFSIGNALED(status));
	}
	CHECK(blocks[0] == blocks[1]);
	CHECK(connects_of(90) == 2);
	close(ready[0]);
	close(ready[1]);
}

static void case_owner(void)
{
	clean();
	struct observed_block *block = observed_block(observed_now_ms());
	struct stat s;
	uint64_t started = 0;
	char state = 0;
	CHECK(!is_private());
	CHECK(stat("/proc/self/ns/pid", &s) == 0 && observed_process("self", (uint32_t)getpid(), &state, &started));
	CHECK(state == 'R' && started > 0);
	CHECK(atomic_load(&block->owner) == (uint32_t)getpid());
	CHECK(atomic_load(&block->uid) == geteuid());
	CHECK(atomic_load(&block->started) == started);
	CHECK(atomic_load(&block->pid_namespace) == s.st_ino);
	CHECK(observed_now_ms() - atomic_load(&block->used_ms) < 60000);
	/* Somebody else has it: another one is found. */
	uint64_t now_ms = observed_now_ms();
	atomic_store(&block->owner, 1);
	CHECK(observed_block(now_ms + OBSERVED_TOUCH_MS) != block);
	CHECK(!is_private());
}

/* A block with an owner as given: is it taken? */
static bool is_taken(uint32_t owner, uint64_t started, uint64_t pid_namespace, uint64_t idle_ms)
{
	clean();
	struct observed_block *block = observed_block(observed_now_ms());
	uint64_t now_ms = observed_now_ms();
	struct stat s;
	stat("/proc/self/ns/pid", &s);
	atomic_store(&block->owner, owner);
	atomic_store(&block->started, started);
	atomic_store(&block->pid_namespace, pid_namespace == 0 ? (uint64_t)s.st_ino : pid_namespace);
	atomic_store(&block->used_ms, now_ms - idle_ms);
	return observed_claim(atomic_load(&observed_mapped), (uint32_t)getpid(), 0, now_ms) == block;
}

static int short_life(void)
{
	return 0;
}

static void case_take_over(void)
{
	uint64_t started = 0;
	char state;
	pid_t parent = getppid();
	char name[16];
	snprintf(name, sizeof name, "%d", (int)parent);
	CHECK(observed_process(name, (uint32_t)parent, &state, &started));
	pid_t gone = fork();
	if (gone == 0)
		_exit(short_life());
	waitpid(gone, NULL, 0);
	CHECK(is_taken((uint32_t)gone, 5, 0, 0));				/* dead */
	CHECK(is_taken((uint32_t)gone | OBSERVED_CLAIMING, 5, 0, 0));		/* dead in the middle of taking it */
	CHECK(!is_taken((uint32_t)parent, started, 0, 100000));			/* alive, however long unused */
	CHECK(!is_taken((uint32_t)parent | OBSERVED_CLAIMING, 5, 0, 100000));	/* alive, taking it */
	CHECK(is_taken((uint32_t)parent, started + 1, 0, 100000));		/* a later process with the same pid */
	CHECK(!is_taken((uint32_t)parent, started + 1, 0, 1000));		/* which is not looked for at once */
	CHECK(!is_taken((uint32_t)gone, 5, 99, 59000));				/* of another pid namespace */
	CHECK(is_taken((uint32_t)gone, 5, 99, 61000));
	CHECK(is_taken(0x7fffffff, 5, 0, 0));
	/* A zombie is dead, though its pid is not free. */
	pid_t zombie = fork();
	if (zombie == 0)
		_exit(0);
	siginfo_t info;
	waitid(P_PID, (id_t)zombie, &info, WEXITED | WNOWAIT);
	snprintf(name, sizeof name, "%d", (int)zombie);
	CHECK(observed_process(name, (uint32_t)zombie, &state, &started) && state == 'Z');
	CHECK(is_taken((uint32_t)zombie, started, 0, 61000));
	waitpid(zombie, NULL, 0);
	/* What its owner was writing when it died is dropped, all else is kept. */
	clean();
	report(80, 0);
	report(82, 0);
	struct observed_block *block = observed_block(observed_now_ms());
	struct table_backend b = backend(82);
	atomic_store(&observed_find(block, b.address, 82)->port_used, (uint32_t)OBSERVED_CHANGING << 16);
	atomic_store(&block->owner, (uint32_t)gone);
	begin_anew();
	CHECK(connects_of(80) == 1);
	CHECK(connects_of(82) == 0);
	block = observed_block(observed_now_ms());
	CHECK(index_of(block) == 0);
	for (int i = 0; i < OBSERVED_ENTRIES; i++)
		CHECK(atomic_load(&block->entries[i].port_used) >> 16 <= OBSERVED_USED);
	report(82, 0);
	CHECK(connects_of(82) == 1);
}

static void case_full(void)
{
	clean();
	uint64_t now_ms = observed_now_ms();
	struct observed_block *first = observed_block(now_ms);
	struct observed_file *file = atomic_load(&observed_mapped);
	for (int i = 0; i < OBSERVED_BLOCKS; i++) {
		file->block[i].owner = (uint32_t)getppid();
		file->block[i].pid_namespace = atomic_load(&first->pid_namespace);
		file->block[i].used_ms = now_ms;
	}
	begin_anew();
	CHECK(is_private());
	report(80, 0);
	CHECK(connects_of(80) == 1);
	/* It is not looked for again before a second has passed, by nobody. */
	atomic_store(&file->block[3].owner, 0);
	CHECK(observed_claim(file, (uint32_t)getpid(), 0, observed_now_ms()) == NULL);
	atomic_store(&file->full_until_ms, 0);
	CHECK(observed_claim(file, (uint32_t)getpid(), 0, observed_now_ms()) == &file->block[3]);
}

static void put_file(size_t size, mode_t mode, const char *magic)
{
	int fd = open(user_path(), O_RDWR | O_CREAT | O_EXCL, 0600);
	uint32_t numbers[4] = {1, 64, 256, sizeof(struct observed_block)};
	if (fd < 0 || ftruncate(fd, (off_t)size) != 0 || pwrite(fd, magic, 8, 0) != 8 || pwrite(fd, numbers, 16, 8) != 16 || fchmod(fd, mode) != 0)
		CHECK(false);
	close(fd);
}

static void case_trust(void)
{
	const size_t size = sizeof(struct observed_file);
	char elsewhere[4300];
	clean();
	put_file(size, 0600, "TRILSEEN");
	CHECK(!is_private());
	clean();
	put_file(size - 1, 0600, "TRILSEEN");
	CHECK(is_private());
	clean();
	put_file(size, 0660, "TRILSEEN");
	CHECK(is_private());
	clean();
	put_file(size, 0602, "TRILSEEN");
	CHECK(is_private());
	clean();
	put_file(size, 0600, "TRILHOOK");
	CHECK(is_private());
	clean();
	CHECK(mkfifo(user_path(), 0600) == 0);
	CHECK(is_private());
	clean();
	CHECK(mkdir(user_path(), 0700) == 0);
	CHECK(is_private());
	rmdir(user_path());
	clean();
	put_file(size, 0600, "TRILSEEN");
	snprintf(elsewhere, sizeof elsewhere, "%s-elsewhere", user_path());
	CHECK(rename(user_path(), elsewhere) == 0 && symlink(elsewhere, user_path()) == 0);
	CHECK(is_private());
	unlink(elsewhere);
	clean();
	if (geteuid() == 0) {
		put_file(size, 0600, "TRILSEEN");
		CHECK(chown(user_path(), 65534, 65534) == 0);
		CHECK(is_private());
		clean();
	}
	/* No folder, no path, another path: all is private, and nothing is made. */
	char folder[sizeof observed_folder];
	memcpy(folder, observed_folder, sizeof folder);
	strcat(observed_folder, "-missing");
	CHECK(is_private());
	CHECK(access(observed_folder, F_OK) != 0);
	report(80, 0);
	CHECK(connects_of(80) == 1);
	observed_folder[0] = 0;
	begin_anew();
	CHECK(is_private());
	observed_start("table");
	CHECK(observed_folder[0] == 0);
	memcpy(observed_folder, folder, sizeof folder);
}

static int on_a_full_disk(void)
{
	if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
	    mount("none", observed_folder, "tmpfs", 0, "size=64k,mode=1777") != 0)
		return 7;
	bool private = is_private();
	for (int i = 0; i < 1000; i++)
		report((uint16_t)(1000 + i), 0);
	return private && access(user_path(), F_OK) != 0 ? 0 : 1;
}

static void case_full_disk(void)
{
	if (geteuid() != 0)
		return;
	clean();
	CHECK(in_child(on_a_full_disk) == 0);
}

/* Another process took the block of one that was idle for long, and is at work in it: the first one takes another. */
static void case_taken_while_idle(void)
{
	clean();
	report(80, 0);
	uint64_t now_ms = observed_now_ms();
	struct observed_block *first = observed_block(now_ms);
	atomic_store(&first->owner, (uint32_t)getppid());
	atomic_store(&first->used_ms, now_ms + OBSERVED_FOREIGN_DEAD_MS);
	struct observed_block *next = observed_block(now_ms + OBSERVED_FOREIGN_DEAD_MS);
	CHECK(next != first && next != &observed_private);
	CHECK(atomic_load(&first->owner) == (uint32_t)getppid());
}

/* A file that is larger than the process may make would end it by SIGXFSZ. */
static int of_limited_size(void)
{
	struct rlimit small = {100 * 1024, 100 * 1024};
	if (setrlimit(RLIMIT_FSIZE, &small) != 0)
		return 7;
	bool private = is_private();
	report(80, 0);
	DIR *folder = opendir(observed_folder);
	int files = 0;
	for (struct dirent *each; (each = readdir(folder)) != NULL;)
		files += each->d_name[0] != '.' || strlen(each->d_name) > 2;
	closedir(folder);
	return private && files == 0 && connects_of(80) == 1 ? 0 : 1;
}

static void case_limited_size(void)
{
	clean();
	CHECK(in_child(of_limited_size) == 0);
	/* One that is there already is used. */
	report(80, 0);
	CHECK(!is_private());
	fflush(stdout);
	pid_t child = fork();
	if (child == 0) {
		struct rlimit small = {100 * 1024, 100 * 1024};
		begin_anew();
		report(81, 0);
		_exit(setrlimit(RLIMIT_FSIZE, &small) == 0 && !is_private() && connects_of(81) == 1 ? 0 : 1);
	}
	int status = -1;
	waitpid(child, &status, 0);
	CHECK(status == 0);
}

static int doubts(void)
{
	report(81, EINPROGRESS);
	return 0;
}

static int asks_and_is_killed(void)
{
	struct table_backend b = backend(81);
	observed_asks(&b, 0);
	return raise(SIGKILL);
}

static int asks_and_hears(void)
{
	struct table_backend b = backend(81);
	observed_asks(&b, 0);
	report(81, 0);
	return raise(SIGKILL);
}

/* Ended while it waited for an answer, as by `timeout`. */
static void case_last_words(void)
{
	clean();
	CHECK(in_child(asks_and_hears) == -SIGKILL);
	CHECK(in_child(first_of_two) == 0);
	CHECK(in_child(asks_and_is_killed) == -SIGKILL);
	CHECK(in_child(first_of_two) == 1);
	clean();
	CHECK(in_child(asks_and_is_killed) == -SIGKILL);
	report(80, 0);
	struct observed_block *block = observed_block(observed_now_ms());
	CHECK(atomic_load(&atomic_load(&observed_mapped)->trouble_ms) != 0);
	CHECK(observed_last(&(struct observed_view){.block = block, .now_ms = observed_now_ms()}, backend(81).address, 81, false) != 0);
	/* One that waits still, or was ended and is nobody's to bury yet. */
	clean();
	report(80, 0);
	fflush(stdout);
	pid_t child = fork();
	if (child == 0) {
		struct table_backend b = backend(81);
		observed_asks(&b, 0);
		raise(SIGKILL);
	}
	siginfo_t ended;
	waitid(P_PID, (id_t)child, &ended, WEXITED | WNOWAIT);
	CHECK(in_child(first_of_two) == 0);
	struct timespec wait = {0, (OBSERVED_SILENT_MS + 20) * 1000000L};
	nanosleep(&wait, NULL);
	CHECK(in_child(first_of_two) == 1);
	waitpid(child, NULL, 0);
	/* Long ago. */
	clean();
	CHECK(in_child(asks_and_is_killed) == -SIGKILL);
	struct stat s;
	observed_claim(observed_map(geteuid(), &s), (uint32_t)getpid(), geteuid(), observed_now_ms() + OBSERVED_DOUBT_MS + 100);
	CHECK(in_child(first_of_two) == 0);
}

/* Given up without an answer: out for a while, for other processes as well, and never for long. */
static void case_doubt(void)
{
	clean();
	struct balance_seen seen;
	struct table_backend b = backend(81);
	CHECK(first_of_two() == 0);
	CHECK(in_child(doubts) == 0);
	CHECK(first_of_two() == 1);
	uint64_t now_ms = observed_now_ms();
	struct observed_view view = {.block = observed_block(now_ms), .now_ms = now_ms, .others_count = -1};
	observed_look(&view, &b, 81, &seen);
	CHECK(seen.failures == 0 && balance_ejected(&seen, now_ms));
	view.now_ms += OBSERVED_DOUBT_MS;
	observed_look(&view, &b, 81, &seen);
	CHECK(balance_share(&seen, view.now_ms) == 1);
	/* Who reaches it ends the doubt; an ejection is not made less by one. */
	report(81, 0);
	CHECK(first_of_two() == 0);
	report(81, ECONNREFUSED);
	report(81, EINPROGRESS);
	view.now_ms = observed_now_ms();
	observed_look(&view, &b, 81, &seen);
	CHECK(seen.failures == 1 && balance_ejected(&seen, view.now_ms));
}

static int as_another_user(void)
{
	uint64_t now_ms = observed_now_ms();
	struct observed_block *before = observed_block(now_ms);
	report(80, 0);
	if (seteuid(65534) != 0)
		return 7;
	struct observed_block *after = observed_block(now_ms + OBSERVED_TOUCH_MS);
	if (after == before || after == &observed_private || connects_of(80) != 0)
		return 1;
	struct stat s;
	int wrong = stat(user_path(), &s) != 0 || s.st_uid != 65534 || (s.st_mode & 07777) != 0600;
	unlink(user_path());
	return wrong;
}

/* To and fro, as a server that works as its client: two blocks and two mappings in all. */
static int to_and_fro(void)
{
	uint64_t now_ms = observed_now_ms();
	struct observed_block *first[2] = {NULL, NULL};
	for (int i = 0; i < 200; i++) {
		if (seteuid(i % 2 == 0 ? 0 : 65534) != 0)
			return 7;
		now_ms += OBSERVED_TOUCH_MS;
		struct observed_block *block = observed_block(now_ms);
		if (block == &observed_private || (first[i % 2] != NULL && block != first[i % 2]))
			return 1;
		first[i % 2] = block;
	}
	if (seteuid(0) != 0)
		return 7;
	int users = 0;
	for (int i = 0; i < OBSERVED_USERS; i++)
		users += observed_users[i].user != 0;
	/* More than that many go without. */
	for (uid_t uid = 70000; uid < 70000 + 2 * OBSERVED_USERS; uid++) {
		if (seteuid(uid) != 0)
			return 7;
		now_ms += OBSERVED_TOUCH_MS;
		bool private = observed_block(now_ms) == &observed_private;
		unlink(user_path());
		if (private != (uid - 70000 >= OBSERVED_USERS - 2) || seteuid(0) != 0)
			return 2;
	}
	return first[0] == first[1] || users != 2 ? 3 : 0;
}

/* Cleared away with its folder, by an agent's new start for example: the next one is found, and what is out of reach stays. */
static void case_cleared_away(void)
{
	char away[sizeof observed_folder + 8];
	clean();
	uint64_t now_ms = observed_now_ms();
	struct observed_block *before = observed_block(now_ms), *after;
	CHECK(observed_block(now_ms + OBSERVED_COMPARE_MS) == before);
	CHECK(unlink(user_path()) == 0);
	CHECK(observed_block(now_ms + OBSERVED_COMPARE_MS + OBSERVED_TOUCH_MS) == before);
	errno = 77;
	after = observed_block(now_ms += 2 * OBSERVED_COMPARE_MS);
	CHECK(errno == 77);
	CHECK(after != before && after != &observed_private);
	CHECK(access(user_path(), F_OK) == 0);
	snprintf(away, sizeof away, "%s-away", observed_folder);
	CHECK(rename(observed_folder, away) == 0);
	CHECK(observed_block(now_ms += OBSERVED_COMPARE_MS) == after);
	CHECK(mkdir(observed_folder, 0777) == 0);
	before = observed_block(now_ms += OBSERVED_COMPARE_MS);
	CHECK(before != after && before != &observed_private);
	CHECK(index_of(before) == 0);
	CHECK(unlink(user_path()) == 0 && rmdir(observed_folder) == 0 && rename(away, observed_folder) == 0);
	/* Not for ever, since each stays mapped. */
	observed_replaced = OBSERVED_REPLACED_MOST;
	CHECK(observed_block(now_ms += OBSERVED_COMPARE_MS) == before);
	observed_replaced = 0;
	clean();
}

static void case_to_and_fro(void)
{
	if (geteuid() != 0)
		return;
	clean();
	chmod(observed_folder, 01777);
	CHECK(in_child(to_and_fro) == 0);
}

static void case_another_user(void)
{
	if (geteuid() != 0)
		return;
	clean();
	CHECK(in_child(as_another_user) == 0);
}

static int in_a_pid_namespace(void)
{
	if (unshare(CLONE_NEWPID) != 0)
		return 7;
	pid_t child = fork();
	if (child == 0) {
		/* /proc is not of this namespace: nobody can tell who lives, so nothing is shared. */
		begin_anew();
		bool private = is_private();
		if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 || mount("proc", "/proc", "proc", 0, NULL) != 0)
			_exit(7);
		begin_anew();
		struct observed_block *block = observed_block(observed_now_ms());
		/* The parent's is alive for us, since it was used just now, although its pid means nothing here. */
		_exit(private && block != &observed_private && index_of(block) == 1 && atomic_load(&block->owner) == 1 ? 0 : 1);
	}
	int status = -1;
	waitpid(child, &status, 0);
	return WEXITSTATUS(status);
}

static void case_pid_namespace(void)
{
	if (geteuid() != 0)
		return;
	clean();
	report(80, 0);
	CHECK(index_of(observed_block(observed_now_ms())) == 0);
	CHECK(in_child(in_a_pid_namespace) == 0);
}

enum { THREADS = 6, ROUNDS = 20000 };

static void *reporting(void *argument)
{
	int ports = *(int *)argument;
	struct balance_asked asked = {.families = BALANCE_V4};
	struct table_backend list[3] = {backend(80), backend(81), backend(82)};
	for (int i = 0; i < ROUNDS; i++) {
		struct table_service service = {.slot = 1 + (uint32_t)(i % 3), .policy = (uint8_t)(i % 6)};
		int index = observed_pick(&service, list, 3, &asked);
		if (index < 0 || index > 2)
			CHECK(false);
		report(80, 0);
		report((uint16_t)(1000 + i % ports), i % 5 == 0 ? ECONNREFUSED : 0);
		if (i % 4 == 0)
			report(81, ECONNREFUSED);
	}
	return NULL;
}

static void case_threads(void)
{
	pthread_t threads[THREADS];
	/* First with room for all; then with many more than there is room for, so that entries change hands all the time. */
	for (int ports = 50; ports <= 2000; ports += 1950) {
		clean();
		report(80, 0);
		report(81, ECONNREFUSED);
		for (int i = 0; i < THREADS; i++)
			pthread_create(&threads[i], NULL, reporting, &ports);
		for (int i = 0; i < THREADS; i++)
			pthread_join(threads[i], NULL);
		if (ports == 50)
			CHECK(connects_of(80) == 1 + THREADS * ROUNDS);
	}
	report(81, ECONNREFUSED);
	struct table_backend b = backend(81);
	struct observed_entry *e = observed_find(observed_block(observed_now_ms()), b.address, 81);
	CHECK(e != NULL && atomic_load(&e->failures_in_row) >= 1 && atomic_load(&e->failures_in_row) <= 6);
}

static void case_turns(void)
{
	/* Two services whose slots share a place take turns each for itself. */
	clean();
	struct balance_asked asked = {.families = BALANCE_V4};
	struct table_backend list[2] = {backend(80), backend(81)};
	struct table_service one = {.slot = 5, .policy = BALANCE_ROUND_ROBIN}, other = {.slot = 5 + OBSERVED_TURNS, .policy = BALANCE_ROUND_ROBIN};
	int a = observed_pick(&one, list, 2, &asked), b = observed_pick(&other, list, 2, &asked);
	for (int i = 0; i < 10; i++) {
		int next_a = observed_pick(&one, list, 2, &asked), next_b = observed_pick(&other, list, 2, &asked);
		CHECK(next_a == 1 - a && next_b == 1 - b);
		a = next_a;
		b = next_b;
	}
}

static int first_draws(void)
{
	struct balance_asked asked = {.families = BALANCE_V4};
	struct table_backend list[16];
	for (int i = 0; i < 16; i++)
		list[i] = backend((uint16_t)(80 + i));
	struct table_service service = {.slot = 1, .policy = BALANCE_RANDOM};
	return observed_pick(&service, list, 16, &asked);
}

static void case_forked_chance(void)
{
	/* Children of one parent do not all choose the same, with and without a file. */
	for (int how = 0; how < 2; how++) {
		clean();
		char folder[sizeof observed_folder];
		memcpy(folder, observed_folder, sizeof folder);
		if (how == 1)
			observed_folder[0] = 0;
		first_draws();
		int chosen[16] = {0}, different = 0;
		for (int i = 0; i < 24; i++) {
			pid_t child = fork();
			if (child == 0)
				_exit(first_draws());
			int status = -1;
			waitpid(child, &status, 0);
			chosen[WEXITSTATUS(status) & 15]++;
		}
		for (int i = 0; i < 16; i++)
			different += chosen[i] != 0;
		CHECK(different > 4);
		memcpy(observed_folder, folder, sizeof folder);
	}
}

#define CASE(name) {#name, case_##name}
static const struct {
	const char *name;
	void (*run)(void);
} cases[] = {CASE(after_another), CASE(beside_another), CASE(each_its_own), CASE(killed), CASE(owner), CASE(take_over), CASE(full), CASE(trust), CASE(full_disk), CASE(limited_size), CASE(taken_while_idle), CASE(doubt), CASE(last_words),
	     CASE(cleared_away), CASE(another_user), CASE(to_and_fro), CASE(pid_namespace), CASE(threads), CASE(turns), CASE(forked_chance)};

int main(int count, char **arguments)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (count != 2) {
		printf("usage: observed FOLDER\n");
		return 2;
	}
	snprintf(table_path, sizeof table_path, "%s/table", arguments[1]);
	observed_start(table_path);
	if (mkdir(observed_folder, 01777) != 0 || chmod(observed_folder, 01777) != 0) {
		perror(observed_folder);
		return 2;
	}
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		case_name = cases[i].name;
		cases[i].run();
		printf("ran %s\n", case_name);
	}
	printf(checks_failed == 0 ? "all checks hold\n" : "%d checks failed\n", checks_failed);
	return checks_failed == 0 ? 0 : 1;
}
