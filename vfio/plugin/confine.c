/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a plugin may do (docs/plugins.md has the table): reach its agent by TCP, read its
 * libraries and what a resolver reads, use memory and threads. Nothing it does may reach
 * another process: same user as Ferry, it could otherwise end it.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vfio/plugin/host.h"
#include "vfio/plugin/plugin_filter.h"

/* Newer than Debian 12's header: ABI 2, 3 and 5 of rights, 4 of networks, 6 of scopes. */
#define FS_REFER (1ULL << 13)
#define FS_TRUNCATE (1ULL << 14)
#define FS_IOCTL_DEV (1ULL << 15)
#define NET_BIND_TCP (1ULL << 0)
#define SCOPE_ABSTRACT_UNIX_SOCKET (1ULL << 0)
#define SCOPE_SIGNAL (1ULL << 1)

struct ruleset_attr {
	uint64_t fs, net, scoped;
};

#define FILE_ONLY LANDLOCK_ACCESS_FS_READ_FILE
#define READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)

static const char *const readable[] = {
	/* libraries */
	"/lib",
	"/lib64",
	"/usr/lib",
	"/usr/lib64",
	"/usr/local/lib",
	"/etc/ld.so.cache",
	/* names and certificates of agents */
	"/etc/hosts",
	"/etc/host.conf",
	"/etc/resolv.conf",
	"/etc/nsswitch.conf",
	"/etc/gai.conf",
	"/etc/services",
	"/etc/protocols",
	"/etc/localtime",
	"/etc/ssl/certs",
	"/usr/share/ca-certificates",
	"/usr/share/zoneinfo",
	"/dev/urandom",
	"/dev/null",
};

static int limit(struct reason *why)
{
	static const struct {
		int what;
		rlim_t value;
	} limits[] = {
		{ RLIMIT_CORE, 0 },	      { RLIMIT_NOFILE, 64 }, { RLIMIT_AS, 4ULL << 30 },
		{ RLIMIT_DATA, 2ULL << 30 },  { RLIMIT_MEMLOCK, 0 }, { RLIMIT_MSGQUEUE, 0 },
		{ RLIMIT_STACK, 8ULL << 20 },
	};

	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
		struct rlimit r;

		if (getrlimit(limits[i].what, &r))
			return reason_set(why, "it cannot be confined: limits");
		r.rlim_max = r.rlim_max < limits[i].value ? r.rlim_max : limits[i].value;
		r.rlim_cur = r.rlim_max;
		if (setrlimit(limits[i].what, &r))
			return reason_set(why, "it cannot be confined: limits");
	}
	return 0;
}

static void allow(int ruleset, const char *path)
{
	int fd = open(path, O_PATH | O_CLOEXEC);
	struct landlock_path_beneath_attr rule = { .parent_fd = fd };
	struct stat st;

	if (fd < 0)
		return; /* what is not there need not be allowed */
	if (!fstat(fd, &st)) {
		rule.allowed_access = S_ISDIR(st.st_mode) ? READ : FILE_ONLY;
		syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
	}
	close(fd);
}

static int enter_landlock(const char *plugin, bool *landlock, struct reason *why)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	struct ruleset_attr attr = { .fs = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1 };
	size_t size = sizeof(attr.fs);
	char folder[PATH_MAX];
	int fd, r;

	*landlock = abi >= 1;
	if (!*landlock)
		return 0;
	attr.fs |= (abi >= 2 ? FS_REFER : 0) | (abi >= 3 ? FS_TRUNCATE : 0) |
		   (abi >= 5 ? FS_IOCTL_DEV : 0);
	if (abi >= 4) {
		attr.net = NET_BIND_TCP;
		size = offsetof(struct ruleset_attr, scoped);
	}
	if (abi >= 6) {
		attr.scoped = SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL;
		size = sizeof(attr);
	}
	fd = (int)syscall(SYS_landlock_create_ruleset, &attr, size, 0);
	if (fd < 0)
		return reason_set(why, "it cannot be confined: Landlock: %s", strerror(errno));
	for (size_t i = 0; i < sizeof(readable) / sizeof(readable[0]); i++)
		allow(fd, readable[i]);
	/* What lies beside the plugin: its own libraries and files. */
	snprintf(folder, sizeof(folder), "%s", plugin);
	allow(fd, dirname(folder));
	r = (int)syscall(SYS_landlock_restrict_self, fd, 0);
	close(fd);
	return r ? reason_set(why, "it cannot be confined: Landlock: %s", strerror(errno)) : 0;
}

int confine(const char *plugin, bool *landlock, struct reason *why)
{
	struct sock_fprog program = {
		.len = sizeof(plugin_filter) / sizeof(plugin_filter[0]),
		.filter = (struct sock_filter *)plugin_filter,
	};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return reason_set(why, "it cannot be confined: no_new_privs");
	/* Nobody of the same user traces it or reads its memory, and it dumps no core. */
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	if (limit(why) || enter_landlock(plugin, landlock, why))
		return -1;
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program))
		return reason_set(why, "it cannot be confined: seccomp: %s", strerror(errno));
	return 0;
}
