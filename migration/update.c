/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The body of KEPT, entries one behind the other:
 *    0  u8  1: a descriptor belongs to it, the next one of the message
 *    1  u8  0
 *    2  u16 bytes of the name
 *    4  u32 bytes of facts
 *    8  name, without NUL; facts
 */
#include "migration/update.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fd.h"

#define ENTRY_HEADER 8u

_Static_assert(ENTRY_HEADER + KEPT_NAME_MAX + KEPT_DATA_MAX <= FRAME_META_MAX,
	       "the largest entry fits a frame");

unsigned int kept_encode(const struct kept *kept, unsigned int first, uint8_t buf[FRAME_META_MAX],
			 size_t *len, int *fds, unsigned int *fd_count)
{
	unsigned int i = first;

	*len = 0;
	*fd_count = 0;
	for (; i < kept->count; i++) {
		const struct kept_entry *entry = &kept->entries[i];
		size_t name = strlen(entry->name), need = ENTRY_HEADER + name + entry->len;
		uint8_t *at = buf + *len;

		if (*len + need > FRAME_META_MAX || (entry->fd >= 0 && *fd_count == FD_PASS_MAX))
			break;
		at[0] = entry->fd >= 0;
		at[1] = 0;
		store_le16(at + 2, (uint16_t)name);
		store_le32(at + 4, (uint32_t)entry->len);
		memcpy(at + ENTRY_HEADER, entry->name, name);
		if (entry->len)
			memcpy(at + ENTRY_HEADER + name, entry->data, entry->len);
		if (entry->fd >= 0)
			fds[(*fd_count)++] = entry->fd;
		*len += need;
	}
	return i - first;
}

static int nonsense(struct error *err)
{
	return error_set(err, EBADMSG, "KEPT of the peer makes no sense");
}

static int take_name(char out[KEPT_NAME_MAX], const uint8_t *name, size_t len)
{
	if (!len || len >= KEPT_NAME_MAX)
		return -EBADMSG;
	for (size_t i = 0; i < len; i++)
		if (!isgraph(name[i]))
			return -EBADMSG;
	memcpy(out, name, len);
	out[len] = '\0';
	return 0;
}

int kept_decode(struct kept *kept, const uint8_t *buf, size_t len, const int *fds,
		unsigned int fd_count, struct error *err)
{
	unsigned int used = 0;
	size_t at = 0;
	int r = 0;

	while (!r && at < len) {
		char name[KEPT_NAME_MAX];
		size_t name_len, data_len;
		int fd = -1;

		if (len - at < ENTRY_HEADER || buf[at] > 1 || buf[at + 1]) {
			r = nonsense(err);
			break;
		}
		name_len = load_le16(buf + at + 2);
		data_len = load_le32(buf + at + 4);
		if (len - at - ENTRY_HEADER < name_len ||
		    len - at - ENTRY_HEADER - name_len < data_len ||
		    take_name(name, buf + at + ENTRY_HEADER, name_len) ||
		    (buf[at] && used == fd_count)) {
			r = nonsense(err);
			break;
		}
		if (buf[at])
			fd = fds[used];
		r = kept_put(kept, name, fd, buf + at + ENTRY_HEADER + name_len, data_len, err);
		if (!r && fd >= 0)
			used++;
		at += ENTRY_HEADER + name_len + data_len;
	}
	if (!r && used != fd_count)
		r = nonsense(err);
	while (used < fd_count)
		close(fds[used++]);
	return r;
}
