/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/bus.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* range.state: accesses inside, counted in steps of ACCESS, and one flag in the
 * same word: the last access to leave must not look at the range again, since its
 * remover may free it at once. */
#define LEAVING 1u
#define ACCESS 2u

struct range {
	uint64_t start, len;
	const char *name;
	const struct bus_ops *ops;
	void *opaque;
	atomic_uint state;
};

struct bus {
	pthread_rwlock_t lock; /* ranges, count, room: never held while a handler runs */
	struct range **ranges; /* sorted by start, disjoint */
	unsigned int count, room;
	pthread_mutex_t idle_lock; /* for idle */
	pthread_cond_t idle;	   /* a range that is leaving has no access inside any more */
};

struct bus *bus_new(struct error *err)
{
	struct bus *bus = calloc(1, sizeof(*bus));
	pthread_rwlockattr_t attr;

	if (!bus) {
		error_set_errno(err, ENOMEM, "create bus");
		return NULL;
	}
	/* Many vCPUs exit all the time: without this a writer may wait for ever. */
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&bus->lock, &attr);
	pthread_rwlockattr_destroy(&attr);
	pthread_mutex_init(&bus->idle_lock, NULL);
	pthread_cond_init(&bus->idle, NULL);
	return bus;
}

void bus_free(struct bus *bus)
{
	if (!bus)
		return;
	for (unsigned int i = 0; i < bus->count; i++)
		free(bus->ranges[i]);
	free(bus->ranges);
	pthread_cond_destroy(&bus->idle);
	pthread_mutex_destroy(&bus->idle_lock);
	pthread_rwlock_destroy(&bus->lock);
	free(bus);
}

/* The index of the first range that ends at or after addr; count where none does. */
static unsigned int position(const struct bus *bus, uint64_t addr)
{
	unsigned int low = 0, high = bus->count;

	while (low < high) {
		unsigned int mid = low + (high - low) / 2;
		const struct range *r = bus->ranges[mid];

		if (r->start + (r->len - 1) < addr)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static int make_room_locked(struct bus *bus, struct error *err)
{
	unsigned int room = bus->room ? 2 * bus->room : 16;
	struct range **ranges;

	if (bus->count < bus->room)
		return 0;
	ranges = realloc(bus->ranges, room * sizeof(*ranges));
	if (!ranges)
		return error_set_errno(err, ENOMEM, "add bus range");
	bus->ranges = ranges;
	bus->room = room;
	return 0;
}

/* Where range goes; -errno where it cannot. */
static int find_place_locked(struct bus *bus, const struct range *range, struct error *err)
{
	unsigned int at = position(bus, range->start);
	int r;

	if (at < bus->count && bus->ranges[at]->start <= range->start + (range->len - 1)) {
		const struct range *other = bus->ranges[at];

		return error_set(err, EEXIST,
				 "add bus range %s at 0x%llx+0x%llx: overlaps %s at 0x%llx+0x%llx",
				 range->name, (unsigned long long)range->start,
				 (unsigned long long)range->len, other->name,
				 (unsigned long long)other->start, (unsigned long long)other->len);
	}
	r = make_room_locked(bus, err);
	return r ? r : (int)at;
}

static void insert_locked(struct bus *bus, unsigned int at, struct range *range)
{
	memmove(bus->ranges + at + 1, bus->ranges + at, (bus->count - at) * sizeof(*bus->ranges));
	bus->ranges[at] = range;
	bus->count++;
}

int bus_add(struct bus *bus, uint64_t start, uint64_t len, const char *name,
	    const struct bus_ops *ops, void *opaque, struct error *err)
{
	struct range *range;
	int at;

	if (!len || start + (len - 1) < start)
		return error_set(err, EINVAL, "add bus range %s at 0x%llx+0x%llx: not a range",
				 name, (unsigned long long)start, (unsigned long long)len);
	range = calloc(1, sizeof(*range));
	if (!range)
		return error_set_errno(err, ENOMEM, "add bus range %s", name);
	range->start = start;
	range->len = len;
	range->name = name;
	range->ops = ops;
	range->opaque = opaque;
	pthread_rwlock_wrlock(&bus->lock);
	at = find_place_locked(bus, range, err);
	if (at >= 0)
		insert_locked(bus, (unsigned int)at, range);
	pthread_rwlock_unlock(&bus->lock);
	if (at < 0)
		free(range);
	return at < 0 ? at : 0;
}

void bus_remove(struct bus *bus, uint64_t start)
{
	struct range *range = NULL;
	unsigned int at;

	pthread_rwlock_wrlock(&bus->lock);
	at = position(bus, start);
	if (at < bus->count && bus->ranges[at]->start == start) {
		range = bus->ranges[at];
		bus->count--;
		memmove(bus->ranges + at, bus->ranges + at + 1,
			(bus->count - at) * sizeof(*bus->ranges));
	}
	pthread_rwlock_unlock(&bus->lock);
	if (!range)
		return;
	pthread_mutex_lock(&bus->idle_lock);
	atomic_fetch_or(&range->state, LEAVING);
	while (atomic_load(&range->state) != LEAVING)
		pthread_cond_wait(&bus->idle, &bus->idle_lock);
	pthread_mutex_unlock(&bus->idle_lock);
	free(range);
}

/* The range that holds all of the access, entered; NULL where none does. */
static struct range *enter(struct bus *bus, uint64_t addr, unsigned int len)
{
	struct range *range = NULL;
	unsigned int at;

	pthread_rwlock_rdlock(&bus->lock);
	at = position(bus, addr);
	if (at < bus->count && bus->ranges[at]->start <= addr) {
		range = bus->ranges[at];
		if (len > range->len - (addr - range->start))
			range = NULL;
		else
			atomic_fetch_add(&range->state, ACCESS);
	}
	pthread_rwlock_unlock(&bus->lock);
	return range;
}

static void leave(struct bus *bus, struct range *range)
{
	if (atomic_fetch_sub(&range->state, ACCESS) != (ACCESS | LEAVING))
		return;
	pthread_mutex_lock(&bus->idle_lock);
	pthread_cond_broadcast(&bus->idle);
	pthread_mutex_unlock(&bus->idle_lock);
}

static bool valid_length(unsigned int len)
{
	return len == 1 || len == 2 || len == 4 || len == 8;
}

bool bus_read(struct bus *bus, uint64_t addr, void *data, unsigned int len)
{
	struct range *range = valid_length(len) ? enter(bus, addr, len) : NULL;

	if (!range) {
		memset(data, 0xff, len);
		return false;
	}
	range->ops->read(range->opaque, addr - range->start, data, len);
	leave(bus, range);
	return true;
}

bool bus_write(struct bus *bus, uint64_t addr, const void *data, unsigned int len)
{
	struct range *range = valid_length(len) ? enter(bus, addr, len) : NULL;

	if (!range)
		return false;
	range->ops->write(range->opaque, addr - range->start, data, len);
	leave(bus, range);
	return true;
}
