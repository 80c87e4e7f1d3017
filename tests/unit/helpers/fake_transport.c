/* SPDX-License-Identifier: Apache-2.0 */
#include <poll.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "tests/unit/helpers/fake_driver.h"

static void signal_queue(void *opaque, unsigned int queue)
{
	struct fake_transport *transport = opaque;

	atomic_fetch_add(&transport->signals[queue], 1);
	eventfd_signal(transport->call_fd[queue]);
}

static void config_changed(void *opaque)
{
	struct fake_transport *transport = opaque;

	atomic_fetch_add(&transport->config_changes, 1);
}

static void needs_reset(void *opaque, const char *reason)
{
	struct fake_transport *transport = opaque;

	ck_assert_ptr_nonnull(reason);
	atomic_fetch_add(&transport->resets_needed, 1);
}

static int call_fd(void *opaque, unsigned int queue)
{
	struct fake_transport *transport = opaque;

	return transport->call_fd[queue];
}

static const struct virtio_transport_ops ops = {
	.signal = signal_queue,
	.config_changed = config_changed,
	.needs_reset = needs_reset,
	.call_fd = call_fd,
};

void fake_transport_attach(struct fake_transport *transport, struct virtio_device *dev)
{
	memset(transport, 0, sizeof(*transport));
	transport->dev = dev;
	dev->transport_ops = &ops;
	dev->transport = transport;
	for (unsigned int i = 0; i < dev->queue_count; i++) {
		transport->call_fd[i] = eventfd_new();
		dev->kick_fd[i] = eventfd_new();
		ck_assert_int_ge(transport->call_fd[i], 0);
		ck_assert_int_ge(dev->kick_fd[i], 0);
	}
}

void fake_transport_kick(struct fake_transport *transport, unsigned int queue)
{
	eventfd_signal(transport->dev->kick_fd[queue]);
}

static bool wait_ms(unsigned int *left)
{
	struct timespec ms = { .tv_nsec = 1000000 };

	if (!*left)
		return false;
	(*left)--;
	nanosleep(&ms, NULL);
	return true;
}

bool fake_transport_wait_used(struct fake_transport *transport, unsigned int queue, uint16_t *id,
			      uint32_t *len, unsigned int timeout_ms)
{
	do {
		if (fake_driver_used(&transport->drivers[queue], id, len))
			return true;
	} while (wait_ms(&timeout_ms));
	return false;
}

bool fake_transport_wait_signal(struct fake_transport *transport, unsigned int queue,
				unsigned int timeout_ms)
{
	struct pollfd pollfd = { .fd = transport->call_fd[queue], .events = POLLIN };

	return poll(&pollfd, 1, (int)timeout_ms) == 1 && eventfd_drain(pollfd.fd);
}

bool fake_transport_wait_reset_needed(struct fake_transport *transport, unsigned int timeout_ms)
{
	do {
		if (atomic_load(&transport->resets_needed))
			return true;
	} while (wait_ms(&timeout_ms));
	return false;
}

void fake_transport_destroy(struct fake_transport *transport)
{
	struct virtio_device *dev = transport->dev;
	unsigned int queues = dev->queue_count;

	if (dev->active)
		dev->ops->deactivate(dev);
	dev->active = false;
	for (unsigned int i = 0; i < queues; i++) {
		close(dev->kick_fd[i]);
		close(transport->call_fd[i]);
	}
	dev->ops->free(dev);
}
