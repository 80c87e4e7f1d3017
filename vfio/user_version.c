/* SPDX-License-Identifier: Apache-2.0 */
/* VERSION: what both sides can do, as JSON. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "vfio/user_private.h"

/* Servers answer with a hundred bytes or two. */
#define JSON_MAX 4096

/* A capability that is a number from min to max: 0, also where it is absent, or -1. */
static int number(const json_t *caps, const char *name, uint64_t min, uint64_t max, uint64_t *out,
		  char *wrong, size_t size)
{
	const json_t *value = json_object_get(caps, name);

	if (!value)
		return 0;
	if (!json_is_integer(value) || json_integer_value(value) < 0 ||
	    (uint64_t)json_integer_value(value) < min ||
	    (uint64_t)json_integer_value(value) > max) {
		snprintf(wrong, size, "%s is no number from %llu to %llu", name,
			 (unsigned long long)min, (unsigned long long)max);
		return -1;
	}
	*out = (uint64_t)json_integer_value(value);
	return 0;
}

/* The older revision's page log; with pages of 4 KiB, or not at all. */
static int migration(const json_t *caps, struct user_caps *out, char *wrong, size_t size)
{
	const json_t *value = json_object_get(caps, "migration");
	uint64_t pgsize = 4096;

	if (!value)
		return 0;
	if (!json_is_object(value)) {
		snprintf(wrong, size, "migration is no object");
		return -1;
	}
	if (number(value, "pgsize", 1, INT64_MAX, &pgsize, wrong, size) ||
	    number(value, "max_bitmap_size", 8, INT64_MAX, &out->max_bitmap, wrong, size))
		return -1;
	out->dirty_pages = pgsize == 4096;
	return 0;
}

static int parse_caps(const json_t *caps, struct user_caps *out, char *wrong, size_t size)
{
	uint64_t max_fds = VFIO_USER_DEFAULT_MSG_FDS;

	if (!json_is_object(caps)) {
		snprintf(wrong, size, "capabilities is no object");
		return -1;
	}
	/* An access of 8 bytes must not be torn, so less than that is no use. */
	if (number(caps, "max_msg_fds", 0, INT64_MAX, &max_fds, wrong, size) ||
	    number(caps, "max_data_xfer_size", 8, INT64_MAX, &out->max_data, wrong, size) ||
	    number(caps, "pgsizes", 1, INT64_MAX, &out->pgsizes, wrong, size) ||
	    number(caps, "max_dma_maps", 1, INT64_MAX, &out->max_dma_maps, wrong, size) ||
	    migration(caps, out, wrong, size))
		return -1;
	out->max_fds = (unsigned int)MIN(max_fds, (uint64_t)FD_PASS_MAX);
	out->max_data = MIN(out->max_data, (uint64_t)USER_DATA_MAX);
	out->max_dma_maps = MIN(out->max_dma_maps, (uint64_t)VFIO_USER_DEFAULT_DMA_MAPS);
	out->max_bitmap = align_down(MIN(out->max_bitmap, (uint64_t)USER_DATA_MAX), 8);
	return 0;
}

static int parse(const char *text, size_t len, struct user_caps *caps, char *wrong, size_t size)
{
	json_error_t error;
	const json_t *value;
	json_t *root;
	int r = 0;

	len = strnlen(text, len);
	if (!len)
		return 0; /* all defaults */
	root = json_loadb(text, len, 0, &error);
	if (!json_is_object(root)) {
		snprintf(wrong, size, "no JSON object (%s)", root ? "another value" : error.text);
		json_decref(root);
		return -1;
	}
	value = json_object_get(root, "capabilities");
	if (value)
		r = parse_caps(value, caps, wrong, size);
	json_decref(root);
	return r;
}

int user_negotiate(struct user_connection *connection, struct user_caps *caps, struct error *err)
{
	struct vfio_user_version ours = { VFIO_USER_MAJOR, VFIO_USER_MINOR }, theirs;
	char offer[512], answer[JSON_MAX], wrong[256] = "";
	struct user_call call = {
		.command = VFIO_USER_VERSION,
		.out = { { &ours, sizeof(ours) }, { offer, 0 } },
		.in = { { &theirs, sizeof(theirs) }, { answer, sizeof(answer) } },
	};
	int r;

	*caps = (struct user_caps){
		.max_fds = VFIO_USER_DEFAULT_MSG_FDS,
		.max_data = VFIO_USER_DEFAULT_XFER_SIZE,
		.pgsizes = VFIO_USER_DEFAULT_PGSIZES,
		.max_dma_maps = VFIO_USER_DEFAULT_DMA_MAPS,
		.max_bitmap = USER_DATA_MAX,
	};
	/* The text goes with its NUL. */
	call.out[1].iov_len =
		1 + (size_t)snprintf(offer, sizeof(offer),
				     "{\"capabilities\":{\"max_msg_fds\":%d,"
				     "\"max_data_xfer_size\":%lu,\"pgsizes\":4096,"
				     "\"max_dma_maps\":%d,"
				     "\"migration\":{\"pgsize\":4096,\"max_bitmap_size\":%lu}}}",
				     FD_PASS_MAX, USER_DATA_MAX, VFIO_USER_DEFAULT_DMA_MAPS,
				     USER_DATA_MAX);
	r = user_connection_call(connection, &call, err);
	if (r)
		return r;
	if (theirs.major != ours.major || theirs.minor > ours.minor)
		return user_connection_break(connection, err,
					     "the server speaks version %u.%u of the protocol, "
					     "this client up to %u.%u",
					     theirs.major, theirs.minor, ours.major, ours.minor);
	if (parse(answer, call.received, caps, wrong, sizeof(wrong)))
		return user_connection_break(connection, err,
					     "the server's capabilities make no sense: %s", wrong);
	return 0;
}
