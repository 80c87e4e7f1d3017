/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/pci/msix.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "devices/pci/pci_registers.h"

#define CONTROL_ENABLE (PCI_MSIX_FLAGS_ENABLE >> 8) /* in the high byte of control */
#define CONTROL_MASKALL (PCI_MSIX_FLAGS_MASKALL >> 8)
#define LOG_BURST 4
#define EXPECTED 64 /* routes that are asked for together */

struct vector {
	uint8_t entry[PCI_MSIX_ENTRY_SIZE]; /* as the guest sees it */
	atomic_int fd;			    /* made when first needed; -1 */
	int gsi;			    /* route held, fd attached to it; -1 */
	struct msi_message routed;	    /* what the route carries */
	bool notified;			    /* what the notify callback was last told */
};

struct msix {
	struct pci_function *fn;
	unsigned int cap, count;
	void (*notify)(void *opaque, unsigned int vector, bool unmasked);
	void *notify_opaque;
	struct log_limit log_limit;
	atomic_bool enabled;
	pthread_mutex_t lock; /* guards what follows, and vectors[] but for fd */
	bool function_masked;
	bool held;
	unsigned int routes;
	unsigned int unnotified; /* vectors whose `notified` is out of date */
	bool notifying;		 /* a thread is at it, and will see later changes too */
	struct vector vectors[];
};

struct msix *msix_new(struct pci_function *fn, unsigned int vectors, unsigned int table_bar,
		      uint32_t table_offset, unsigned int pba_bar, uint32_t pba_offset,
		      struct error *err)
{
	struct msix *msix;
	int cap;

	if (!vectors || vectors > MSIX_VECTORS_MAX || table_bar >= PCI_BARS ||
	    pba_bar >= PCI_BARS || table_offset % 8 || pba_offset % 8) {
		error_set(err, EINVAL,
			  "add MSI-X to %s: %u vectors, table at bar%u+0x%x, PBA at bar%u+0x%x",
			  fn->id, vectors, table_bar, table_offset, pba_bar, pba_offset);
		return NULL;
	}
	msix = calloc(1, sizeof(*msix) + vectors * sizeof(msix->vectors[0]));
	if (!msix) {
		error_set_errno(err, ENOMEM, "add MSI-X to %s", fn->id);
		return NULL;
	}
	cap = pci_function_add_capability(fn, PCI_CAP_ID_MSIX, PCI_CAP_MSIX_SIZEOF);
	if (cap < 0) {
		error_set_errno(err, cap, "add MSI-X to %s: capability", fn->id);
		free(msix);
		return NULL;
	}
	msix->fn = fn;
	msix->cap = (unsigned int)cap;
	msix->count = vectors;
	atomic_init(&msix->log_limit.burst_left, LOG_BURST);
	pthread_mutex_init(&msix->lock, NULL);
	for (unsigned int i = 0; i < vectors; i++) {
		msix->vectors[i].entry[PCI_MSIX_ENTRY_VECTOR_CTRL] = PCI_MSIX_ENTRY_CTRL_MASKBIT;
		atomic_init(&msix->vectors[i].fd, -1);
		msix->vectors[i].gsi = -1;
	}
	store_le16(fn->config + cap + PCI_MSIX_FLAGS, (uint16_t)(vectors - 1));
	store_le32(fn->config + cap + PCI_MSIX_TABLE, table_offset | table_bar);
	store_le32(fn->config + cap + PCI_MSIX_PBA, pba_offset | pba_bar);
	fn->write_mask[cap + PCI_MSIX_FLAGS + 1] = CONTROL_ENABLE | CONTROL_MASKALL;
	return msix;
}

/* The vector's eventfd, made where there is none yet; -errno. */
static int vector_fd_locked(struct vector *v)
{
	int fd = atomic_load(&v->fd);

	if (fd < 0) {
		fd = eventfd_new();
		if (fd >= 0)
			atomic_store(&v->fd, fd);
	}
	return fd;
}

static bool masked_locked(const struct msix *msix, const struct vector *v)
{
	return msix->function_masked ||
	       (v->entry[PCI_MSIX_ENTRY_VECTOR_CTRL] & PCI_MSIX_ENTRY_CTRL_MASKBIT);
}

static struct msi_message message_of(const struct msix *msix, const struct vector *v)
{
	return (struct msi_message){
		.address = load_le64(v->entry + PCI_MSIX_ENTRY_LOWER_ADDR),
		.data = load_le32(v->entry + PCI_MSIX_ENTRY_DATA),
		.devid = msix->fn->devfn,
	};
}

static bool same_message(const struct msi_message *a, const struct msi_message *b)
{
	return a->address == b->address && a->data == b->data && a->devid == b->devid;
}

static void detach_locked(struct msix *msix, struct vector *v)
{
	const struct interrupts *irqs = &msix->fn->host->interrupts;

	irqs->ops->irqfd_detach(irqs->opaque, (unsigned int)v->gsi, atomic_load(&v->fd));
	irqs->ops->route_remove(irqs->opaque, (unsigned int)v->gsi);
	v->gsi = -1;
	msix->routes--;
}

static int attach_locked(struct msix *msix, struct vector *v, const struct msi_message *msg,
			 struct error *err)
{
	const struct interrupts *irqs = &msix->fn->host->interrupts;
	int fd = vector_fd_locked(v), gsi, r;

	if (fd < 0)
		return error_set_errno(err, fd, "create eventfd");
	gsi = irqs->ops->route_add(irqs->opaque, msg, err);
	if (gsi < 0)
		return gsi;
	r = irqs->ops->irqfd_attach(irqs->opaque, (unsigned int)gsi, fd, -1, err);
	if (r) {
		irqs->ops->route_remove(irqs->opaque, (unsigned int)gsi);
		return r;
	}
	v->gsi = gsi;
	v->routed = *msg;
	msix->routes++;
	return 0;
}

static bool wanted_locked(const struct msix *msix, const struct vector *v)
{
	return atomic_load(&msix->enabled) && !msix->held && !masked_locked(msix, v);
}

/* Makes route and irqfd of one vector what enable, masks and message now ask for. */
static int try_update_locked(struct msix *msix, unsigned int index, struct error *err)
{
	const struct interrupts *irqs = &msix->fn->host->interrupts;
	struct vector *v = &msix->vectors[index];
	bool was = v->gsi >= 0, want = wanted_locked(msix, v);
	struct msi_message msg = message_of(msix, v);
	int r = 0;

	if (was && !want) {
		detach_locked(msix, v);
	} else if (!was && want) {
		r = attach_locked(msix, v, &msg, err);
	} else if (was && !same_message(&msg, &v->routed)) {
		r = irqs->ops->route_update(irqs->opaque, (unsigned int)v->gsi, &msg, err);
		if (!r)
			v->routed = msg;
	}
	if (was != (v->gsi >= 0))
		msix->unnotified += (v->gsi >= 0) == v->notified ? -1u : 1u;
	return r;
}

static void update_locked(struct msix *msix, unsigned int index)
{
	struct error err = ERROR_INIT;

	/* The vector stays pending; the guest's next write to it tries again. */
	if (try_update_locked(msix, index, &err))
		log_limited(msix->fn->host->log, &msix->log_limit, LOG_LEVEL_ERROR,
			    "%s: MSI-X vector %u does not interrupt: %s", msix->fn->id, index,
			    err.message);
}

/* Of the vectors from first up to end, EXPECTED at most: those that get a route. */
static void expect_locked(struct msix *msix, unsigned int first, unsigned int end)
{
	const struct interrupts *irqs = &msix->fn->host->interrupts;
	struct msi_message msgs[EXPECTED];
	unsigned int count = 0;

	for (unsigned int i = first; i < end; i++) {
		const struct vector *v = &msix->vectors[i];

		if (v->gsi < 0 && wanted_locked(msix, v))
			msgs[count++] = message_of(msix, v);
	}
	if (count > 1)
		irqs->ops->routes_expect(irqs->opaque, msgs, count);
}

static void update_all_locked(struct msix *msix)
{
	for (unsigned int first = 0, end; first < msix->count; first = end) {
		end = MIN(first + EXPECTED, msix->count);
		expect_locked(msix, first, end);
		for (unsigned int i = first; i < end; i++)
			update_locked(msix, i);
	}
}

/*
 * Tells the owner what changed, and drops the lock. One thread at a time does, so
 * that it hears the changes of one vector in their order; a thread that finds
 * another at it leaves its own changes to that one.
 */
static void notify_and_unlock(struct msix *msix)
{
	if (msix->notifying)
		goto unlock;
	msix->notifying = true;
	while (msix->unnotified) {
		for (unsigned int i = 0; i < msix->count && msix->unnotified; i++) {
			struct vector *v = &msix->vectors[i];
			bool now = v->gsi >= 0;

			if (now == v->notified)
				continue;
			v->notified = now;
			msix->unnotified--;
			if (!msix->notify)
				continue;
			pthread_mutex_unlock(&msix->lock);
			msix->notify(msix->notify_opaque, i, now);
			pthread_mutex_lock(&msix->lock);
		}
	}
	msix->notifying = false;
unlock:
	pthread_mutex_unlock(&msix->lock);
}

static void drain_all_locked(struct msix *msix)
{
	for (unsigned int i = 0; i < msix->count; i++)
		if (atomic_load(&msix->vectors[i].fd) >= 0)
			eventfd_drain(atomic_load(&msix->vectors[i].fd));
}

static void apply_control_locked(struct msix *msix, uint8_t control)
{
	bool enabled = control & CONTROL_ENABLE, masked = control & CONTROL_MASKALL;
	bool was = atomic_load(&msix->enabled);

	if (enabled == was && masked == msix->function_masked)
		return;
	atomic_store(&msix->enabled, enabled);
	msix->function_masked = masked;
	update_all_locked(msix);
	/* What was pending belonged to the driver that has just let go of it. */
	if (was && !enabled)
		drain_all_locked(msix);
}

void msix_config_written(struct msix *msix, unsigned int offset, unsigned int len)
{
	unsigned int control = msix->cap + PCI_MSIX_FLAGS + 1;

	if (offset > control || offset + len <= control)
		return;
	/* Config writes come one at a time, with what follows from them. */
	pthread_mutex_lock(&msix->lock);
	apply_control_locked(msix, msix->fn->config[control]);
	notify_and_unlock(msix);
}

static bool in_table(const struct msix *msix, uint64_t offset, unsigned int len)
{
	uint64_t size = (uint64_t)msix->count * PCI_MSIX_ENTRY_SIZE;

	return len <= 8 && offset < size && len <= size - offset;
}

void msix_table_read(struct msix *msix, uint64_t offset, void *data, unsigned int len)
{
	uint8_t *out = data;

	if (!in_table(msix, offset, len)) {
		memset(data, 0xff, len);
		return;
	}
	pthread_mutex_lock(&msix->lock);
	for (unsigned int i = 0; i < len; i++)
		out[i] = msix->vectors[(offset + i) / PCI_MSIX_ENTRY_SIZE]
				 .entry[(offset + i) % PCI_MSIX_ENTRY_SIZE];
	pthread_mutex_unlock(&msix->lock);
}

static void write_dword_locked(struct vector *v, unsigned int at, uint32_t value)
{
	if (at == PCI_MSIX_ENTRY_LOWER_ADDR)
		value &= ~3u;
	else if (at == PCI_MSIX_ENTRY_VECTOR_CTRL)
		value &= PCI_MSIX_ENTRY_CTRL_MASKBIT;
	store_le32(v->entry + at, value);
}

/* Whole, aligned dwords or qwords only: the rest is undefined in the
 * specification, and dropped here. */
void msix_table_write(struct msix *msix, uint64_t offset, const void *data, unsigned int len)
{
	unsigned int index, at;

	if ((len != 4 && len != 8) || offset % len || !in_table(msix, offset, len))
		return;
	index = (unsigned int)(offset / PCI_MSIX_ENTRY_SIZE);
	at = (unsigned int)(offset % PCI_MSIX_ENTRY_SIZE);
	pthread_mutex_lock(&msix->lock);
	write_dword_locked(&msix->vectors[index], at, load_le32(data));
	if (len == 8)
		write_dword_locked(&msix->vectors[index], at + 4,
				   load_le32((const uint8_t *)data + 4));
	update_locked(msix, index);
	notify_and_unlock(msix);
}

/* Bits of `count` vectors from `first` on that are pending; count is at most 64. */
static void pending_locked(struct msix *msix, unsigned int first, unsigned int count, uint8_t *bits)
{
	struct pollfd polls[64];
	uint8_t vector[64];
	unsigned int n = 0;

	for (unsigned int i = 0; i < count && first + i < msix->count; i++) {
		const struct vector *v = &msix->vectors[first + i];

		/* Attached: KVM has consumed it. */
		if (v->gsi >= 0 || atomic_load(&v->fd) < 0)
			continue;
		vector[n] = (uint8_t)i;
		polls[n++] = (struct pollfd){ .fd = atomic_load(&v->fd), .events = POLLIN };
	}
	if (n && poll(polls, n, 0) > 0)
		for (unsigned int i = 0; i < n; i++)
			if (polls[i].revents & POLLIN)
				bits[vector[i] / 8] |= (uint8_t)(1u << vector[i] % 8);
}

static unsigned int pba_size(const struct msix *msix)
{
	return (unsigned int)align_up(msix->count, 64) / 8;
}

void msix_pba_read(struct msix *msix, uint64_t offset, void *data, unsigned int len)
{
	uint64_t size = pba_size(msix);

	if (len > 8 || offset >= size || len > size - offset) {
		memset(data, 0xff, len);
		return;
	}
	memset(data, 0, len);
	pthread_mutex_lock(&msix->lock);
	pending_locked(msix, (unsigned int)offset * 8, 8 * len, data);
	pthread_mutex_unlock(&msix->lock);
}

#define STATE_KIND "msix"
#define STATE_VERSION 1

void msix_save(struct msix *msix, struct state_writer *writer)
{
	uint8_t table[MSIX_VECTORS_MAX * PCI_MSIX_ENTRY_SIZE], pending[MSIX_VECTORS_MAX / 8] = "";

	state_begin(writer, STATE_KIND, STATE_KIND, STATE_VERSION);
	pthread_mutex_lock(&msix->lock);
	for (unsigned int i = 0; i < msix->count; i++)
		memcpy(table + i * PCI_MSIX_ENTRY_SIZE, msix->vectors[i].entry,
		       PCI_MSIX_ENTRY_SIZE);
	for (unsigned int i = 0; i < msix->count; i += 64)
		pending_locked(msix, i, 64, pending + i / 8);
	pthread_mutex_unlock(&msix->lock);
	state_put_bytes(writer, "table", table, msix->count * PCI_MSIX_ENTRY_SIZE);
	state_put_bytes(writer, "pending", pending, pba_size(msix));
	state_end(writer);
}

static bool valid_entry(const uint8_t entry[PCI_MSIX_ENTRY_SIZE])
{
	return !(load_le32(entry + PCI_MSIX_ENTRY_LOWER_ADDR) & 3) &&
	       !(load_le32(entry + PCI_MSIX_ENTRY_VECTOR_CTRL) & ~PCI_MSIX_ENTRY_CTRL_MASKBIT);
}

static int load_vectors_locked(struct msix *msix, const uint8_t *table, const uint8_t *pending,
			       struct error *err)
{
	uint8_t control = msix->fn->config[msix->cap + PCI_MSIX_FLAGS + 1];
	int r = 0;

	atomic_store(&msix->enabled, control & CONTROL_ENABLE);
	msix->function_masked = control & CONTROL_MASKALL;
	for (unsigned int i = 0; !r && i < msix->count; i++) {
		struct vector *v = &msix->vectors[i];
		int fd = 0;

		memcpy(v->entry, table + i * PCI_MSIX_ENTRY_SIZE, PCI_MSIX_ENTRY_SIZE);
		/* First this: attaching delivers it. */
		if (pending[i / 8] & 1u << i % 8) {
			fd = vector_fd_locked(v);
			if (fd >= 0)
				eventfd_signal(fd);
		}
		r = fd < 0 ? error_set_errno(err, fd, "create eventfd")
			   : try_update_locked(msix, i, err);
		if (r)
			error_prefix(err, "%s: MSI-X vector %u", msix->fn->id, i);
	}
	return r;
}

int msix_load(struct msix *msix, const struct state_node *function, struct error *err)
{
	uint8_t table[MSIX_VECTORS_MAX * PCI_MSIX_ENTRY_SIZE], pending[MSIX_VECTORS_MAX / 8];
	struct state_node node;
	int r = state_expect_child(function, STATE_KIND, STATE_KIND, STATE_VERSION, &node, err);

	if (!r)
		r = state_get_bytes(&node, "table", table, msix->count * PCI_MSIX_ENTRY_SIZE, err);
	if (!r)
		r = state_get_bytes(&node, "pending", pending, pba_size(msix), err);
	for (unsigned int i = 0; !r && i < msix->count; i++)
		if (!valid_entry(table + i * PCI_MSIX_ENTRY_SIZE))
			r = state_refuse(&node, "table", err, "has reserved bits set in entry %u",
					 i);
	for (unsigned int i = msix->count; !r && i < 8 * pba_size(msix); i++)
		if (pending[i / 8] & 1u << i % 8)
			r = state_refuse(&node, "pending", err, "has vector %u of %u", i,
					 msix->count);
	if (r)
		return r;
	pthread_mutex_lock(&msix->lock);
	r = load_vectors_locked(msix, table, pending, err);
	notify_and_unlock(msix);
	return r;
}

void msix_hold(struct msix *msix, bool hold)
{
	pthread_mutex_lock(&msix->lock);
	msix->held = hold;
	update_all_locked(msix);
	notify_and_unlock(msix);
}

void msix_set_eventfd(struct msix *msix, unsigned int vector, int fd)
{
	int none = -1;

	if (vector >= msix->count ||
	    !atomic_compare_exchange_strong(&msix->vectors[vector].fd, &none, fd))
		close(fd);
}

int msix_has_eventfd(const struct msix *msix, unsigned int vector)
{
	return vector < msix->count ? atomic_load(&msix->vectors[vector].fd) : -1;
}

bool msix_enabled(const struct msix *msix)
{
	return atomic_load(&msix->enabled);
}

unsigned int msix_vectors(const struct msix *msix)
{
	return msix->count;
}

int msix_eventfd(struct msix *msix, unsigned int vector)
{
	int fd;

	if (vector >= msix->count)
		return -1;
	fd = atomic_load(&msix->vectors[vector].fd);
	if (fd >= 0)
		return fd;
	pthread_mutex_lock(&msix->lock);
	fd = vector_fd_locked(&msix->vectors[vector]);
	pthread_mutex_unlock(&msix->lock);
	return fd < 0 ? -1 : fd;
}

/* No lock where the eventfd exists: this is every device's way to interrupt. */
void msix_signal(struct msix *msix, unsigned int vector)
{
	int fd;

	if (vector >= msix->count || !atomic_load(&msix->enabled))
		return;
	fd = msix_eventfd(msix, vector);
	if (fd >= 0)
		eventfd_signal(fd);
}

void msix_reset(struct msix *msix)
{
	pthread_mutex_lock(&msix->lock);
	msix->fn->config[msix->cap + PCI_MSIX_FLAGS + 1] &=
		(uint8_t) ~(CONTROL_ENABLE | CONTROL_MASKALL);
	apply_control_locked(msix, 0);
	for (unsigned int i = 0; i < msix->count; i++) {
		memset(msix->vectors[i].entry, 0, PCI_MSIX_ENTRY_SIZE);
		msix->vectors[i].entry[PCI_MSIX_ENTRY_VECTOR_CTRL] = PCI_MSIX_ENTRY_CTRL_MASKBIT;
	}
	drain_all_locked(msix);
	notify_and_unlock(msix);
}

void msix_set_notify(struct msix *msix,
		     void (*notify)(void *opaque, unsigned int vector, bool unmasked), void *opaque)
{
	pthread_mutex_lock(&msix->lock);
	msix->notify = notify;
	msix->notify_opaque = opaque;
	pthread_mutex_unlock(&msix->lock);
}

unsigned int msix_routes(const struct msix *msix)
{
	struct msix *m = (struct msix *)msix;
	unsigned int n;

	pthread_mutex_lock(&m->lock);
	n = m->routes;
	pthread_mutex_unlock(&m->lock);
	return n;
}

void msix_free(struct msix *msix)
{
	if (!msix)
		return;
	for (unsigned int i = 0; i < msix->count; i++) {
		struct vector *v = &msix->vectors[i];

		if (v->gsi >= 0)
			detach_locked(msix, v);
		if (atomic_load(&v->fd) >= 0)
			close(atomic_load(&v->fd));
	}
	pthread_mutex_destroy(&msix->lock);
	free(msix);
}
