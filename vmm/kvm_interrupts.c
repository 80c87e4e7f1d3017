/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/kvm_interrupts.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define PIC_PINS 16
#define IOAPIC_PINS 24
#define GSI_MAX 4096
#define FIXED_ROUTES (PIC_PINS + IOAPIC_PINS)
#define MSI_ROUTES (GSI_MAX - IOAPIC_PINS)

/*
 * KVM takes its table as a whole, and waits for all that reads the old one. Hence a route
 * that is given back stays in it, idle: nothing raises it, and who wants the same message
 * again, as a vector that was masked for a moment, gets it without a call.
 */
struct kvm_interrupts {
	struct kvm *kvm;
	pthread_mutex_t lock; /* guards what follows */
	bool used[GSI_MAX], idle[GSI_MAX];
	unsigned int hint; /* no gsi below that is neither used nor idle */
	/* The table as KVM has it: FIXED_ROUTES, then the MSI routes in any order. */
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

static unsigned int idle_routes(const struct kvm_interrupts *self)
{
	return self->table->nr - FIXED_ROUTES - self->routes;
}

static bool carries(const struct kvm_irq_routing_entry *entry, const struct msi_message *msg)
{
	return entry->u.msi.address_lo == (uint32_t)msg->address &&
	       entry->u.msi.address_hi == (uint32_t)(msg->address >> 32) &&
	       entry->u.msi.data == msg->data;
}

static struct kvm_irq_routing_entry *find_idle(struct kvm_interrupts *self,
					       const struct msi_message *msg)
{
	if (!idle_routes(self))
		return NULL;
	for (unsigned int i = FIXED_ROUTES; i < self->table->nr; i++) {
		struct kvm_irq_routing_entry *entry = &self->table->entries[i];

		if (self->idle[entry->gsi] && carries(entry, msg))
			return entry;
	}
	return NULL;
}

static int use(struct kvm_interrupts *self, unsigned int gsi)
{
	self->idle[gsi] = false;
	self->used[gsi] = true;
	self->routes++;
	return (int)gsi;
}

/* KVM has it with what it carries now; where that fails, it is as it was. */
static int set_route(struct kvm_interrupts *self, struct kvm_irq_routing_entry *entry,
		     const struct msi_message *msg, struct error *err)
{
	struct kvm_irq_routing_entry old = *entry;
	int r;

	fill_msi(entry, old.gsi, msg);
	r = kvm_set_gsi_routing(self->kvm, self->table, err);
	if (r < 0)
		*entry = old;
	return r;
}

/* They go with the next call. */
static void forget_idle(struct kvm_interrupts *self)
{
	struct kvm_irq_routing_entry *entries = self->table->entries;
	unsigned int kept = FIXED_ROUTES;

	for (unsigned int i = FIXED_ROUTES; i < self->table->nr; i++)
		if (self->used[entries[i].gsi])
			entries[kept++] = entries[i];
	self->table->nr = kept;
	memset(self->idle, 0, sizeof(self->idle));
	self->hint = IOAPIC_PINS;
}

/* Before count more: what nobody has asked for again makes room for them. */
static void bound_idle(struct kvm_interrupts *self, unsigned int count)
{
	if (idle_routes(self) + count > IDLE_ROUTES_MAX ||
	    self->table->nr + count > FIXED_ROUTES + MSI_ROUTES)
		forget_idle(self);
}

/* An idle route of the table that KVM gets next. */
static int add_idle(struct kvm_interrupts *self, const struct msi_message *msg, struct error *err)
{
	unsigned int gsi = self->hint;

	while (gsi < GSI_MAX && (self->used[gsi] || self->idle[gsi]))
		gsi++;
	if (gsi == GSI_MAX)
		return error_set(err, ENOSPC, "interrupt route: all %u MSI routes are in use",
				 MSI_ROUTES);
	if (make_room(self))
		return error_set_errno(err, ENOMEM, "interrupt route");
	fill_msi(&self->table->entries[self->table->nr++], gsi, msg);
	self->idle[gsi] = true;
	self->hint = gsi + 1;
	return (int)gsi;
}

/* KVM has them, or they are none. */
static int set_idle(struct kvm_interrupts *self, struct error *err)
{
	int r = kvm_set_gsi_routing(self->kvm, self->table, err);

	if (r < 0)
		forget_idle(self);
	return r;
}

static int route_add_locked(struct kvm_interrupts *self, const struct msi_message *msg,
			    struct error *err)
{
	struct kvm_irq_routing_entry *entry = find_idle(self, msg);
	int gsi, r;

	if (entry)
		return use(self, entry->gsi);
	bound_idle(self, 1);
	gsi = add_idle(self, msg, err);
	if (gsi < 0)
		return gsi;
	r = set_idle(self, err);
	return r < 0 ? r : use(self, (unsigned int)gsi);
}

/* Idle routes, by one call. Where that fails there are none, and route_add() says why. */
static void routes_expect(void *opaque, const struct msi_message *msgs, unsigned int count)
{
	struct kvm_interrupts *self = opaque;
	unsigned int missing = 0;

	pthread_mutex_lock(&self->lock);
	for (unsigned int i = 0; i < count; i++)
		missing += !find_idle(self, &msgs[i]);
	if (missing)
		bound_idle(self, missing);
	for (unsigned int i = 0; missing && i < count; i++)
		if (!find_idle(self, &msgs[i]))
			add_idle(self, &msgs[i], NULL);
	if (missing)
		set_idle(self, NULL);
	pthread_mutex_unlock(&self->lock);
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
		if (self->table->entries[i].gsi == gsi && self->used[gsi])
			return &self->table->entries[i];
	return NULL;
}

static int route_update(void *opaque, unsigned int gsi, const struct msi_message *msg,
			struct error *err)
{
	struct kvm_interrupts *self = opaque;
	struct kvm_irq_routing_entry *entry;
	int r;

	pthread_mutex_lock(&self->lock);
	entry = find_locked(self, gsi);
	if (entry)
		r = set_route(self, entry, msg, err);
	else
		r = error_set(err, ENOENT, "interrupt route %u does not exist", gsi);
	pthread_mutex_unlock(&self->lock);
	return r;
}

static void route_remove(void *opaque, unsigned int gsi)
{
	struct kvm_interrupts *self = opaque;

	pthread_mutex_lock(&self->lock);
	if (find_locked(self, gsi)) {
		self->used[gsi] = false;
		self->idle[gsi] = true;
		self->routes--;
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
		.routes_expect = routes_expect,
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

unsigned int kvm_interrupts_messages(struct kvm_interrupts *self, struct msi_message *msgs,
				     unsigned int max)
{
	unsigned int count = 0;

	pthread_mutex_lock(&self->lock);
	for (unsigned int i = FIXED_ROUTES; i < self->table->nr && count < max; i++) {
		const struct kvm_irq_routing_entry *entry = &self->table->entries[i];

		if (self->used[entry->gsi])
			msgs[count++] = (struct msi_message){
				.address = (uint64_t)entry->u.msi.address_hi << 32 |
					   entry->u.msi.address_lo,
				.data = entry->u.msi.data,
			};
	}
	pthread_mutex_unlock(&self->lock);
	return count;
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
