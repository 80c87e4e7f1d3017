/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/kvm_interrupts.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#define PIC_PINS 16
#define IOAPIC_PINS 24
#define GSI_MAX 4096
#define FIXED_ROUTES (PIC_PINS + IOAPIC_PINS)

struct kvm_interrupts {
	struct kvm *kvm;
	pthread_mutex_t lock; /* guards what follows */
	bool used[GSI_MAX];
	unsigned int hint; /* no free gsi below */
	/* The table as KVM takes it: FIXED_ROUTES, then the MSI routes in any order. */
	unsigned int routes, room;
	struct kvm_irq_routing *table;
};

static void fixed_route(struct kvm_irq_routing *table, unsigned int gsi, uint32_t chip,
			uint32_t pin)
{
	table->entries[table->nr++] = (struct kvm_irq_routing_entry){
		.gsi = gsi,
		.type = KVM_IRQ_ROUTING_IRQCHIP,
		.u.irqchip = { .irqchip = chip, .pin = pin },
	};
}

static struct kvm_irq_routing *table_new(unsigned int room)
{
	struct kvm_irq_routing *table =
		calloc(1, sizeof(*table) + room * sizeof(struct kvm_irq_routing_entry));

	if (!table)
		return NULL;
	for (unsigned int i = 0; i < PIC_PINS; i++)
		fixed_route(table, i, i < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE,
			    i % 8);
	for (unsigned int i = 0; i < IOAPIC_PINS; i++)
		fixed_route(table, i, KVM_IRQCHIP_IOAPIC, i);
	return table;
}

struct kvm_interrupts *kvm_interrupts_new(struct kvm *kvm, struct error *err)
{
	struct kvm_interrupts *self = calloc(1, sizeof(*self));

	if (self) {
		self->room = FIXED_ROUTES + 32;
		self->table = table_new(self->room);
	}
	if (!self || !self->table) {
		free(self);
		error_set_errno(err, ENOMEM, "create interrupt routes");
		return NULL;
	}
	self->kvm = kvm;
	self->hint = IOAPIC_PINS;
	pthread_mutex_init(&self->lock, NULL);
	/* KVM_CREATE_IRQCHIP has set the pins' routes already. */
	return self;
}

void kvm_interrupts_free(struct kvm_interrupts *self)
{
	if (!self)
		return;
	pthread_mutex_destroy(&self->lock);
	free(self->table);
	free(self);
}

static void set_line(void *opaque, unsigned int gsi, bool level)
{
	struct kvm_interrupts *self = opaque;

	kvm_irq_line(self->kvm, gsi, level);
}

static int send_msi(void *opaque, const struct msi_message *msg)
{
	struct kvm_interrupts *self = opaque;

	return kvm_signal_msi(self->kvm, msg->address, msg->data);
}

static void fill_msi(struct kvm_irq_routing_entry *entry, unsigned int gsi,
		     const struct msi_message *msg)
{
	*entry = (struct kvm_irq_routing_entry){
		.gsi = gsi,
		.type = KVM_IRQ_ROUTING_MSI,
		.u.msi = {
			.address_lo = (uint32_t)msg->address,
			.address_hi = (uint32_t)(msg->address >> 32),
			.data = msg->data,
		},
	};
}

static int make_room(struct kvm_interrupts *self)
{
	unsigned int room = self->room * 2;
	struct kvm_irq_routing *table;

	if (self->table->nr < self->room)
		return 0;
	table = realloc(self->table, sizeof(*table) + room * sizeof(struct kvm_irq_routing_entry));
	if (!table)
		return -ENOMEM;
	self->table = table;
	self->room = room;
	return 0;
}

static int route_add_locked(struct kvm_interrupts *self, const struct msi_message *msg,
			    struct error *err)
{
	unsigned int gsi = self->hint;
	int r;

	while (gsi < GSI_MAX && self->used[gsi])
		gsi++;
	if (gsi == GSI_MAX)
		return error_set(err, ENOSPC, "interrupt route: all %u MSI routes are in use",
				 GSI_MAX - IOAPIC_PINS);
	if (make_room(self))
		return error_set_errno(err, ENOMEM, "interrupt route");
	fill_msi(&self->table->entries[self->table->nr++], gsi, msg);
	r = kvm_set_gsi_routing(self->kvm, self->table, err);
	if (r < 0) {
		self->table->nr--;
		return r;
	}
	self->used[gsi] = true;
	self->hint = gsi + 1;
	self->routes++;
	return (int)gsi;
}

static int route_add(void *opaque, const struct msi_message *msg, struct error *err)
{
	struct kvm_interrupts *self = opaque;
	int r;

	pthread_mutex_lock(&self->lock);
	r = route_add_locked(self, msg, err);
	pthread_mutex_unlock(&self->lock);
	return r;
}

static struct kvm_irq_routing_entry *find_locked(struct kvm_interrupts *self, unsigned int gsi)
{
	for (unsigned int i = FIXED_ROUTES; i < self->table->nr; i++)
		if (self->table->entries[i].gsi == gsi)
			return &self->table->entries[i];
	return NULL;
}

static int route_update(void *opaque, unsigned int gsi, const struct msi_message *msg,
			struct error *err)
{
	struct kvm_interrupts *self = opaque;
	struct kvm_irq_routing_entry *entry, old;
	int r = 0;

	pthread_mutex_lock(&self->lock);
	entry = find_locked(self, gsi);
	if (!entry) {
		r = error_set(err, ENOENT, "interrupt route %u does not exist", gsi);
	} else {
		old = *entry;
		fill_msi(entry, gsi, msg);
		r = kvm_set_gsi_routing(self->kvm, self->table, err);
		if (r < 0)
			*entry = old;
	}
	pthread_mutex_unlock(&self->lock);
	return r;
}

static void route_remove(void *opaque, unsigned int gsi)
{
	struct kvm_interrupts *self = opaque;
	struct kvm_irq_routing_entry *entry;

	pthread_mutex_lock(&self->lock);
	entry = find_locked(self, gsi);
	if (entry) {
		*entry = self->table->entries[--self->table->nr];
		self->used[gsi] = false;
		self->routes--;
		if (gsi < self->hint)
			self->hint = gsi;
		kvm_set_gsi_routing(self->kvm, self->table, NULL);
	}
	pthread_mutex_unlock(&self->lock);
}

static int irqfd_attach(void *opaque, unsigned int gsi, int fd, int resample_fd, struct error *err)
{
	struct kvm_interrupts *self = opaque;

	return kvm_irqfd(self->kvm, gsi, fd, resample_fd, true, err);
}

static void irqfd_detach(void *opaque, unsigned int gsi, int fd)
{
	struct kvm_interrupts *self = opaque;

	kvm_irqfd(self->kvm, gsi, fd, -1, false, NULL);
}

struct interrupts kvm_interrupts_ops(struct kvm_interrupts *self)
{
	static const struct interrupt_ops ops = {
		.set_line = set_line,
		.send_msi = send_msi,
		.route_add = route_add,
		.route_update = route_update,
		.route_remove = route_remove,
		.irqfd_attach = irqfd_attach,
		.irqfd_detach = irqfd_detach,
	};

	return (struct interrupts){ .ops = &ops, .opaque = self };
}

unsigned int kvm_interrupts_routes(struct kvm_interrupts *self)
{
	unsigned int routes;

	pthread_mutex_lock(&self->lock);
	routes = self->routes;
	pthread_mutex_unlock(&self->lock);
	return routes;
}

static struct kvm_ioeventfd ioeventfd_args(bool pio, uint64_t addr, unsigned int len, bool match,
					   uint64_t value, int fd)
{
	return (struct kvm_ioeventfd){
		.addr = addr,
		.len = len,
		.fd = fd,
		.datamatch = match ? value : 0,
		.flags = (pio ? KVM_IOEVENTFD_FLAG_PIO : 0U) |
			 (match ? KVM_IOEVENTFD_FLAG_DATAMATCH : 0U),
	};
}

static int ioevent_attach(void *opaque, bool pio, uint64_t addr, unsigned int len, bool match,
			  uint64_t value, int fd, struct error *err)
{
	struct kvm_ioeventfd args = ioeventfd_args(pio, addr, len, match, value, fd);

	return kvm_ioeventfd(opaque, &args, err);
}

static void ioevent_detach(void *opaque, bool pio, uint64_t addr, unsigned int len, bool match,
			   uint64_t value, int fd)
{
	struct kvm_ioeventfd args = ioeventfd_args(pio, addr, len, match, value, fd);

	args.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
	kvm_ioeventfd(opaque, &args, NULL);
}

struct ioevents kvm_ioevents_ops(struct kvm *kvm)
{
	static const struct ioevent_ops ops = { .attach = ioevent_attach,
						.detach = ioevent_detach };

	return (struct ioevents){ .ops = &ops, .opaque = kvm };
}
