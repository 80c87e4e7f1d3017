/* SPDX-License-Identifier: Apache-2.0 */
/* ferryctl state show: a state tree on disk as text. No ferry is asked. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/ctl/ctl.h"
#include "api/options_keys.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/state_tree.h"

/* The file, or the file "state" of a snapshot's folder; name says which, for messages. */
static int open_state(const char *path, char *name, size_t size, int *fd, struct error *err)
{
	_cleanup_close_ int opened = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;

	snprintf(name, size, "%.200s", path);
	if (opened < 0 || fstat(opened, &st))
		return error_set_errno(err, errno, "open %s", name);
	if (S_ISDIR(st.st_mode)) {
		int file = openat(opened, "state", O_RDONLY | O_CLOEXEC | O_NONBLOCK);

		snprintf(name, size, "%.200s/state", path);
		if (file < 0 && errno == ENOENT)
			return error_set(err, ENOENT,
					 "%.200s is no snapshot: there is no file state in it",
					 path);
		if (file < 0)
			return error_set_errno(err, errno, "open %s", name);
		close(opened);
		opened = file;
	}
	*fd = take_fd(&opened);
	return 0;
}

static int read_state(int fd, const char *name, void **blob, size_t *len, struct error *err)
{
	_cleanup_free_ void *data = NULL;
	struct stat st;
	int rc;

	if (fstat(fd, &st))
		return error_set_errno(err, errno, "read %s", name);
	if (!S_ISREG(st.st_mode))
		return error_set(err, EINVAL, "%s: is no file", name);
	if (st.st_size > STATE_TREE_SIZE_MAX)
		return error_set(err, EFBIG, "%s: larger than the %u MiB of any state tree", name,
				 STATE_TREE_SIZE_MAX >> 20);
	*len = (size_t)st.st_size;
	data = malloc(*len + 1);
	if (!data)
		return error_set_errno(err, ENOMEM, "read %s", name);
	rc = fd_read_full(fd, data, *len);
	if (rc)
		return error_set_errno(err, rc, "read %s", name);
	*blob = take_ptr(data);
	return 0;
}

int ctl_state(FILE *out, int argc, char *const argv[], struct error *err)
{
	_cleanup_close_ int fd = -1;
	_cleanup_free_ void *blob = NULL;
	char name[256];
	size_t len = 0;
	int rc;

	if (argc < 2)
		return option_error(err, "what to do is missing: show FILE");
	if (strcmp(argv[1], "show") != 0)
		return option_error(err, "unknown argument \"%.60s\": it must be show", argv[1]);
	if (argc < 3 || !*argv[2])
		return option_error(err, "the file or folder to show is missing");
	if (argc > 3)
		return option_error(err, "unexpected argument \"%.60s\"", argv[3]);
	rc = open_state(argv[2], name, sizeof(name), &fd, err);
	if (!rc)
		rc = read_state(fd, name, &blob, &len, err);
	if (rc)
		return rc;
	rc = state_tree_print(blob, len, out, err);
	return rc ? error_prefix(err, "%s", name) : 0;
}
