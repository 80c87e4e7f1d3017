/* SPDX-License-Identifier: Apache-2.0 */
#include "migration/protocol.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "memory/guest_memory.h"
#include "migration/crc32c.h"

static const struct {
	const char *name;
	uint64_t max; /* payload, bytes */
} types[FRAME_TYPES] = {
	[FRAME_HELLO] = { "HELLO", 0 },
	[FRAME_HELLO_REPLY] = { "HELLO_REPLY", 0 },
	[FRAME_CPU] = { "CPU", FRAME_CPU_MAX },
	[FRAME_MEMORY] = { "MEMORY", 0 },
	[FRAME_CONFIG] = { "CONFIG", FRAME_CONFIG_MAX },
	[FRAME_ATTACH] = { "ATTACH", 0 },
	[FRAME_CREATED] = { "CREATED", 0 },
	[FRAME_PAGES] = { "PAGES", FRAME_PAGES_MAX },
	[FRAME_ROUND_END] = { "ROUND_END", 0 },
	[FRAME_PING] = { "PING", 0 },
	[FRAME_STATE] = { "STATE", FRAME_STATE_MAX },
	[FRAME_READY] = { "READY", 0 },
	[FRAME_COMMIT] = { "COMMIT", 0 },
	[FRAME_RUNNING] = { "RUNNING", 0 },
	[FRAME_DONE] = { "DONE", 0 },
	[FRAME_FAILED] = { "FAILED", 0 },
	[FRAME_QUERY] = { "QUERY", 0 },
	[FRAME_DEVICE] = { "DEVICE", 0 },
	[FRAME_DEVICE_DATA] = { "DEVICE_DATA", FRAME_DEVICE_DATA_MAX },
	[FRAME_DEVICE_LOADED] = { "DEVICE_LOADED", 0 },
	[FRAME_MISSING] = { "MISSING", FRAME_MISSING_MAX },
	[FRAME_DROPPED] = { "DROPPED", 0 },
	[FRAME_PAGE_REQUEST] = { "PAGE_REQUEST", 0 },
	[FRAME_COMPLETE] = { "COMPLETE", 0 },
	[FRAME_RECOVER] = { "RECOVER", 0 },
	[FRAME_ASK] = { "ASK", FRAME_ASK_MAX },
	[FRAME_AGREED] = { "AGREED", 0 },
	[FRAME_KEPT] = { "KEPT", 0 },
	[FRAME_ROUND_SENT] = { "ROUND_SENT", 0 },
	[FRAME_ROUND_LOADED] = { "ROUND_LOADED", 0 },
};

static bool known(uint16_t type)
{
	return type < FRAME_TYPES && types[type].name;
}

const char *frame_name(uint16_t type, char *buf, size_t size)
{
	if (known(type))
		return types[type].name;
	snprintf(buf, size, "frame %u", type);
	return buf;
}

void frame_encode(const struct frame *frame, uint8_t *buf)
{
	store_le32(buf, FRAME_MAGIC);
	store_le16(buf + 4, frame->type);
	store_le16(buf + 6, frame->flags);
	store_le32(buf + 8, frame->stream);
	store_le32(buf + 12, frame->meta_len);
	store_le64(buf + 16, frame->length);
	store_le64(buf + 24, frame->offset);
	store_le32(buf + 32, frame->meta_crc);
	store_le32(buf + 36, frame->payload_crc);
	store_le32(buf + 40, 0);
	store_le32(buf + 44, crc32c(0, buf, 44));
}

static int check_limits(const struct frame *frame, struct error *err)
{
	uint64_t max = known(frame->type) ? types[frame->type].max : FRAME_SKIP_MAX;
	char buf[16];

	if (!known(frame->type) && !(frame->flags & FRAME_OPTIONAL))
		return error_set(err, EPROTO,
				 "the peer sent a frame of type %u, which this version does not "
				 "know and may not skip",
				 frame->type);
	if (frame->meta_len > FRAME_META_MAX || frame->length > max)
		return error_set(err, EMSGSIZE,
				 "%s of the peer: %u bytes of metadata and %llu of payload, at "
				 "most %u and %llu are allowed",
				 frame_name(frame->type, buf, sizeof(buf)), frame->meta_len,
				 (unsigned long long)frame->length, FRAME_META_MAX,
				 (unsigned long long)max);
	return 0;
}

int frame_decode(struct frame *frame, const uint8_t *buf, struct error *err)
{
	if (load_le32(buf) != FRAME_MAGIC)
		return error_set(err, EBADMSG,
				 "the peer does not speak Ferry's migration protocol");
	if (load_le32(buf + 44) != crc32c(0, buf, 44))
		return error_set(err, EBADMSG, "a frame header of the peer is damaged (CRC32C)");
	*frame = (struct frame){
		.type = load_le16(buf + 4),
		.flags = load_le16(buf + 6),
		.stream = load_le32(buf + 8),
		.meta_len = load_le32(buf + 12),
		.length = load_le64(buf + 16),
		.offset = load_le64(buf + 24),
		.meta_crc = load_le32(buf + 32),
		.payload_crc = load_le32(buf + 36),
	};
	return check_limits(frame, err);
}

static int short_body(const char *name, size_t len, struct error *err)
{
	return error_set(err, EBADMSG, "%s of the peer: %zu bytes of metadata make no sense", name,
			 len);
}

void hello_encode(const struct hello *hello, uint8_t buf[HELLO_SIZE])
{
	store_le16(buf, hello->version_min);
	store_le16(buf + 2, hello->version_max);
	store_le32(buf + 4, hello->connections);
	store_le64(buf + 8, hello->offered);
	store_le64(buf + 16, hello->required);
	store_le64(buf + 24, hello->ram_bytes);
	store_le32(buf + 32, hello->flags);
	store_le32(buf + 36, hello->devices);
}

int hello_decode(struct hello *hello, const uint8_t *buf, size_t len, struct error *err)
{
	if (len < HELLO_SIZE_MIN)
		return short_body("HELLO", len, err);
	*hello = (struct hello){
		.version_min = load_le16(buf),
		.version_max = load_le16(buf + 2),
		.connections = load_le32(buf + 4),
		.offered = load_le64(buf + 8),
		.required = load_le64(buf + 16),
		.ram_bytes = load_le64(buf + 24),
		.flags = load_le32(buf + 32),
		.devices = len >= HELLO_SIZE ? load_le32(buf + 36) : 0,
	};
	return 0;
}

void hello_reply_encode(const struct hello_reply *reply, uint8_t buf[HELLO_REPLY_SIZE])
{
	memset(buf, 0, HELLO_REPLY_SIZE);
	store_le16(buf, reply->version);
	store_le64(buf + 8, reply->capabilities);
	memcpy(buf + 16, reply->session, SESSION_SIZE);
	memcpy(buf + 16 + SESSION_SIZE, reply->witness, SESSION_SIZE);
}

int hello_reply_decode(struct hello_reply *reply, const uint8_t *buf, size_t len, struct error *err)
{
	if (len < HELLO_REPLY_SIZE)
		return short_body("HELLO_REPLY", len, err);
	reply->version = load_le16(buf);
	reply->capabilities = load_le64(buf + 8);
	memcpy(reply->session, buf + 16, SESSION_SIZE);
	memcpy(reply->witness, buf + 16 + SESSION_SIZE, SESSION_SIZE);
	return 0;
}

void memory_entry_encode(const struct memory_entry *entry, uint8_t buf[MEMORY_ENTRY_SIZE])
{
	store_le64(buf, entry->gpa);
	store_le64(buf + 8, entry->size);
	store_le64(buf + 16, entry->offset);
	store_le32(buf + 24, entry->page_size);
	store_le32(buf + 28, 0);
}

static bool makes_sense(const struct memory_entry *entry)
{
	return is_power_of_2(entry->page_size) && entry->page_size >= GUEST_PAGE_SIZE &&
	       entry->size && entry->size % entry->page_size == 0 &&
	       entry->gpa % GUEST_PAGE_SIZE == 0 && entry->offset % entry->page_size == 0 &&
	       entry->gpa <= UINT64_MAX - entry->size &&
	       entry->offset <= INT64_MAX - MIN(entry->size, (uint64_t)INT64_MAX);
}

int memory_entries_decode(struct memory_entry *entries, unsigned int *count, const uint8_t *buf,
			  size_t len, struct error *err)
{
	size_t n = len / MEMORY_ENTRY_SIZE;

	if (!n || len % MEMORY_ENTRY_SIZE || n > *count)
		return short_body("MEMORY", len, err);
	for (size_t i = 0; i < n; i++, buf += MEMORY_ENTRY_SIZE) {
		entries[i] = (struct memory_entry){
			.gpa = load_le64(buf),
			.size = load_le64(buf + 8),
			.offset = load_le64(buf + 16),
			.page_size = load_le32(buf + 24),
		};
		if (!makes_sense(&entries[i]))
			return error_set(
				err, EBADMSG,
				"MEMORY of the peer: region of %llu bytes at 0x%llx in pages of "
				"%u makes no sense",
				(unsigned long long)entries[i].size,
				(unsigned long long)entries[i].gpa, entries[i].page_size);
	}
	*count = (unsigned int)n;
	return 0;
}

void page_run_encode(const struct page_run *run, uint8_t buf[PAGE_RUN_SIZE])
{
	store_le64(buf, run->gpa | (run->zero ? PAGE_RUN_ZERO : 0));
	store_le64(buf + 8, run->len);
}

int page_runs_decode(struct page_run *runs, unsigned int *count, const uint8_t *buf, size_t len,
		     uint64_t length, struct error *err)
{
	size_t n = len / PAGE_RUN_SIZE;
	uint64_t data = 0;

	if (!n || len % PAGE_RUN_SIZE || n > PAGE_RUNS_MAX)
		return short_body("PAGES", len, err);
	for (size_t i = 0; i < n; i++, buf += PAGE_RUN_SIZE) {
		uint64_t gpa = load_le64(buf), bytes = load_le64(buf + 8);
		uint64_t low = gpa % GUEST_PAGE_SIZE;

		if (low > PAGE_RUN_ZERO || !bytes || bytes % GUEST_PAGE_SIZE ||
		    gpa > UINT64_MAX - bytes || (!low && bytes > FRAME_PAGES_MAX))
			return error_set(
				err, EBADMSG,
				"PAGES of the peer: a run of %llu bytes at 0x%llx makes no sense",
				(unsigned long long)bytes, (unsigned long long)gpa);
		runs[i] = (struct page_run){ .gpa = gpa - low, .len = bytes, .zero = low };
		if (!low)
			data += bytes; /* no overflow: n and bytes are bounded */
	}
	if (data != length)
		return error_set(err, EBADMSG,
				 "PAGES of the peer: runs of %llu bytes, but %llu follow",
				 (unsigned long long)data, (unsigned long long)length);
	*count = (unsigned int)n;
	return 0;
}

size_t device_head_encode(const struct device_head *head, uint8_t *buf)
{
	size_t id = strnlen(head->id, DEVICE_ID_MAX), kind = strnlen(head->kind, DEVICE_KIND_MAX);

	memcpy(buf, head->session, SESSION_SIZE);
	store_le16(buf + SESSION_SIZE, (uint16_t)id);
	store_le16(buf + SESSION_SIZE + 2, (uint16_t)kind);
	store_le32(buf + SESSION_SIZE + 4, 0);
	memcpy(buf + DEVICE_HEAD_SIZE, head->id, id);
	memcpy(buf + DEVICE_HEAD_SIZE + id, head->kind, kind);
	return DEVICE_HEAD_SIZE + id + kind;
}

static bool copy_name(char *name, const uint8_t *from, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (from[i] <= ' ' || from[i] > '~')
			return false;
	memcpy(name, from, len);
	name[len] = '\0';
	return len > 0;
}

int device_head_decode(struct device_head *head, const uint8_t *buf, size_t len, struct error *err)
{
	size_t id, kind;

	if (len < DEVICE_HEAD_SIZE)
		return short_body("DEVICE", len, err);
	memcpy(head->session, buf, SESSION_SIZE);
	id = load_le16(buf + SESSION_SIZE);
	kind = load_le16(buf + SESSION_SIZE + 2);
	if (id > DEVICE_ID_MAX || kind > DEVICE_KIND_MAX || len < DEVICE_HEAD_SIZE + id + kind)
		return short_body("DEVICE", len, err);
	if (!copy_name(head->id, buf + DEVICE_HEAD_SIZE, id) ||
	    !copy_name(head->kind, buf + DEVICE_HEAD_SIZE + id, kind))
		return error_set(err, EBADMSG, "DEVICE of the peer: its names are none");
	return 0;
}

size_t failed_encode(const struct error *error, uint8_t *buf)
{
	size_t len = strnlen(error->message, ERROR_MESSAGE_MAX);

	store_le32(buf, error->code ? (uint32_t)-error->code : EIO);
	memcpy(buf + 4, error->message, len);
	return 4 + len;
}

int failed_decode(const char *peer, const uint8_t *buf, size_t len, struct error *err)
{
	char text[ERROR_MESSAGE_MAX] = "no reason given";
	uint32_t code;

	if (len < 4)
		return error_set(err, EPROTO, "the %s failed and gave no reason", peer);
	code = load_le32(buf);
	if (len > 4) {
		len = MIN(len - 4, sizeof(text) - 1);
		for (size_t i = 0; i < len; i++)
			text[i] = isprint(buf[4 + i]) ? (char)buf[4 + i] : '?';
		text[len] = '\0';
	}
	/* Errnos end at 4095; a peer's number decides nothing but the text's company. */
	return error_set(err, code && code < 4096 ? (int)code : EPROTO, "the %s says: %s", peer,
			 text);
}
