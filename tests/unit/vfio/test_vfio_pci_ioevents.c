/* SPDX-License-Identifier: Apache-2.0 */
/* Doorbells: writes that signal the device's eventfd without an exit. */
#include <unistd.h>

#include "tests/unit/helpers/run_suite.h"
#include "tests/unit/vfio/vfio_pci_fixture.h"

#define AT 0xc0000000ULL
#define DOORBELL 0x800

static int bell = -1;

static void setup(void)
{
	fixture_setup();
	bell = eventfd_new();
	ck_assert_int_ge(bell, 0);
}

static void teardown(void)
{
	fixture_teardown();
	close(bell);
}

static void offer(uint64_t offset, uint32_t size, bool match, uint64_t value)
{
	f.dev.ioevents[f.dev.ioevent_count++] = (struct vfio_ioeventfd){
		.offset = offset,
		.size = size,
		.match = match,
		.value = value,
		.fd = bell,
	};
}

static void decode(bool on)
{
	guest_write(PCI_COMMAND, 2, on ? PCI_COMMAND_MEMORY | PCI_COMMAND_IO : 0);
}

static void place(unsigned int bar, uint64_t address)
{
	pci_function_place_bar(f.fn, bar, address);
	decode(true);
}

static unsigned int rings(uint64_t address, uint64_t value, unsigned int len)
{
	unsigned int n = fake_ioevents_write(&f.h.fake, false, address, value, len);

	ck_assert_int_eq(eventfd_drain(bell), n != 0);
	return n;
}

START_TEST(a_doorbell_rings_where_its_bar_is_and_only_while_it_is_decoded)
{
	fake_vfio_pci_add_bar(&f.dev, 0, 0, 0x1000, false);
	offer(DOORBELL, 4, false, 0);
	plug();
	ck_assert_uint_eq(f.h.fake.ioevent_count, 0);
	place(0, AT);
	ck_assert_uint_eq(rings(AT + DOORBELL, 7, 4), 1);
	ck_assert_uint_eq(rings(AT + DOORBELL, 7, 2), 0);
	ck_assert_uint_eq(rings(AT + DOORBELL + 4, 7, 4), 0);
	decode(false);
	ck_assert_uint_eq(f.h.fake.ioevent_count, 0);
	place(0, AT + 0x10000);
	ck_assert_uint_eq(rings(AT + DOORBELL, 7, 4), 0);
	ck_assert_uint_eq(rings(AT + 0x10000 + DOORBELL, 7, 4), 1);
	unplug();
	ck_assert_uint_eq(f.h.fake.ioevent_count, 0);
}
END_TEST

START_TEST(values_and_sizes_are_matched_as_offered)
{
	fake_vfio_pci_add_bar(&f.dev, 0, 0, 0x1000, false);
	offer(0, 4, true, 5);
	offer(0x100, 0, false, 0);
	plug();
	place(0, AT);
	ck_assert_uint_eq(rings(AT, 5, 4), 1);
	ck_assert_uint_eq(rings(AT, 6, 4), 0);
	ck_assert_uint_eq(rings(AT + 0x100, 1, 1), 1);
	ck_assert_uint_eq(rings(AT + 0x100, 1, 8), 1);
}
END_TEST

START_TEST(a_doorbell_of_an_io_bar_is_one_of_the_port_space)
{
	fake_vfio_pci_add_bar(&f.dev, 0, PCI_BASE_ADDRESS_SPACE_IO, 0x20, false);
	offer(0x10, 2, false, 0);
	plug();
	place(0, 0x6000);
	ck_assert_uint_eq(fake_ioevents_write(&f.h.fake, false, 0x6010, 1, 2), 0);
	ck_assert_uint_eq(fake_ioevents_write(&f.h.fake, true, 0x6010, 1, 2), 1);
}
END_TEST

START_TEST(what_kvm_does_not_take_goes_to_the_device)
{
	fake_vfio_pci_add_bar(&f.dev, 0, 0, 0x1000, false);
	offer(DOORBELL, 4, false, 0);
	f.h.fake.ioevent_error = -ENOSPC;
	plug();
	place(0, AT);
	mmio_write(AT + DOORBELL, 4, 9);
	ck_assert_uint_eq(load_le32(f.dev.data[0] + DOORBELL), 9);
	decode(false); /* and takes none off that is not there: fake.misuses */
}
END_TEST

/* Offers that cannot be what they say; the rest of the device is all right. */
START_TEST(what_makes_no_sense_is_not_taken_up)
{
	fake_vfio_pci_add_bar(&f.dev, 0, 0, 0x10000, true);
	fake_vfio_pci_add_irq(&f.dev, VFIO_PCI_MSIX_IRQ_INDEX, 3, true);
	fake_vfio_pci_add_msix(&f.dev, 0x50, 3, 0, 0x2000, 0, 0x4000);
	offer(0x2010, 4, false, 0);  /* in the MSI-X table */
	offer(0x1ffe, 4, false, 0);  /* reaches into it */
	offer(0x4000, 8, false, 0);  /* in the PBA */
	offer(0x8000, 4, false, 0);  /* where the BAR is mapped */
	offer(0xfffe, 4, false, 0);  /* reaches beyond the end */
	offer(0x10000, 0, false, 0); /* beyond it */
	offer(UINT64_MAX, 4, false, 0);
	offer(0x2800, 0, true, 1); /* a value without a size */
	plug();
	place(0, AT);
	ck_assert_uint_eq(f.h.fake.ioevent_count, 0);
}
END_TEST

START_TEST(on_the_tables_page_beside_it_a_doorbell_rings)
{
	fake_vfio_pci_add_bar(&f.dev, 0, 0, 0x10000, true);
	fake_vfio_pci_add_irq(&f.dev, VFIO_PCI_MSIX_IRQ_INDEX, 3, true);
	fake_vfio_pci_add_msix(&f.dev, 0x50, 3, 0, 0x2000, 0, 0x4000);
	offer(0x2800, 4, false, 0);
	plug();
	place(0, AT);
	ck_assert_uint_eq(rings(AT + 0x2800, 1, 4), 1);
}
END_TEST

START_TEST(a_transport_that_cannot_say_is_refused_and_nothing_is_left)
{
	fake_vfio_pci_add_bar(&f.dev, 0, 0, 0x1000, false);
	f.dev.fail_op[FAKE_VFIO_PCI_IOEVENTFDS] = -ECONNRESET;
	ck_assert(!try_plug());
	ck_assert_int_eq(f.err.code, -ECONNRESET);
	nothing_is_left();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("vfio_pci_ioevents");
	TCase *tc = tcase_create("doorbells");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, a_doorbell_rings_where_its_bar_is_and_only_while_it_is_decoded);
	tcase_add_test(tc, values_and_sizes_are_matched_as_offered);
	tcase_add_test(tc, a_doorbell_of_an_io_bar_is_one_of_the_port_space);
	tcase_add_test(tc, what_kvm_does_not_take_goes_to_the_device);
	tcase_add_test(tc, what_makes_no_sense_is_not_taken_up);
	tcase_add_test(tc, on_the_tables_page_beside_it_a_doorbell_rings);
	tcase_add_test(tc, a_transport_that_cannot_say_is_refused_and_nothing_is_left);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
