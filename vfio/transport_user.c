/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vfio-user transport: a device in another process, behind a unix socket. The
 * protocol is described in user_protocol.h, the message pump (who reads the socket, and
 * why) in user_connection.c, the parts in user_private.h.
 *
 * vCPU threads that access a trapped register send and receive on the socket themselves:
 * sendmsg, recvmsg, poll, futex, write (the loop's eventfd), close, shutdown.
 */
#include "vfio/transport.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "vfio/user_private.h"

#define IRQ_INDEXES_MAX 32
/* MSI-X has up to 2048 vectors; nothing else has more. */
#define IRQ_COUNT_MAX 2048

static int device_info(struct user_transport *u, struct error *err)
{
	struct vfio_user_device_info m = { .argsz = sizeof(m) }, info;
	uint8_t more[256]; /* a later version's fields */
	struct user_call call = {
		.command = VFIO_USER_DEVICE_GET_INFO,
		.out = { { &m, sizeof(m) } },
		.in = { { &info, sizeof(info) }, { more, sizeof(more) } },
	};
	int r = user_connection_call(u->connection, &call, err);

	if (r)
		return r;
	if (!(info.flags & VFIO_DEVICE_FLAGS_PCI))
		return error_set(err, EOPNOTSUPP,
				 "vfio-user device %s is no PCI device (flags 0x%x)", u->t.name,
				 info.flags);
	if (info.num_regions <= VFIO_PCI_CONFIG_REGION_INDEX ||
	    info.num_regions > VFIO_REGIONS_MAX || info.num_irqs <= VFIO_PCI_MSIX_IRQ_INDEX ||
	    info.num_irqs > IRQ_INDEXES_MAX)
		return user_connection_break(u->connection, err,
					     "the server's PCI device has %u regions and %u kinds "
					     "of interrupts",
					     info.num_regions, info.num_irqs);
	u->t.is_pci = true;
	u->t.resettable = info.flags & VFIO_DEVICE_FLAGS_RESET;
	u->t.region_count = info.num_regions;
	u->t.irq_count = info.num_irqs;
	return 0;
}

static int irq_info(struct vfio_transport *t, uint32_t index, struct vfio_irq *irq,
		    struct error *err)
{
	struct user_transport *u = to_user(t);
	struct vfio_irq_info m = { .argsz = sizeof(m), .index = index }, info;
	struct user_call call = {
		.command = VFIO_USER_DEVICE_GET_IRQ_INFO,
		.out = { { &m, sizeof(m) } },
		.in = { { &info, sizeof(info) } },
	};
	int r;

	if (index >= t->irq_count)
		return error_set(err, EINVAL, "vfio-user device %s has no interrupts %u", t->name,
				 index);
	if (u->quiet)
		return user_kept_irq(u, index, irq, err);
	*irq = (struct vfio_irq){ .index = index };
	r = user_connection_call(u->connection, &call, err);
	if (r == -EINVAL) { /* an index it does not know */
		error_clear(err);
		return 0;
	}
	if (r)
		return r;
	if (info.index != index || info.count > IRQ_COUNT_MAX ||
	    (index == VFIO_PCI_INTX_IRQ_INDEX && info.count > 1) ||
	    (index == VFIO_PCI_MSI_IRQ_INDEX && info.count > 32))
		return user_connection_break(u->connection, err,
					     "the server's interrupts %u are %u of index %u", index,
					     info.count, info.index);
	*irq = (struct vfio_irq){
		.index = index,
		.count = info.count,
		.eventfd = info.flags & VFIO_IRQ_INFO_EVENTFD,
		.maskable = info.flags & VFIO_IRQ_INFO_MASKABLE,
		.automasked = info.flags & VFIO_IRQ_INFO_AUTOMASKED,
		.noresize = info.flags & VFIO_IRQ_INFO_NORESIZE,
	};
	return 0;
}

static int set_irqs(struct user_transport *u, uint32_t flags, uint32_t index, uint32_t start,
		    uint32_t count, const int *fds, unsigned int fd_count, struct error *err)
{
	struct vfio_irq_set m = {
		.argsz = sizeof(m),
		.flags = flags,
		.index = index,
		.start = start,
		.count = count,
	};
	struct user_call call = {
		.command = VFIO_USER_DEVICE_SET_IRQS,
		.out = { { &m, sizeof(m) } },
		.fds = fds,
		.fd_count = fd_count,
	};
	int r = user_connection_call(u->connection, &call, err);

	if (r && err)
		error_prefix(err, "interrupts %u, %u from %u", index, count, start);
	return r;
}

/* How many of fds, from the first on, are of its kind: there, or none. */
static uint32_t same_kind(const int *fds, uint32_t count)
{
	uint32_t n = 1;

	while (n < count && (fds[n] >= 0) == (fds[0] >= 0))
		n++;
	return n;
}

static int set_irq_fds(struct vfio_transport *t, uint32_t index, uint32_t start, uint32_t count,
		       const int *fds, struct error *err)
{
	struct user_transport *u = to_user(t);

	if (!count)
		return set_irqs(u, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER, index, 0,
				0, NULL, 0, err);
	for (uint32_t done = 0; done < count;) {
		bool some = fds && fds[done] >= 0;
		uint32_t n = fds ? same_kind(fds + done, count - done) : count;
		int r;

		if (some && !u->caps.max_fds)
			return error_set(err, EOPNOTSUPP,
					 "vfio-user device %s: the server takes no descriptors, "
					 "so it cannot interrupt",
					 t->name);
		if (some)
			n = MIN(n, u->caps.max_fds);
		/* Without descriptors: takes off what was set. */
		r = set_irqs(u, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, index,
			     start + done, n, some ? fds + done : NULL, some ? n : 0, err);
		if (r)
			return r;
		done += n;
	}
	return 0;
}

static int mask_irq(struct vfio_transport *t, uint32_t index, bool masked, struct error *err)
{
	return set_irqs(to_user(t),
			VFIO_IRQ_SET_DATA_NONE |
				(masked ? VFIO_IRQ_SET_ACTION_MASK : VFIO_IRQ_SET_ACTION_UNMASK),
			index, 0, 1, NULL, 0, err);
}

/* In the loop: the guest has ended the interrupt. No reply is wanted, so that the loop
 * does not wait for the server. */
static void unmask_signalled(void *opaque, int fd, uint32_t events)
{
	struct user_transport *u = opaque;
	struct vfio_irq_set m = {
		.argsz = sizeof(m),
		.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK,
		.index = u->unmask_index,
		.count = 1,
	};

	/* A failure is the connection's, and told by `lost`. */
	if (eventfd_drain(fd))
		user_connection_post(u->connection, VFIO_USER_DEVICE_SET_IRQS, &m, sizeof(m), NULL);
}

static void drop_unmask(struct user_transport *u)
{
	if (u->unmask_fd < 0)
		return;
	loop_unwatch(u->loop, &u->unmask);
	close(take_fd(&u->unmask_fd));
}

/* The protocol has a server signal this eventfd, not listen to it: we do. */
static int set_unmask_fd(struct vfio_transport *t, uint32_t index, int fd, struct error *err)
{
	struct user_transport *u = to_user(t);
	int ours = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1, r;

	if (fd >= 0 && ours < 0)
		return error_set_errno(err, errno, "vfio-user device %s: unmask eventfd", t->name);
	drop_unmask(u);
	if (ours < 0)
		return 0;
	u->unmask_index = index;
	r = loop_watch(u->loop, &u->unmask, ours, EPOLLIN, unmask_signalled, u, err);
	if (r)
		close(ours);
	else
		u->unmask_fd = ours;
	return r;
}

static int reset(struct vfio_transport *t, struct error *err)
{
	struct user_call call = { .command = VFIO_USER_DEVICE_RESET };

	if (!t->resettable)
		return error_set(err, EOPNOTSUPP, "vfio-user device %s: the server has no reset",
				 t->name);
	return user_connection_call(to_user(t)->connection, &call, err);
}

int user_hold_unmask(struct user_transport *u, bool hold, struct error *err)
{
	if (u->unmask_fd < 0 || hold == !u->unmask)
		return 0;
	if (!hold)
		return loop_watch(u->loop, &u->unmask, u->unmask_fd, EPOLLIN, unmask_signalled, u,
				  err);
	loop_unwatch(u->loop, &u->unmask);
	return 0;
}

static void close_transport(struct vfio_transport *t)
{
	struct user_transport *u = to_user(t);

	drop_unmask(u);
	user_connection_free(u->connection);
	user_quiet_free(u);
	user_regions_free(u);
	user_dma_destroy(u);
	free(u);
}

static const struct vfio_transport_ops transport_ops = {
	.name = "user",
	.region_info = user_region_info,
	.irq_info = irq_info,
	.region_read = user_region_read,
	.region_write = user_region_write,
	.region_map = user_region_map,
	.region_ioeventfds = user_region_ioeventfds,
	.set_irq_fds = set_irq_fds,
	.mask_irq = mask_irq,
	.set_unmask_fd = set_unmask_fd,
	.reset = reset,
	.feature = user_feature,
	.migration_read = user_migration_read,
	.migration_write = user_migration_write,
	.migration_precopy_info = user_migration_precopy_info,
	.migration_end = user_migration_end,
	.keep = user_keep,
	.hold = user_hold,
	.own = user_own,
	.keeps_unmask = true,
	.close = close_transport,
};

static void connection_lost(void *opaque, const char *reason)
{
	struct user_transport *u = opaque;

	if (u->lost)
		u->lost(u->opaque, reason);
}

static struct user_transport *new_transport(const struct vfio_user_options *options, int fd)
{
	struct user_transport *u = calloc(1, sizeof(*u));

	if (!u)
		return NULL;
	u->t.ops = &transport_ops;
	u->t.space = &u->space;
	snprintf(u->t.name, sizeof(u->t.name), "%s", options->socket);
	u->t.fd = fd;
	u->memory = options->memory;
	u->loop = options->loop;
	u->log = options->log;
	u->lost = options->lost;
	u->opaque = options->opaque;
	u->unmask_fd = -1;
	user_dma_init(u);
	return u;
}

static int reset_first(struct user_transport *u, bool keep_state, struct error *err)
{
	return u->t.resettable && !keep_state ? u->t.ops->reset(&u->t, err) : 0;
}

static int begin(struct user_transport *u, const struct vfio_user_options *options,
		 struct error *err)
{
	int r;

	if (options->kept) {
		r = user_take(u, options->kept, options->id, err);
		return r ? r : dma_space_map_memory(&u->space, u->memory, err);
	}
	r = user_negotiate(u->connection, &u->caps, err);
	if (!r)
		r = device_info(u, err);
	if (!r)
		r = reset_first(u, options->keep_state, err);
	if (!r)
		r = dma_space_map_memory(&u->space, u->memory, err);
	return r ? r : user_connection_watch(u->connection, err);
}

struct vfio_transport *vfio_transport_open_user_fd(const struct vfio_user_options *options, int fd,
						   unsigned int timeout_ms, struct error *err)
{
	struct user_transport *u = new_transport(options, fd);
	struct user_connection_options connection = {
		.timeout_ms = timeout_ms,
		.loop = options->loop,
		.serve = user_dma_serve,
		.lost = connection_lost,
		.opaque = u,
	};

	if (!u) {
		error_set_errno(err, ENOMEM, "vfio-user device %s", options->socket);
		return NULL;
	}
	connection.name = u->t.name;
	/* The caller's until all is well, so a duplicate. */
	connection.fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (connection.fd < 0)
		error_set_errno(err, errno, "vfio-user device %s", u->t.name);
	else
		u->connection = user_connection_new(&connection, err);
	if (connection.fd >= 0 && !u->connection)
		close(connection.fd);
	if (!u->connection || begin(u, options, err)) {
		close_transport(&u->t);
		return NULL;
	}
	close(fd);
	u->t.fd = connection.fd;
	return &u->t;
}

static int connect_to(const char *path, struct error *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	/* A server that does not accept keeps connect() waiting, else for ever. */
	struct timeval limit = { .tv_sec = USER_TIMEOUT_MS / 1000 };
	_cleanup_close_ int fd = -1;
	const char *remedy = "";

	if (strlen(path) >= sizeof(address.sun_path))
		return error_set(err, ENAMETOOLONG,
				 "vfio-user device %s: the path of a socket has at most %zu bytes",
				 path, sizeof(address.sun_path) - 1);
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return error_set_errno(err, errno, "vfio-user device %s: create socket", path);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (connect(fd, (struct sockaddr *)&address, sizeof(address))) {
		int code = errno;

		if (code == ENOENT || code == ECONNREFUSED)
			remedy = " (is the server running, with this socket?)";
		else if (code == EAGAIN)
			remedy = " (the server does not accept connections)";
		return error_set_errno(err, code, "vfio-user device %s: cannot connect%s", path,
				       remedy);
	}
	return take_fd(&fd);
}

static int take_connection(const struct vfio_user_options *options, struct error *err)
{
	int fd = kept_take(options->kept, "%s/socket", options->id);

	return fd >= 0 ? fd
		       : error_set(err, ENOENT,
				   "vfio-user device %s: its connection did not come along",
				   options->socket);
}

struct vfio_transport *vfio_transport_open_user(const struct vfio_user_options *options,
						struct error *err)
{
	struct vfio_transport *t;
	int fd = options->kept ? take_connection(options, err) : connect_to(options->socket, err);

	if (fd < 0)
		return NULL;
	t = vfio_transport_open_user_fd(options, fd, USER_TIMEOUT_MS, err);
	if (!t)
		close(fd);
	return t;
}
