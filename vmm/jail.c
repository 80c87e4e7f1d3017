/* SPDX-License-Identifier: Apache-2.0 */
/* The jail: namespaces, root directory, uid. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "vmm/jail_private.h"

/* What is locked besides guest RAM, as rings of io_uring. */
#define MEMLOCK_EXTRA (64 * MIB)

int jail_make_dir(const struct jail_options *jail, const char *path, struct error *err)
{
	char inside[PATH_MAX];

	if (snprintf(inside, sizeof(inside), "%s%s", jail->dir, path) >= (int)sizeof(inside))
		return error_set(err, ENAMETOOLONG, "jail: %s%s", jail->dir, path);
	if (mkdir(inside, 0755) && errno != EEXIST)
		return error_set_errno(err, errno, "jail: make %s", inside);
	return 0;
}

int jail_make_node(const struct jail_options *jail, const char *path, struct error *err)
{
	char inside[PATH_MAX];
	struct stat st;

	if (stat(path, &st) || !S_ISCHR(st.st_mode))
		return 0;
	if (snprintf(inside, sizeof(inside), "%s%s", jail->dir, path) >= (int)sizeof(inside))
		return error_set(err, ENAMETOOLONG, "jail: %s%s", jail->dir, path);
	if (unlink(inside) && errno != ENOENT)
		return error_set_errno(err, errno, "jail: replace %s", inside);
	if (mknod(inside, S_IFCHR | 0600, st.st_rdev) || chown(inside, jail->uid, jail->gid))
		return error_set_errno(err, errno, "jail: make %s", inside);
	return 0;
}

static int populate(const struct jail_options *jail, struct error *err)
{
	static const char *const dirs[] = { "/dev", "/dev/net", "/proc" };
	static const char *const nodes[] = {
		"/dev/kvm",   "/dev/net/tun", "/dev/vhost-net", "/dev/vhost-vsock",
		"/dev/iommu", "/dev/urandom", "/dev/null",	"/dev/userfaultfd",
	};
	int r = 0;

	for (size_t i = 0; !r && i < ARRAY_SIZE(dirs); i++)
		r = jail_make_dir(jail, dirs[i], err);
	for (size_t i = 0; !r && i < ARRAY_SIZE(nodes); i++)
		r = jail_make_node(jail, nodes[i], err);
	return r;
}

/* Waits for the child in place of the VMM: hands on what it is sent, and ends as the
 * child ended. */
static _Noreturn void stand_in(pid_t pid, const sigset_t *set)
{
	siginfo_t info;
	int status;

	for (;;) {
		int signal = sigwaitinfo(set, &info);

		if (signal > 0 && signal != SIGCHLD)
			kill(pid, signal);
		if (waitpid(pid, &status, WNOHANG) != pid)
			continue;
		if (WIFEXITED(status))
			_exit(WEXITSTATUS(status));
		if (WIFSIGNALED(status))
			_exit(128 + WTERMSIG(status));
	}
}

/* A new pid namespace begins with a child. Returns in the child only. */
static int enter_pid_namespace(struct error *err)
{
	sigset_t set, old;
	pid_t pid;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGQUIT);
	sigprocmask(SIG_BLOCK, &set, &old);
	pid = fork();
	if (pid < 0)
		return error_set_errno(err, errno, "jail: fork");
	if (pid > 0)
		stand_in(pid, &set);
	sigprocmask(SIG_SETMASK, &old, NULL);
	return 0;
}

static int enter_root(const struct ferry_options *options, struct error *err)
{
	const struct jail_options *jail = &options->jail;
	int r;

	/* The jail's own mount, so that it can become the root and the old one go. */
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount(jail->dir, jail->dir, NULL, MS_BIND | MS_REC, NULL))
		return error_set_errno(err, errno, "jail: mount %s", jail->dir);
	r = jail_add_devices(options, err);
	if (r)
		return r;
	if (chdir(jail->dir) || syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) ||
	    chroot(".") || chdir("/"))
		return error_set_errno(err, errno, "jail: make %s the root", jail->dir);
	if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL))
		return error_set_errno(err, errno, "jail: mount /proc");
	return 0;
}

/* Devices pin guest RAM, which counts from here on: without capabilities. Where this is
 * not allowed, adding a device will say what it needs. */
static void raise_memlock(const struct vm_config *config)
{
	rlim_t need = config->memory.size + MEMLOCK_EXTRA;
	struct rlimit limit;

	if (!config->device_count || getrlimit(RLIMIT_MEMLOCK, &limit))
		return;
	limit.rlim_cur = MAX(limit.rlim_cur, need);
	limit.rlim_max = MAX(limit.rlim_max, need);
	setrlimit(RLIMIT_MEMLOCK, &limit);
}

static int drop_privileges(const struct jail_options *jail, struct error *err)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { 0 };

	for (int cap = 0; cap <= CAP_LAST_CAP; cap++)
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) && errno != EINVAL)
			return error_set_errno(err, errno, "jail: drop capability %d", cap);
	if (setgroups(0, NULL) || setresgid(jail->gid, jail->gid, jail->gid) ||
	    setresuid(jail->uid, jail->uid, jail->uid))
		return error_set_errno(err, errno, "jail: become uid %u, gid %u", jail->uid,
				       jail->gid);
	if (syscall(SYS_capset, &header, none))
		return error_set_errno(err, errno, "jail: drop capabilities");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return error_set_errno(err, errno, "jail: no_new_privs");
	/* Taking on a uid hides /proc/self from us; a VMM reads its own. */
	prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
	/* Whoever kills the parent hard kills the VM: nobody would watch it. Only now, since
	 * taking on a uid takes this back as well. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	return 0;
}

int sandbox_jail(const struct ferry_options *options, struct error *err)
{
	const struct jail_options *jail = &options->jail;
	struct stat st;
	int r;

	if (geteuid() != 0)
		return error_set(err, EPERM, "jail %s: making one needs root", jail->dir);
	if (jail->dir[0] != '/')
		return error_set(err, EINVAL, "jail %s: the path must be absolute", jail->dir);
	if (stat(jail->dir, &st) || !S_ISDIR(st.st_mode))
		return error_set(err, ENOTDIR, "jail %s: no such directory", jail->dir);
	if (jail->uid == 0 || jail->gid == 0)
		return error_set(err, EINVAL, "jail %s: uid and gid must be given and not be 0",
				 jail->dir);
	r = populate(jail, err);
	if (r)
		return r;
	if (unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS |
		    (jail->net ? CLONE_NEWNET : 0)))
		return error_set_errno(err, errno, "jail %s: new namespaces", jail->dir);
	r = enter_pid_namespace(err);
	if (!r)
		r = enter_root(options, err);
	raise_memlock(&options->config);
	if (!r)
		r = drop_privileges(jail, err);
	return r;
}
