/* SPDX-License-Identifier: Apache-2.0 */
/* The plugin backend's stream: what save() gives, in chunks, and what load() takes. */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "vfio/migration_plugin_private.h"

void plugin_stream_begin(struct plugin_migration *p)
{
	p->head_at = p->head_len = p->data_at = p->data_len = 0;
	p->begun = p->ended = p->stopped = false;
	p->left = 0;
	p->lowest = UINT64_MAX;
	p->rounds = 0;
	p->in_len = p->chunk_at = p->chunk_len = 0;
}

/* The head of the next chunk, and before the first one the stream's. */
static void put_head(struct plugin_migration *p, uint32_t len)
{
	const struct plugin_stream_head stream = { .magic = PLUGIN_STREAM_MAGIC,
						   .version = PLUGIN_STREAM_VERSION };
	const struct plugin_chunk chunk = { PLUGIN_CHUNK_MAGIC, len };

	p->head_at = p->head_len = 0;
	if (!p->begun) {
		memcpy(p->head, &stream, sizeof(stream));
		p->head_len = sizeof(stream);
	}
	memcpy(p->head + p->head_len, &chunk, sizeof(chunk));
	p->head_len += sizeof(chunk);
	p->begun = true;
	p->data_at = 0;
	p->data_len = len;
}

static int check_left(struct plugin_migration *p, struct error *err)
{
	if (p->left > PLUGIN_PENDING_MAX)
		return error_set(err, EPROTO, "its update_pending() says 0x%llx bytes",
				 (unsigned long long)p->left);
	if (!p->stopped || !p->left)
		return 0;
	if (p->left < p->lowest) {
		p->lowest = p->left;
		p->rounds = 0;
	} else if (++p->rounds == PLUGIN_ROUNDS_MAX) {
		return error_set(err, EPROTO,
				 "the device is stopped and was saved %u times, and its "
				 "update_pending() still says %llu bytes",
				 p->rounds, (unsigned long long)p->left);
	}
	return 0;
}

/* 1: there is a chunk; 0: none now, or no more. */
static int next_chunk(struct plugin_migration *p, struct error *err)
{
	uint32_t len;
	int r = 0;

	if (p->ended)
		return 0;
	if (!p->left)
		r = plugin_call(p, PLUGIN_PENDING, 0, 0, &p->left, err);
	if (!r)
		r = check_left(p, err);
	if (r)
		return r;
	if (!p->left) {
		p->ended = p->stopped;
		if (p->ended)
			put_head(p, 0);
		return p->ended;
	}
	len = (uint32_t)MIN(p->left, (uint64_t)PLUGIN_WINDOW_SIZE);
	r = plugin_call(p, PLUGIN_SAVE, 0, len, NULL, err);
	if (r)
		return r;
	p->left -= len;
	put_head(p, len);
	return 1;
}

/* Moves what is left of one into buf: how many bytes. */
static size_t move(uint8_t *buf, size_t room, const uint8_t *from, size_t *at, size_t len)
{
	size_t part = MIN(room, len - *at);

	memcpy(buf, from + *at, part);
	*at += part;
	return part;
}

ssize_t plugin_stream_read(struct plugin_migration *p, void *buf, size_t len, struct error *err)
{
	size_t done = 0;

	while (done < len) {
		uint8_t *to = (uint8_t *)buf + done;
		int r;

		if (p->head_at < p->head_len) {
			done += move(to, len - done, p->head, &p->head_at, p->head_len);
			continue;
		}
		if (p->data_at < p->data_len) {
			/* The rest of a chunk went with its process. */
			if (!p->alive)
				return error_set(err, ECONNRESET, "its process is gone");
			done += move(to, len - done, p->process.window, &p->data_at, p->data_len);
			continue;
		}
		r = next_chunk(p, err);
		if (r < 0)
			return r;
		if (!r)
			break;
	}
	return (ssize_t)done;
}

static int damaged(struct error *err, const char *why)
{
	return error_set(err, EBADMSG, "the stream is no plugin's, or damaged: %s", why);
}

/* A head is complete. */
static int take_head(struct plugin_migration *p, struct error *err)
{
	struct plugin_stream_head stream;
	struct plugin_chunk chunk;

	p->in_len = 0;
	if (!p->begun) {
		memcpy(&stream, p->head, sizeof(stream));
		if (memcmp(stream.magic, PLUGIN_STREAM_MAGIC, sizeof(stream.magic)) != 0)
			return damaged(err, "its head is another");
		if (stream.version != PLUGIN_STREAM_VERSION)
			return damaged(err, "it is of another version");
		p->begun = true;
		return 0;
	}
	memcpy(&chunk, p->head, sizeof(chunk));
	if (chunk.magic != PLUGIN_CHUNK_MAGIC || chunk.len > PLUGIN_WINDOW_SIZE)
		return damaged(err, "a chunk makes no sense");
	p->chunk_at = 0;
	p->chunk_len = chunk.len;
	p->ended = !chunk.len;
	return 0;
}

int plugin_stream_write(struct plugin_migration *p, const void *buf, size_t len, struct error *err)
{
	const uint8_t *from = buf;
	size_t part;
	int r = 0;

	while (len && !r) {
		size_t want =
			p->begun ? sizeof(struct plugin_chunk) : sizeof(struct plugin_stream_head);

		if (p->ended)
			return damaged(err, "there is something behind its end");
		if (!p->alive)
			return error_set(err, ECONNRESET, "its process is gone");
		if (p->chunk_at < p->chunk_len) {
			part = MIN(len, p->chunk_len - p->chunk_at);
			memcpy(p->process.window + p->chunk_at, from, part);
			p->chunk_at += part;
			if (p->chunk_at == p->chunk_len)
				r = plugin_call(p, PLUGIN_LOAD, 0, (uint32_t)p->chunk_len, NULL,
						err);
		} else {
			part = MIN(len, want - p->in_len);
			memcpy(p->head + p->in_len, from, part);
			p->in_len += part;
			if (p->in_len == want)
				r = take_head(p, err);
		}
		from += part;
		len -= part;
	}
	return r;
}
