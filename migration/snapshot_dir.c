/* SPDX-License-Identifier: Apache-2.0 */
/* The directory of a snapshot: made under another name, renamed when it is complete. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "migration/snapshot_private.h"

struct opening {
	int dirfd;
	const char *name;
	int flags;
	mode_t mode;
	int fd;
};

static void open_in_starter(void *opaque)
{
	struct opening *o = opaque;

	o->fd = openat(o->dirfd, o->name, o->flags | O_CLOEXEC, o->mode);
	if (o->fd < 0)
		o->fd = -errno;
}

int snapshot_open_at(const struct thread_policy *policy, int dirfd, const char *name, int flags,
		     mode_t mode)
{
	struct opening o = { .dirfd = dirfd, .name = name, .flags = flags, .mode = mode };

	thread_run_in_starter(policy, open_in_starter, &o);
	return o.fd;
}

/* Cuts "a/b/name///" into "a/b" and "name". False where there is no name. */
static bool split(const char *path, char *parent, size_t size, char *name, size_t name_size)
{
	size_t end = strlen(path), start;

	while (end && path[end - 1] == '/')
		end--;
	start = end;
	while (start && path[start - 1] != '/')
		start--;
	if (start == end || end - start >= name_size || start >= size)
		return false;
	memcpy(name, path + start, end - start);
	name[end - start] = '\0';
	memcpy(parent, path, start);
	while (start > 1 && parent[start - 1] == '/')
		start--;
	parent[start] = '\0';
	if (!start)
		strcpy(parent, ".");
	return strcmp(name, ".") && strcmp(name, "..");
}

struct creation {
	struct snapshot_dir *dir;
	const char *parent;
	int result;
	const char *failed;
};

static void create_in_starter(void *opaque)
{
	struct creation *c = opaque;
	struct snapshot_dir *dir = c->dir;
	struct stat st;

	c->failed = "open its parent directory";
	dir->parent = open(c->parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir->parent < 0)
		goto failed;
	c->failed = "it exists";
	if (!fstatat(dir->parent, dir->name, &st, AT_SYMLINK_NOFOLLOW)) {
		c->result = -EEXIST;
		return;
	}
	c->failed = "look for it";
	if (errno != ENOENT)
		goto failed;
	c->failed = "make a directory beside it";
	if (mkdirat(dir->parent, dir->temporary, 0700)) {
		c->result = -errno;
		dir->temporary[0] = '\0'; /* not ours */
		return;
	}
	c->failed = "open the directory made beside it";
	dir->fd = openat(dir->parent, dir->temporary, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir->fd >= 0)
		return;
failed:
	c->result = -errno;
}

int snapshot_dir_create(struct snapshot_dir *dir, const char *path,
			const struct thread_policy *policy, struct error *err)
{
	struct creation c = { .dir = dir };
	char parent[SNAPSHOT_PATH_MAX], id[SNAPSHOT_ID_SIZE];

	*dir = (struct snapshot_dir){ .policy = policy, .parent = -1, .fd = -1 };
	if (!split(path, parent, sizeof(parent), dir->name, sizeof(dir->name)))
		return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
				      "it is no name for a directory");
	snapshot_new_id(id);
	snprintf(dir->temporary, sizeof(dir->temporary), ".%.239s.%.6s.tmp", dir->name, id);
	c.parent = parent;
	thread_run_in_starter(policy, create_in_starter, &c);
	if (c.result == -EEXIST && !strcmp(c.failed, "it exists"))
		return error_set_kind(err, ERROR_CONFLICT, EEXIST, "it exists");
	if (c.result)
		return error_set_errno(err, c.result, "%s", c.failed);
	return 0;
}

int snapshot_dir_file(struct snapshot_dir *dir, const char *name, const void *data, size_t len,
		      struct error *err)
{
	_cleanup_close_ int fd =
		snapshot_open_at(dir->policy, dir->fd, name, O_WRONLY | O_CREAT | O_EXCL, 0600);
	int r = fd < 0 ? fd : fd_write_full(fd, data, len);

	if (!r && fsync(fd))
		r = -errno;
	if (r)
		return error_set_errno(err, r, "%s", name);
	return 0;
}

struct renaming {
	const struct snapshot_dir *dir;
	bool back;
	int result;
};

static void rename_in_starter(void *opaque)
{
	struct renaming *ren = opaque;
	const struct snapshot_dir *dir = ren->dir;

	if (ren->back) {
		renameat(dir->parent, dir->name, dir->parent, dir->temporary);
		return;
	}
	/* Never onto an empty directory that somebody made meanwhile. */
	if (!renameat2(dir->parent, dir->temporary, dir->parent, dir->name, RENAME_NOREPLACE))
		return;
	ren->result = -errno;
	if (errno != EINVAL && errno != ENOSYS)
		return;
	/* A file system that cannot tell (NFS): rename(2) refuses anything but an empty one. */
	ren->result = renameat(dir->parent, dir->temporary, dir->parent, dir->name) ? -errno : 0;
}

int snapshot_dir_commit(struct snapshot_dir *dir, struct error *err)
{
	struct renaming ren = { .dir = dir };

	if (fsync(dir->fd))
		return error_set_errno(err, errno, "sync");
	thread_run_in_starter(dir->policy, rename_in_starter, &ren);
	if (ren.result == -EEXIST || ren.result == -ENOTEMPTY)
		return error_set_kind(err, ERROR_CONFLICT, EEXIST, "it exists");
	if (ren.result)
		return error_set_errno(err, ren.result, "rename");
	if (fsync(dir->parent)) {
		int r = error_set_errno(err, errno, "sync its parent directory");

		/* A crash of the host could take the name away: it is not complete. */
		ren.back = true;
		thread_run_in_starter(dir->policy, rename_in_starter, &ren);
		return r;
	}
	dir->temporary[0] = '\0';
	return 0;
}

static void remove_in_starter(void *opaque)
{
	static const char *const names[] = { "config.json", "state", "ram" };
	const struct snapshot_dir *dir = opaque;

	if (dir->fd >= 0)
		for (size_t i = 0; i < ARRAY_SIZE(names); i++)
			unlinkat(dir->fd, names[i], 0);
	unlinkat(dir->parent, dir->temporary, AT_REMOVEDIR);
}

void snapshot_dir_end(struct snapshot_dir *dir)
{
	if (dir->parent >= 0 && dir->temporary[0])
		thread_run_in_starter(dir->policy, remove_in_starter, dir);
	if (dir->fd >= 0)
		close(dir->fd);
	if (dir->parent >= 0)
		close(dir->parent);
	dir->fd = dir->parent = -1;
}

struct resolving {
	const char *path, *base;
	char *reference;
	size_t size;
	int result;
};

static void resolve_in_starter(void *opaque)
{
	struct resolving *res = opaque;
	char parent[SNAPSHOT_PATH_MAX], base_parent[SNAPSHOT_PATH_MAX], name[NAME_MAX + 1];
	_cleanup_free_ char *absolute = NULL;
	struct stat a, b;

	if (split(res->path, parent, sizeof(parent), name, sizeof(name)) &&
	    split(res->base, base_parent, sizeof(base_parent), name, sizeof(name)) &&
	    !stat(parent, &a) && !stat(base_parent, &b) && a.st_dev == b.st_dev &&
	    a.st_ino == b.st_ino) {
		snprintf(res->reference, res->size, "%s", name);
		return;
	}
	absolute = realpath(res->base, NULL);
	if (!absolute)
		res->result = -errno;
	else if (strlen(absolute) >= res->size)
		res->result = -ENAMETOOLONG;
	else
		strcpy(res->reference, absolute);
}

int snapshot_base_reference(const char *path, const char *base, char *reference, size_t size,
			    const struct thread_policy *policy, struct error *err)
{
	struct resolving res = { .path = path, .base = base, .reference = reference, .size = size };

	thread_run_in_starter(policy, resolve_in_starter, &res);
	if (res.result)
		return error_set_errno(err, res.result, "base %s", base);
	return 0;
}

int snapshot_base_path(const char *path, const char *reference, char *base, size_t size,
		       struct error *err)
{
	char parent[SNAPSHOT_PATH_MAX], name[NAME_MAX + 1];
	int n;

	if (*reference == '/')
		n = snprintf(base, size, "%s", reference);
	else if (!split(path, parent, sizeof(parent), name, sizeof(name)))
		n = snprintf(base, size, "%s/../%s", path, reference);
	else
		n = snprintf(base, size, "%s/%s", parent, reference);
	if (n < 0 || (size_t)n >= size)
		return error_set(err, ENAMETOOLONG, "the path of base %s is too long", reference);
	return 0;
}
