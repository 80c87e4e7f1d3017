/* SPDX-License-Identifier: Apache-2.0 */
/* vhost-vsock in a live update, over a kernel that knows one owner of each CID. */
#include <errno.h>
#include <fcntl.h>
#include <linux/vhost.h>
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include "devices/virtio/virtio_vsock_priv.h"
#include "tests/unit/helpers/fake_machine.h"
#include "tests/unit/helpers/run_suite.h"

#define CID 77
#define INSTANCES 16
#define EVENT_AT FAKE_MACHINE_DATA

/* An open file of the kernel's: a pipe, whose other end tells when it was closed. */
struct instance {
	int fd, peer;
	uint64_t cid;
	bool running;
};

static struct {
	struct vhost_ops ops;
	struct instance instances[INSTANCES];
	unsigned int opened, open_fails_at;
} kernel;

static struct fake_machine *now;
static struct kept handed;

static bool is_open(const struct instance *in)
{
	struct pollfd pollfd = { .fd = in->peer };

	return in->peer >= 0 && !(poll(&pollfd, 1, 0) == 1 && pollfd.revents & POLLHUP);
}

static int fake_open(void *opaque, const char *path)
{
	struct instance *in = &kernel.instances[kernel.opened];
	int ends[2];

	ck_assert_str_eq(path, VHOST_VSOCK_PATH);
	if (kernel.opened + 1 == kernel.open_fails_at)
		return -EMFILE;
	ck_assert_uint_lt(kernel.opened++, INSTANCES);
	ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
	*in = (struct instance){ .fd = ends[1], .peer = ends[0] };
	return in->fd;
}

/* The last one of that descriptor: numbers are used again. */
static struct instance *instance(int fd)
{
	for (unsigned int i = kernel.opened; i--;)
		if (kernel.instances[i].fd == fd)
			return &kernel.instances[i];
	ck_abort_msg("ioctl on a stranger's fd");
}

/* Whose CID it is; NULL: nobody's. */
static struct instance *owner(void)
{
	for (unsigned int i = 0; i < kernel.opened; i++)
		if (kernel.instances[i].cid == CID && is_open(&kernel.instances[i]))
			return &kernel.instances[i];
	return NULL;
}

static int fake_ioctl(void *opaque, int fd, unsigned long request, void *arg)
{
	struct instance *in = instance(fd);

	switch (request) {
	case VHOST_GET_FEATURES: *(uint64_t *)arg = VIRTIO_FEATURE(VIRTIO_F_VERSION_1); break;
	case VHOST_VSOCK_SET_GUEST_CID:
		if (owner() && owner() != in)
			return -EADDRINUSE;
		in->cid = *(uint64_t *)arg;
		break;
	case VHOST_VSOCK_SET_RUNNING: in->running = *(int *)arg; break;
	default: break;
	}
	return 0;
}

static struct fake_machine *machine(struct kept *kept, struct error *err)
{
	const struct virtio_vsock_options options = { .cid = CID };
	struct fake_machine *m = fake_machine_new();
	struct virtio_device *dev;

	m->h.host.kept = kept;
	dev = virtio_vsock_new_with(&m->h.host, "vsock0", &options, &kernel.ops, err);
	if (dev)
		fake_machine_plug(m, dev);
	return m;
}

static void setup(void)
{
	memset(&kernel, 0, sizeof(kernel));
	kernel.ops = (struct vhost_ops){ .open = fake_open, .ioctl = fake_ioctl };
	now = machine(NULL, NULL);
	ck_assert_ptr_nonnull(owner());
}

static void teardown(void)
{
	fake_machine_free(now);
	kept_destroy(&handed);
	for (unsigned int i = 0; i < kernel.opened; i++) {
		ck_assert(!is_open(&kernel.instances[i]));
		close(kernel.instances[i].peer);
	}
}

static int keep(bool paused, struct error *err)
{
	return now->dev->ops->keep(now->dev, &handed, paused, err);
}

static int hand_over(struct fake_machine *to, struct error *err)
{
	virtio_pci_pause(now->fn);
	ck_assert_int_eq(keep(true, NULL), 0);
	return fake_machine_hand_over(now, to, err);
}

static struct fake_machine *new_process(void)
{
	struct error err = ERROR_INIT;
	struct fake_machine *to;

	ck_assert_msg(!keep(false, &err), "%s", err.message);
	to = machine(&handed, &err);
	ck_assert_msg(to->dev != NULL, "%s", err.message);
	return to;
}

static void offer_event_buffer(void)
{
	fake_driver_add(&now->drivers[VSOCK_EVENT], &(struct fake_buffer){ EVENT_AT, 8, true }, 1);
	fake_machine_kick(now, VSOCK_EVENT);
}

static bool told_of_a_reset(unsigned int ms)
{
	uint32_t len;
	uint16_t id;

	while (!fake_driver_used(&now->drivers[VSOCK_EVENT], &id, &len)) {
		if (!ms--)
			return false;
		usleep(1000);
	}
	return true;
}

START_TEST(the_cid_changes_hands_and_the_guest_is_told)
{
	struct instance *old = owner(), *fresh;
	struct error err = ERROR_INIT;
	struct fake_machine *to;

	fake_machine_start(now, 0, true);
	offer_event_buffer();
	to = new_process();
	ck_assert_ptr_eq(owner(), old); /* the guest runs there */
	ck_assert(old->running);
	ck_assert_msg(!hand_over(to, &err), "%s", err.message);
	fresh = owner(); /* before the VM is the new one's */
	ck_assert(fresh && fresh != old && !is_open(old));
	fake_machine_free(now);
	now = to;
	now->h.host.kept = NULL;
	virtio_pci_resume(now->fn);
	ck_assert_ptr_eq(owner(), fresh);
	ck_assert(fresh->running);
	ck_assert(told_of_a_reset(1000));
}
END_TEST

/* The old one goes on: the new one failed with the CID or before it took it; the old one
 * is resumed, or was paused before and stays so. */
START_TEST(the_old_process_takes_it_back)
{
	bool taken = _i & 1, resumed = _i & 2;
	struct error err = ERROR_INIT;
	struct fake_machine *to;

	fake_machine_start(now, 0, true);
	offer_event_buffer();
	to = new_process();
	if (taken) {
		ck_assert_int_eq(hand_over(to, &err), 0);
	} else {
		virtio_pci_pause(now->fn);
		ck_assert_int_eq(keep(true, NULL), 0);
	}
	fake_machine_free(to);
	ck_assert_ptr_null(owner());
	if (resumed)
		virtio_pci_resume(now->fn);
	ck_assert_msg(!now->dev->ops->unkeep(now->dev, &err), "%s", err.message);
	ck_assert_ptr_nonnull(owner());
	ck_assert(owner()->running == resumed);
	if (!resumed)
		virtio_pci_resume(now->fn);
	ck_assert(owner()->running);
	ck_assert(told_of_a_reset(1000));
	/* And once more, with success. */
	to = new_process();
	ck_assert_int_eq(hand_over(to, &err), 0);
	fake_machine_free(now);
	now = to;
	now->h.host.kept = NULL;
	virtio_pci_resume(now->fn);
	ck_assert(owner()->running);
}
END_TEST

static void *end_later(void *opaque)
{
	usleep(100000);
	fake_machine_free(opaque);
	return NULL;
}

START_TEST(it_waits_for_the_other_process_to_end)
{
	struct error err = ERROR_INIT;
	struct fake_machine *to;
	pthread_t thread;

	fake_machine_start(now, 0, true);
	to = new_process();
	ck_assert_int_eq(hand_over(to, &err), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, end_later, to), 0);
	virtio_pci_resume(now->fn);
	pthread_join(thread, NULL);
	ck_assert(owner() && owner()->running);
}
END_TEST

START_TEST(an_update_that_failed_early_changes_nothing)
{
	struct instance *old = owner();
	struct error err = ERROR_INIT;
	unsigned int opened;

	fake_machine_start(now, 0, true);
	offer_event_buffer();
	fake_machine_free(new_process());
	ck_assert_int_eq(now->dev->ops->unkeep(now->dev, &err), 0);
	ck_assert(owner() == old && old->running);
	ck_assert(!told_of_a_reset(30));
	/* What it had opened for that is closed. */
	opened = kernel.opened;
	for (unsigned int i = 1; i < opened; i++)
		ck_assert(!is_open(&kernel.instances[i]));
	/* Where nothing more can be opened, nothing is begun. */
	kernel.open_fails_at = kernel.opened + 1;
	ck_assert_int_eq(keep(false, &err), -EMFILE);
	ck_assert_ptr_nonnull(strstr(err.message, "vsock0"));
	ck_assert(owner() == old && old->running);
}
END_TEST

START_TEST(a_cid_that_somebody_took_is_refused_and_the_vm_goes_on)
{
	struct error err = ERROR_INIT;
	struct fake_machine *to;
	uint64_t cid = CID;
	int thief;

	fake_machine_start(now, 0, true);
	to = new_process();
	thief = fake_open(NULL, VHOST_VSOCK_PATH);
	virtio_pci_pause(now->fn);
	ck_assert_int_eq(keep(true, NULL), 0);
	ck_assert_int_eq(fake_ioctl(NULL, thief, VHOST_VSOCK_SET_GUEST_CID, &cid), 0);
	fake_machine_free(to);
	ck_assert_int_eq(now->dev->ops->unkeep(now->dev, &err), -EADDRINUSE);
	ck_assert_ptr_nonnull(strstr(err.message, "CID 77 is in use"));
	close(thief);
	/* It is there again when the device is used again. */
	virtio_pci_resume(now->fn);
	ck_assert(owner() && owner()->running);
}
END_TEST

START_TEST(a_device_without_a_driver_goes_along)
{
	struct instance *old = owner();
	struct error err = ERROR_INIT;
	struct fake_machine *to = new_process();

	ck_assert_msg(!hand_over(to, &err), "%s", err.message);
	ck_assert(owner() && owner() != old);
	if (_i) {
		fake_machine_free(to);
		ck_assert_int_eq(now->dev->ops->unkeep(now->dev, &err), 0);
	} else {
		fake_machine_free(now);
		now = to;
		now->h.host.kept = NULL;
	}
	ck_assert_ptr_nonnull(owner());
	fake_machine_start(now, 0, true);
	ck_assert(owner()->running);
}
END_TEST

static void add_cases(Suite *s)
{
	TCase *t = tcase_create("live update");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	suite_add_tcase(s, t);
	tcase_add_test(t, the_cid_changes_hands_and_the_guest_is_told);
	tcase_add_loop_test(t, the_old_process_takes_it_back, 0, 4);
	tcase_add_test(t, it_waits_for_the_other_process_to_end);
	tcase_add_test(t, an_update_that_failed_early_changes_nothing);
	tcase_add_test(t, a_cid_that_somebody_took_is_refused_and_the_vm_goes_on);
	tcase_add_loop_test(t, a_device_without_a_driver_goes_along, 0, 2);
}

int main(void)
{
	Suite *suite = suite_create("vhost-vsock in a live update");

	add_cases(suite);
	return run_suite(suite);
}
