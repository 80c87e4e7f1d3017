/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/helpers/fake_interrupts.h"

#include <errno.h>
#include <string.h>

#include "base/fd.h"

static void set_line(void *opaque, unsigned int gsi, bool level)
{
	struct fake_interrupts *fake = opaque;

	pthread_mutex_lock(&fake->lock);
	fake->line_calls++;
	if (gsi >= FAKE_LINES) {
		fake->misuses++;
	} else {
		if (level && !fake->level[gsi])
			fake->rises[gsi]++;
		fake->level[gsi] = level;
	}
	pthread_mutex_unlock(&fake->lock);
}

static int send_msi(void *opaque, const struct msi_message *msg)
{
	struct fake_interrupts *fake = opaque;

	pthread_mutex_lock(&fake->lock);
	fake->msi_sent++;
	fake->last_delivered = *msg;
	pthread_mutex_unlock(&fake->lock);
	return 0;
}

static int route_add(void *opaque, const struct msi_message *msg, struct error *err)
{
	struct fake_interrupts *fake = opaque;
	int gsi = -ENOSPC;

	pthread_mutex_lock(&fake->lock);
	for (int i = FAKE_LINES; i < FAKE_GSIS && fake->routes < fake->route_limit; i++)
		if (!fake->gsis[i].used) {
			fake->gsis[i] = (struct fake_route){ .used = true, .msg = *msg };
			fake->routes++;
			fake->route_adds++;
			gsi = i;
			break;
		}
	pthread_mutex_unlock(&fake->lock);
	return gsi >= 0 ? gsi
			: error_set(err, ENOSPC, "add MSI route: all %u are taken",
				    fake->route_limit);
}

static void routes_expect(void *opaque, const struct msi_message *msgs, unsigned int count)
{
	struct fake_interrupts *fake = opaque;

	pthread_mutex_lock(&fake->lock);
	fake->expects++;
	fake->expected += count;
	pthread_mutex_unlock(&fake->lock);
}

static struct fake_route *route_locked(struct fake_interrupts *fake, unsigned int gsi)
{
	if (gsi >= FAKE_LINES && gsi < FAKE_GSIS && fake->gsis[gsi].used)
		return &fake->gsis[gsi];
	fake->misuses++;
	return NULL;
}

static int route_update(void *opaque, unsigned int gsi, const struct msi_message *msg,
			struct error *err)
{
	struct fake_interrupts *fake = opaque;
	struct fake_route *route;

	pthread_mutex_lock(&fake->lock);
	route = route_locked(fake, gsi);
	if (route) {
		route->msg = *msg;
		fake->route_updates++;
	}
	pthread_mutex_unlock(&fake->lock);
	return route ? 0 : error_set(err, EINVAL, "update MSI route: no gsi %u", gsi);
}

static void route_remove(void *opaque, unsigned int gsi)
{
	struct fake_interrupts *fake = opaque;
	struct fake_route *route;

	pthread_mutex_lock(&fake->lock);
	route = route_locked(fake, gsi);
	if (route) {
		route->used = false;
		fake->routes--;
		fake->route_removes++;
	}
	for (unsigned int i = 0; i < fake->irqfd_count; i++)
		if (fake->irqfds[i].gsi == gsi)
			fake->misuses++; /* an irqfd without a route */
	pthread_mutex_unlock(&fake->lock);
}

static void consume_locked(struct fake_interrupts *fake, const struct fake_irqfd *irqfd)
{
	fake->delivered++;
	if (irqfd->gsi >= FAKE_LINES && irqfd->gsi < FAKE_GSIS) {
		fake->gsis[irqfd->gsi].delivered++;
		fake->last_delivered = fake->gsis[irqfd->gsi].msg;
	} else if (irqfd->gsi < FAKE_LINES) {
		fake->rises[irqfd->gsi]++;
	}
}

static int irqfd_attach(void *opaque, unsigned int gsi, int fd, int resample_fd, struct error *err)
{
	struct fake_interrupts *fake = opaque;
	struct fake_irqfd irqfd = { .gsi = gsi, .fd = fd, .resample_fd = resample_fd };
	int r = 0;

	pthread_mutex_lock(&fake->lock);
	if (fake->attach_error) {
		r = error_set_errno(err, fake->attach_error, "attach eventfd to gsi %u", gsi);
	} else if (fake->irqfd_count == FAKE_IRQFDS || fd < 0 ||
		   (gsi >= FAKE_LINES && !route_locked(fake, gsi))) {
		fake->misuses++;
		r = error_set(err, EINVAL, "attach eventfd to gsi %u: misuse", gsi);
	} else {
		for (unsigned int i = 0; i < fake->irqfd_count; i++)
			if (fake->irqfds[i].fd == fd) {
				fake->misuses++;
				r = error_set_errno(err, EBUSY, "attach eventfd to gsi %u", gsi);
			}
	}
	if (!r) {
		fake->irqfds[fake->irqfd_count++] = irqfd;
		if (eventfd_drain(fd))
			consume_locked(fake, &irqfd);
	}
	pthread_mutex_unlock(&fake->lock);
	return r;
}

static void irqfd_detach(void *opaque, unsigned int gsi, int fd)
{
	struct fake_interrupts *fake = opaque;
	bool found = false;

	pthread_mutex_lock(&fake->lock);
	for (unsigned int i = 0; i < fake->irqfd_count && !found; i++)
		if (fake->irqfds[i].fd == fd && fake->irqfds[i].gsi == gsi) {
			/* KVM would have consumed it when it was signalled. */
			if (eventfd_drain(fd))
				consume_locked(fake, &fake->irqfds[i]);
			fake->irqfds[i] = fake->irqfds[--fake->irqfd_count];
			found = true;
		}
	if (!found)
		fake->misuses++;
	pthread_mutex_unlock(&fake->lock);
}

static const struct interrupt_ops fake_interrupt_ops = {
	.set_line = set_line,
	.send_msi = send_msi,
	.route_add = route_add,
	.routes_expect = routes_expect,
	.route_update = route_update,
	.route_remove = route_remove,
	.irqfd_attach = irqfd_attach,
	.irqfd_detach = irqfd_detach,
};

static bool same_ioevent(const struct fake_ioevent *a, const struct fake_ioevent *b)
{
	return a->pio == b->pio && a->addr == b->addr && a->len == b->len && a->match == b->match &&
	       (!a->match || a->value == b->value) && a->fd == b->fd;
}

static int ioevent_attach(void *opaque, bool pio, uint64_t addr, unsigned int len, bool match,
			  uint64_t value, int fd, struct error *err)
{
	struct fake_interrupts *fake = opaque;
	int r = 0;

	pthread_mutex_lock(&fake->lock);
	if (fake->ioevent_error)
		r = error_set_errno(err, fake->ioevent_error, "attach ioeventfd at 0x%llx",
				    (unsigned long long)addr);
	else if (fake->ioevent_count == FAKE_IOEVENTS)
		r = error_set_errno(err, ENOSPC, "attach ioeventfd");
	else
		fake->ioevent[fake->ioevent_count++] = (struct fake_ioevent){
			.pio = pio,
			.match = match,
			.addr = addr,
			.value = value,
			.len = len,
			.fd = fd,
		};
	pthread_mutex_unlock(&fake->lock);
	return r;
}

static void ioevent_detach(void *opaque, bool pio, uint64_t addr, unsigned int len, bool match,
			   uint64_t value, int fd)
{
	struct fake_ioevent wanted = {
		.pio = pio,
		.match = match,
		.addr = addr,
		.value = value,
		.len = len,
		.fd = fd,
	};
	struct fake_interrupts *fake = opaque;
	bool found = false;

	pthread_mutex_lock(&fake->lock);
	for (unsigned int i = 0; i < fake->ioevent_count && !found; i++)
		if (same_ioevent(&fake->ioevent[i], &wanted)) {
			fake->ioevent[i] = fake->ioevent[--fake->ioevent_count];
			found = true;
		}
	if (!found)
		fake->misuses++;
	pthread_mutex_unlock(&fake->lock);
}

static const struct ioevent_ops fake_ioevent_ops = {
	.attach = ioevent_attach,
	.detach = ioevent_detach,
};

void fake_interrupts_init(struct fake_interrupts *fake)
{
	memset(fake, 0, sizeof(*fake));
	pthread_mutex_init(&fake->lock, NULL);
	fake->interrupts = (struct interrupts){ .ops = &fake_interrupt_ops, .opaque = fake };
	fake->ioevents = (struct ioevents){ .ops = &fake_ioevent_ops, .opaque = fake };
	fake->route_limit = FAKE_GSIS - FAKE_LINES;
}

void fake_interrupts_destroy(struct fake_interrupts *fake)
{
	pthread_mutex_destroy(&fake->lock);
}

unsigned int fake_interrupts_deliver(struct fake_interrupts *fake)
{
	unsigned int n = 0;

	pthread_mutex_lock(&fake->lock);
	for (unsigned int i = 0; i < fake->irqfd_count; i++)
		if (eventfd_drain(fake->irqfds[i].fd)) {
			consume_locked(fake, &fake->irqfds[i]);
			n++;
		}
	pthread_mutex_unlock(&fake->lock);
	return n;
}

int fake_interrupts_gsi_of(struct fake_interrupts *fake, int fd)
{
	int gsi = -1;

	pthread_mutex_lock(&fake->lock);
	for (unsigned int i = 0; i < fake->irqfd_count; i++)
		if (fake->irqfds[i].fd == fd)
			gsi = (int)fake->irqfds[i].gsi;
	pthread_mutex_unlock(&fake->lock);
	return gsi;
}

unsigned int fake_ioevents_write(struct fake_interrupts *fake, bool pio, uint64_t addr,
				 uint64_t value, unsigned int len)
{
	unsigned int n = 0;

	pthread_mutex_lock(&fake->lock);
	for (unsigned int i = 0; i < fake->ioevent_count; i++) {
		const struct fake_ioevent *e = &fake->ioevent[i];

		if (e->pio == pio && e->addr == addr && (!e->len || e->len == len) &&
		    (!e->match || e->value == value)) {
			eventfd_signal(e->fd);
			n++;
		}
	}
	pthread_mutex_unlock(&fake->lock);
	return n;
}
