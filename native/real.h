// The functions that stand behind the hooks: libc's, or those of another preloaded library.
#ifndef TRILITH_REAL_H
#define TRILITH_REAL_H

#include <dlfcn.h>
#include <netdb.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "kernel.h"

/*
 * Each is looked up in the constructor; a call that comes earlier (another library's constructor) looks it up itself. The hooks carry their
 * names by assembler labels, as glibc's and musl's prototypes differ.
 */
#define REAL(name, result, ...)                                                                                                                      \
	typedef result name##_function(__VA_ARGS__);                                                                                                 \
	static _Atomic(name##_function *) real_##name##_at;                                                                                          \
	static inline name##_function *real_##name(void)                                                                                             \
	{                                                                                                                                            \
		name##_function *f = atomic_load_explicit(&real_##name##_at, memory_order_relaxed);                                                  \
		if (__builtin_expect(f == NULL, 0)) {                                                                                                \
			f = __extension__(name##_function *) dlsym(RTLD_NEXT, #name);                                                                \
			atomic_store_explicit(&real_##name##_at, f, memory_order_relaxed);                                                           \
		}                                                                                                                                    \
		return f;                                                                                                                            \
	}

REAL(connect, int, int, const struct sockaddr *, socklen_t)
REAL(close, int, int)
REAL(getsockopt, int, int, int, int, void *, socklen_t *)
REAL(setsockopt, int, int, int, int, const void *, socklen_t)
REAL(sendto, ssize_t, int, const void *, size_t, int, const struct sockaddr *, socklen_t)
REAL(sendmsg, ssize_t, int, const struct msghdr *, int)
REAL(sendmmsg, int, int, struct mmsghdr *, unsigned, int)
REAL(recvfrom, ssize_t, int, void *, size_t, int, struct sockaddr *, socklen_t *)
REAL(recvmsg, ssize_t, int, struct msghdr *, int)
REAL(recvmmsg, int, int, struct mmsghdr *, unsigned, int, struct timespec *)
#ifdef __GLIBC__
REAL(__recvfrom_chk, ssize_t, int, void *, size_t, size_t, int, struct sockaddr *, socklen_t *)
#endif
REAL(epoll_ctl, int, int, int, int, struct epoll_event *)
REAL(chroot, int, const char *)
REAL(dlopen, void *, const char *, int)
REAL(getaddrinfo, int, const char *, const char *, const struct addrinfo *, struct addrinfo **)
REAL(gethostbyname, struct hostent *, const char *)
REAL(gethostbyname2, struct hostent *, const char *, int)
REAL(gethostbyname_r, int, const char *, struct hostent *, char *, size_t, struct hostent **, int *)
REAL(gethostbyname2_r, int, const char *, int, struct hostent *, char *, size_t, struct hostent **, int *)

static void real_prepare(void)
{
	real_connect();
	real_close();
	real_getsockopt();
	real_setsockopt();
	real_sendto();
	real_sendmsg();
	real_sendmmsg();
	real_recvfrom();
	real_recvmsg();
	real_recvmmsg();
#ifdef __GLIBC__
	real___recvfrom_chk();
#endif
	real_epoll_ctl();
	real_chroot();
	real_dlopen();
	real_getaddrinfo();
	real_gethostbyname();
	real_gethostbyname2();
	real_gethostbyname_r();
	real_gethostbyname2_r();
}

/* A socket's option as a number; -1 = it has none such, or is no socket. errno may change. */
static inline int socket_number(int fd, int level, int option)
{
	int value = -1;
	socklen_t bytes = sizeof value;
	return syscall(SYS_getsockopt, fd, level, option, &value, &bytes) == 0 ? value : -1;
}

#ifndef SO_COOKIE
#define SO_COOKIE 57
#endif

/* What no two sockets since the machine's start share; on kernels that have none what no two open ones share; 0 = no socket. errno may change. */
static inline uint64_t socket_cookie(int fd)
{
	uint64_t cookie = 0;
	socklen_t bytes = sizeof cookie;
	if (syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_COOKIE, &cookie, &bytes) == 0)
		return cookie;
	struct stat s;
	return fstat(fd, &s) == 0 && S_ISSOCK(s.st_mode) ? (uint64_t)s.st_ino | (uint64_t)1 << 63 : 0;
}

#endif
