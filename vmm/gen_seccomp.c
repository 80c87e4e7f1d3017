/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Build-time program: writes the seccomp filters of every thread kind as C arrays, so
 * that ferry installs them without compiling anything at start.
 *
 * A thread's filter adds to that of the thread that started it. The main thread starts
 * all others, so its list is the union of all lists and its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <linux/userfaultfd.h>
#include <linux/vhost.h>
#include <sched.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include "base/bytes.h"
#include "vfio/uapi_iommufd.h"
#include "vfio/uapi_vfio.h"

/* Newer than Debian 12's headers (Linux 6.6): struct uffdio_poison has 32 bytes. */
#ifndef UFFDIO_POISON
#define UFFDIO_POISON _IOC(_IOC_READ | _IOC_WRITE, UFFDIO, 0x08, 32)
#endif

#define KIND_MAIN 1
#define KIND_VCPU 2
#define KIND_IO 4
#define KIND_MIGRATION 8
#define ALL (KIND_MAIN | KIND_VCPU | KIND_IO | KIND_MIGRATION)
#define DATA (KIND_IO | KIND_MIGRATION)

struct call {
	int number;
	unsigned int kinds;
};

/* clang-format off */
static const struct call calls[] = {
	/* every thread: memory, locks, time, logging, its own end */
	{ SCMP_SYS(brk), ALL }, { SCMP_SYS(mmap), ALL }, { SCMP_SYS(munmap), ALL },
	{ SCMP_SYS(mremap), ALL }, { SCMP_SYS(madvise), ALL }, { SCMP_SYS(mprotect), ALL },
	{ SCMP_SYS(futex), ALL }, { SCMP_SYS(clock_gettime), ALL }, { SCMP_SYS(gettimeofday), ALL },
	{ SCMP_SYS(clock_nanosleep), ALL }, { SCMP_SYS(nanosleep), ALL }, { SCMP_SYS(time), ALL },
	{ SCMP_SYS(read), ALL }, { SCMP_SYS(write), ALL }, { SCMP_SYS(close), ALL },
	{ SCMP_SYS(rt_sigprocmask), ALL }, { SCMP_SYS(rt_sigreturn), ALL },
	{ SCMP_SYS(restart_syscall), ALL }, { SCMP_SYS(exit), ALL }, { SCMP_SYS(exit_group), ALL },
	{ SCMP_SYS(sched_yield), ALL }, { SCMP_SYS(getpid), ALL }, { SCMP_SYS(gettid), ALL },
	{ SCMP_SYS(tgkill), ALL }, { SCMP_SYS(sigaltstack), ALL }, { SCMP_SYS(rseq), ALL },
	{ SCMP_SYS(set_robust_list), ALL }, { SCMP_SYS(getrandom), ALL }, { SCMP_SYS(poll), ALL },
	{ SCMP_SYS(ppoll), ALL }, { SCMP_SYS(epoll_ctl), ALL }, { SCMP_SYS(fallocate), ALL },
	{ SCMP_SYS(eventfd2), ALL }, { SCMP_SYS(rt_sigaction), ALL },
	/* a vCPU's write to a virtio register starts and stops a data path */
	{ SCMP_SYS(epoll_create1), ALL }, { SCMP_SYS(epoll_wait), ALL }, { SCMP_SYS(epoll_pwait), ALL },
	{ SCMP_SYS(timerfd_create), ALL }, { SCMP_SYS(timerfd_settime), ALL },
	{ SCMP_SYS(fcntl), ALL }, { SCMP_SYS(seccomp), KIND_MAIN },
	/* ... and it finds that a vfio-user server speaks nonsense */
	{ SCMP_SYS(shutdown), ALL },
	{ SCMP_SYS(sched_getaffinity), ALL }, { SCMP_SYS(membarrier), ALL },

	/* Rings are made and restricted by the main thread: see allow_rings() too. */
	{ SCMP_SYS(io_uring_setup), KIND_MAIN }, { SCMP_SYS(io_uring_register), KIND_MAIN },
	{ SCMP_SYS(io_uring_enter), DATA },

	/* data paths: files, taps, vsock */
	{ SCMP_SYS(readv), DATA }, { SCMP_SYS(writev), DATA }, { SCMP_SYS(preadv), DATA },
	{ SCMP_SYS(pwritev), DATA }, { SCMP_SYS(preadv2), DATA }, { SCMP_SYS(pwritev2), DATA },
	{ SCMP_SYS(pread64), ALL }, { SCMP_SYS(pwrite64), ALL }, { SCMP_SYS(fsync), DATA },
	{ SCMP_SYS(fdatasync), DATA }, { SCMP_SYS(lseek), DATA }, { SCMP_SYS(recvmsg), ALL },
	{ SCMP_SYS(sendmsg), ALL }, { SCMP_SYS(recvfrom), DATA }, { SCMP_SYS(sendto), DATA },
	{ SCMP_SYS(accept4), DATA }, { SCMP_SYS(connect), DATA },
	{ SCMP_SYS(getsockopt), DATA }, { SCMP_SYS(setsockopt), DATA }, { SCMP_SYS(fstat), DATA },
	{ SCMP_SYS(newfstatat), DATA }, { SCMP_SYS(timerfd_gettime), DATA },

	/* the control plane besides */
	{ SCMP_SYS(open), KIND_MAIN }, { SCMP_SYS(openat), KIND_MAIN }, { SCMP_SYS(stat), KIND_MAIN },
	{ SCMP_SYS(lstat), KIND_MAIN }, { SCMP_SYS(statx), KIND_MAIN }, { SCMP_SYS(access), KIND_MAIN },
	{ SCMP_SYS(faccessat), KIND_MAIN }, { SCMP_SYS(faccessat2), KIND_MAIN },
	{ SCMP_SYS(readlink), KIND_MAIN }, { SCMP_SYS(readlinkat), KIND_MAIN },
	{ SCMP_SYS(getdents64), KIND_MAIN }, { SCMP_SYS(unlink), KIND_MAIN },
	{ SCMP_SYS(unlinkat), KIND_MAIN }, { SCMP_SYS(rename), KIND_MAIN },
	{ SCMP_SYS(mkdirat), KIND_MAIN }, { SCMP_SYS(renameat2), KIND_MAIN },
	{ SCMP_SYS(fstatfs), KIND_MAIN },
	{ SCMP_SYS(ftruncate), KIND_MAIN }, { SCMP_SYS(truncate), KIND_MAIN },
	{ SCMP_SYS(flock), KIND_MAIN }, { SCMP_SYS(fchmod), KIND_MAIN }, { SCMP_SYS(chmod), KIND_MAIN },
	{ SCMP_SYS(umask), KIND_MAIN }, { SCMP_SYS(dup), KIND_MAIN }, { SCMP_SYS(dup2), KIND_MAIN },
	{ SCMP_SYS(dup3), KIND_MAIN }, { SCMP_SYS(pipe2), KIND_MAIN }, { SCMP_SYS(bind), KIND_MAIN },
	{ SCMP_SYS(listen), KIND_MAIN }, { SCMP_SYS(socketpair), KIND_MAIN },
	{ SCMP_SYS(getsockname), KIND_MAIN }, { SCMP_SYS(getpeername), KIND_MAIN },
	{ SCMP_SYS(memfd_create), KIND_MAIN }, { SCMP_SYS(userfaultfd), KIND_MAIN },
	{ SCMP_SYS(sysinfo), ALL }, { SCMP_SYS(uname), KIND_MAIN }, { SCMP_SYS(getcwd), KIND_MAIN },
	{ SCMP_SYS(prlimit64), KIND_MAIN }, { SCMP_SYS(getrusage), KIND_MAIN },
	{ SCMP_SYS(getuid), KIND_MAIN }, { SCMP_SYS(geteuid), KIND_MAIN },
	{ SCMP_SYS(getgid), KIND_MAIN }, { SCMP_SYS(getegid), KIND_MAIN },
	{ SCMP_SYS(signalfd4), KIND_MAIN }, { SCMP_SYS(mlock), KIND_MAIN },
	{ SCMP_SYS(munlock), KIND_MAIN }, { SCMP_SYS(sched_setaffinity), KIND_MAIN },
	{ SCMP_SYS(set_tid_address), KIND_MAIN }, { SCMP_SYS(wait4), KIND_MAIN },
	{ SCMP_SYS(get_mempolicy), KIND_MAIN }, { SCMP_SYS(mbind), KIND_MAIN },
};

struct ioctl_call {
	unsigned long request;
	unsigned int kinds;
};

static const struct ioctl_call ioctls[] = {
	{ KVM_RUN, KIND_VCPU }, { KVM_NMI, KIND_VCPU },
	{ KVM_IRQ_LINE, ALL }, { KVM_SIGNAL_MSI, ALL }, { KVM_IRQFD, ALL }, { KVM_IOEVENTFD, ALL },
	{ KVM_SET_GSI_ROUTING, ALL }, { KVM_RESET_DIRTY_RINGS, ALL },
	{ KVM_GET_DIRTY_LOG, DATA }, { KVM_CLEAR_DIRTY_LOG, DATA },
	{ KVM_SET_USER_MEMORY_REGION, ALL },

	{ KVM_GET_API_VERSION, KIND_MAIN }, { KVM_CREATE_VM, KIND_MAIN },
	{ KVM_CHECK_EXTENSION, KIND_MAIN }, { KVM_GET_VCPU_MMAP_SIZE, KIND_MAIN },
	{ KVM_GET_SUPPORTED_CPUID, KIND_MAIN }, { KVM_GET_MSR_INDEX_LIST, KIND_MAIN },
	{ KVM_GET_MSR_FEATURE_INDEX_LIST, KIND_MAIN },
	{ KVM_SET_TSS_ADDR, KIND_MAIN }, { KVM_SET_IDENTITY_MAP_ADDR, KIND_MAIN },
	{ KVM_CREATE_IRQCHIP, KIND_MAIN }, { KVM_CREATE_VCPU, KIND_MAIN }, { KVM_ENABLE_CAP, KIND_MAIN },
	{ KVM_GET_CLOCK, KIND_MAIN }, { KVM_SET_CLOCK, KIND_MAIN },
	{ KVM_GET_TSC_KHZ, KIND_MAIN }, { KVM_SET_TSC_KHZ, KIND_MAIN }, { KVM_KVMCLOCK_CTRL, KIND_MAIN },
	{ KVM_SET_CPUID2, KIND_MAIN }, { KVM_GET_CPUID2, KIND_MAIN },
	{ KVM_GET_MSRS, KIND_MAIN }, { KVM_SET_MSRS, KIND_MAIN },
	{ KVM_GET_REGS, KIND_MAIN }, { KVM_SET_REGS, KIND_MAIN },
	{ KVM_GET_SREGS, KIND_MAIN }, { KVM_SET_SREGS, KIND_MAIN },
	{ KVM_GET_FPU, KIND_MAIN }, { KVM_SET_FPU, KIND_MAIN },
	{ KVM_GET_LAPIC, KIND_MAIN }, { KVM_SET_LAPIC, KIND_MAIN },
	{ KVM_GET_MP_STATE, KIND_MAIN }, { KVM_SET_MP_STATE, KIND_MAIN },
	{ KVM_GET_VCPU_EVENTS, KIND_MAIN }, { KVM_SET_VCPU_EVENTS, KIND_MAIN },
	{ KVM_GET_XSAVE, KIND_MAIN }, { KVM_SET_XSAVE, KIND_MAIN },
	{ KVM_GET_XCRS, KIND_MAIN }, { KVM_SET_XCRS, KIND_MAIN },
	{ KVM_GET_DEBUGREGS, KIND_MAIN }, { KVM_SET_DEBUGREGS, KIND_MAIN },
	{ KVM_GET_IRQCHIP, KIND_MAIN }, { KVM_SET_IRQCHIP, KIND_MAIN },
	{ KVM_GET_SREGS2, KIND_MAIN }, { KVM_SET_SREGS2, KIND_MAIN }, { KVM_GET_XSAVE2, KIND_MAIN },
	{ KVM_GET_DEVICE_ATTR, KIND_MAIN }, { KVM_SET_DEVICE_ATTR, KIND_MAIN },

	/* Page faults of RAM that is saved or comes while the guest runs */
	{ USERFAULTFD_IOC_NEW, KIND_MAIN }, { UFFDIO_API, KIND_MAIN },
	{ UFFDIO_REGISTER, KIND_MIGRATION }, { UFFDIO_UNREGISTER, KIND_MIGRATION },
	{ UFFDIO_WRITEPROTECT, KIND_MIGRATION }, { UFFDIO_COPY, KIND_MIGRATION },
	{ UFFDIO_ZEROPAGE, KIND_MIGRATION }, { UFFDIO_WAKE, KIND_MIGRATION },
	{ UFFDIO_POISON, KIND_MIGRATION },

	/* Taps, interfaces, disks, consoles: opened by the control plane; queues and
	 * offloads change on the guest's word, in a data path or a vCPU. */
	{ TUNSETIFF, KIND_MAIN }, { TUNGETFEATURES, KIND_MAIN }, { TUNGETIFF, ALL },
	{ TUNSETVNETHDRSZ, ALL }, { TUNSETOFFLOAD, ALL }, { TUNSETQUEUE, ALL }, { TUNSETSNDBUF, ALL },
	{ TUNSETVNETLE, ALL },
	{ SIOCGIFFLAGS, ALL }, { SIOCSIFFLAGS, KIND_MAIN }, { SIOCSIFADDR, KIND_MAIN },
	{ SIOCSIFNETMASK, KIND_MAIN }, { SIOCSIFMTU, KIND_MAIN }, { SIOCGIFMTU, KIND_MAIN },
	{ SIOCGIFHWADDR, KIND_MAIN }, { SIOCSIFHWADDR, KIND_MAIN }, { SIOCGIFINDEX, KIND_MAIN },
	{ BLKGETSIZE64, KIND_MAIN }, { BLKSSZGET, KIND_MAIN }, { BLKPBSZGET, KIND_MAIN },
	{ BLKIOMIN, KIND_MAIN }, { BLKIOOPT, KIND_MAIN }, { BLKALIGNOFF, KIND_MAIN },
	{ BLKDISCARD, ALL }, { BLKZEROOUT, ALL },
	{ TCGETS, KIND_MAIN }, { TCSETS, KIND_MAIN }, { TCSETSW, KIND_MAIN }, { TCSETSF, KIND_MAIN },
	{ TIOCGWINSZ, ALL }, { TIOCGPTN, KIND_MAIN }, { TIOCSPTLCK, KIND_MAIN }, { FIONBIO, KIND_MAIN },
	{ FIONREAD, ALL },
	{ VHOST_SET_OWNER, ALL }, { VHOST_RESET_OWNER, ALL }, { VHOST_GET_FEATURES, ALL },
	{ VHOST_SET_FEATURES, ALL }, { VHOST_GET_BACKEND_FEATURES, ALL },
	{ VHOST_SET_BACKEND_FEATURES, ALL }, { VHOST_SET_MEM_TABLE, ALL }, { VHOST_SET_LOG_BASE, ALL },
	{ VHOST_SET_LOG_FD, ALL }, { VHOST_SET_VRING_NUM, ALL }, { VHOST_SET_VRING_ADDR, ALL },
	{ VHOST_SET_VRING_BASE, ALL }, { VHOST_GET_VRING_BASE, ALL }, { VHOST_SET_VRING_KICK, ALL },
	{ VHOST_SET_VRING_CALL, ALL }, { VHOST_SET_VRING_ERR, ALL }, { VHOST_NET_SET_BACKEND, ALL },
	{ VHOST_VSOCK_SET_GUEST_CID, ALL }, { VHOST_VSOCK_SET_RUNNING, ALL },

	/* Assigned devices: opened by the control plane; the guest's writes to config space
	 * reset them, set their interrupts and move their BARs. */
	{ IOMMU_DESTROY, KIND_MAIN }, { IOMMU_GET_HW_INFO, KIND_MAIN },
	{ IOMMU_HWPT_ALLOC, KIND_MAIN }, { IOMMU_HWPT_SET_DIRTY_TRACKING, DATA },
	{ IOMMU_IOAS_ALLOC, KIND_MAIN }, { IOMMU_IOAS_CHANGE_PROCESS, KIND_MAIN }, { IOMMU_IOAS_IOVA_RANGES, KIND_MAIN },
	{ IOMMU_OPTION, KIND_MAIN }, { VFIO_CHECK_EXTENSION, KIND_MAIN },
	{ VFIO_DEVICE_ATTACH_IOMMUFD_PT, KIND_MAIN }, { VFIO_DEVICE_BIND_IOMMUFD, KIND_MAIN },
	{ VFIO_DEVICE_DETACH_IOMMUFD_PT, KIND_MAIN },
	{ VFIO_DEVICE_GET_INFO, KIND_MAIN }, { VFIO_DEVICE_GET_IRQ_INFO, KIND_MAIN },
	{ VFIO_DEVICE_GET_REGION_INFO, KIND_MAIN },
	{ VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, KIND_MAIN },
	{ VFIO_DEVICE_PCI_HOT_RESET, KIND_MAIN }, { VFIO_GET_API_VERSION, KIND_MAIN },
	{ VFIO_GROUP_GET_DEVICE_FD, KIND_MAIN }, { VFIO_GROUP_GET_STATUS, KIND_MAIN },
	{ VFIO_GROUP_SET_CONTAINER, KIND_MAIN }, { VFIO_GROUP_UNSET_CONTAINER, KIND_MAIN },
	{ VFIO_IOMMU_GET_INFO, KIND_MAIN }, { VFIO_SET_IOMMU, KIND_MAIN },
	{ VFIO_DEVICE_RESET, ALL }, { VFIO_DEVICE_SET_IRQS, ALL }, { VFIO_DEVICE_FEATURE, ALL },
	{ IOMMU_IOAS_MAP, ALL }, { IOMMU_IOAS_MAP_FILE, ALL }, { IOMMU_IOAS_UNMAP, ALL },
	{ VFIO_IOMMU_MAP_DMA, ALL }, { VFIO_IOMMU_UNMAP_DMA, ALL },
	{ IOMMU_HWPT_GET_DIRTY_BITMAP, DATA }, { VFIO_IOMMU_DIRTY_PAGES, DATA },
	{ VFIO_MIG_GET_PRECOPY_INFO, DATA },
};
/* clang-format on */

static void check(int r, const char *what)
{
	if (r) {
		fprintf(stderr, "gen_seccomp: %s: %s\n", what, strerror(-r));
		exit(1);
	}
}

/* What the library's macros make, without what clang has against them. */
static struct scmp_arg_cmp argument_is(unsigned int arg, uint32_t value)
{
	return (struct scmp_arg_cmp){ .arg = arg, .op = SCMP_CMP_EQ, .datum_a = value };
}

/* Threads may be started, processes may not. clone3 passes its flags by memory, where
 * a filter cannot look: without it, the C library falls back to clone. */
static void allow_threads(scmp_filter_ctx ctx)
{
	static const struct scmp_arg_cmp threads_only = {
		.arg = 0,
		.op = SCMP_CMP_MASKED_EQ,
		.datum_a = CLONE_THREAD | CLONE_VM,
		.datum_b = CLONE_THREAD | CLONE_VM,
	};

	check(seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1, threads_only), "clone");
	check(seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0), "clone3");
}

/* A data path starts the ring it was given, and gives back the ring's files. */
static void allow_rings(scmp_filter_ctx ctx)
{
	static const uint32_t ops[] = { IORING_REGISTER_ENABLE_RINGS, IORING_UNREGISTER_FILES };

	for (size_t i = 0; i < ARRAY_SIZE(ops); i++)
		check(seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(io_uring_register), 1,
				       argument_is(1, ops[i])),
		      "io_uring_register");
}

static scmp_filter_ctx make_filter(unsigned int kind, uint32_t action)
{
	static const uint32_t prctls[] = { PR_SET_NAME, PR_GET_NAME, PR_SET_NO_NEW_PRIVS };
	scmp_filter_ctx ctx = seccomp_init(action);

	if (!ctx)
		check(-ENOMEM, "seccomp_init");
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
		if (calls[i].kinds & kind || kind == KIND_MAIN)
			check(seccomp_rule_add(ctx, SCMP_ACT_ALLOW, calls[i].number, 0), "rule");
	for (size_t i = 0; i < ARRAY_SIZE(ioctls); i++)
		if (ioctls[i].kinds & kind || kind == KIND_MAIN)
			check(seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
					       argument_is(1, (uint32_t)ioctls[i].request)),
			      "ioctl");
	/* prctl: thread names, and giving up privileges for good. */
	for (size_t i = 0; i < ARRAY_SIZE(prctls); i++)
		check(seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1,
				       argument_is(0, prctls[i])),
		      "prctl");
	/* vsock connects, tap configuration, migrations: unix and inet sockets, no others */
	if (kind != KIND_VCPU) {
		check(seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
				       argument_is(0, AF_UNIX)),
		      "socket");
	}
	if (kind == KIND_MAIN) {
		check(seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
				       argument_is(0, AF_INET)),
		      "socket");
		check(seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
				       argument_is(0, AF_INET6)),
		      "socket");
	}
	if (kind & DATA)
		allow_rings(ctx);
	/* The main thread starts all others (thread_policy.start_in). */
	if (kind == KIND_MAIN)
		allow_threads(ctx);
	return ctx;
}

static void print_filter(const char *name, unsigned int kind, const char *suffix, uint32_t action)
{
	scmp_filter_ctx ctx = make_filter(kind, action);
	FILE *file = tmpfile();
	struct {
		uint16_t code;
		uint8_t jt, jf;
		uint32_t k;
	} op;

	if (!file)
		check(-errno, "tmpfile");
	check(seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2), "optimize");
	check(seccomp_export_bpf(ctx, fileno(file)), "export");
	rewind(file);
	printf("static const struct sock_filter seccomp_%s_%s[] = {\n", name, suffix);
	while (fread(&op, sizeof(op), 1, file) == 1)
		printf("\t{ 0x%04x, %u, %u, 0x%08x },\n", op.code, op.jt, op.jf, op.k);
	printf("};\n");
	fclose(file);
	seccomp_release(ctx);
}

int main(void)
{
	static const struct {
		const char *name;
		unsigned int kind;
	} kinds[] = {
		{ "main", KIND_MAIN },
		{ "vcpu", KIND_VCPU },
		{ "io", KIND_IO },
		{ "migration", KIND_MIGRATION },
	};

	printf("/* Made by vmm/gen_seccomp.c; do not edit. */\n");
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		print_filter(kinds[i].name, kinds[i].kind, "kill", SCMP_ACT_KILL_PROCESS);
		print_filter(kinds[i].name, kinds[i].kind, "log", SCMP_ACT_LOG);
	}
	return 0;
}
