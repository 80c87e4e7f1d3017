/* SPDX-License-Identifier: Apache-2.0 */
/* The seccomp filters as they are installed: each case is a process of its own that
 * enters filters, makes one call, and lives or dies by SIGSYS. */
#include <check.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "tests/unit/helpers/run_suite.h"
#include "vmm/sandbox.h"

#define IN(kind) (1u << (kind))
#define EVERYWHERE ((1u << THREAD_KINDS) - 1)
#define BUT_MAIN (EVERYWHERE & ~IN(THREAD_MAIN))
#define DATA (IN(THREAD_MAIN) | IN(THREAD_IO) | IN(THREAD_MIGRATION))

/* A call by number; what it returns does not matter, only whether it is reached. -1 is
 * no descriptor and no address, so that none does anything. */
struct call {
	const char *name;
	unsigned int kinds;
	long number, args[4];
};

/* clang-format off */
static const struct call forbidden[] = {
	{ "execve", EVERYWHERE, SYS_execve, { -1, -1, -1 } },
	{ "execveat", EVERYWHERE, SYS_execveat, { -1, -1, -1, -1 } },
	{ "fork", EVERYWHERE, SYS_fork, { 0 } },
	{ "vfork by clone", EVERYWHERE, SYS_clone, { CLONE_VM | CLONE_VFORK | SIGCHLD } },
	{ "clone into a namespace", EVERYWHERE, SYS_clone, { CLONE_NEWUSER | SIGCHLD } },
	{ "kill", EVERYWHERE, SYS_kill, { 0, 0 } },
	{ "ptrace", EVERYWHERE, SYS_ptrace, { PTRACE_PEEKDATA, -1 } },
	{ "process_vm_writev", EVERYWHERE, SYS_process_vm_writev, { -1 } },
	{ "pidfd_getfd", EVERYWHERE, SYS_pidfd_getfd, { -1, -1, 0 } },
	{ "socket of netlink", EVERYWHERE, SYS_socket, { AF_NETLINK, SOCK_RAW, 0 } },
	{ "socket of packets", EVERYWHERE, SYS_socket, { AF_PACKET, SOCK_RAW, 0 } },
	{ "socket of netlink", EVERYWHERE, SYS_socket, { AF_NETLINK, SOCK_RAW, 0 } },
	{ "mount", EVERYWHERE, SYS_mount, { -1, -1, -1, 0 } },
	{ "chroot", EVERYWHERE, SYS_chroot, { -1 } },
	{ "unshare", EVERYWHERE, SYS_unshare, { 0 } },
	{ "setns", EVERYWHERE, SYS_setns, { -1, 0 } },
	{ "setuid", EVERYWHERE, SYS_setuid, { -1 } },
	{ "capset", EVERYWHERE, SYS_capset, { -1, -1 } },
	{ "bpf", EVERYWHERE, SYS_bpf, { -1, -1, 0 } },
	{ "perf_event_open", EVERYWHERE, SYS_perf_event_open, { -1, -1, -1, -1 } },
	{ "finit_module", EVERYWHERE, SYS_finit_module, { -1, -1, 0 } },
	{ "keyctl", EVERYWHERE, SYS_keyctl, { -1 } },
	{ "symlink", EVERYWHERE, SYS_symlink, { -1, -1 } },
	{ "prctl of another kind", EVERYWHERE, SYS_prctl, { PR_SET_DUMPABLE, 1 } },
	{ "ioctl that types for others", EVERYWHERE, SYS_ioctl, { -1, TIOCSTI, -1 } },
	{ "ioctl nobody knows", EVERYWHERE, SYS_ioctl, { -1, 0x12345678, -1 } },

	{ "another filter", BUT_MAIN, SYS_seccomp, { 1, 0, -1 } },
	{ "thread", BUT_MAIN, SYS_clone, { CLONE_VM | CLONE_THREAD | CLONE_SIGHAND, 0 } },
	{ "clone3", BUT_MAIN, SYS_clone3, { -1, 0 } },
	{ "openat", BUT_MAIN, SYS_openat, { AT_FDCWD, -1, O_RDONLY } },
	{ "open", BUT_MAIN, SYS_open, { -1, O_RDONLY } },
	{ "unlink", BUT_MAIN, SYS_unlink, { -1 } },
	{ "rename", BUT_MAIN, SYS_rename, { -1, -1 } },
	{ "bind", BUT_MAIN, SYS_bind, { -1, -1, 0 } },
	{ "listen", BUT_MAIN, SYS_listen, { -1, 0 } },
	{ "socket of inet", BUT_MAIN, SYS_socket, { AF_INET, SOCK_DGRAM, 0 } },
	{ "socket of inet6", BUT_MAIN, SYS_socket, { AF_INET6, SOCK_STREAM, 0 } },
	{ "memfd_create", BUT_MAIN, SYS_memfd_create, { -1, 0 } },
	{ "KVM_CREATE_VM", BUT_MAIN, SYS_ioctl, { -1, KVM_CREATE_VM, 0 } },
	{ "KVM_SET_SREGS", BUT_MAIN, SYS_ioctl, { -1, KVM_SET_SREGS, -1 } },
	{ "TUNSETIFF", BUT_MAIN, SYS_ioctl, { -1, TUNSETIFF, -1 } },
	{ "io_uring_setup", BUT_MAIN, SYS_io_uring_setup, { 1, -1 } },
	{ "io_uring_register of files", BUT_MAIN, SYS_io_uring_register, { -1, IORING_REGISTER_FILES, -1, 1 } },
	{ "io_uring_register to start", IN(THREAD_VCPU), SYS_io_uring_register,
	  { -1, IORING_REGISTER_ENABLE_RINGS, 0, 0 } },
	{ "io_uring_enter", IN(THREAD_VCPU), SYS_io_uring_enter, { -1, 0, 0, 0 } },
	{ "preadv", IN(THREAD_VCPU), SYS_preadv, { -1, -1, 0 } },
	{ "recvfrom", IN(THREAD_VCPU), SYS_recvfrom, { -1, -1, 0 } },
	{ "connect", IN(THREAD_VCPU), SYS_connect, { -1, -1, 0 } },
	{ "socket of unix", IN(THREAD_VCPU), SYS_socket, { AF_UNIX, SOCK_STREAM, 0 } },
	{ "KVM_RUN", IN(THREAD_IO) | IN(THREAD_MIGRATION), SYS_ioctl, { -1, KVM_RUN, 0 } },
};

static const struct call allowed[] = {
	{ "read", EVERYWHERE, SYS_read, { -1, -1, 0 } },
	{ "write", EVERYWHERE, SYS_write, { -1, -1, 0 } },
	{ "close", EVERYWHERE, SYS_close, { -1 } },
	{ "futex", EVERYWHERE, SYS_futex, { -1, 1, 0 } },
	{ "madvise", EVERYWHERE, SYS_madvise, { -1, 0, 0 } },
	{ "eventfd2", EVERYWHERE, SYS_eventfd2, { 0, 0 } },
	{ "epoll_ctl", EVERYWHERE, SYS_epoll_ctl, { -1, 1, -1, -1 } },
	{ "io_uring_setup", IN(THREAD_MAIN), SYS_io_uring_setup, { 1, -1 } },
	{ "io_uring_register", IN(THREAD_MAIN), SYS_io_uring_register, { -1, IORING_REGISTER_FILES, -1, 1 } },
	{ "io_uring_register to start", DATA, SYS_io_uring_register, { -1, IORING_REGISTER_ENABLE_RINGS, 0, 0 } },
	{ "io_uring_register to end", DATA, SYS_io_uring_register, { -1, IORING_UNREGISTER_FILES, 0, 0 } },
	{ "io_uring_enter", DATA, SYS_io_uring_enter, { -1, 0, 0, 0 } },
	{ "prctl of names", EVERYWHERE, SYS_prctl, { PR_SET_NAME, (long)"x" } },
	{ "KVM_IRQ_LINE", EVERYWHERE, SYS_ioctl, { -1, KVM_IRQ_LINE, -1 } },
	{ "KVM_IOEVENTFD", EVERYWHERE, SYS_ioctl, { -1, KVM_IOEVENTFD, -1 } },
	{ "socket of unix", DATA, SYS_socket, { AF_UNIX, SOCK_STREAM, 0 } },
	{ "KVM_RUN", IN(THREAD_MAIN) | IN(THREAD_VCPU), SYS_ioctl, { -1, KVM_RUN, 0 } },
	{ "openat", IN(THREAD_MAIN), SYS_openat, { AT_FDCWD, -1, O_RDONLY } },
	{ "socket of inet", IN(THREAD_MAIN), SYS_socket, { AF_INET, SOCK_DGRAM, 0 } },
	{ "KVM_CREATE_VM", IN(THREAD_MAIN), SYS_ioctl, { -1, KVM_CREATE_VM, 0 } },

	{ "readv", DATA, SYS_readv, { -1, -1, 0 } },
	{ "writev", DATA, SYS_writev, { -1, -1, 0 } },
	{ "preadv", DATA, SYS_preadv, { -1, -1, 0 } },
	{ "pwritev", DATA, SYS_pwritev, { -1, -1, 0 } },
	{ "pwritev2", DATA, SYS_pwritev2, { -1, -1, 0 } },
	{ "fdatasync", DATA, SYS_fdatasync, { -1 } },
	{ "fallocate", EVERYWHERE, SYS_fallocate, { -1, 0, 0, 0 } },
	{ "recvfrom", DATA, SYS_recvfrom, { -1, -1, 0, 0 } },
	{ "sendmsg", DATA, SYS_sendmsg, { -1, -1, 0 } },
	{ "accept4", DATA, SYS_accept4, { -1, 0, 0, 0 } },
	{ "connect", DATA, SYS_connect, { -1, -1, 0 } },
	{ "shutdown", EVERYWHERE, SYS_shutdown, { -1, 0 } },
	{ "KVM_CLEAR_DIRTY_LOG", DATA, SYS_ioctl, { -1, KVM_CLEAR_DIRTY_LOG, -1 } },
};
/* clang-format on */

static const char *const kind_names[] = {
	[THREAD_MAIN] = "main",
	[THREAD_VCPU] = "vcpu",
	[THREAD_IO] = "io",
	[THREAD_MIGRATION] = "migration",
};

static void make_call(const void *opaque)
{
	const struct call *call = opaque;

	syscall(call->number, call->args[0], call->args[1], call->args[2], call->args[3], 0, 0);
}

static void *nothing(void *arg)
{
	return arg;
}

static void start_thread(const void *opaque)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, nothing, NULL) || pthread_join(thread, NULL))
		_exit(2);
}

/* The status of a process that enters the filters of `kinds` in turn, then acts. */
static int act(enum seccomp_mode mode, const enum thread_kind *kinds, unsigned int count,
	       void (*action)(const void *), const void *opaque)
{
	const struct rlimit no_core = { 0, 0 };
	int status;
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (!pid) {
		const struct thread_policy *policy = sandbox_policy(mode);

		setrlimit(RLIMIT_CORE, &no_core);
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		for (unsigned int i = 0; i < count; i++)
			if (policy->enter(policy, kinds[i], NULL))
				_exit(1);
		action(opaque);
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return status;
}

static bool killed(int status)
{
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
}

static bool lived(int status)
{
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

START_TEST(forbidden_call_ends_the_process)
{
	const struct call *call = &forbidden[_i];

	for (enum thread_kind kind = 0; kind < THREAD_KINDS; kind++)
		if (call->kinds & IN(kind))
			ck_assert_msg(killed(act(SECCOMP_KILL, &kind, 1, make_call, call)),
				      "%s passes in %s", call->name, kind_names[kind]);
}
END_TEST

START_TEST(allowed_call_passes)
{
	const struct call *call = &allowed[_i];

	for (enum thread_kind kind = 0; kind < THREAD_KINDS; kind++)
		if (call->kinds & IN(kind))
			ck_assert_msg(lived(act(SECCOMP_KILL, &kind, 1, make_call, call)),
				      "%s does not pass in %s", call->name, kind_names[kind]);
}
END_TEST

/* The main thread starts all others: its filter comes first in each. */
START_TEST(what_a_kind_may_do_the_main_thread_may_that_starts_it)
{
	const enum thread_kind chain[] = { THREAD_MAIN, (enum thread_kind)_i };

	for (size_t i = 0; i < ARRAY_SIZE(allowed); i++)
		if (allowed[i].kinds & IN(_i))
			ck_assert_msg(lived(act(SECCOMP_KILL, chain, 2, make_call, &allowed[i])),
				      "%s does not pass in %s", allowed[i].name, kind_names[_i]);
}
END_TEST

START_TEST(filters_add_up_and_none_takes_another_away)
{
	const enum thread_kind chain[] = { THREAD_MAIN, THREAD_IO };
	const struct call open_file = { "openat", 0, SYS_openat, { AT_FDCWD, -1, O_RDONLY } };
	const struct call peek = { "ptrace", 0, SYS_ptrace, { PTRACE_PEEKDATA, -1 } };

	ck_assert(killed(act(SECCOMP_KILL, chain, 2, make_call, &open_file)));
	ck_assert(killed(act(SECCOMP_KILL, chain, 2, make_call, &peek)));
}
END_TEST

START_TEST(the_main_thread_starts_threads)
{
	const enum thread_kind kind = THREAD_MAIN;

	ck_assert(lived(act(SECCOMP_KILL, &kind, 1, start_thread, NULL)));
}
END_TEST

START_TEST(log_mode_lets_the_call_pass)
{
	const struct call peek = { "ptrace", 0, SYS_ptrace, { PTRACE_PEEKDATA, -1 } };

	for (enum thread_kind kind = 0; kind < THREAD_KINDS; kind++)
		ck_assert(lived(act(SECCOMP_LOG, &kind, 1, make_call, &peek)));
}
END_TEST

START_TEST(off_means_no_policy)
{
	ck_assert_ptr_null(sandbox_policy(SECCOMP_OFF));
	ck_assert_ptr_nonnull(sandbox_policy(SECCOMP_KILL));
	ck_assert_ptr_nonnull(sandbox_policy(SECCOMP_LOG));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("sandbox");
	TCase *tcase = tcase_create("seccomp");

	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, forbidden_call_ends_the_process, 0, ARRAY_SIZE(forbidden));
	tcase_add_loop_test(tcase, allowed_call_passes, 0, ARRAY_SIZE(allowed));
	tcase_add_loop_test(tcase, what_a_kind_may_do_the_main_thread_may_that_starts_it, 0,
			    THREAD_KINDS);
	tcase_add_test(tcase, filters_add_up_and_none_takes_another_away);
	tcase_add_test(tcase, the_main_thread_starts_threads);
	tcase_add_test(tcase, log_mode_lets_the_call_pass);
	tcase_add_test(tcase, off_means_no_policy);
	suite_add_tcase(suite, tcase);
	return run_suite(suite);
}
