/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What becomes visible when: the page that publishes is write-protected, and the
 * fault on it looks at what is in the ring by then.
 */
#include <linux/virtio_ring.h>
#include <signal.h>
#include <sys/mman.h>

#include "devices/virtio/virtqueue_batch.h"
#include "tests/unit/helpers/fake_driver.h"
#include "tests/unit/helpers/run_suite.h"

#define RAM (4 * MIB)
#define RINGS 0x10000
#define BUFFERS MIB
#define SIZE 1024
#define CHAINS 20
#define LENGTH 200
#define TOTAL (CHAINS * LENGTH - 50)
#define PAGE 4096
#define WRAP 0x8000

static struct guest_memory *memory;
static struct fake_driver driver;
static struct virtqueue vq;
static struct virtqueue_chain chains[CHAINS];
static struct iovec iov[CHAINS];
static uint64_t gpa[CHAINS];
static uint8_t *guarded;
static volatile sig_atomic_t faults, complete_at_fault;
static bool (*complete)(void);

static uint8_t *ram(uint64_t at)
{
	return guest_memory_ptr(memory, at, 1);
}

static uint32_t written(unsigned int i)
{
	return i + 1 < CHAINS ? LENGTH : TOTAL - (CHAINS - 1) * LENGTH;
}

/* Positions at which what publishes is in the first page, and the rest behind it. */
static uint16_t start_position(void)
{
	return driver.packed ? 255 | WRAP : 600;
}

static bool split_complete(void)
{
	for (unsigned int i = 0; i < CHAINS; i++) {
		const uint8_t *entry = ram(driver.device + 4 + 8 * (600 + i));

		if (load_le32(entry) != chains[i].head || load_le32(entry + 4) != written(i))
			return false;
	}
	return true;
}

static bool packed_complete(void)
{
	const uint16_t used = 1 << VRING_PACKED_DESC_F_AVAIL | 1 << VRING_PACKED_DESC_F_USED;

	for (unsigned int i = 1; i < CHAINS; i++) {
		const uint8_t *d = ram(driver.desc + 16 * (255 + i));

		if (load_le32(d + 8) != written(i) || load_le16(d + 12) != chains[i].head ||
		    (load_le16(d + 14) & used) != used)
			return false;
	}
	return true;
}

static void fault(int signal, siginfo_t *info, void *context)
{
	const uint8_t *at = info->si_addr;

	if (at < guarded || at >= guarded + PAGE)
		_exit(3);
	faults++;
	complete_at_fault = complete();
	mprotect(guarded, PAGE, PROT_READ | PROT_WRITE);
}

static void prepare(bool packed, unsigned int count)
{
	const struct sigaction action = { .sa_sigaction = fault, .sa_flags = SA_SIGINFO };
	struct error err = ERROR_INIT;

	memory = fake_driver_memory(RAM);
	fake_driver_init(&driver, memory, RINGS, SIZE, packed);
	memset(&vq, 0, sizeof(vq));
	fake_driver_configure(&driver, &vq);
	ck_assert_int_eq(virtqueue_start(&vq, &err), 0);
	vq.last_avail = vq.last_used = vq.signalled_used = start_position();
	driver.used = start_position();
	if (packed) {
		driver.avail = start_position();
	} else {
		fake_driver_set_avail(&driver, start_position());
		store_le16(ram(driver.device + 2), start_position());
		fake_driver_set_used_event(&driver, start_position());
	}
	for (unsigned int i = 0; i < count; i++) {
		fake_driver_add(&driver, &(struct fake_buffer){ BUFFERS + PAGE * i, LENGTH, true },
				1);
		chains[i] =
			(struct virtqueue_chain){ .iov = &iov[i], .gpa = &gpa[i], .iov_max = 1 };
		ck_assert_int_eq(virtqueue_pop(&vq, &chains[i]), 1);
	}
	guarded = ram(packed ? driver.desc : driver.device);
	complete = packed ? packed_complete : split_complete;
	faults = complete_at_fault = 0;
	sigaction(SIGSEGV, &action, NULL);
}

START_TEST(nothing_is_visible_before_everything_is_there)
{
	uint16_t id;
	uint32_t len;

	prepare(_i, CHAINS);
	ck_assert_int_eq(mprotect(guarded, PAGE, PROT_READ), 0);
	virtqueue_push_merged(&vq, chains, CHAINS, TOTAL);
	ck_assert_int_eq(faults, 1);
	ck_assert_int_eq(complete_at_fault, 1);
	for (unsigned int i = 0; i < CHAINS; i++) {
		ck_assert(fake_driver_used(&driver, &id, &len));
		ck_assert_uint_eq(id, chains[i].head);
		ck_assert_uint_eq(len, written(i));
	}
	ck_assert(!fake_driver_used(&driver, &id, &len));
	ck_assert_uint_eq(vq.in_flight, 0);
	ck_assert(virtqueue_should_signal(&vq));
	ck_assert(!virtqueue_should_signal(&vq));
	guest_memory_free(memory);
}
END_TEST

START_TEST(one_push_after_the_other_would_be_noticed)
{
	/* The test of the test: the ordinary way shows the first chain alone. */
	prepare(_i, CHAINS);
	ck_assert_int_eq(mprotect(guarded, PAGE, PROT_READ), 0);
	for (unsigned int i = 0; i < CHAINS; i++)
		virtqueue_push(&vq, &chains[i], written(i));
	ck_assert_int_eq(faults, 1);
	ck_assert_int_eq(complete_at_fault, 0);
	guest_memory_free(memory);
}
END_TEST

START_TEST(a_single_chain_and_none_are_pushed_as_usual)
{
	uint16_t id;
	uint32_t len;

	prepare(_i, 1);
	virtqueue_push_merged(&vq, chains, 0, 100);
	ck_assert(!fake_driver_used(&driver, &id, &len));
	virtqueue_push_merged(&vq, chains, 1, LENGTH + 1); /* never more than it holds */
	ck_assert(fake_driver_used(&driver, &id, &len));
	ck_assert_uint_eq(len, LENGTH);
	guest_memory_free(memory);
}
END_TEST

START_TEST(broken_queue_takes_nothing)
{
	uint16_t id;
	uint32_t len;

	prepare(_i, CHAINS);
	vq.broken = true;
	virtqueue_push_merged(&vq, chains, CHAINS, TOTAL);
	ck_assert(!fake_driver_used(&driver, &id, &len));
	guest_memory_free(memory);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("virtqueue_batch");
	TCase *tc = tcase_create("merged");

	tcase_add_loop_test(tc, nothing_is_visible_before_everything_is_there, 0, 2);
	tcase_add_loop_test(tc, one_push_after_the_other_would_be_noticed, 0, 2);
	tcase_add_loop_test(tc, a_single_chain_and_none_are_pushed_as_usual, 0, 2);
	tcase_add_loop_test(tc, broken_queue_takes_nothing, 0, 2);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
