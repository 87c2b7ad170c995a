// What a socket may have been told before its connect: what another one of its kind, opened ahead or by a look, is told as well, and what it cannot be told.
#ifndef TRILITH_SOCKET_OPTIONS_H
#define TRILITH_SOCKET_OPTIONS_H

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <string.h>

#include "balance.h"
#include "real.h"

/* Newer than some C libraries; each is the number of Linux's generic ABI (x64, arm64). */
enum {
	OPTION_SO_PASSSEC = 34,
	OPTION_SO_LOCK_FILTER = 44,
	OPTION_SO_BUSY_POLL = 46,
	OPTION_SO_MAX_PACING_RATE = 47,
	OPTION_SO_ATTACH_BPF = 50,
	OPTION_SO_ZEROCOPY = 60,
	OPTION_SO_TXTIME = 61,
	OPTION_SO_BINDTOIFINDEX = 62,
	OPTION_SO_TIMESTAMP_NEW = 63,
	OPTION_SO_TIMESTAMPNS_NEW = 64,
	OPTION_SO_TIMESTAMPING_NEW = 65,
	OPTION_SO_PREFER_BUSY_POLL = 69,
	OPTION_SO_BUSY_POLL_BUDGET = 70,
	OPTION_SO_NETNS_COOKIE = 71,
	OPTION_SO_BUF_LOCK = 72,
	OPTION_SO_RESERVE_MEM = 73,
	OPTION_SO_TXREHASH = 74,
	OPTION_SO_RCVMARK = 75,
	OPTION_SO_PASSPIDFD = 76,
	OPTION_SO_RCVPRIORITY = 82,
	OPTION_IP_PASSSEC = 18,
	OPTION_IP_ORIGDSTADDR = 20,
	OPTION_IP_CHECKSUM = 23,
	OPTION_IP_BIND_ADDRESS_NO_PORT = 24,
	OPTION_IP_RECVFRAGSIZE = 25,
	OPTION_IP_RECVERR_RFC4884 = 26,
	OPTION_IP_MULTICAST_ALL = 49,
	OPTION_IP_UNICAST_IF = 50,
	OPTION_IP_LOCAL_PORT_RANGE = 51,
	OPTION_IPV6_2292PKTINFO = 2,
	OPTION_IPV6_2292HOPOPTS = 3,
	OPTION_IPV6_2292DSTOPTS = 4,
	OPTION_IPV6_2292RTHDR = 5,
	OPTION_IPV6_2292PKTOPTIONS = 6,
	OPTION_IPV6_2292HOPLIMIT = 8,
	OPTION_IPV6_FLOWINFO = 11,
	OPTION_IPV6_MTU = 24,
	OPTION_IPV6_MULTICAST_ALL = 29,
	OPTION_IPV6_ROUTER_ALERT_ISOLATE = 30,
	OPTION_IPV6_RECVERR_RFC4884 = 31,
	OPTION_IPV6_FLOWINFO_SEND = 33,
	OPTION_IPV6_MINHOPCOUNT = 73,
	OPTION_IPV6_ORIGDSTADDR = 74,
	OPTION_IPV6_TRANSPARENT = 75,
	OPTION_IPV6_UNICAST_IF = 76,
	OPTION_IPV6_RECVFRAGSIZE = 77,
	OPTION_IPV6_FREEBIND = 78,
	OPTION_TCP_MD5SIG = 14,
	OPTION_TCP_REPAIR = 19,
	OPTION_TCP_FASTOPEN = 23,
	OPTION_TCP_NOTSENT_LOWAT = 25,
	OPTION_TCP_SAVE_SYN = 27,
	OPTION_TCP_FASTOPEN_CONNECT = 30,
	OPTION_TCP_ULP = 31,
	OPTION_TCP_MD5SIG_EXT = 32,
	OPTION_TCP_FASTOPEN_KEY = 33,
	OPTION_TCP_FASTOPEN_NO_COOKIE = 34,
	OPTION_TCP_INQ = 36,
	OPTION_TCP_TX_DELAY = 37,
	OPTION_TCP_AO_ADD_KEY = 38,
	OPTION_TCP_RTO_MAX_MS = 44,
	OPTION_TCP_RTO_MIN_US = 45,
	OPTION_TCP_DELACK_MAX_US = 46
};

/* What becomes of an option where a connection that was opened ahead takes the place of the program's socket. */
enum option_kind {
	OPTION_CARRIED, /* means the same when it is set after the connect */
	OPTION_HALVED,	/* the same; the kernel tells twice what it was given */
	OPTION_ALWAYS,	/* the same; the connection opened ahead has its own until then */
	OPTION_BEFORE	/* decides how or whether a connection is made: a socket that has it is connected as ever */
};

/* What it is to a look (look.h), whose sockets are to find out what becomes of the program's. */
enum option_look {
	LOOK_OWN,  /* does not decide whether there is an answer */
	LOOK_SAME, /* decides the way that a connection takes, or which of the host's addresses it has: its sockets are told the same */
	LOOK_NOT   /* the same, and cannot be told again: such a socket is connected as ever */
};

enum { OPTION_BYTES = 16 };

/*
 * Everything that a stream socket can be told and that can be read back (native/test/cases-options.h asks the kernel whether that is all). In the order
 * in which they are set: IP_TOS changes the priority, a buffer's size its lock, old and new timestamps each other.
 */
static const struct {
	int level, name;
	enum option_kind kind;
	enum option_look look;
} socket_options[] = {
	{SOL_SOCKET, SO_BINDTODEVICE, OPTION_BEFORE, LOOK_SAME},
	{SOL_SOCKET, OPTION_SO_BINDTOIFINDEX, OPTION_BEFORE, LOOK_OWN},
	{SOL_SOCKET, SO_MARK, OPTION_BEFORE, LOOK_SAME},
	{SOL_SOCKET, SO_DONTROUTE, OPTION_BEFORE, LOOK_SAME},
	{SOL_SOCKET, SO_REUSEPORT, OPTION_BEFORE, LOOK_OWN},
	{SOL_SOCKET, SO_RCVBUF, OPTION_BEFORE, LOOK_OWN}, /* the window's scale is agreed upon in the handshake */
	{SOL_SOCKET, OPTION_SO_LOCK_FILTER, OPTION_BEFORE, LOOK_OWN},
	{SOL_SOCKET, OPTION_SO_TXTIME, OPTION_BEFORE, LOOK_NOT},
	{IPPROTO_IP, IP_TRANSPARENT, OPTION_BEFORE, LOOK_SAME},
	{IPPROTO_IP, IP_FREEBIND, OPTION_BEFORE, LOOK_SAME},
	{IPPROTO_IP, OPTION_IP_BIND_ADDRESS_NO_PORT, OPTION_BEFORE, LOOK_SAME},
	{IPPROTO_IP, OPTION_IP_UNICAST_IF, OPTION_BEFORE, LOOK_SAME},
	{IPPROTO_IP, OPTION_IP_LOCAL_PORT_RANGE, OPTION_BEFORE, LOOK_SAME},
	{IPPROTO_IP, IP_OPTIONS, OPTION_BEFORE, LOOK_NOT},
	{IPPROTO_IPV6, IPV6_V6ONLY, OPTION_BEFORE, LOOK_SAME},
	{IPPROTO_IPV6, OPTION_IPV6_FLOWINFO_SEND, OPTION_BEFORE, LOOK_NOT},
	{IPPROTO_IPV6, IPV6_ADDR_PREFERENCES, OPTION_BEFORE, LOOK_SAME},
	{IPPROTO_IPV6, OPTION_IPV6_TRANSPARENT, OPTION_BEFORE, LOOK_SAME},
	{IPPROTO_IPV6, OPTION_IPV6_FREEBIND, OPTION_BEFORE, LOOK_SAME},
	{IPPROTO_IPV6, OPTION_IPV6_UNICAST_IF, OPTION_BEFORE, LOOK_SAME},
	{IPPROTO_IPV6, IPV6_RTHDR, OPTION_BEFORE, LOOK_NOT},
	{IPPROTO_IPV6, IPV6_HOPOPTS, OPTION_BEFORE, LOOK_NOT},
	{IPPROTO_IPV6, IPV6_DSTOPTS, OPTION_BEFORE, LOOK_NOT},
	{IPPROTO_IPV6, IPV6_RTHDRDSTOPTS, OPTION_BEFORE, LOOK_NOT},
	{IPPROTO_TCP, TCP_MAXSEG, OPTION_BEFORE, LOOK_OWN},
	{IPPROTO_TCP, TCP_WINDOW_CLAMP, OPTION_BEFORE, LOOK_OWN},
	{IPPROTO_TCP, TCP_DEFER_ACCEPT, OPTION_BEFORE, LOOK_OWN},
	{IPPROTO_TCP, TCP_QUICKACK, OPTION_BEFORE, LOOK_OWN}, /* 0 = the last acknowledgement of the handshake waits for data */
	{IPPROTO_TCP, OPTION_TCP_FASTOPEN, OPTION_BEFORE, LOOK_OWN},
	{IPPROTO_TCP, OPTION_TCP_FASTOPEN_KEY, OPTION_BEFORE, LOOK_OWN},
	{IPPROTO_TCP, OPTION_TCP_FASTOPEN_CONNECT, OPTION_BEFORE, LOOK_OWN},
	{IPPROTO_TCP, OPTION_TCP_FASTOPEN_NO_COOKIE, OPTION_BEFORE, LOOK_OWN},
	{IPPROTO_TCP, OPTION_TCP_SAVE_SYN, OPTION_BEFORE, LOOK_OWN},
	{IPPROTO_TCP, OPTION_TCP_REPAIR, OPTION_BEFORE, LOOK_NOT},
	{IPPROTO_TCP, OPTION_TCP_ULP, OPTION_BEFORE, LOOK_NOT},

	{IPPROTO_IP, IP_TOS, OPTION_CARRIED, LOOK_SAME},
	{IPPROTO_IP, IP_TTL, OPTION_CARRIED, LOOK_SAME},
	{IPPROTO_IP, IP_MTU_DISCOVER, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_IP, IP_RECVERR, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_IP, OPTION_IP_RECVERR_RFC4884, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_IP, IP_RECVTOS, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_IP, IP_RECVTTL, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_IP, IP_RECVOPTS, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_IP, IP_RETOPTS, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_IP, IP_PKTINFO, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_IP, OPTION_IP_PASSSEC, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_IP, OPTION_IP_ORIGDSTADDR, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_IP, OPTION_IP_CHECKSUM, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_IP, IP_MULTICAST_LOOP, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_IP, OPTION_IP_MULTICAST_ALL, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_IP, IP_MINTTL, OPTION_CARRIED, LOOK_SAME},
	{IPPROTO_IP, OPTION_IP_RECVFRAGSIZE, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_IPV6, OPTION_IPV6_FLOWINFO, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_IPV6, IPV6_UNICAST_HOPS, OPTION_CARRIED, LOOK_SAME},
	{IPPROTO_IPV6, IPV6_TCLASS, OPTION_CARRIED, LOOK_SAME},
	{IPPROTO_IPV6, IPV6_MTU_DISCOVER, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_IPV6, IPV6_DONTFRAG, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_IPV6, IPV6_AUTOFLOWLABEL, OPTION_CARRIED, LOOK_SAME},
	{IPPROTO_IPV6, IPV6_RECVERR, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_IPV6, IPV6_RECVTCLASS, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_IPV6, IPV6_RECVHOPLIMIT, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_IPV6, IPV6_RECVPKTINFO, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_IPV6, OPTION_IPV6_RECVERR_RFC4884, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_IPV6, IPV6_RECVHOPOPTS, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_IPV6, IPV6_RECVRTHDR, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_IPV6, IPV6_RECVDSTOPTS, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_IPV6, IPV6_RECVPATHMTU, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_IPV6, OPTION_IPV6_ORIGDSTADDR, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_IPV6, OPTION_IPV6_RECVFRAGSIZE, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_IPV6, OPTION_IPV6_2292PKTINFO, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_IPV6, OPTION_IPV6_2292HOPOPTS, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_IPV6, OPTION_IPV6_2292DSTOPTS, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_IPV6, OPTION_IPV6_2292RTHDR, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_IPV6, OPTION_IPV6_2292HOPLIMIT, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_IPV6, IPV6_MULTICAST_LOOP, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_IPV6, OPTION_IPV6_MULTICAST_ALL, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_IPV6, OPTION_IPV6_ROUTER_ALERT_ISOLATE, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_IPV6, OPTION_IPV6_MINHOPCOUNT, OPTION_CARRIED, LOOK_SAME},
	{IPPROTO_TCP, TCP_NODELAY, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_TCP, TCP_CORK, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_TCP, TCP_SYNCNT, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_TCP, TCP_LINGER2, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_TCP, TCP_CONGESTION, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_TCP, TCP_THIN_DUPACK, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_TCP, OPTION_TCP_NOTSENT_LOWAT, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_TCP, OPTION_TCP_INQ, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_TCP, OPTION_TCP_TX_DELAY, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_TCP, OPTION_TCP_RTO_MAX_MS, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_TCP, OPTION_TCP_RTO_MIN_US, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_TCP, OPTION_TCP_DELACK_MAX_US, OPTION_CARRIED, LOOK_OWN},
	{IPPROTO_TCP, TCP_USER_TIMEOUT, OPTION_ALWAYS, LOOK_OWN},
	{IPPROTO_TCP, TCP_KEEPIDLE, OPTION_ALWAYS, LOOK_OWN},
	{IPPROTO_TCP, TCP_KEEPINTVL, OPTION_ALWAYS, LOOK_OWN},
	{IPPROTO_TCP, TCP_KEEPCNT, OPTION_ALWAYS, LOOK_OWN},
	{SOL_SOCKET, SO_KEEPALIVE, OPTION_ALWAYS, LOOK_OWN},
	{SOL_SOCKET, SO_REUSEADDR, OPTION_CARRIED, LOOK_OWN},
	{SOL_SOCKET, SO_DEBUG, OPTION_CARRIED, LOOK_OWN},
	{SOL_SOCKET, SO_BROADCAST, OPTION_CARRIED, LOOK_OWN},
	{SOL_SOCKET, SO_OOBINLINE, OPTION_CARRIED, LOOK_OWN},
	{SOL_SOCKET, SO_NO_CHECK, OPTION_CARRIED, LOOK_OWN},
	{SOL_SOCKET, SO_PASSCRED, OPTION_CARRIED, LOOK_OWN},
	{SOL_SOCKET, OPTION_SO_PASSSEC, OPTION_CARRIED, LOOK_OWN},
	{SOL_SOCKET, OPTION_SO_PASSPIDFD, OPTION_CARRIED, LOOK_OWN},
	{SOL_SOCKET, SO_LINGER, OPTION_CARRIED, LOOK_OWN},
	{SOL_SOCKET, SO_RCVTIMEO, OPTION_CARRIED, LOOK_OWN},
	{SOL_SOCKET, SO_SNDTIMEO, OPTION_CARRIED, LOOK_OWN},
	{SOL_SOCKET, SO_RCVLOWAT, OPTION_CARRIED, LOOK_OWN},
	{SOL_SOCKET, SO_TIMESTAMP, OPTION_CARRIED, LOOK_OWN},
	{SOL_SOCKET, SO_TIMESTAMPNS, OPTION_CARRIED, LOOK_OWN},
	{SOL_SOCKET, SO_TIMESTAMPING, OPTION_CARRIED, LOOK_OWN},
	{SOL_SOCKET, OPTION_SO_TIMESTAMP_NEW, OPTION_CARRIED, LOOK_OWN},
	{SOL_SOCKET, OPTION_SO_TIMESTAMPNS_NEW, OPTION_CARRIED, LOOK_OWN},
	{SOL_SOCKET, OPTION_SO_TIMESTAMPING_NEW, OPTION_CARRIED, LOOK_OWN},
	{SOL_SOCKET, SO_RXQ_OVFL, OPTION_CARRIED, LOOK_OWN},
	{SOL_SOCKET, SO_WIFI_STATUS, OPTION_CARRIED, LOOK_OWN},
	{SOL_SOCKET, SO_NOFCS, OPTION_CARRIED, LOOK_OWN},
	{SOL_SOCKET, SO_SELECT_ERR_QUEUE, OPTION_CARRIED, LOOK_OWN},
	{SOL_SOCKET, SO_PEEK_OFF, OPTION_CARRIED, LOOK_OWN},
	{SOL_SOCKET, OPTION_SO_BUSY_POLL, OPTION_CARRIED, LOOK_OWN},
	{SOL_SOCKET, OPTION_SO_PREFER_BUSY_POLL, OPTION_CARRIED, LOOK_OWN},
	{SOL_SOCKET, OPTION_SO_BUSY_POLL_BUDGET, OPTION_CARRIED, LOOK_OWN},
	{SOL_SOCKET, OPTION_SO_MAX_PACING_RATE, OPTION_CARRIED, LOOK_OWN},
	{SOL_SOCKET, OPTION_SO_ZEROCOPY, OPTION_CARRIED, LOOK_OWN},
	{SOL_SOCKET, OPTION_SO_RESERVE_MEM, OPTION_CARRIED, LOOK_OWN},
	{SOL_SOCKET, OPTION_SO_TXREHASH, OPTION_CARRIED, LOOK_OWN},
	{SOL_SOCKET, OPTION_SO_RCVMARK, OPTION_CARRIED, LOOK_OWN},
	{SOL_SOCKET, OPTION_SO_RCVPRIORITY, OPTION_CARRIED, LOOK_OWN},
	{SOL_SOCKET, SO_SNDBUF, OPTION_HALVED, LOOK_OWN},
	{SOL_SOCKET, OPTION_SO_BUF_LOCK, OPTION_CARRIED, LOOK_OWN},
	{SOL_SOCKET, SO_PRIORITY, OPTION_CARRIED, LOOK_SAME},
};

enum { OPTIONS = sizeof socket_options / sizeof socket_options[0] };

/* Sockets by cookie: a Bloom filter. It forgets nobody; wrong guesses only cost what is done without. */
enum { COOKIES_BITS = 1 << 16 };
struct cookies {
	_Atomic uint64_t bits[COOKIES_BITS / 64];
};

/* errno may change. */
static void cookies_add(struct cookies *cookies, int fd)
{
	uint64_t cookie = socket_cookie(fd);
	if (cookie == 0)
		return;
	uint64_t hash = balance_mix(cookie);
	for (int i = 0; i < 2; i++, hash >>= 32)
		atomic_fetch_or_explicit(&cookies->bits[hash % COOKIES_BITS / 64], 1ull << (hash % 64), memory_order_relaxed);
}

static bool cookies_have(const struct cookies *cookies, uint64_t cookie)
{
	uint64_t hash = balance_mix(cookie);
	for (int i = 0; i < 2; i++, hash >>= 32)
		if ((atomic_load_explicit(&cookies->bits[hash % COOKIES_BITS / 64], memory_order_relaxed) >> (hash % 64) & 1) == 0)
			return false;
	return true;
}

/* Sockets that were told what nobody can read back everywhere: keys, IPsec's policies, a path's MTU, packet filters. */
static struct cookies sockets_with_secrets;

static inline bool option_is_secret(int level, int name)
{
	switch (level) {
	case SOL_SOCKET: return name == SO_ATTACH_FILTER || name == OPTION_SO_ATTACH_BPF;
	case IPPROTO_TCP: return name == OPTION_TCP_MD5SIG || name == OPTION_TCP_MD5SIG_EXT || name == OPTION_TCP_AO_ADD_KEY;
	case IPPROTO_IP: return name == IP_IPSEC_POLICY || name == IP_XFRM_POLICY;
	case IPPROTO_IPV6: return name == IPV6_IPSEC_POLICY || name == IPV6_XFRM_POLICY || name == OPTION_IPV6_MTU || name == OPTION_IPV6_2292PKTOPTIONS;
	default: return false;
	}
}

/* True where not all that the socket was told can be told to another one, as far as reading its options shows no more of it. errno may change. */
static bool socket_has_secrets(int fd, uint64_t cookie)
{
	socklen_t instructions = 0;
	if (cookies_have(&sockets_with_secrets, cookie))
		return true;
	/* A packet filter; one of eBPF is refused to whoever asks. Emulators do not understand the question. */
	if (syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_GET_FILTER, NULL, &instructions) != 0)
		return errno == EACCES || errno == EPERM;
	return instructions != 0;
}

/* All options of a socket as bytes; what a socket does not have has length -1. */
struct option_values {
	signed char length[OPTIONS];
	unsigned char value[OPTIONS][OPTION_BYTES];
};

static void options_read(int fd, int domain, struct option_values *values)
{
	memset(values, 0, sizeof *values);
	for (int i = 0; i < OPTIONS; i++) {
		values->length[i] = -1;
		if (socket_options[i].level == IPPROTO_IPV6 && domain != AF_INET6)
			continue;
		socklen_t bytes = OPTION_BYTES;
		long result = syscall(SYS_getsockopt, fd, socket_options[i].level, socket_options[i].name, values->value[i], &bytes);
		if (result == 0 && bytes <= OPTION_BYTES)
			values->length[i] = (signed char)bytes;
	}
}

static bool option_is_default(const struct option_values *values, const struct option_values *defaults, int i)
{
	return values->length[i] == defaults->length[i] && memcmp(values->value[i], defaults->value[i], OPTION_BYTES) == 0;
}

/* True where all that differs from a fresh socket can be carried over. */
static bool options_can_be_carried(const struct option_values *values, const struct option_values *defaults)
{
	for (int i = 0; i < OPTIONS; i++)
		if (socket_options[i].kind == OPTION_BEFORE && !option_is_default(values, defaults, i))
			return false;
	return true;
}

static bool option_is(int fd, int i, const struct option_values *values)
{
	unsigned char value[OPTION_BYTES] = {0};
	socklen_t bytes = OPTION_BYTES;
	return syscall(SYS_getsockopt, fd, socket_options[i].level, socket_options[i].name, value, &bytes) == 0 &&
	       memcmp(value, values->value[i], sizeof value) == 0;
}

/* Sets on a connected socket what its future owner has set; false = the kernel refuses something. */
static bool options_carry(int fd, const struct option_values *values, const struct option_values *defaults)
{
	for (int i = 0; i < OPTIONS; i++) {
		enum option_kind kind = socket_options[i].kind;
		if (values->length[i] < 0 || kind == OPTION_BEFORE || (kind != OPTION_ALWAYS && option_is_default(values, defaults, i)))
			continue;
		unsigned char value[OPTION_BYTES];
		memcpy(value, values->value[i], sizeof value);
		if (kind == OPTION_HALVED) {
			int number;
			memcpy(&number, value, sizeof number);
			number /= 2;
			memcpy(value, &number, sizeof number);
		}
		if (syscall(SYS_setsockopt, fd, socket_options[i].level, socket_options[i].name, value, (socklen_t)values->length[i]) != 0)
			return false;
		/* The host's limit for sizes may be lower than what the program had by a right of its own. */
		if (kind == OPTION_HALVED && !option_is(fd, i, values))
			return false;
	}
	return true;
}

/* Carries over what belongs to the open file: blocking or not, and who gets its signals. */
static bool file_carry(int from, int to)
{
	struct f_owner_ex owner;
	int flags = fcntl(from, F_GETFL), signal_number = fcntl(from, F_GETSIG);
	if (flags < 0 || signal_number < 0 || fcntl(from, F_GETOWN_EX, &owner) != 0)
		return false;
	if (owner.pid != 0 && fcntl(to, F_SETOWN_EX, &owner) != 0)
		return false;
	if (signal_number != 0 && fcntl(to, F_SETSIG, signal_number) != 0)
		return false;
	return fcntl(to, F_SETFL, flags) == 0;
}

#endif
