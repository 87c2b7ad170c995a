// getaddrinfo and gethostbyname*: a service's name becomes its magic address, made by libc itself from the address's text.
#ifndef TRILITH_RESOLVE_H
#define TRILITH_RESOLVE_H

#include "prepare.h"

enum { ADDRESS_COPIES = 3 };

/* One answer of libc for an address in text form, its entries' canonical name ours. */
static int resolve_numeric(const char *text, int family, int flags, const char *service, const struct addrinfo *hints, const char *name,
			   struct addrinfo **list)
{
	struct addrinfo asked = {.ai_family = family};
	if (hints != NULL) {
		asked.ai_socktype = hints->ai_socktype;
		asked.ai_protocol = hints->ai_protocol;
	}
	asked.ai_flags = (flags & ~(AI_ADDRCONFIG | AI_V4MAPPED | AI_ALL)) | AI_NUMERICHOST;
	int error = real_getaddrinfo()(text, service, &asked, list);
	if (error != 0 || (flags & AI_CANONNAME) == 0 || (*list)->ai_canonname == NULL)
		return error;
#ifdef __GLIBC__
	/* freeaddrinfo frees it by itself. */
	char *copy = strdup(name);
	if (copy != NULL) {
		free((*list)->ai_canonname);
		(*list)->ai_canonname = copy;
	}
#else
	/* musl keeps it in the block of the list and frees only that. */
	const char *kept = name_kept(name);
	if (kept != NULL)
		(*list)->ai_canonname = (char *)(uintptr_t)kept;
#endif
	return 0;
}

struct answer_family {
	const char *text;
	int family;
	uint32_t backends;
};

/* The addresses to give out, best first. */
static int resolve_families(const struct magic_answer *a, int family, int flags, const char *mapped, struct answer_family out[2])
{
	struct answer_family v4 = {a->v4, AF_INET, a->v4_backends}, v6 = {a->v6, AF_INET6, a->v6_backends};
	bool has_v6 = a->v6[0] != 0;
	int n = 0;
	if (family == AF_INET) {
		out[n++] = v4;
	} else if (family == AF_INET6) {
		struct answer_family as_mapped = {mapped, AF_INET6, a->v4_backends};
		bool may_map = (flags & AI_V4MAPPED) != 0;
		/* Where only IPv4 backends are, an IPv6 socket reaches them by mapped addresses, also from the IPv6 magic address. */
		if (has_v6 && (v6.backends > 0 || !may_map))
			out[n++] = v6;
		if (may_map && (n == 0 || ((flags & AI_ALL) != 0 && v4.backends > 0)))
			out[n++] = as_mapped;
	} else {
		bool v6_first = has_v6 && v6.backends > v4.backends;
		if (v6_first)
			out[n++] = v6;
		if (!v6_first || v4.backends > 0)
			out[n++] = v4;
		if (!v6_first && has_v6 && v6.backends > 0)
			out[n++] = v6;
	}
	return n;
}

HOOK(int, getaddrinfo, const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **list)
{
	int family = hints == NULL ? AF_UNSPEC : hints->ai_family, flags = hints == NULL ? 0 : hints->ai_flags;
	struct magic_answer a;
	struct answer_family families[2];
	char mapped[sizeof "::ffff:" + INET_ADDRSTRLEN];
	if (real_getaddrinfo() == NULL)
		return EAI_FAIL;
	if (node == NULL || (flags & AI_NUMERICHOST) != 0 || (family != AF_UNSPEC && family != AF_INET && family != AF_INET6) || !prepared() ||
	    !magic_of_name(node, &a))
		return real_getaddrinfo()(node, service, hints, list);
	strcpy(mapped, "::ffff:");
	strcat(mapped, a.v4);
	int n = resolve_families(&a, family, flags, mapped, families);
	if (n == 0)
		return real_getaddrinfo()(node, service, hints, list);
	struct addrinfo *first = NULL, **end = &first;
	for (int i = 0; i < n; i++) {
		/*
		 * A client that connects without blocking can only try again itself, and what it tries is the next address of the list. So that
		 * it has one, a service of several backends is given out several times: each try goes to another backend.
		 */
		uint32_t copies = families[i].backends < 1 ? 1 : families[i].backends > ADDRESS_COPIES ? ADDRESS_COPIES : families[i].backends;
		for (uint32_t copy = 0; copy < copies; copy++) {
			struct addrinfo *part = NULL;
			int error = resolve_numeric(families[i].text, families[i].family, first == NULL ? flags : flags & ~AI_CANONNAME, service, hints,
						    a.name, &part);
			if (error != 0) {
				if (first == NULL)
					return error;
				break;
			}
#ifndef __GLIBC__
			*list = part; /* musl's lists are single blocks: they cannot be joined */
			return 0;
#endif
			*end = part;
			while (*end != NULL)
				end = &(*end)->ai_next;
		}
	}
	*list = first;
	return 0;
}

/* The address's text for a family of gethostbyname; NULL = not ours. */
static const char *resolve_host(const char *name, int family, struct magic_answer *a)
{
	if (name == NULL || (family != AF_INET && family != AF_INET6) || !prepared() || !magic_of_name(name, a))
		return NULL;
	return family == AF_INET ? a->v4 : a->v6[0] != 0 ? a->v6 : NULL;
}

static void resolve_renamed(struct hostent *host, const struct magic_answer *a)
{
	const char *kept = host == NULL ? NULL : name_kept(a->name);
	if (kept != NULL)
		host->h_name = (char *)(uintptr_t)kept;
}

HOOK(struct hostent *, gethostbyname, const char *name)
{
	struct magic_answer a;
	if (real_gethostbyname() == NULL)
		return NULL;
	const char *text = resolve_host(name, AF_INET, &a);
	if (text == NULL)
		return real_gethostbyname()(name);
	struct hostent *host = real_gethostbyname()(text);
	resolve_renamed(host, &a);
	return host;
}

HOOK(struct hostent *, gethostbyname2, const char *name, int family)
{
	struct magic_answer a;
	if (real_gethostbyname2() == NULL)
		return NULL;
	const char *text = resolve_host(name, family, &a);
	if (text == NULL)
		return real_gethostbyname2()(name, family);
	struct hostent *host = real_gethostbyname2()(text, family);
	resolve_renamed(host, &a);
	return host;
}

HOOK(int, gethostbyname_r, const char *name, struct hostent *host, char *buffer, size_t bytes, struct hostent **result, int *h_error)
{
	struct magic_answer a;
	if (real_gethostbyname_r() == NULL)
		return ENOSYS;
	const char *text = resolve_host(name, AF_INET, &a);
	if (text == NULL)
		return real_gethostbyname_r()(name, host, buffer, bytes, result, h_error);
	int error = real_gethostbyname_r()(text, host, buffer, bytes, result, h_error);
	if (error == 0)
		resolve_renamed(*result, &a);
	return error;
}

HOOK(int, gethostbyname2_r, const char *name, int family, struct hostent *host, char *buffer, size_t bytes, struct hostent **result, int *h_error)
{
	struct magic_answer a;
	if (real_gethostbyname2_r() == NULL)
		return ENOSYS;
	const char *text = resolve_host(name, family, &a);
	if (text == NULL)
		return real_gethostbyname2_r()(name, family, host, buffer, bytes, result, h_error);
	int error = real_gethostbyname2_r()(text, family, host, buffer, bytes, result, h_error);
	if (error == 0)
		resolve_renamed(*result, &a);
	return error;
}

#endif
