/* SPDX-License-Identifier: Apache-2.0 */
/* Landlock (linux/landlock.h; Documentation/userspace-api/landlock.rst). */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <linux/landlock.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "vfio/device_paths.h"
#include "vmm/sandbox.h"

/* Newer than Debian 12's headers: rights that exist from ABI 2, 3, 5 and 9 on. */
#define FS_REFER (1ULL << 13)
#define FS_TRUNCATE (1ULL << 14)
#define FS_IOCTL_DEV (1ULL << 15)
#define FS_RESOLVE_UNIX (1ULL << 16) /* connect to a socket by its path */

#define FS_READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define FS_WRITE (LANDLOCK_ACCESS_FS_WRITE_FILE | FS_TRUNCATE | FS_IOCTL_DEV)
/* What creating and removing files and sockets in a directory takes. */
#define FS_MAKE \
	(LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG | \
	 LANDLOCK_ACCESS_FS_MAKE_SOCK)
/* A snapshot is a folder. */
#define FS_MAKE_FOLDER (LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_REMOVE_DIR)
/* Rights that a file, as opposed to a directory, can carry. */
#define FS_OF_FILE \
	(LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE | \
	 LANDLOCK_ACCESS_FS_READ_FILE | FS_TRUNCATE | FS_IOCTL_DEV | FS_RESOLVE_UNIX)

struct ruleset {
	int fd;
	uint64_t handled; /* what this kernel can confine */
};

static uint64_t rights_of_abi(int abi)
{
	uint64_t rights = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1;

	if (abi >= 2)
		rights |= FS_REFER;
	if (abi >= 3)
		rights |= FS_TRUNCATE;
	if (abi >= 5)
		rights |= FS_IOCTL_DEV;
	if (abi >= 9)
		rights |= FS_RESOLVE_UNIX;
	return rights;
}

static int allow(const struct ruleset *set, const char *path, uint64_t rights, bool required,
		 struct error *err)
{
	_cleanup_close_ int fd = open(path, O_PATH | O_CLOEXEC);
	struct landlock_path_beneath_attr rule = { .parent_fd = fd };
	struct stat st;

	if (fd < 0 || fstat(fd, &st)) {
		/* What is not there cannot be reached either; its user will say so. */
		return required ? error_set_errno(err, errno, "landlock: %s", path) : 0;
	}
	rule.allowed_access = rights & set->handled;
	if (!S_ISDIR(st.st_mode))
		rule.allowed_access &= FS_OF_FILE;
	if (rule.allowed_access &&
	    syscall(SYS_landlock_add_rule, set->fd, LANDLOCK_RULE_PATH_BENEATH, &rule, 0))
		return error_set_errno(err, errno, "landlock: allow %s", path);
	return 0;
}

/* The directory in which `path` is made and removed. */
static int allow_parent(const struct ruleset *set, const char *path, uint64_t rights,
			struct error *err)
{
	char copy[PATH_MAX];

	if (!path)
		return 0;
	if (strlen(path) >= sizeof(copy))
		return error_set(err, ENAMETOOLONG, "landlock: path longer than %d bytes",
				 PATH_MAX - 1);
	strcpy(copy, path);
	return allow(set, dirname(copy), rights, false, err);
}

static int allow_path(const struct ruleset *set, const char *path, uint64_t rights,
		      struct error *err)
{
	return path ? allow(set, path, rights, false, err) : 0;
}

static int allow_console(const struct ruleset *set, const struct console_config *console,
			 struct error *err)
{
	int r = 0;

	if (console->mode == CONSOLE_FILE)
		r = allow_parent(set, console->file, FS_READ | FS_WRITE | FS_MAKE, err);
	if (console->mode == CONSOLE_SOCKET)
		r = allow_parent(set, console->socket, FS_READ | FS_MAKE, err);
	return r;
}

/* Connections reach "<socket>_<port>", which others make there. */
static int allow_vsock(const struct ruleset *set, const char *socket, struct error *err)
{
	return allow_parent(set, socket, FS_READ | FS_WRITE | FS_MAKE | FS_RESOLVE_UNIX, err);
}

struct device_rules {
	const struct ruleset *set;
	struct error *err;
};

static int allow_device_path(void *opaque, enum vfio_path_kind kind, const char *path)
{
	const struct device_rules *rules = opaque;

	return allow(rules->set, path, FS_READ | (kind == VFIO_PATH_NODE ? FS_WRITE : 0), false,
		     rules->err);
}

static int allow_devices(const struct ruleset *set, const struct vm_config *config,
			 struct error *err)
{
	struct device_rules rules = { .set = set, .err = err };
	int r = 0;

	for (unsigned int i = 0; !r && i < config->device_count; i++) {
		const struct device_config *device = &config->devices[i];

		if (device->path)
			r = vfio_device_paths(device->path, device->iommufd, allow_device_path,
					      &rules);
	}
	/* By its folder: a server that starts again makes its socket anew. */
	for (unsigned int i = 0; !r && i < config->user_device_count; i++)
		r = allow_parent(set, config->user_devices[i].socket, FS_RESOLVE_UNIX, err);
	return r;
}

static int allow_vm(const struct ruleset *set, const struct vm_config *config, struct error *err)
{
	int r;

	r = allow_path(set, config->payload.kernel, FS_READ, err);
	if (!r)
		r = allow_path(set, config->payload.initramfs, FS_READ, err);
	for (unsigned int i = 0; !r && i < config->disk_count; i++)
		r = allow_path(set, config->disks[i].path,
			       FS_READ | (config->disks[i].readonly ? 0 : FS_WRITE), err);
	if (!r)
		r = allow_path(set, config->rng.src, FS_READ, err);
	if (!r && config->vsock)
		r = allow_vsock(set, config->vsock->socket, err);
	if (!r)
		r = allow_devices(set, config, err);
	if (!r)
		r = allow_console(set, &config->serial, err);
	if (!r)
		r = allow_console(set, &config->console, err);
	if (!r)
		r = allow_console(set, &config->debug_console, err);
	for (unsigned int i = 0; !r && i < config->landlock_rule_count; i++) {
		const struct landlock_rule *rule = &config->landlock_rules[i];

		r = allow(set, rule->path,
			  (rule->read ? FS_READ : 0) |
				  (rule->write
					   ? FS_WRITE | FS_MAKE | FS_MAKE_FOLDER | FS_RESOLVE_UNIX
					   : 0),
			  true, err);
	}
	return r;
}

/* Devices that take the place of the snapshot's; by which way each is opened the snapshot says. */
static int allow_other_devices(const struct ruleset *set, const struct config_overrides *overrides,
			       struct error *err)
{
	struct device_rules rules = { .set = set, .err = err };
	int r = 0;

	for (unsigned int i = 0; !r && i < overrides->device_count; i++) {
		const char *path = overrides->devices[i].path;

		for (int iommufd = 0; path && !r && iommufd < 2; iommufd++)
			r = vfio_device_paths(path, iommufd, allow_device_path, &rules);
	}
	for (unsigned int i = 0; !r && i < overrides->user_device_count; i++)
		r = allow_parent(set, overrides->user_devices[i].socket, FS_RESOLVE_UNIX, err);
	return r;
}

/* The snapshot, and what is said to be different; what its VM has beside it is for
 * --landlock-rules to say. */
static int allow_restore(const struct ruleset *set, const struct ferry_options *options,
			 struct error *err)
{
	const struct config_overrides *overrides = &options->restore.overrides;
	struct config_url url;
	int r;

	if (!options->restore_given)
		return 0;
	r = config_url_parse(&url, options->restore.source_url, CONFIG_URL_FILE, "--restore", err);
	if (!r)
		r = allow(set, url.path, FS_READ, true, err);
	for (unsigned int i = 0; !r && i < overrides->disk_count; i++)
		r = allow_path(set, overrides->disks[i].path, FS_READ | FS_WRITE, err);
	if (!r)
		r = allow_other_devices(set, overrides, err);
	if (!r && overrides->vsock)
		r = allow_vsock(set, overrides->vsock->socket, err);
	if (!r && overrides->serial)
		r = allow_console(set, overrides->serial, err);
	if (!r && overrides->console)
		r = allow_console(set, overrides->console, err);
	return r;
}

static int allow_host(const struct ruleset *set, const struct ferry_options *options,
		      struct error *err)
{
	static const struct {
		const char *path;
		uint64_t rights;
	} paths[] = {
		{ "/dev/kvm", FS_READ | FS_WRITE },
		{ "/dev/net/tun", FS_READ | FS_WRITE },
		{ "/dev/vhost-net", FS_READ | FS_WRITE },
		{ "/dev/vhost-vsock", FS_READ | FS_WRITE },
		/* Of itself it reaches no device: for those that come as descriptors. */
		{ VFIO_IOMMU_NODE, FS_READ | FS_WRITE },
		/* Live snapshots, lazy restores: of this process' own memory. */
		{ "/dev/userfaultfd", FS_READ | FS_WRITE },
		{ "/dev/urandom", FS_READ },
		{ "/dev/null", FS_READ | FS_WRITE },
		{ "/dev/ptmx", FS_READ | FS_WRITE },
		{ "/dev/pts", FS_READ | FS_WRITE },
		{ "/dev/tty", FS_READ | FS_WRITE },
		{ "/proc", FS_READ | FS_WRITE },
		{ "/sys/kernel/mm/hugepages", FS_READ },
		{ "/sys/class/net", FS_READ },
		{ "/sys/devices/virtual/net", FS_READ },
	};
	int r = 0;

	for (size_t i = 0; !r && i < sizeof(paths) / sizeof(paths[0]); i++)
		r = allow(set, paths[i].path, paths[i].rights, false, err);
	if (!r)
		r = allow_parent(set, options->api_socket, FS_READ | FS_MAKE, err);
	/* By its folder: it is replaced by another file. The filters keep this process from
	 * starting it; the one that live updates have for that is not filtered (spawner.h). */
	if (!r && !options->live_update.off)
		r = allow_parent(set, options->live_update.binary,
				 FS_READ | LANDLOCK_ACCESS_FS_EXECUTE, err);
	return r;
}

int sandbox_landlock(const struct ferry_options *options, struct error *err)
{
	int abi =
		(int)syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	struct landlock_ruleset_attr attr;
	_cleanup_close_ int fd = -1;
	struct ruleset set;
	int r;

	if (abi < 1)
		return error_set(
			err, EOPNOTSUPP,
			"landlock: this kernel has none; it needs Linux 5.13 with landlock in "
			"CONFIG_LSM or lsm=");
	set.handled = attr.handled_access_fs = rights_of_abi(abi);
	fd = set.fd =
		(int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr.handled_access_fs), 0);
	if (fd < 0)
		return error_set_errno(err, errno, "landlock: create ruleset");
	r = allow_host(&set, options, err);
	if (!r)
		r = allow_restore(&set, options, err);
	if (!r)
		r = allow_vm(&set, &options->config, err);
	if (r)
		return r;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return error_set_errno(err, errno, "landlock: no_new_privs");
	if (syscall(SYS_landlock_restrict_self, fd, 0))
		return error_set_errno(err, errno, "landlock: restrict");
	return 0;
}
