/* Lets a User-Mode-Linux kernel that knows less of the processor than the host does run there.

   Linux takes a process's extended registers (NT_X86_XSTATE) only as a whole, and on a processor with
   AMX they are four times as large as the buffer of UML 6.1, whose first process therefore dies at
   once. What UML does not know is in its initial state, as it never asks for it: zeroes after what it
   does know. Loaded with LD_PRELOAD; UML calls ptrace from one thread. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

#define WHOLE_BYTES_MAX 65536

typedef long (*call)(int, pid_t, void *, void *);

static call libc_ptrace;
static char whole[WHOLE_BYTES_MAX]; /* too large for the stack of a kernel */
static size_t whole_bytes;

__attribute__((constructor)) static void find_libc_ptrace(void)
{
	libc_ptrace = (call)dlsym(RTLD_NEXT, "ptrace");
}

static long set_whole(pid_t pid, void *note, const struct iovec *given)
{
	struct iovec all = {whole, sizeof whole};

	if (!whole_bytes) {
		if (libc_ptrace(PTRACE_GETREGSET, pid, note, &all) < 0)
			return -1;
		whole_bytes = all.iov_len;
		memset(whole, 0, sizeof whole);
	}
	if (given->iov_len >= whole_bytes) {
		errno = EFAULT;
		return -1;
	}
	memcpy(whole, given->iov_base, given->iov_len);
	all.iov_len = whole_bytes;
	return libc_ptrace(PTRACE_SETREGSET, pid, note, &all);
}

long ptrace(enum __ptrace_request request, ...)
{
	va_list rest;
	va_start(rest, request);
	pid_t pid = va_arg(rest, pid_t);
	void *address = va_arg(rest, void *), *data = va_arg(rest, void *);
	va_end(rest);

	if (request == PTRACE_SETREGSET && address == (void *)NT_X86_XSTATE && data) {
		const struct iovec *given = data;
		if (whole_bytes > given->iov_len)
			return set_whole(pid, address, given);
		long answer = libc_ptrace(request, pid, address, data);
		if (answer < 0 && errno == EFAULT)
			return set_whole(pid, address, given);
		return answer;
	}
	return libc_ptrace(request, pid, address, data);
}
