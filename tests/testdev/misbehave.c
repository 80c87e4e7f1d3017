/* SPDX-License-Identifier: Apache-2.0 */
/* What the device does wrong when it is told to: once per run, from a given command on,
 * the same every time. */
#include <errno.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/parse.h"
#include "tests/testdev/testdev.h"

static const struct {
	const char *name;
	enum testdev_fault fault;
	const char *help;
} faults[] = {
	{ "short-reply", FAULT_SHORT_REPLY, "replies end within their fixed part" },
	{ "short-data", FAULT_SHORT_DATA, "REGION_READ replies have less data than asked for" },
	{ "long-reply", FAULT_LONG_REPLY, "replies have 64 bytes more than asked for" },
	{ "wrong-size", FAULT_WRONG_SIZE, "replies announce 64 bytes that never come" },
	{ "huge-size", FAULT_HUGE_SIZE, "replies announce almost 4 GiB" },
	{ "tiny-size", FAULT_TINY_SIZE, "replies announce less than a header" },
	{ "wrong-id", FAULT_WRONG_ID, "replies carry another message's id" },
	{ "wrong-command", FAULT_WRONG_COMMAND, "replies carry another command" },
	{ "wrong-type", FAULT_WRONG_TYPE, "messages are neither command nor reply" },
	{ "error-replies", FAULT_ERROR_REPLIES, "every command is refused with EIO" },
	{ "error-data", FAULT_ERROR_DATA, "every command is refused, with data" },
	{ "extra-fds", FAULT_EXTRA_FDS, "replies carry five descriptors more" },
	{ "trickle", FAULT_TRICKLE, "replies come byte by byte" },
	{ "die", FAULT_DIE_AT, "ends before the reply" },
	{ "die-in-reply", FAULT_DIE_IN_REPLY, "ends in the middle of the reply" },
	{ "hang", FAULT_HANG_AT, "never replies again" },
	{ "reply-to-nothing", FAULT_REPLY_TO_NOTHING, "a reply nobody waits for comes first" },
	{ "unknown-command", FAULT_UNKNOWN_COMMAND, "sends the client the command 99" },
	{ "command-fds", FAULT_COMMAND_FDS, "sends DMA_READ with a descriptor" },
	{ "flood", FAULT_FLOOD, "sends DMA_READ for ever and reads nothing" },
	{ "dma-outside", FAULT_DMA_OUTSIDE, "DMA_WRITE outside of guest memory, before replies" },
	{ "dma-huge", FAULT_DMA_HUGE, "DMA_READ of 1 TiB, before replies" },
	{ "dma-lie", FAULT_DMA_LIE, "DMA_WRITE whose count is not its data's" },
	{ "bad-version", FAULT_BAD_VERSION, "answers with version 7.0" },
	{ "bad-json", FAULT_BAD_JSON, "capabilities are no JSON" },
	{ "bad-caps", FAULT_BAD_CAPS, "capabilities of the wrong types" },
	{ "not-pci", FAULT_NOT_PCI, "is no PCI device" },
	{ "many-regions", FAULT_MANY_REGIONS, "has 100,000 regions" },
	{ "many-irqs", FAULT_MANY_IRQS, "has 100,000 interrupts of each kind" },
	{ "huge-region", FAULT_HUGE_REGION, "regions of 2^63 bytes" },
	{ "wrong-region", FAULT_WRONG_REGION, "describes another region than asked for" },
	{ "cap-loop", FAULT_CAP_LOOP, "the list of capabilities has a loop" },
	{ "cap-outside", FAULT_CAP_OUTSIDE, "the list of capabilities leaves the reply" },
	{ "area-outside", FAULT_AREA_OUTSIDE, "a mappable area behind the region's end" },
	{ "areas-overlap", FAULT_AREAS_OVERLAP, "mappable areas overlap" },
	{ "areas-many", FAULT_AREAS_MANY, "a million mappable areas in a small reply" },
	{ "short-file", FAULT_SHORT_FILE, "the file behind BAR2 is smaller than BAR2" },
	{ "io-fd-index", FAULT_IO_FD_INDEX, "an ioeventfd that did not come" },
	{ "io-fd-outside", FAULT_IO_FD_OUTSIDE, "an ioeventfd behind the region's end" },
	{ "mig-error", FAULT_MIG_ERROR, "messages of migration are refused with EIO" },
	{ "mig-die", FAULT_MIG_DIE, "ends before the reply to a message of migration" },
	{ "mig-die-in-reply", FAULT_MIG_DIE_IN_REPLY, "ends in the middle of that reply" },
	{ "mig-hang", FAULT_MIG_HANG, "never replies to a message of migration" },
	{ "mig-short", FAULT_MIG_SHORT, "half of the migration data is missing" },
	{ "mig-long", FAULT_MIG_LONG, "more migration data than asked for, or than there is room" },
	{ "mig-lie", FAULT_MIG_LIE, "migration data are said to be more than they are" },
	{ "mig-endless", FAULT_MIG_ENDLESS, "migration data never end" },
	{ "mig-offset", FAULT_MIG_OFFSET, "migration data behind the end of their region" },
	{ "mig-offset-head", FAULT_MIG_OFFSET_HEAD, "migration data in the region's header" },
	{ "mig-magic", FAULT_MIG_MAGIC, "the stream has another magic" },
	{ "mig-version", FAULT_MIG_VERSION, "the stream is of the next version" },
	{ "mig-device", FAULT_MIG_DEVICE, "the stream is another device's" },
	{ "mig-reordered", FAULT_MIG_REORDERED, "records of the stream out of order" },
	{ "mig-corrupt", FAULT_MIG_CORRUPT, "a bit of the registers in the stream is wrong" },
	{ "mig-truncated", FAULT_MIG_TRUNCATED, "the stream ends too early" },
};

/* "refuse-stop", "error-pre-copy": a change to this state fails, the second with ERROR. */
static const struct {
	const char *name;
	uint32_t state;
} states[] = {
	{ "stop", VFIO_DEVICE_STATE_STOP },
	{ "running", VFIO_DEVICE_STATE_RUNNING },
	{ "stop-copy", VFIO_DEVICE_STATE_STOP_COPY },
	{ "resuming", VFIO_DEVICE_STATE_RESUMING },
	{ "running-p2p", VFIO_DEVICE_STATE_RUNNING_P2P },
	{ "pre-copy", VFIO_DEVICE_STATE_PRE_COPY },
	{ "pre-copy-p2p", VFIO_DEVICE_STATE_PRE_COPY_P2P },
};

static bool parse_state_fault(const char *text, size_t len, struct testdev_options *o)
{
	bool error = !strncmp(text, "error-", 6), refuse = !strncmp(text, "refuse-", 7);
	size_t skip = refuse ? 7 : 6;

	for (size_t i = 0; i < ARRAY_SIZE(states) && (error || refuse); i++) {
		if (strlen(states[i].name) != len - skip ||
		    strncmp(states[i].name, text + skip, len - skip) != 0)
			continue;
		o->fault = refuse ? FAULT_REFUSE_STATE : FAULT_ERROR_STATE;
		o->fault_state = states[i].state;
		return true;
	}
	return false;
}

/* "die", "die@30", "die-at=30". */
bool testdev_parse_fault(const char *text, struct testdev_options *o)
{
	const char *at = strstr(text, "-at="), *n = at ? at + 4 : NULL;
	size_t len = at ? (size_t)(at - text) : strcspn(text, "@");

	if (!n && text[len])
		n = text + len + 1;
	o->fault_at = 1;
	if (n && (parse_u64(n, &o->fault_at) || !o->fault_at))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
		if (strlen(faults[i].name) != len || strncmp(faults[i].name, text, len))
			continue;
		o->fault = faults[i].fault;
		o->fault_of_migration = o->fault > FAULT_ERROR_STATE;
		return true;
	}
	o->fault_of_migration = true;
	return parse_state_fault(text, len, o);
}

void testdev_print_faults(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(faults); i++)
		printf("  %-18s %s\n", faults[i].name, faults[i].help);
	printf("  refuse-STATE       the change to a state of migration fails: ");
	for (size_t i = 0; i < ARRAY_SIZE(states); i++)
		printf("%s%s", i ? ", " : "", states[i].name);
	printf("\n  error-STATE        the same, and the device is in ERROR\n"
	       "Of mig-..., refuse-... and error-... N counts the messages of migration.\n");
}

bool testdev_fault(const struct testdev *t, enum testdev_fault fault)
{
	uint64_t now = t->o.fault_of_migration ? t->migration.messages : t->commands;

	return t->o.fault == fault && now >= t->o.fault_at;
}

static void hang(struct testdev *t)
{
	testdev_log(t, "hanging");
	for (;;)
		pause();
}

static void flood(struct testdev *t)
{
	struct vfio_user_dma_access a = { 0, 4096 };
	struct vfio_user_header header = { .command = VFIO_USER_DMA_READ };

	while (!t->ended)
		testdev_send(t, &header, &a, sizeof(a), NULL, 0);
}

static void out_of_turn(struct testdev *t, uint16_t command, uint32_t flags, const void *payload,
			size_t len, const int *fds, unsigned int fd_count)
{
	struct vfio_user_header header = { .id = 0x7777, .command = command, .flags = flags };

	testdev_send(t, &header, payload, len, fds, fd_count);
}

int testdev_migration_message(struct testdev *t)
{
	t->migration.messages++;
	if (testdev_fault(t, FAULT_MIG_DIE))
		_exit(0);
	if (testdev_fault(t, FAULT_MIG_HANG))
		hang(t);
	if (testdev_fault(t, FAULT_MIG_DIE_IN_REPLY))
		t->o.fault = FAULT_DIE_IN_REPLY;
	return testdev_fault(t, FAULT_MIG_ERROR) ? EIO : 0;
}

void testdev_misbehave_before(struct testdev *t)
{
	struct vfio_user_dma_access huge = { 0, 1ULL << 40 };
	struct {
		struct vfio_user_dma_access a;
		uint8_t data[16];
	} lie = { .a = { 0, 4096 } };
	uint8_t byte = 0;
	int error;

	if (testdev_fault(t, FAULT_DIE_AT))
		_exit(0);
	if (testdev_fault(t, FAULT_HANG_AT))
		hang(t);
	if (testdev_fault(t, FAULT_FLOOD))
		flood(t);
	if (testdev_fault(t, FAULT_REPLY_TO_NOTHING))
		out_of_turn(t, VFIO_USER_REGION_READ, VFIO_USER_TYPE_REPLY, NULL, 0, NULL, 0);
	if (testdev_fault(t, FAULT_UNKNOWN_COMMAND))
		out_of_turn(t, 99, 0, NULL, 0, NULL, 0);
	if (testdev_fault(t, FAULT_COMMAND_FDS))
		out_of_turn(t, VFIO_USER_DMA_READ, 0, &(struct vfio_user_dma_access){ 0, 8 }, 16,
			    &t->doorbell_fd, 1);
	if (testdev_fault(t, FAULT_DMA_LIE))
		out_of_turn(t, VFIO_USER_DMA_WRITE, 0, &lie, sizeof(lie), NULL, 0);
	if (testdev_fault(t, FAULT_DMA_HUGE))
		testdev_call(t, VFIO_USER_DMA_READ, &huge, sizeof(huge), &huge, sizeof(huge));
	if (testdev_fault(t, FAULT_DMA_OUTSIDE)) {
		bool messages = t->o.dma_messages;

		t->o.dma_messages = true;
		error = testdev_dma_write(t, 0xffffffffff000ULL, &byte, 1);
		testdev_log(t, "DMA outside of guest memory: error %d", error);
		t->o.dma_messages = messages;
	}
}

static void bad_sizes(struct testdev *t, struct vfio_user_header *h, struct testdev_result *r)
{
	uint8_t message[sizeof(*h)];

	h->size = (uint32_t)(sizeof(*h) + r->len);
	if (t->o.fault == FAULT_WRONG_SIZE)
		h->size += 64;
	else if (t->o.fault == FAULT_HUGE_SIZE)
		h->size = 0xfffffff0;
	else
		h->size = 8;
	memcpy(message, h, sizeof(*h));
	testdev_send_raw(t, message, sizeof(message), NULL, 0);
	testdev_send_raw(t, t->reply, r->len, NULL, 0);
}

/* The reply in one piece; byte by byte; or half of it. */
static void send_pieces(struct testdev *t, struct vfio_user_header *h, struct testdev_result *r)
{
	size_t total = sizeof(*h) + (r->error ? 0 : r->len);

	if (r->error) {
		h->flags |= VFIO_USER_ERROR;
		h->error = (uint32_t)r->error;
	}
	h->size = (uint32_t)total;
	memmove(t->reply + sizeof(*h), t->reply, r->len);
	memcpy(t->reply, h, sizeof(*h));
	if (t->o.fault == FAULT_DIE_IN_REPLY) {
		testdev_send_raw(t, t->reply, total / 2, r->fds, r->fd_count);
		_exit(0);
	}
	for (size_t i = 0; i < total; i++)
		testdev_send_raw(t, t->reply + i, 1, r->fds, i ? 0 : r->fd_count);
}

bool testdev_misbehave_reply(struct testdev *t, struct vfio_user_header *h,
			     struct testdev_result *r)
{
	if (t->commands < t->o.fault_at)
		return false;
	switch (t->o.fault) {
	case FAULT_SHORT_REPLY: r->len = MIN(r->len, 3UL); return false;
	case FAULT_LONG_REPLY:
		/* Room for more is what some commands have: leave none. */
		memset(t->reply + r->len, 0, TESTDEV_PAYLOAD_MAX - r->len);
		r->len += h->command == VFIO_USER_VERSION	    ? 8192
			  : h->command == VFIO_USER_DEVICE_GET_INFO ? 512
			  : h->command == VFIO_USER_DEVICE_GET_REGION_INFO ||
					  h->command == VFIO_USER_DEVICE_GET_REGION_IO_FDS
				  ? 32768
				  : 64;
		return false;
	case FAULT_WRONG_SIZE:
	case FAULT_HUGE_SIZE:
	case FAULT_TINY_SIZE: bad_sizes(t, h, r); return true;
	case FAULT_WRONG_ID: h->id++; return false;
	case FAULT_WRONG_COMMAND: h->command++; return false;
	case FAULT_WRONG_TYPE: h->flags = 5; return false;
	case FAULT_ERROR_REPLIES: r->error = EIO; return false;
	case FAULT_ERROR_DATA:
		h->flags |= VFIO_USER_ERROR;
		h->error = EIO;
		r->len = 32;
		return false;
	case FAULT_EXTRA_FDS:
		for (unsigned int i = 0; i < 5; i++)
			r->fds[r->fd_count++] = t->doorbell_fd;
		return false;
	case FAULT_TRICKLE:
	case FAULT_DIE_IN_REPLY: send_pieces(t, h, r); return true;
	default: return false;
	}
}

static void version_payload(struct testdev *t, struct testdev_result *r)
{
	static const char *const bad_json = "{\"capabilities\": [[[{{";
	static const char *const bad_caps =
		"{\"capabilities\": {\"max_msg_fds\": -1, \"pgsizes\": \"many\"}}";
	struct vfio_user_version v = { 7, 0 };
	const char *text = t->o.fault == FAULT_BAD_JSON ? bad_json : bad_caps;

	if (t->o.fault == FAULT_BAD_VERSION) {
		memcpy(t->reply, &v, sizeof(v));
	} else if (t->o.fault == FAULT_BAD_JSON || t->o.fault == FAULT_BAD_CAPS) {
		strcpy((char *)t->reply + sizeof(v), text);
		r->len = sizeof(v) + strlen(text) + 1;
	}
}

static void info_payload(struct testdev *t)
{
	struct vfio_user_device_info info;

	memcpy(&info, t->reply, sizeof(info));
	if (t->o.fault == FAULT_NOT_PCI)
		info.flags = VFIO_DEVICE_FLAGS_PLATFORM;
	if (t->o.fault == FAULT_MANY_REGIONS)
		info.num_regions = 100000;
	memcpy(t->reply, &info, sizeof(info));
}

static void region_payload(struct testdev *t, struct testdev_result *r)
{
	struct testdev_region_reply reply;

	if (r->len > sizeof(reply))
		return; /* the migration region */
	memcpy(&reply, t->reply, sizeof(reply));
	if (t->o.fault == FAULT_HUGE_REGION)
		reply.info.size = 1ULL << 63;
	if (t->o.fault == FAULT_WRONG_REGION)
		reply.info.index++;
	if (r->len == sizeof(reply) && reply.info.index == VFIO_PCI_BAR2_REGION_INDEX) {
		switch (t->o.fault) {
		case FAULT_CAP_LOOP:
			reply.sparse.header.next = 32, reply.sparse.header.id = 99;
			break;
		case FAULT_CAP_OUTSIDE: reply.sparse.header.next = 0xfffffff8; break;
		case FAULT_AREA_OUTSIDE: reply.areas[1].offset = TESTDEV_BAR2_SIZE; break;
		case FAULT_AREAS_OVERLAP: reply.areas[1].offset = TESTDEV_AREA0; break;
		case FAULT_AREAS_MANY: reply.sparse.nr_areas = 1000000; break;
		default: break;
		}
	}
	memcpy(t->reply, &reply, r->len);
}

static void io_fds_payload(struct testdev *t, struct testdev_result *r)
{
	struct vfio_user_io_fd e;
	uint8_t *at = t->reply + sizeof(struct vfio_user_region_io_fds);

	if (r->len < sizeof(struct vfio_user_region_io_fds) + sizeof(e))
		return;
	memcpy(&e, at, sizeof(e));
	if (t->o.fault == FAULT_IO_FD_INDEX)
		e.fd_index = 1000;
	if (t->o.fault == FAULT_IO_FD_OUTSIDE)
		e.offset = TESTDEV_BAR0_SIZE;
	memcpy(at, &e, sizeof(e));
}

static void irq_payload(struct testdev *t)
{
	struct vfio_irq_info info;

	memcpy(&info, t->reply, sizeof(info));
	if (t->o.fault == FAULT_MANY_IRQS)
		info.count = 100000;
	memcpy(t->reply, &info, sizeof(info));
}

void testdev_misbehave_payload(struct testdev *t, uint16_t command, struct testdev_result *r)
{
	struct vfio_user_region_access a;

	if (t->commands < t->o.fault_at)
		return;
	switch (command) {
	case VFIO_USER_VERSION: version_payload(t, r); break;
	case VFIO_USER_DEVICE_GET_INFO: info_payload(t); break;
	case VFIO_USER_DEVICE_GET_REGION_INFO: region_payload(t, r); break;
	case VFIO_USER_DEVICE_GET_REGION_IO_FDS: io_fds_payload(t, r); break;
	case VFIO_USER_DEVICE_GET_IRQ_INFO: irq_payload(t); break;
	case VFIO_USER_REGION_READ:
		if (t->o.fault != FAULT_SHORT_DATA)
			break;
		memcpy(&a, t->reply, sizeof(a));
		a.count /= 2;
		memcpy(t->reply, &a, sizeof(a));
		r->len = sizeof(a) + a.count;
		break;
	default: break;
	}
}
