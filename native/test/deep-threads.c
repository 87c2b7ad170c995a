// A program whose threads open and close deep-bound libraries all the time, each thread the one that its word names, and look where their tables lead.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>

enum { THREADS = 4, ROUNDS = 100 };

static void *opens(void *path)
{
	for (int i = 0; i < ROUNDS; i++) {
		void *handle = dlopen(path, RTLD_NOW | RTLD_DEEPBIND);
		void *const *many = handle == NULL ? NULL : dlsym(handle, "many");
		if (many == NULL)
			return (void *)dlerror();
		if (many[0] != dlsym(RTLD_DEFAULT, "connect"))
			return "past the hook";
		if (dlclose(handle) != 0)
			return (void *)dlerror();
	}
	return NULL;
}

int main(int count, char **words)
{
	pthread_t threads[THREADS];
	if (count != THREADS + 1)
		return 2;
	for (int i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, opens, words[i + 1]);
	for (int i = 0; i < THREADS; i++) {
		void *error;
		pthread_join(threads[i], &error);
		printf("%s\n", error == NULL ? "opened" : (char *)error);
	}
	return 0;
}
