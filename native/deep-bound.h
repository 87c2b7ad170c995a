// dlopen with RTLD_DEEPBIND: libraries that would look for connect in libc before they look here are told to come here all the same.
#ifndef TRILITH_DEEP_BOUND_H
#define TRILITH_DEEP_BOUND_H

#include <link.h>

#include "datagrams.h"
#include "resolve.h"

/*
 * What a program opens so (PHP does with its extensions, its libcurl among them) takes each function from the libraries that come with it, so from libc,
 * and no preloaded library is asked. Leaving the flag out could give it other functions of the same name than it was made for: so only those that
 * stand here change, in the tables through which the new libraries call others, and only where libc's own stood in them.
 */
#if defined(RTLD_DEEPBIND) && defined(__LP64__) && defined(__OPTIMIZE__) && (defined(__x86_64__) || defined(__aarch64__))

#include <linux/futex.h>

#ifdef __x86_64__
enum { DEEP_CALLED = R_X86_64_JUMP_SLOT, DEEP_POINTED_TO = R_X86_64_GLOB_DAT, DEEP_KEPT = R_X86_64_64 };
#else
enum { DEEP_CALLED = R_AARCH64_JUMP_SLOT, DEEP_POINTED_TO = R_AARCH64_GLOB_DAT, DEEP_KEPT = R_AARCH64_ABS64 };
#endif

typedef void deep_function(void);
/* By the names that everybody sees, so that a library preloaded before comes first here as elsewhere. */
#define DEEP(name) {#name, (deep_function *)hook_##name}
static const struct {
	const char *name;
	deep_function *hook;
} deep_hooks[] = {DEEP(connect),       DEEP(close),	   DEEP(getsockopt),	 DEEP(setsockopt),	DEEP(sendto),	      DEEP(sendmsg),
		  DEEP(sendmmsg),      DEEP(recvfrom),	   DEEP(recvmsg),	 DEEP(recvmmsg),	DEEP(__recvfrom_chk), DEEP(epoll_ctl),
		  DEEP(chroot),	       DEEP(getaddrinfo),  DEEP(gethostbyname),	 DEEP(gethostbyname2),	DEEP(gethostbyname_r), DEEP(gethostbyname2_r)};
enum { DEEP_HOOKS = sizeof deep_hooks / sizeof *deep_hooks };

struct deep {
	size_t place, known;		   /* the libraries of before the call come first */
	unsigned long long closed;	   /* how many were closed until then */
	deep_function *libcs[DEEP_HOOKS]; /* libc's own, where that is what the new libraries find; else NULL */
};

/* Whether the bytes at an address lie in one part of a library, one that may be written where that is asked. */
static bool deep_is_in(const struct dl_phdr_info *info, uintptr_t at, size_t bytes, bool writable)
{
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *part = &info->dlpi_phdr[i];
		uintptr_t begin = info->dlpi_addr + part->p_vaddr;
		if (part->p_type == PT_LOAD && at >= begin && at - begin < part->p_memsz && part->p_memsz - (at - begin) >= bytes)
			return !writable || (part->p_flags & PF_W) != 0;
	}
	return false;
}

static const ElfW(Dyn) *deep_dynamic(const struct dl_phdr_info *info)
{
	for (int i = 0; i < info->dlpi_phnum; i++)
		if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
			return (const ElfW(Dyn) *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
	return NULL;
}

static int deep_count(struct dl_phdr_info *info, size_t bytes, void *context)
{
	struct deep *deep = context;
	(void)bytes;
	deep->known++;
	deep->closed = info->dlpi_subs;
	return 0;
}

/* A library's place in memory by what its dynamic section says: the loader has put addresses there, but for some kinds of machines. */
static uintptr_t deep_address(const struct dl_phdr_info *info, ElfW(Addr) said)
{
	return said < info->dlpi_addr ? info->dlpi_addr + said : said;
}

/* The pages that the loader has made read-only, once it had filled the tables in them: opened when the first of a library's is to change. */
struct deep_sealed {
	uintptr_t begin, end;
	bool is_open;
};

static bool deep_protect(struct deep_sealed *sealed, bool open)
{
	if (mprotect((void *)sealed->begin, sealed->end - sealed->begin, open ? PROT_READ | PROT_WRITE : PROT_READ) != 0)
		return false;
	sealed->is_open = open;
	return true;
}

enum deep_pages { DEEP_SEALED, DEEP_OPEN, DEEP_UNKNOWN };

/* Whether a place can be written, asked without writing to it: by whether the kernel can add nothing to what is there. */
static enum deep_pages deep_pages_at(uintptr_t at)
{
	uint32_t nobody = 0;
	long said = syscall(SYS_futex, &nobody, FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, 0, 0L, (uint32_t *)at, FUTEX_OP(FUTEX_OP_ADD, 0, FUTEX_OP_CMP_EQ, 0));
	return said >= 0 ? DEEP_OPEN : errno == EFAULT ? DEEP_SEALED : DEEP_UNKNOWN;
}

/*
 * Another thread may be loading a library, which stands in the list already. Its tables are open, and its loader may seal them at any moment, between a look
 * and a store, too: so what is to be sealed changes only once it is. The other thread comes here with that library when its loader is done.
 */
static void deep_store(const struct dl_phdr_info *info, deep_function *_Atomic *slot, deep_function *was, deep_function *hook,
		       struct deep_sealed *sealed)
{
	uintptr_t at = (uintptr_t)slot;
	bool is_sealed = at >= sealed->begin && at < sealed->end;
	if (!is_sealed && (!deep_is_in(info, at, sizeof *slot, true) || deep_pages_at(at) != DEEP_OPEN))
		return;
	if (is_sealed && !sealed->is_open && (deep_pages_at(at) != DEEP_SEALED || !deep_protect(sealed, true)))
		return;
	/* A pointer in its data is the library's own to change. */
	atomic_compare_exchange_strong(slot, &was, hook);
}

static void deep_relocations(const struct deep *deep, const struct dl_phdr_info *info, const ElfW(Rela) *at, size_t bytes, const ElfW(Sym) *symbols,
			     const char *strings, struct deep_sealed *sealed)
{
	for (size_t i = 0; i < bytes / sizeof *at; i++) {
		unsigned type = (unsigned)ELF64_R_TYPE(at[i].r_info);
		const ElfW(Sym) *symbol = &symbols[ELF64_R_SYM(at[i].r_info)];
		if ((type != DEEP_CALLED && type != DEEP_POINTED_TO && type != DEEP_KEPT) || symbol->st_shndx != SHN_UNDEF)
			continue;
		deep_function *_Atomic *slot = (deep_function *_Atomic *)(info->dlpi_addr + at[i].r_offset);
		if ((uintptr_t)slot % sizeof *slot != 0) /* of a packed structure: not to be read or written at once */
			continue;
		for (int k = 0; k < DEEP_HOOKS; k++) {
			if (deep->libcs[k] == NULL || strcmp(strings + symbol->st_name, deep_hooks[k].name) != 0)
				continue;
			deep_function *is = atomic_load(slot);
			/* One that has not been called yet leads into the library itself, to what would ask the loader. */
			bool is_unasked = type == DEEP_CALLED && deep_is_in(info, (uintptr_t)is, 1, false);
			if (is == deep->libcs[k] || is_unasked)
				deep_store(info, slot, is, deep_hooks[k].hook, sealed);
		}
	}
}

static int deep_library(struct dl_phdr_info *info, size_t size, void *context)
{
	struct deep *deep = context;
	(void)size;
	if (deep->place == 0) {
		/* Those that others closed meanwhile may have stood before the new ones. */
		unsigned long long closed = info->dlpi_subs - deep->closed;
		deep->known -= closed < deep->known ? (size_t)closed : deep->known;
	}
	if (deep->place++ < deep->known)
		return 0;
	struct deep_sealed sealed = {0, 0, false};
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *part = &info->dlpi_phdr[i];
		uintptr_t begin = info->dlpi_addr + part->p_vaddr, its_end = begin + part->p_memsz;
		if (part->p_type == PT_GNU_RELRO)
			sealed = (struct deep_sealed){begin & ~(page - 1), its_end & ~(page - 1), false};
	}
	const ElfW(Sym) *symbols = NULL;
	const char *strings = NULL;
	const ElfW(Rela) *called = NULL, *others = NULL;
	size_t called_bytes = 0, others_bytes = 0;
	for (const ElfW(Dyn) *dynamic = deep_dynamic(info); dynamic != NULL && dynamic->d_tag != DT_NULL; dynamic++)
		switch (dynamic->d_tag) {
		case DT_SYMTAB: symbols = (const ElfW(Sym) *)deep_address(info, dynamic->d_un.d_ptr); break;
		case DT_STRTAB: strings = (const char *)deep_address(info, dynamic->d_un.d_ptr); break;
		case DT_JMPREL: called = (const ElfW(Rela) *)deep_address(info, dynamic->d_un.d_ptr); break;
		case DT_RELA: others = (const ElfW(Rela) *)deep_address(info, dynamic->d_un.d_ptr); break;
		case DT_PLTRELSZ: called_bytes = dynamic->d_un.d_val; break;
		case DT_RELASZ: others_bytes = dynamic->d_un.d_val; break;
		default: break;
		}
	if (symbols == NULL || strings == NULL)
		return 0;
	if (called != NULL)
		deep_relocations(deep, info, called, called_bytes, symbols, strings, &sealed);
	if (others != NULL)
		deep_relocations(deep, info, others, others_bytes, symbols, strings, &sealed);
	if (sealed.is_open)
		deep_protect(&sealed, false);
	return 0;
}

/* dlsym may not be asked while the list of libraries is gone through. */
static void deep_compare(struct deep *deep, void *handle, void *libc)
{
	for (int k = 0; k < DEEP_HOOKS; k++) {
		deep_function *its = __extension__(deep_function *) dlsym(libc, deep_hooks[k].name);
		deep_function *found = __extension__(deep_function *) dlsym(handle, deep_hooks[k].name);
		deep->libcs[k] = found == its ? its : NULL;
	}
}

/* As the loader's dlopen, but for whom it takes to be the caller. */
__attribute__((noinline)) static void *deep_open(dlopen_function *real, const char *path, int mode)
{
	struct deep deep;
	memset(&deep, 0, sizeof deep);
	dl_iterate_phdr(deep_count, &deep);
	void *handle = real(path, mode);
	if (handle == NULL)
		return NULL;
	int errno_before = errno;
	void *libc = real("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
	if (libc != NULL) {
		deep_compare(&deep, handle, libc);
		dl_iterate_phdr(deep_library, &deep);
		dlclose(libc);
	}
	dlerror(); /* of what there was not: nothing for the program */
	errno = errno_before;
	return handle;
}

/* The loader looks for libraries beside whoever called it, and knows him by the address to which it returns: so it is jumped to, not called. */
#ifdef __clang__
#define DEEP_JUMP(call) __attribute__((musttail)) return call
#define DEEP_JUMPS
#else
#define DEEP_JUMP(call) return call
#define DEEP_JUMPS __attribute__((optimize("optimize-sibling-calls")))
#endif

/* Where the loader would have to look for the library, or for part of its path, it does so for the caller, and nothing is changed. */
HOOK(DEEP_JUMPS void *, dlopen, const char *path, int mode)
{
	dlopen_function *real = real_dlopen();
	if (__builtin_expect((mode & RTLD_DEEPBIND) != 0, 0) && path != NULL && strchr(path, '/') != NULL && strchr(path, '$') == NULL) {
		void *handle = deep_open(real, path, mode);
		if (handle != NULL)
			return handle;
	}
	DEEP_JUMP(real(path, mode));
}

#endif
#endif
