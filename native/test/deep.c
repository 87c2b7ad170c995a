// A program that opens libraries in every way: deep-bound, by a name that only its own search path finds, and one that is not there.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static const char *name_of(const char *error)
{
	return error == NULL ? "none" : error;
}

/* Where a library that is asked for by its name alone was found. */
static const char *found(const char *name, int mode)
{
	Dl_info info;
	void *handle = dlopen(name, mode), *reach = handle == NULL ? NULL : dlsym(handle, "reach");
	return handle == NULL ? name_of(dlerror()) : dladdr(reach, &info) != 0 ? info.dli_fname : "no reach";
}

int main(int count, char **words)
{
	if (count != 5)
		return 2;
	printf("beside: %s\n", found("libbeside.so", RTLD_NOW));
	printf("beside, deep: %s\n", found("libdeeply.so", RTLD_NOW | RTLD_DEEPBIND));
	printf("missing: %s\n", dlopen("/nowhere/libmissing.so", RTLD_NOW | RTLD_DEEPBIND) == NULL ? name_of(dlerror()) : "there");
	printf("error left: %s\n", name_of(dlerror()));
	void *deep = dlopen(words[1], (strcmp(words[2], "lazy") == 0 ? RTLD_LAZY : RTLD_NOW) | RTLD_DEEPBIND);
	printf("error: %s\n", name_of(dlerror()));
	if (deep == NULL)
		return 1;
	int (*reach)(const char *, const char *, int) = __extension__(int (*)(const char *, const char *, int)) dlsym(deep, "reach");
	for (int how = 0; how < 3; how++)
		printf("reached: %d\n", reach(words[3], words[4], how));
	/* Its tables are as they were: not to be written. */
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[4096];
	while (maps != NULL && fgets(line, sizeof line, maps) != NULL)
		if (strstr(line, words[1]) != NULL) {
			char *mode = strchr(line, ' ');
			if (mode != NULL)
				printf("part: %.4s\n", mode + 1);
		}
	/* Asked for the first time only now. */
	return setsockopt(-1, SOL_SOCKET, SO_REUSEADDR, &count, sizeof count) == -1 ? 0 : 3;
}
