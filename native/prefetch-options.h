// What a socket was told before its connect, carried over to another one of its kind; what cannot be carried over is found out.
#ifndef TRILITH_PREFETCH_OPTIONS_H
#define TRILITH_PREFETCH_OPTIONS_H

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <string.h>

#include "real.h"

/* Newer than some C libraries; each is the number of Linux's generic ABI (x64, arm64). */
enum {
	OPTION_SO_LOCK_FILTER = 44,
	OPTION_SO_BUSY_POLL = 46,
	OPTION_SO_MAX_PACING_RATE = 47,
	OPTION_SO_ZEROCOPY = 60,
	OPTION_SO_TXTIME = 61,
	OPTION_SO_BINDTOIFINDEX = 62,
	OPTION_SO_PREFER_BUSY_POLL = 69,
	OPTION_SO_BUSY_POLL_BUDGET = 70,
	OPTION_SO_NETNS_COOKIE = 71,
	OPTION_SO_BUF_LOCK = 72,
	OPTION_SO_RESERVE_MEM = 73,
	OPTION_SO_TXREHASH = 74,
	OPTION_SO_RCVMARK = 75,
	OPTION_SO_RCVPRIORITY = 82,
	OPTION_IP_BIND_ADDRESS_NO_PORT = 24,
	OPTION_IP_RECVFRAGSIZE = 25,
	OPTION_IP_RECVERR_RFC4884 = 26,
	OPTION_IP_UNICAST_IF = 50,
	OPTION_IP_LOCAL_PORT_RANGE = 51,
	OPTION_IPV6_FLOWINFO = 11,
	OPTION_IPV6_FLOWINFO_SEND = 33,
	OPTION_IPV6_MINHOPCOUNT = 73,
	OPTION_IPV6_TRANSPARENT = 75,
	OPTION_IPV6_UNICAST_IF = 76,
	OPTION_IPV6_FREEBIND = 78,
	OPTION_TCP_REPAIR = 19,
	OPTION_TCP_FASTOPEN = 23,
	OPTION_TCP_NOTSENT_LOWAT = 25,
	OPTION_TCP_SAVE_SYN = 27,
	OPTION_TCP_FASTOPEN_CONNECT = 30,
	OPTION_TCP_ULP = 31,
	OPTION_TCP_FASTOPEN_NO_COOKIE = 34,
	OPTION_TCP_INQ = 36,
	OPTION_TCP_TX_DELAY = 37,
	OPTION_TCP_RTO_MAX_MS = 44,
	OPTION_TCP_RTO_MIN_US = 45,
	OPTION_TCP_DELACK_MAX_US = 46
};

enum option_kind {
	OPTION_CARRIED, /* means the same when it is set after the connect */
	OPTION_HALVED,	/* the same; the kernel tells twice what it was given */
	OPTION_ALWAYS,	/* the same; the connection opened ahead has its own until then */
	OPTION_BEFORE	/* decides how or whether a connection is made: a socket that has it is connected as ever */
};

enum { OPTION_BYTES = 16 };

/* In the order in which they are set: IP_TOS changes the priority, a buffer's size its lock. */
static const struct {
	int level, name;
	enum option_kind kind;
} prefetch_options[] = {
	{SOL_SOCKET, SO_BINDTODEVICE, OPTION_BEFORE},
	{SOL_SOCKET, OPTION_SO_BINDTOIFINDEX, OPTION_BEFORE},
	{SOL_SOCKET, SO_MARK, OPTION_BEFORE},
	{SOL_SOCKET, SO_DONTROUTE, OPTION_BEFORE},
	{SOL_SOCKET, SO_REUSEPORT, OPTION_BEFORE},
	{SOL_SOCKET, SO_RCVBUF, OPTION_BEFORE}, /* the window's scale is agreed upon in the handshake */
	{SOL_SOCKET, OPTION_SO_LOCK_FILTER, OPTION_BEFORE},
	{SOL_SOCKET, OPTION_SO_TXTIME, OPTION_BEFORE},
	{IPPROTO_IP, IP_TRANSPARENT, OPTION_BEFORE},
	{IPPROTO_IP, IP_FREEBIND, OPTION_BEFORE},
	{IPPROTO_IP, OPTION_IP_BIND_ADDRESS_NO_PORT, OPTION_BEFORE},
	{IPPROTO_IP, OPTION_IP_UNICAST_IF, OPTION_BEFORE},
	{IPPROTO_IP, OPTION_IP_LOCAL_PORT_RANGE, OPTION_BEFORE},
	{IPPROTO_IP, IP_OPTIONS, OPTION_BEFORE},
	{IPPROTO_IPV6, IPV6_V6ONLY, OPTION_BEFORE},
	{IPPROTO_IPV6, OPTION_IPV6_FLOWINFO_SEND, OPTION_BEFORE},
	{IPPROTO_IPV6, IPV6_ADDR_PREFERENCES, OPTION_BEFORE},
	{IPPROTO_IPV6, OPTION_IPV6_TRANSPARENT, OPTION_BEFORE},
	{IPPROTO_IPV6, OPTION_IPV6_FREEBIND, OPTION_BEFORE},
	{IPPROTO_IPV6, OPTION_IPV6_UNICAST_IF, OPTION_BEFORE},
	{IPPROTO_IPV6, IPV6_RTHDR, OPTION_BEFORE},
	{IPPROTO_IPV6, IPV6_HOPOPTS, OPTION_BEFORE},
	{IPPROTO_IPV6, IPV6_DSTOPTS, OPTION_BEFORE},
	{IPPROTO_TCP, TCP_MAXSEG, OPTION_BEFORE},
	{IPPROTO_TCP, TCP_WINDOW_CLAMP, OPTION_BEFORE},
	{IPPROTO_TCP, TCP_DEFER_ACCEPT, OPTION_BEFORE},
	{IPPROTO_TCP, OPTION_TCP_FASTOPEN, OPTION_BEFORE},
	{IPPROTO_TCP, OPTION_TCP_FASTOPEN_CONNECT, OPTION_BEFORE},
	{IPPROTO_TCP, OPTION_TCP_FASTOPEN_NO_COOKIE, OPTION_BEFORE},
	{IPPROTO_TCP, OPTION_TCP_SAVE_SYN, OPTION_BEFORE},
	{IPPROTO_TCP, OPTION_TCP_REPAIR, OPTION_BEFORE},
	{IPPROTO_TCP, OPTION_TCP_ULP, OPTION_BEFORE},

	{IPPROTO_IP, IP_TOS, OPTION_CARRIED},
	{IPPROTO_IP, IP_TTL, OPTION_CARRIED},
	{IPPROTO_IP, IP_MTU_DISCOVER, OPTION_CARRIED},
	{IPPROTO_IP, IP_RECVERR, OPTION_CARRIED},
	{IPPROTO_IP, OPTION_IP_RECVERR_RFC4884, OPTION_CARRIED},
	{IPPROTO_IP, IP_RECVTOS, OPTION_CARRIED},
	{IPPROTO_IP, IP_RECVTTL, OPTION_CARRIED},
	{IPPROTO_IP, IP_RECVOPTS, OPTION_CARRIED},
	{IPPROTO_IP, IP_RETOPTS, OPTION_CARRIED},
	{IPPROTO_IP, IP_PKTINFO, OPTION_CARRIED},
	{IPPROTO_IP, IP_MINTTL, OPTION_CARRIED},
	{IPPROTO_IP, OPTION_IP_RECVFRAGSIZE, OPTION_CARRIED},
	{IPPROTO_IPV6, OPTION_IPV6_FLOWINFO, OPTION_CARRIED},
	{IPPROTO_IPV6, IPV6_UNICAST_HOPS, OPTION_CARRIED},
	{IPPROTO_IPV6, IPV6_TCLASS, OPTION_CARRIED},
	{IPPROTO_IPV6, IPV6_MTU_DISCOVER, OPTION_CARRIED},
	{IPPROTO_IPV6, IPV6_DONTFRAG, OPTION_CARRIED},
	{IPPROTO_IPV6, IPV6_AUTOFLOWLABEL, OPTION_CARRIED},
	{IPPROTO_IPV6, IPV6_RECVERR, OPTION_CARRIED},
	{IPPROTO_IPV6, IPV6_RECVTCLASS, OPTION_CARRIED},
	{IPPROTO_IPV6, IPV6_RECVHOPLIMIT, OPTION_CARRIED},
	{IPPROTO_IPV6, IPV6_RECVPKTINFO, OPTION_CARRIED},
	{IPPROTO_IPV6, OPTION_IPV6_MINHOPCOUNT, OPTION_CARRIED},
	{IPPROTO_TCP, TCP_NODELAY, OPTION_CARRIED},
	{IPPROTO_TCP, TCP_CORK, OPTION_CARRIED},
	{IPPROTO_TCP, TCP_SYNCNT, OPTION_CARRIED},
	{IPPROTO_TCP, TCP_LINGER2, OPTION_CARRIED},
	{IPPROTO_TCP, TCP_CONGESTION, OPTION_CARRIED},
	{IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, OPTION_CARRIED},
	{IPPROTO_TCP, TCP_THIN_DUPACK, OPTION_CARRIED},
	{IPPROTO_TCP, OPTION_TCP_NOTSENT_LOWAT, OPTION_CARRIED},
	{IPPROTO_TCP, OPTION_TCP_INQ, OPTION_CARRIED},
	{IPPROTO_TCP, OPTION_TCP_TX_DELAY, OPTION_CARRIED},
	{IPPROTO_TCP, OPTION_TCP_RTO_MAX_MS, OPTION_CARRIED},
	{IPPROTO_TCP, OPTION_TCP_RTO_MIN_US, OPTION_CARRIED},
	{IPPROTO_TCP, OPTION_TCP_DELACK_MAX_US, OPTION_CARRIED},
	{IPPROTO_TCP, TCP_USER_TIMEOUT, OPTION_ALWAYS},
	{IPPROTO_TCP, TCP_KEEPIDLE, OPTION_ALWAYS},
	{IPPROTO_TCP, TCP_KEEPINTVL, OPTION_ALWAYS},
	{IPPROTO_TCP, TCP_KEEPCNT, OPTION_ALWAYS},
	{SOL_SOCKET, SO_KEEPALIVE, OPTION_ALWAYS},
	{SOL_SOCKET, SO_REUSEADDR, OPTION_CARRIED},
	{SOL_SOCKET, SO_DEBUG, OPTION_CARRIED},
	{SOL_SOCKET, SO_BROADCAST, OPTION_CARRIED},
	{SOL_SOCKET, SO_OOBINLINE, OPTION_CARRIED},
	{SOL_SOCKET, SO_LINGER, OPTION_CARRIED},
	{SOL_SOCKET, SO_RCVTIMEO, OPTION_CARRIED},
	{SOL_SOCKET, SO_SNDTIMEO, OPTION_CARRIED},
	{SOL_SOCKET, SO_RCVLOWAT, OPTION_CARRIED},
	{SOL_SOCKET, SO_TIMESTAMP, OPTION_CARRIED},
	{SOL_SOCKET, SO_TIMESTAMPNS, OPTION_CARRIED},
	{SOL_SOCKET, SO_TIMESTAMPING, OPTION_CARRIED},
	{SOL_SOCKET, SO_RXQ_OVFL, OPTION_CARRIED},
	{SOL_SOCKET, SO_WIFI_STATUS, OPTION_CARRIED},
	{SOL_SOCKET, SO_NOFCS, OPTION_CARRIED},
	{SOL_SOCKET, SO_SELECT_ERR_QUEUE, OPTION_CARRIED},
	{SOL_SOCKET, SO_PEEK_OFF, OPTION_CARRIED},
	{SOL_SOCKET, OPTION_SO_BUSY_POLL, OPTION_CARRIED},
	{SOL_SOCKET, OPTION_SO_PREFER_BUSY_POLL, OPTION_CARRIED},
	{SOL_SOCKET, OPTION_SO_BUSY_POLL_BUDGET, OPTION_CARRIED},
	{SOL_SOCKET, OPTION_SO_MAX_PACING_RATE, OPTION_CARRIED},
	{SOL_SOCKET, OPTION_SO_ZEROCOPY, OPTION_CARRIED},
	{SOL_SOCKET, OPTION_SO_RESERVE_MEM, OPTION_CARRIED},
	{SOL_SOCKET, OPTION_SO_TXREHASH, OPTION_CARRIED},
	{SOL_SOCKET, OPTION_SO_RCVMARK, OPTION_CARRIED},
	{SOL_SOCKET, OPTION_SO_RCVPRIORITY, OPTION_CARRIED},
	{SOL_SOCKET, SO_SNDBUF, OPTION_HALVED},
	{SOL_SOCKET, OPTION_SO_BUF_LOCK, OPTION_CARRIED},
	{SOL_SOCKET, SO_PRIORITY, OPTION_CARRIED},
};

enum { OPTIONS = sizeof prefetch_options / sizeof prefetch_options[0] };

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
		if (prefetch_options[i].level == IPPROTO_IPV6 && domain != AF_INET6)
			continue;
		socklen_t bytes = OPTION_BYTES;
		long result = syscall(SYS_getsockopt, fd, prefetch_options[i].level, prefetch_options[i].name, values->value[i], &bytes);
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
		if (prefetch_options[i].kind == OPTION_BEFORE && !option_is_default(values, defaults, i))
			return false;
	return true;
}

/* Sets on a connected socket what its future owner has set; false = the kernel refuses something. */
static bool options_carry(int fd, const struct option_values *values, const struct option_values *defaults)
{
	for (int i = 0; i < OPTIONS; i++) {
		enum option_kind kind = prefetch_options[i].kind;
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
		if (syscall(SYS_setsockopt, fd, prefetch_options[i].level, prefetch_options[i].name, value, (socklen_t)values->length[i]) != 0)
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
