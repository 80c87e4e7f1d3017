/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile source against the whole of a receive: its control connection, one page
 * connection and one more. The input is a list of frames, which get a right magic, right
 * lengths and checksums, so that it is what is in them that is tried out:
 *
 *   u8 type, u8 flags (low 4 bits: the frame's; 0x10 page connection, 0x20 the third;
 *   0x40 the session is put into the metadata; 0x80 no frame, but as it is),
 *   u8 offset, u8 metadata length, u16 payload length, metadata, payload
 */
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "tests/fuzz/without_check.h"
#include "tests/unit/migration/scripted_peer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
	const uint8_t *data;
	size_t size;
};

static bool take(struct input *input, void *buf, size_t len)
{
	if (input->size < len)
		return false;
	memcpy(buf, input->data, len);
	input->data += len;
	input->size -= len;
	return true;
}

/* The session, from the reply to HELLO; the rest of what it says is thrown away. */
static void listen_to(struct script_run *run)
{
	uint8_t header[FRAME_HEADER_SIZE], waste[4096];
	struct hello_reply reply;
	struct frame frame;

	while (recv(run->control, header, sizeof(header), MSG_DONTWAIT) == sizeof(header) &&
	       !frame_decode(&frame, header, NULL) && frame.meta_len <= sizeof(waste)) {
		if (recv(run->control, waste, frame.meta_len, MSG_DONTWAIT) != frame.meta_len)
			return;
		if (frame.type == FRAME_HELLO_REPLY &&
		    !hello_reply_decode(&reply, waste, frame.meta_len, NULL))
			memcpy(run->session, reply.session, SESSION_SIZE);
	}
}

static void play(struct script_run *run, struct input *input)
{
	static struct script_frame frame;
	uint8_t head[6], body[256 + 65536];
	int third = -1;

	while (take(input, head, sizeof(head))) {
		size_t meta_len = head[3], len = load_le16(head + 4);
		int fd = run->control;

		if (meta_len + len + FRAME_HEADER_SIZE > SCRIPT_FRAME_MAX ||
		    !take(input, body, meta_len + len))
			break;
		listen_to(run);
		if (head[1] & 0x40 && meta_len >= SESSION_SIZE)
			memcpy(body, run->session, SESSION_SIZE);
		frame.frame = (struct frame){
			.type = head[0],
			.flags = head[1] & 15,
			.offset = head[2],
		};
		script_build(&frame, body, meta_len, body + meta_len, len);
		if (head[1] & 0x30) {
			int *other = head[1] & 0x20 ? &third : &run->pages;

			if (*other < 0)
				*other = connect_to(&run->address, run->address_len);
			fd = *other;
		}
		if (head[1] & 0x80)
			send(fd, body, meta_len + len, MSG_NOSIGNAL | MSG_DONTWAIT);
		else
			send(fd, frame.bytes, frame.len, MSG_NOSIGNAL | MSG_DONTWAIT);
		/* What a source waits for. */
		if (head[0] == FRAME_HELLO || head[0] == FRAME_ATTACH || head[0] == FRAME_STATE ||
		    head[0] == FRAME_MISSING || head[0] == FRAME_ROUND_SENT)
			poll(&(struct pollfd){ .fd = run->control, .events = POLLIN }, 1, 20);
	}
	if (third >= 0)
		close(third);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = { data, size };
	struct script_run run;

	script_start_with(&run, 2, 2);
	play(&run, &input);
	script_hang_up(&run);
	/* The VM is here, running or paused as asked, or nothing of it is. */
	if (run.target.locked == !!run.result || run.world.running > run.target.locked)
		abort();
	if (run.result && run.target.memory)
		abort();
	script_end(&run);
	return 0;
}
