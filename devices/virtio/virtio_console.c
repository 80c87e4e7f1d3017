/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <linux/virtio_console.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "base/strbuf.h"
#include "devices/virtio/console_stream.h"
#include "devices/virtio/queue_thread.h"
#include "devices/virtio/virtio_simple.h"

#define QUEUE_SIZE 128
/* Output a slow reader may have waiting. */
#define PENDING_MAX (64 * KIB)
/* Output taken of one chain; no driver sends so much at once. */
#define CHAIN_BYTES_MAX MIB
/* A pty nobody has open fails to read: look again that often. */
#define REOPEN_NS 500000000ULL

enum { RX, TX, QUEUES };
enum { COUNTER_RX_BYTES, COUNTER_TX_BYTES, COUNTER_TX_DROPPED, COUNTERS };

struct virtio_console {
	struct virtio_device dev;
	struct console_stream in, out;
	int tty; /* whose size is shown, -1: none */
	atomic_uint cols, rows;
	bool size_differs; /* from what the guest knew where it was saved */
	struct queue_thread thread;
	struct virtio_counter counters[COUNTERS];

	/* The thread's own. */
	struct loop *loop;
	struct loop_source *in_source, *out_source, *reopen;
	bool in_end;	       /* no more input will come */
	bool in_closed;	       /* a pty nobody has open: until `reopen` fires */
	bool in_polled;	       /* a file: epoll does not take it, it is always ready */
	struct strbuf pending; /* output not yet taken by out */
	struct iovec iov[QUEUE_SIZE + 2];
	uint64_t gpa[QUEUE_SIZE + 2];
};

static struct virtio_console *console_of(struct virtio_device *dev)
{
	return container_of(dev, struct virtio_console, dev);
}

static void count(struct virtio_console *console, unsigned int counter, size_t n)
{
	atomic_fetch_add(&console->counters[counter].value, n);
}

/* Output. */

static void out_ready(void *opaque, int fd, uint32_t events);

/* Writes what waits; watches the fd as long as something does. */
static void flush(struct virtio_console *console)
{
	struct strbuf *pending = &console->pending;

	while (pending->len) {
		ssize_t n = console_stream_write(&console->out, pending->data, pending->len);

		if (n == -EAGAIN)
			break;
		/* Nobody reads; a later reader gets what comes then. */
		if (n < 0) {
			count(console, COUNTER_TX_DROPPED, pending->len);
			n = (ssize_t)pending->len;
		}
		strbuf_consume(pending, (size_t)n);
	}
	if (pending->len && !console->out_source && console->loop) {
		console->out_source = loop_add(console->loop, console->out.fd, EPOLLOUT, out_ready,
					       console, NULL);
	} else if (!pending->len) {
		loop_remove(console->out_source);
		console->out_source = NULL;
		strbuf_free(pending);
	}
}

static void out_ready(void *opaque, int fd, uint32_t events)
{
	flush(opaque);
}

static void output(struct virtio_console *console, const char *data, size_t len)
{
	size_t room;
	ssize_t n = 0;

	if (console->out.fd < 0)
		return;
	if (!console->pending.len)
		n = console_stream_write(&console->out, data, len);
	if (n < 0 && n != -EAGAIN) {
		count(console, COUNTER_TX_DROPPED, len);
		return;
	}
	if (n > 0) {
		data += n;
		len -= (size_t)n;
	}
	room = MIN(len, PENDING_MAX - console->pending.len);
	if (room)
		strbuf_append(&console->pending, data, room);
	if (console->pending.failed)
		strbuf_free(&console->pending);
	count(console, COUNTER_TX_DROPPED, len - room);
}

static int64_t handle_tx(struct virtio_device *dev, unsigned int queue,
			 struct virtqueue_chain *chain)
{
	struct virtio_console *console = console_of(dev);
	char buf[4096];
	size_t done = 0, n;

	while (done < CHAIN_BYTES_MAX &&
	       (n = virtqueue_chain_read(chain, done, buf, sizeof(buf)))) {
		output(console, buf, n);
		done += n;
	}
	count(console, COUNTER_TX_BYTES, done);
	if (chain->readable_len > done)
		count(console, COUNTER_TX_DROPPED, chain->readable_len - done);
	return 0;
}

/* Input. */

static void in_ready(void *opaque, int fd, uint32_t events);

static void watch_input(struct virtio_console *console)
{
	struct error err = ERROR_INIT;

	if (console->in.fd < 0 || console->in_end || console->in_closed || console->in_source ||
	    console->in_polled)
		return;
	console->in_source =
		loop_add(console->loop, console->in.fd, EPOLLIN, in_ready, console, &err);
	console->in_polled = !console->in_source && err.code == -EPERM;
}

/* A source that is at its end, or has no room to go to, would report for ever. */
static void unwatch_input(struct virtio_console *console)
{
	loop_remove(console->in_source);
	console->in_source = NULL;
}

static int64_t handle_rx(struct virtio_device *dev, unsigned int queue,
			 struct virtqueue_chain *chain)
{
	struct virtio_console *console = console_of(dev);
	ssize_t n;

	if (console->in.fd < 0 || console->in_end || console->in_closed)
		return -EAGAIN;
	if (!chain->writable)
		return 0;
	n = console_stream_readv(&console->in, chain->iov + chain->readable, chain->writable);
	if (n > 0) {
		count(console, COUNTER_RX_BYTES, (size_t)n);
		return n;
	}
	if (n == -EAGAIN)
		return -EAGAIN;
	unwatch_input(console);
	if (n == -EIO && console->reopen) {
		console->in_closed = true;
		loop_timer_set(console->reopen, REOPEN_NS);
	} else {
		console->in_end = true;
	}
	return -EAGAIN;
}

static bool serve(struct virtio_device *dev, unsigned int queue)
{
	struct virtio_console *console = console_of(dev);
	struct virtqueue_chain chain = {
		.iov = console->iov,
		.gpa = console->gpa,
		.iov_max = ARRAY_SIZE(console->iov),
	};
	bool more;

	if (queue == RX) {
		more = queue_thread_drain(dev, RX, &chain, handle_rx);
		if (virtqueue_empty(&dev->queues[RX]))
			unwatch_input(console);
		else if (!more)
			watch_input(console);
		return more;
	}
	more = queue_thread_drain(dev, TX, &chain, handle_tx);
	flush(console);
	return more;
}

static void in_ready(void *opaque, int fd, uint32_t events)
{
	struct virtio_console *console = opaque;

	if (serve(&console->dev, RX))
		eventfd_signal(console->dev.kick_fd[RX]);
}

static void reopened(void *opaque)
{
	struct virtio_console *console = opaque;

	console->in_closed = false;
	in_ready(console, -1, 0);
}

/* The thread's life. */

static void started(struct virtio_device *dev, struct loop *loop)
{
	struct virtio_console *console = console_of(dev);

	console->loop = loop;
	console->in_polled = console->in_closed = false;
	console->reopen = loop_timer_new(loop, reopened, console, NULL);
	watch_input(console);
}

static void stopping(struct virtio_device *dev)
{
	struct virtio_console *console = console_of(dev);

	unwatch_input(console);
	loop_remove(console->out_source);
	loop_remove(console->reopen);
	console->out_source = console->reopen = NULL;
	console->loop = NULL;
	flush(console);
}

static const struct queue_thread_ops thread_ops = {
	.started = started,
	.stopping = stopping,
	.serve = serve,
};

static int activate(struct virtio_device *dev, struct error *err)
{
	int r = queue_thread_start(&console_of(dev)->thread, dev, &thread_ops, err);

	if (!r && dev->restored && console_of(dev)->size_differs)
		virtio_device_config_changed(dev);
	return r;
}

static void deactivate(struct virtio_device *dev)
{
	queue_thread_stop(&console_of(dev)->thread);
}

static void resume(struct virtio_device *dev)
{
	struct error err = ERROR_INIT;

	if (activate(dev, &err))
		virtio_device_needs_reset(dev, err.message);
}

/* Configuration. */

static void read_size(struct virtio_console *console)
{
	struct winsize size;

	if (console->tty < 0 || ioctl(console->tty, TIOCGWINSZ, &size))
		return;
	atomic_store(&console->cols, size.ws_col);
	atomic_store(&console->rows, size.ws_row);
}

void virtio_console_resized(struct virtio_device *dev)
{
	read_size(console_of(dev));
	virtio_device_config_changed(dev);
}

static void config_read(struct virtio_device *dev, uint32_t offset, void *data, unsigned int len)
{
	struct virtio_console *console = console_of(dev);
	uint8_t config[sizeof(struct virtio_console_config)] = { 0 };

	store_le16(config + offsetof(struct virtio_console_config, cols),
		   (uint16_t)atomic_load(&console->cols));
	store_le16(config + offsetof(struct virtio_console_config, rows),
		   (uint16_t)atomic_load(&console->rows));
	store_le32(config + offsetof(struct virtio_console_config, max_nr_ports), 1);
	memset(data, 0, len);
	if (offset < sizeof(config))
		memcpy(data, config + offset, MIN((size_t)len, sizeof(config) - offset));
}

static void free_console(struct virtio_device *dev)
{
	struct virtio_console *console = console_of(dev);

	/* Where both are one file, `in` found it blocking and restores that. */
	console_stream_close(&console->out);
	console_stream_close(&console->in);
	strbuf_free(&console->pending);
	free(console);
}

/* The size is the guest's idea of it; the terminal here may have another. */
static int save(struct virtio_device *dev, struct state_writer *writer, struct error *err)
{
	struct virtio_console *console = console_of(dev);

	state_put_u32(writer, "columns", atomic_load(&console->cols));
	state_put_u32(writer, "rows", atomic_load(&console->rows));
	state_put_bytes(writer, "unsent", console->pending.data ? console->pending.data : "",
			console->pending.len);
	return 0;
}

static int load(struct virtio_device *dev, const struct state_node *node, struct error *err)
{
	struct virtio_console *console = console_of(dev);
	uint32_t cols = 0, rows = 0;
	const void *unsent;
	size_t len = 0;
	int r = state_get_u32_max(node, "columns", UINT16_MAX, &cols, err);

	if (!r)
		r = state_get_u32_max(node, "rows", UINT16_MAX, &rows, err);
	if (!r)
		r = state_get_blob(node, "unsent", &unsent, &len, err);
	if (!r && len > PENDING_MAX)
		r = state_refuse(node, "unsent", err, "has %zu bytes, not up to %llu", len,
				 PENDING_MAX);
	if (r)
		return r;
	console->size_differs =
		cols != atomic_load(&console->cols) || rows != atomic_load(&console->rows);
	if (len && console->out.fd >= 0)
		strbuf_append(&console->pending, unsent, len);
	return console->pending.failed ? error_set_errno(err, ENOMEM, "load %s", dev->id) : 0;
}

static const struct virtio_device_ops ops = {
	.config_read = config_read,
	.activate = activate,
	.deactivate = deactivate,
	.save = save,
	.load = load,
	.pause = deactivate,
	.resume = resume,
	.free = free_console,
};

struct virtio_device *virtio_console_new(struct device_host *host, const char *id, int in_fd,
					 int out_fd, struct error *err)
{
	struct virtio_console *console = calloc(1, sizeof(*console));
	struct winsize size;

	if (!console) {
		error_set_errno(err, ENOMEM, "create %s", id);
		return NULL;
	}
	console_stream_open(&console->in, in_fd, false);
	console_stream_open(&console->out, out_fd, true);
	console->tty = -1;
	if (out_fd >= 0 && !ioctl(out_fd, TIOCGWINSZ, &size))
		console->tty = out_fd;
	else if (in_fd >= 0 && !ioctl(in_fd, TIOCGWINSZ, &size))
		console->tty = in_fd;
	read_size(console);
	console->dev.ops = &ops;
	console->dev.host = host;
	snprintf(console->dev.id, sizeof(console->dev.id), "%s", id);
	console->dev.type = VIRTIO_CONSOLE;
	/* 0 by 0 without a terminal: as a serial line, of no known size. */
	console->dev.device_features = VIRTIO_FEATURE(VIRTIO_CONSOLE_F_SIZE);
	console->dev.config_size = sizeof(struct virtio_console_config);
	console->dev.queue_count = QUEUES;
	console->dev.queues[RX].size_max = console->dev.queues[TX].size_max = QUEUE_SIZE;
	console->counters[COUNTER_RX_BYTES].name = "rx_bytes";
	console->counters[COUNTER_TX_BYTES].name = "tx_bytes";
	console->counters[COUNTER_TX_DROPPED].name = "tx_dropped_bytes";
	console->dev.counters = console->counters;
	console->dev.counter_count = COUNTERS;
	return &console->dev;
}
