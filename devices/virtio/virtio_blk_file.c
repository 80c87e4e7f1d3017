/* SPDX-License-Identifier: Apache-2.0 */
/* The file behind a disk: opening, measuring, locking. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "devices/virtio/virtio_blk_private.h"

/* Whether one fdinfo file tells of a lock on the inode `where` ("08:01:1234"). */
static bool fdinfo_locks(int dir, const char *name, const char *where)
{
	_cleanup_fclose_ FILE *f = NULL;
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	char line[256];

	if (fd < 0)
		return false;
	f = fdopen(fd, "r");
	if (!f) {
		close(fd);
		return false;
	}
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, "lock:", 5) && strstr(line, where))
			return true;
	return false;
}

/* Whether a process holds a lock on it, as far as we may look. */
static bool process_locks(const char *pid, const char *where)
{
	char path[64];
	struct dirent *entry;
	bool found = false;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%.20s/fdinfo", pid);
	dir = opendir(path);
	if (!dir)
		return false;
	while (!found && (entry = readdir(dir)))
		found = isdigit((unsigned char)entry->d_name[0]) &&
			fdinfo_locks(dirfd(dir), entry->d_name, where);
	closedir(dir);
	return found;
}

/*
 * Who holds a lock on the file; 0 where that cannot be found out. Locks of open file
 * descriptions have no pid in /proc/locks: each process's fdinfo tells of its own.
 */
static long lock_holder(int fd)
{
	struct stat st;
	struct dirent *entry;
	char where[64];
	long pid = 0;
	DIR *dir;

	if (fstat(fd, &st))
		return 0;
	snprintf(where, sizeof(where), " %02x:%02x:%" PRIu64 " ", major(st.st_dev),
		 minor(st.st_dev), (uint64_t)st.st_ino);
	dir = opendir("/proc");
	if (!dir)
		return 0;
	while (!pid && (entry = readdir(dir)))
		if (isdigit((unsigned char)entry->d_name[0]) && process_locks(entry->d_name, where))
			pid = strtol(entry->d_name, NULL, 10);
	closedir(dir);
	return pid;
}

int blk_file_lock(struct blk_file *file, struct error *err)
{
	/* The whole file, whatever size it takes. */
	struct flock lock = {
		.l_type = file->readonly ? F_RDLCK : F_WRLCK,
		.l_whence = SEEK_SET,
	};
	char holder[64] = "another open of it";
	long pid;

	if (file->locked)
		return 0;
	if (!fcntl(file->lock_fd, F_OFD_SETLK, &lock)) {
		file->locked = true;
		return 0;
	}
	if (errno != EAGAIN && errno != EACCES)
		return error_set_errno(err, errno, "lock disk %s", file->path);
	pid = lock_holder(file->lock_fd);
	if (pid == (long)getpid())
		snprintf(holder, sizeof(holder), "another disk of this VM");
	else if (pid)
		snprintf(holder, sizeof(holder), "process %ld", pid);
	return error_set_kind(err, ERROR_CONFLICT, EBUSY, "lock disk %s: it is in use by %s%s",
			      file->path, holder,
			      file->readonly ? "" : " (readonly=on on both sides would share it)");
}

/* A network file system makes what was written visible elsewhere by this, too. */
int blk_file_unlock(struct blk_file *file, struct error *err)
{
	struct flock lock = { .l_type = F_UNLCK, .l_whence = SEEK_SET };

	if (file->locked && fcntl(file->lock_fd, F_OFD_SETLK, &lock))
		return error_set_errno(err, errno, "unlock disk %s", file->path);
	file->locked = false;
	return 0;
}

/* The alignment the file wants of direct I/O, found by trying: no interface says it on
 * all file systems and kernels. */
static int probe_direct(struct blk_file *file, struct error *err)
{
	_cleanup_free_ uint8_t *buf = NULL;

	if (posix_memalign((void **)&buf, 2 * BLK_ALIGN_MAX, 2 * BLK_ALIGN_MAX))
		return error_set_errno(err, ENOMEM, "open disk %s", file->path);
	for (uint32_t align = SECTOR_SIZE; align <= BLK_ALIGN_MAX; align *= 2) {
		/* buf + align is aligned to that and to nothing larger. */
		if (pread(file->fd, buf + align, align, 0) >= 0) {
			file->align = align;
			return 0;
		}
		if (errno != EINVAL)
			return error_set_errno(err, errno, "read disk %s", file->path);
	}
	return error_set(err, EINVAL,
			 "open disk %s: its file system takes no direct I/O: "
			 "direct=off",
			 file->path);
}

/* By trying: access() knows nothing of Landlock. */
static bool can_be_read(const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	return fd >= 0;
}

static int open_fd(const struct blk_file *file, const char *path, int flags, int *fd,
		   struct error *err)
{
	int code;

	/* NONBLOCK: opening a FIFO or a device without a medium must not hang. */
	*fd = open(path, flags | O_CLOEXEC | O_NONBLOCK | (file->readonly ? O_RDONLY : O_RDWR));
	if (*fd >= 0)
		return 0;
	code = errno;
	if (code == EINVAL && flags & O_DIRECT)
		return error_set(err, EINVAL,
				 "open disk %s: its file system takes no direct I/O: "
				 "direct=off",
				 file->path);
	if ((code == EROFS || code == EACCES) && !file->readonly && can_be_read(path))
		return error_set(err, code, "open disk %s: it cannot be written: readonly=on",
				 file->path);
	return error_set_errno(err, code, "open disk %s", file->path);
}

/* Twice, and the same file both times. */
static int open_fds(struct blk_file *file, const char *path, struct error *err)
{
	struct stat locked, opened;
	int r = open_fd(file, path, 0, &file->lock_fd, err);

	if (!r)
		r = open_fd(file, path, file->direct ? O_DIRECT : 0, &file->fd, err);
	if (r)
		return r;
	if (fstat(file->lock_fd, &locked) || fstat(file->fd, &opened))
		return error_set_errno(err, errno, "open disk %s", file->path);
	if (locked.st_dev != opened.st_dev || locked.st_ino != opened.st_ino)
		return error_set(err, EAGAIN, "open disk %s: it was replaced meanwhile",
				 file->path);
	return 0;
}

static int check_kind(struct blk_file *file, struct error *err)
{
	unsigned int physical;
	struct stat st;

	if (fstat(file->fd, &st))
		return error_set_errno(err, errno, "open disk %s", file->path);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
				      "open disk %s: it is neither a file nor a block device",
				      file->path);
	file->block_device = S_ISBLK(st.st_mode);
	file->physical = (uint32_t)st.st_blksize;
	if (file->block_device && !ioctl(file->fd, BLKPBSZGET, &physical))
		file->physical = physical;
	if (!is_power_of_2(file->physical) || file->physical < SECTOR_SIZE ||
	    file->physical > BLK_ALIGN_MAX)
		file->physical = SECTOR_SIZE;
	/* io_uring would fail with EAGAIN where it should wait. */
	if (fcntl(file->fd, F_SETFL, fcntl(file->fd, F_GETFL) & ~O_NONBLOCK))
		return error_set_errno(err, errno, "open disk %s", file->path);
	return 0;
}

int blk_file_sectors(const struct blk_file *file, uint64_t *sectors, struct log *log,
		     struct error *err)
{
	uint64_t bytes, unit = MAX(SECTOR_SIZE, (uint64_t)file->align);
	struct stat st;

	if (file->block_device) {
		if (ioctl(file->fd, BLKGETSIZE64, &bytes))
			return error_set_errno(err, errno, "read the size of disk %s", file->path);
	} else {
		if (fstat(file->fd, &st))
			return error_set_errno(err, errno, "read the size of disk %s", file->path);
		bytes = (uint64_t)st.st_size;
	}
	if (bytes < unit)
		return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
				      "disk %s is empty: it has %" PRIu64
				      " bytes, at least %" PRIu64 " are needed",
				      file->path, bytes, unit);
	if (bytes % unit)
		log_warn(log,
			 "disk %s: its size %" PRIu64 " is no multiple of %" PRIu64
			 ": the last %" PRIu64 " bytes are left out",
			 file->path, bytes, unit, bytes % unit);
	*sectors = align_down(bytes, unit) >> SECTOR_SHIFT;
	return 0;
}

/* Only raw images: another format's would show the guest its metadata. */
static void warn_of_format(const struct blk_file *file, struct log *log)
{
	static const struct {
		const char *magic, *name;
	} formats[] = {
		{ "QFI\xfb", "QCOW2" },
		{ "KDMV", "VMDK" },
		{ "vhdxfile", "VHDX" },
	};
	char start[8] = "";

	if (file->direct || pread(file->fd, start, sizeof(start), 0) != (ssize_t)sizeof(start))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(formats); i++)
		if (!memcmp(start, formats[i].magic, strlen(formats[i].magic)))
			log_warn(log,
				 "disk %s looks like a %s image; it is used as a raw one: "
				 "convert it with qemu-img convert -O raw",
				 file->path, formats[i].name);
}

/* The description that holds the lock is the other process's, too: it is ours as well. */
static int take_fds(struct blk_file *file, struct kept *kept, const char *id, struct error *err)
{
	const uint8_t *locked = kept_facts(kept, 1, "%s/lock", id);

	file->lock_fd = kept_take(kept, "%s/lock", id);
	file->fd = kept_take(kept, "%s/file", id);
	if (file->lock_fd < 0 || file->fd < 0 || !locked)
		return error_set(err, ENOENT, "open disk %s: it did not come along", file->path);
	file->locked = *locked;
	return 0;
}

int blk_file_keep(const struct blk_file *file, struct kept *kept, const char *id, struct error *err)
{
	const uint8_t locked = file->locked;
	int r = kept_add(kept, file->lock_fd, &locked, 1, err, "%s/lock", id);

	return r ? r : kept_add(kept, file->fd, NULL, 0, err, "%s/file", id);
}

int blk_file_open(struct blk_file *file, const struct virtio_blk_options *options,
		  struct kept *kept, const char *id, struct log *log, struct error *err)
{
	int r;

	*file = (struct blk_file){
		.fd = -1,
		.lock_fd = -1,
		.readonly = options->readonly,
		.direct = options->direct,
		.align = 1,
	};
	/* A longer one is cut, for messages only. */
	snprintf(file->path, sizeof(file->path), "%s", options->path);
	r = kept ? take_fds(file, kept, id, err) : open_fds(file, options->path, err);
	if (!r)
		r = check_kind(file, err);
	if (!r && !options->unlocked && !kept)
		r = blk_file_lock(file, err);
	if (!r && file->direct)
		r = probe_direct(file, err);
	if (r) {
		blk_file_close(file);
		return r;
	}
	warn_of_format(file, log);
	return 0;
}

void blk_file_close(struct blk_file *file)
{
	if (file->fd >= 0)
		close(file->fd);
	if (file->lock_fd >= 0)
		close(file->lock_fd);
	file->fd = file->lock_fd = -1;
	file->locked = false;
}
