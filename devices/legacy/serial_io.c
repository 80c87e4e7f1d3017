/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a UART's bytes come from and go to.
 *
 * Output is written by the vCPU that sends it. What the fd does not take is kept
 * and written by the main loop when there is room. Input is read by the main loop,
 * never more than the FIFO holds: the rest waits in the pipe, where its writer
 * notices. A vCPU that makes room, or has output kept, tells the loop by an eventfd,
 * since a source is the loop's own thread's to change.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "devices/legacy/output.h"
#include "devices/legacy/serial_internal.h"

static void tx_flush_locked(struct serial *s)
{
	while (s->tx_count && s->out_fd >= 0 && !s->held) {
		unsigned int run = MIN(s->tx_count, SERIAL_TX_MAX - s->tx_first);
		ssize_t n = output_write(s->out_fd, s->tx + s->tx_first, run);

		if (n < 0) {
			/* Its reader is gone. The guest cannot help it. */
			s->out_fd = -1;
			break;
		}
		s->tx_first = (s->tx_first + (unsigned int)n) % SERIAL_TX_MAX;
		s->tx_count -= (unsigned int)n;
		if ((unsigned int)n < run)
			return;
	}
	if (s->out_fd < 0) {
		s->dropped += s->tx_count;
		s->tx_count = 0;
	}
}

void serial_tx_wake_locked(struct serial *s)
{
	if (s->tx_count) {
		s->tx_watched = true;
		eventfd_signal(s->wake_fd);
	}
}

void serial_tx_locked(struct serial *s, uint8_t byte)
{
	if (s->out_fd < 0)
		return;
	if (s->tx_count == SERIAL_TX_MAX)
		tx_flush_locked(s);
	if (s->tx_count == SERIAL_TX_MAX) {
		s->dropped++;
		return;
	}
	s->tx[(s->tx_first + s->tx_count++) % SERIAL_TX_MAX] = byte;
	/* While the loop waits for room asking again is a wasted system call. */
	if (s->tx_watched)
		return;
	tx_flush_locked(s);
	serial_tx_wake_locked(s);
}

void serial_rx_wake_locked(struct serial *s)
{
	if (s->rx_stalled && serial_rx_room_locked(s)) {
		s->rx_stalled = false;
		eventfd_signal(s->wake_fd);
	}
}

uint64_t serial_dropped(struct serial *s)
{
	uint64_t n;

	pthread_mutex_lock(&s->lock);
	n = s->dropped;
	pthread_mutex_unlock(&s->lock);
	return n;
}

/* Below: the loop's thread. */

static void input_close(struct serial *s)
{
	loop_remove(s->input);
	s->input = NULL;
	s->in_fd = -1;
	s->in_unwatchable = false;
}

/* Reads once. False where there is no more to come for now. */
static bool input_read(struct serial *s)
{
	uint8_t data[SERIAL_FIFO];
	unsigned int room;
	ssize_t n = 0;

	pthread_mutex_lock(&s->lock);
	room = s->in_fd < 0 ? 0 : serial_rx_room_locked(s);
	if (room) {
		n = read(s->in_fd, data, room);
		for (ssize_t i = 0; i < n; i++)
			serial_rx_push_locked(s, data[i]);
		if (n > 0)
			serial_update_irq_locked(s);
		else if (n == 0 || (errno != EAGAIN && errno != EINTR))
			input_close(s);
	}
	if (s->in_fd >= 0 && !serial_rx_room_locked(s)) {
		/* Not only without EPOLLIN: a hang-up would be reported all the same. */
		s->rx_stalled = true;
		loop_remove(s->input);
		s->input = NULL;
	}
	pthread_mutex_unlock(&s->lock);
	return n > 0;
}

static void input_ready(void *opaque, int fd, uint32_t events)
{
	input_read(opaque);
}

static void input_start(struct serial *s)
{
	struct error err = ERROR_INIT;

	if (s->in_fd < 0 || s->input || s->held)
		return;
	if (!s->in_unwatchable)
		s->input = loop_add(s->host->loop, s->in_fd, EPOLLIN, input_ready, s, &err);
	if (!s->input && !s->in_unwatchable && err.code != -EPERM) {
		log_error(s->host->log, "serial input", &err);
		s->in_fd = -1;
		return;
	}
	s->in_unwatchable = !s->input;
	while (s->in_unwatchable && input_read(s))
		;
}

static void output_unwatch(struct serial *s)
{
	loop_remove(s->output);
	s->output = NULL;
	cleanup_close(&s->watch_fd);
	s->watch_fd = -1;
}

static void output_ready(void *opaque, int fd, uint32_t events)
{
	struct serial *s = opaque;
	bool done;

	pthread_mutex_lock(&s->lock);
	tx_flush_locked(s);
	done = !s->tx_count;
	if (done)
		s->tx_watched = false;
	pthread_mutex_unlock(&s->lock);
	if (done)
		output_unwatch(s);
}

static void output_watch(struct serial *s)
{
	struct error err = ERROR_INIT;
	int fd = -1;

	pthread_mutex_lock(&s->lock);
	if (s->tx_watched && s->out_fd >= 0)
		fd = fcntl(s->out_fd, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		s->tx_watched = false; /* the next byte tries again */
	pthread_mutex_unlock(&s->lock);
	if (fd < 0)
		return;
	s->watch_fd = fd;
	s->output = loop_add(s->host->loop, fd, EPOLLOUT, output_ready, s, &err);
	if (s->output)
		return;
	output_unwatch(s);
	pthread_mutex_lock(&s->lock);
	s->tx_watched = false;
	pthread_mutex_unlock(&s->lock);
}

static void woken(void *opaque, int fd, uint32_t events)
{
	struct serial *s = opaque;
	bool stalled;

	eventfd_drain(fd);
	pthread_mutex_lock(&s->lock);
	stalled = s->rx_stalled;
	pthread_mutex_unlock(&s->lock);
	if (!stalled)
		input_start(s);
	if (!s->output && !s->held)
		output_watch(s);
}

void serial_hold(struct serial *s, bool hold)
{
	pthread_mutex_lock(&s->lock);
	s->held = hold;
	if (!hold)
		s->tx_watched = false;
	pthread_mutex_unlock(&s->lock);
	if (hold) {
		loop_remove(s->input);
		s->input = NULL;
		output_unwatch(s);
		return;
	}
	pthread_mutex_lock(&s->lock);
	tx_flush_locked(s);
	serial_tx_wake_locked(s);
	pthread_mutex_unlock(&s->lock);
	input_start(s);
}

int serial_io_init(struct serial *s, struct error *err)
{
	s->in_fd = -1;
	s->out_fd = -1;
	s->watch_fd = -1;
	s->wake_fd = eventfd_new();
	if (s->wake_fd < 0)
		return error_set_errno(err, s->wake_fd, "create serial port: eventfd");
	s->wake = loop_add(s->host->loop, s->wake_fd, EPOLLIN, woken, s, err);
	if (!s->wake) {
		cleanup_close(&s->wake_fd);
		return err ? err->code : -EIO;
	}
	return 0;
}

void serial_set_fds(struct serial *s, int in_fd, int out_fd)
{
	loop_remove(s->input);
	s->input = NULL;
	output_unwatch(s);
	pthread_mutex_lock(&s->lock);
	s->in_fd = in_fd;
	s->out_fd = out_fd;
	s->in_unwatchable = false;
	s->rx_stalled = false;
	s->tx_watched = false;
	/* What was kept was for another reader. */
	s->dropped += s->tx_count;
	s->tx_count = 0;
	pthread_mutex_unlock(&s->lock);
	input_start(s);
}

void serial_io_destroy(struct serial *s)
{
	pthread_mutex_lock(&s->lock);
	tx_flush_locked(s);
	pthread_mutex_unlock(&s->lock);
	loop_remove(s->input);
	output_unwatch(s);
	loop_remove(s->wake);
	cleanup_close(&s->wake_fd);
}
