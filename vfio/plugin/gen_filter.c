/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Build-time program: writes the seccomp filter of a plugin's process as a C array.
 *
 * What is not in the list fails with EPERM and nothing more: a plugin is other people's
 * code, and its libraries may well try what they can do without.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "base/bytes.h"

/* clang-format off */
static const int calls[] = {
	/* memory, threads, time, its own end */
	SCMP_SYS(brk), SCMP_SYS(mmap), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(mprotect),
	SCMP_SYS(madvise), SCMP_SYS(membarrier),
	SCMP_SYS(futex), SCMP_SYS(set_robust_list), SCMP_SYS(rseq), SCMP_SYS(set_tid_address),
	SCMP_SYS(sched_yield), SCMP_SYS(sched_getaffinity), SCMP_SYS(getcpu),
	SCMP_SYS(clock_gettime), SCMP_SYS(clock_getres), SCMP_SYS(clock_nanosleep),
	SCMP_SYS(nanosleep), SCMP_SYS(gettimeofday), SCMP_SYS(time), SCMP_SYS(getrandom),
	SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn),
	SCMP_SYS(sigaltstack), SCMP_SYS(pause), SCMP_SYS(restart_syscall), SCMP_SYS(alarm),
	SCMP_SYS(exit), SCMP_SYS(exit_group),
	/* who and where it is */
	SCMP_SYS(getpid), SCMP_SYS(gettid), SCMP_SYS(getppid), SCMP_SYS(getuid),
	SCMP_SYS(geteuid), SCMP_SYS(getgid), SCMP_SYS(getegid), SCMP_SYS(uname),
	SCMP_SYS(sysinfo), SCMP_SYS(getcwd), SCMP_SYS(getrusage), SCMP_SYS(getrlimit),
	/* files, to read: see allow_opening() */
	SCMP_SYS(read), SCMP_SYS(pread64), SCMP_SYS(readv), SCMP_SYS(preadv), SCMP_SYS(lseek),
	SCMP_SYS(fstat), SCMP_SYS(stat), SCMP_SYS(lstat), SCMP_SYS(newfstatat), SCMP_SYS(statx),
	SCMP_SYS(fstatfs), SCMP_SYS(access), SCMP_SYS(faccessat), SCMP_SYS(faccessat2),
	SCMP_SYS(readlink), SCMP_SYS(readlinkat), SCMP_SYS(getdents64), SCMP_SYS(close),
	SCMP_SYS(close_range), SCMP_SYS(dup), SCMP_SYS(dup2), SCMP_SYS(dup3),
	/* sockets and waiting: see allow_sockets() */
	SCMP_SYS(write), SCMP_SYS(writev), SCMP_SYS(connect), SCMP_SYS(shutdown),
	SCMP_SYS(sendto), SCMP_SYS(sendmsg), SCMP_SYS(sendmmsg), SCMP_SYS(recvfrom),
	SCMP_SYS(recvmsg), SCMP_SYS(recvmmsg), SCMP_SYS(getsockopt), SCMP_SYS(setsockopt),
	SCMP_SYS(getsockname), SCMP_SYS(getpeername),
	SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(select), SCMP_SYS(pselect6),
	SCMP_SYS(epoll_create), SCMP_SYS(epoll_create1), SCMP_SYS(epoll_ctl),
	SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait), SCMP_SYS(eventfd2), SCMP_SYS(pipe),
	SCMP_SYS(pipe2), SCMP_SYS(timerfd_create), SCMP_SYS(timerfd_settime),
	SCMP_SYS(timerfd_gettime),
};
/* clang-format on */

static void check(int r, const char *what)
{
	if (r) {
		fprintf(stderr, "gen_filter: %s: %s\n", what, strerror(-r));
		exit(1);
	}
}

static void allow_if(scmp_filter_ctx ctx, int call, const struct scmp_arg_cmp *conditions,
		     unsigned int count)
{
	check(seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, call, count, conditions), "rule");
}

/* Without Landlock, too: nothing is opened for writing, nothing made. */
static void allow_opening(scmp_filter_ctx ctx)
{
	const uint64_t writes = O_ACCMODE | O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY);
	const struct scmp_arg_cmp open_flags = { .arg = 1,
						 .op = SCMP_CMP_MASKED_EQ,
						 .datum_a = writes };
	const struct scmp_arg_cmp openat_flags = { .arg = 2,
						   .op = SCMP_CMP_MASKED_EQ,
						   .datum_a = writes };

	allow_if(ctx, SCMP_SYS(open), &open_flags, 1);
	allow_if(ctx, SCMP_SYS(openat), &openat_flags, 1);
}

/* To connect, by IPv4 and IPv6. Binding and listening are not among the calls, raw packets
 * not among the types, and no socket can reach one of the file system. */
static void allow_sockets(scmp_filter_ctx ctx)
{
	static const uint64_t families[] = { AF_INET, AF_INET6 };
	const struct scmp_arg_cmp stream = {
		.arg = 1, .op = SCMP_CMP_MASKED_EQ, .datum_a = 0xf, .datum_b = SOCK_STREAM
	};

	for (size_t i = 0; i < ARRAY_SIZE(families); i++)
		for (uint64_t type = SOCK_STREAM; type <= SOCK_DGRAM; type++) {
			const struct scmp_arg_cmp is[] = {
				{ .arg = 0, .op = SCMP_CMP_EQ, .datum_a = families[i] },
				{ .arg = 1,
				  .op = SCMP_CMP_MASKED_EQ,
				  .datum_a = 0xf,
				  .datum_b = type },
			};

			allow_if(ctx, SCMP_SYS(socket), is, 2);
		}
	/* Connected for good, unlike a pair of datagram sockets. */
	allow_if(ctx, SCMP_SYS(socketpair), &stream, 1);
}

static void allow_threads(scmp_filter_ctx ctx)
{
	const uint64_t thread = CLONE_THREAD | CLONE_VM;
	const struct scmp_arg_cmp threads_only = {
		.arg = 0, .op = SCMP_CMP_MASKED_EQ, .datum_a = thread, .datum_b = thread
	};

	allow_if(ctx, SCMP_SYS(clone), &threads_only, 1);
	/* Its flags are in memory; the C library falls back to clone. */
	check(seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0), "clone3");
}

static void allow_values(scmp_filter_ctx ctx, int call, unsigned int arg, const uint64_t *values,
			 size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const struct scmp_arg_cmp is = { .arg = arg,
						 .op = SCMP_CMP_EQ,
						 .datum_a = values[i] };

		allow_if(ctx, call, &is, 1);
	}
}

/* Of itself only: fcntl could name somebody else to get signals. */
static void allow_arguments(scmp_filter_ctx ctx)
{
	static const uint64_t prctls[] = { PR_SET_NAME, PR_GET_NAME };
	static const uint64_t ioctls[] = { FIONBIO, FIONREAD };
	static const uint64_t fcntls[] = { F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_SETFD,
					   F_GETFL, F_SETFL,	     F_GETLK, F_SETLK };
	static const uint64_t own_pid[] = { 0 };

	allow_values(ctx, SCMP_SYS(prctl), 0, prctls, ARRAY_SIZE(prctls));
	allow_values(ctx, SCMP_SYS(ioctl), 1, ioctls, ARRAY_SIZE(ioctls));
	allow_values(ctx, SCMP_SYS(fcntl), 1, fcntls, ARRAY_SIZE(fcntls));
	allow_values(ctx, SCMP_SYS(prlimit64), 0, own_pid, ARRAY_SIZE(own_pid));
}

int main(void)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	FILE *file = tmpfile();
	struct {
		uint16_t code;
		uint8_t jt, jf;
		uint32_t k;
	} op;

	if (!ctx || !file)
		check(-ENOMEM, "init");
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
		check(seccomp_rule_add(ctx, SCMP_ACT_ALLOW, calls[i], 0), "rule");
	allow_opening(ctx);
	allow_sockets(ctx);
	allow_threads(ctx);
	allow_arguments(ctx);
	check(seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2), "optimize");
	check(seccomp_export_bpf(ctx, fileno(file)), "export");
	rewind(file);
	printf("/* Made by vfio/plugin/gen_filter.c; do not edit. */\n"
	       "static const struct sock_filter plugin_filter[] = {\n");
	while (fread(&op, sizeof(op), 1, file) == 1)
		printf("\t{ 0x%04x, %u, %u, 0x%08x },\n", op.code, op.jt, op.jf, op.k);
	printf("};\n");
	fclose(file);
	seccomp_release(ctx);
	return 0;
}
