/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/unit/helpers/run_suite.h"
#include "tests/unit/vfio/vfio_pci_fixture.h"

#define MSI 0x40
#define MSIX 0x60
#define AT 0xc0000000ULL
#define PIN_GSI 17

static struct fake_vfio_pci_irq *irq(uint32_t index)
{
	return &f.dev.irqs[index];
}

static struct fake_vfio_pci_irq *msix(void)
{
	return irq(VFIO_PCI_MSIX_IRQ_INDEX);
}

static struct fake_vfio_pci_irq *msi(void)
{
	return irq(VFIO_PCI_MSI_IRQ_INDEX);
}

static struct fake_vfio_pci_irq *intx(void)
{
	return irq(VFIO_PCI_INTX_IRQ_INDEX);
}

/* The table starts BAR 0. */
static void msix_device(unsigned int vectors, bool noresize)
{
	fake_vfio_pci_add_bar(&f.dev, 0, 0, 0x10000, true);
	fake_vfio_pci_add_irq(&f.dev, VFIO_PCI_MSIX_IRQ_INDEX, vectors, noresize);
	fake_vfio_pci_add_msix(&f.dev, MSIX, vectors, 0, 0, 0, 0x8000);
}

static void msi_device(unsigned int vectors, uint16_t flags)
{
	unsigned int order = 0;

	while (1u << order < vectors)
		order++;
	fake_vfio_pci_add_irq(&f.dev, VFIO_PCI_MSI_IRQ_INDEX, vectors, true);
	fake_vfio_pci_add_cap(&f.dev, PCI_CAP_ID_MSI, MSI);
	fake_vfio_pci_config16(&f.dev, MSI + PCI_MSI_FLAGS, (uint16_t)(flags | order << 1));
}

static void intx_device(void)
{
	fake_vfio_pci_add_irq(&f.dev, VFIO_PCI_INTX_IRQ_INDEX, 1, true);
}

static void decode(void)
{
	pci_function_place_bar(f.fn, 0, AT);
	guest_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

static void msix_control(uint16_t value)
{
	guest_write(MSIX + PCI_MSIX_FLAGS, 2, value);
}

static void set_mask(unsigned int vector, bool masked)
{
	mmio_write(AT + vector * 16 + 12, 4, masked);
}

static void program(unsigned int vector)
{
	mmio_write(AT + vector * 16, 8, 0xfee00000);
	mmio_write(AT + vector * 16 + 8, 4, 0x4000 + vector);
	set_mask(vector, false);
}

static bool arrives(unsigned int vector)
{
	unsigned int before = f.h.fake.delivered;

	ck_assert(fake_vfio_pci_interrupt(&f.dev, VFIO_PCI_MSIX_IRQ_INDEX, vector));
	fake_interrupts_deliver(&f.h.fake);
	return f.h.fake.delivered == before + 1 && f.h.fake.last_delivered.data == 0x4000 + vector;
}

static unsigned int armed(void)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < FAKE_VFIO_PCI_VECTORS; i++)
		n += msix()->fds[i] >= 0;
	return n;
}

START_TEST(a_vector_is_set_up_when_it_is_unmasked)
{
	msix_device(8, false);
	plug();
	decode();
	ck_assert_uint_eq(msix()->enabled, 0);
	msix_control(PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
	ck_assert_uint_eq(msix()->enabled, 1); /* the device knows */
	ck_assert_uint_eq(armed(), 0);
	program(0);
	program(3);
	ck_assert_uint_eq(armed(), 0);
	msix_control(PCI_MSIX_FLAGS_ENABLE);
	ck_assert_uint_eq(armed(), 2);
	ck_assert_uint_eq(counters().msi_vectors, 2);
	ck_assert(arrives(0));
	ck_assert(arrives(3));
	/* The device's own table and control were not touched by config writes. */
	ck_assert_uint_eq(load_le16(fake_vfio_pci_config(&f.dev) + MSIX + PCI_MSIX_FLAGS), 7);
}
END_TEST

START_TEST(masking_keeps_the_vector_and_what_arrives_is_pending)
{
	msix_device(8, false);
	plug();
	decode();
	msix_control(PCI_MSIX_FLAGS_ENABLE);
	program(2);
	set_mask(2, true);
	ck_assert_uint_eq(f.h.fake.routes, 0);
	ck_assert_uint_eq(armed(), 1);
	ck_assert(fake_vfio_pci_interrupt(&f.dev, VFIO_PCI_MSIX_IRQ_INDEX, 2));
	ck_assert_uint_eq(mmio_read(AT + 0x8000, 8), 1 << 2);
	set_mask(2, false);
	ck_assert_uint_eq(f.h.fake.delivered, 1);
	ck_assert_uint_eq(mmio_read(AT + 0x8000, 8), 0);
	ck_assert_uint_eq(msix()->enables, 1);
}
END_TEST

START_TEST(of_257_vectors_only_those_in_use_cost_routes)
{
	msix_device(257, false);
	plug();
	decode();
	msix_control(PCI_MSIX_FLAGS_ENABLE);
	program(0);
	program(256);
	ck_assert_uint_eq(f.h.fake.routes, 2);
	ck_assert_uint_eq(armed(), 2);
	ck_assert(arrives(256));
	for (unsigned int i = 0; i < 257; i++)
		program(i);
	ck_assert_uint_eq(f.h.fake.routes, 257);
	ck_assert_uint_eq(armed(), 257);
	ck_assert_uint_eq(msix()->enables, 1);
	ck_assert(arrives(100));
	msix_control(0);
	ck_assert_uint_eq(f.h.fake.routes, 0);
	ck_assert_uint_eq(msix()->enabled, 0);
	ck_assert_uint_eq(counters().msi_vectors, 0);
}
END_TEST

START_TEST(an_old_kernel_gets_more_vectors_by_a_restart)
{
	msix_device(257, true);
	plug();
	decode();
	msix_control(PCI_MSIX_FLAGS_ENABLE);
	for (unsigned int i = 0; i < 257; i++)
		program(i);
	ck_assert_uint_eq(armed(), 257);
	/* In doubling numbers: not 257 restarts. */
	ck_assert_uint_le(msix()->enables, 11);
	fake_interrupts_deliver(&f.h.fake);
	for (unsigned int i = 0; i < 257; i++)
		ck_assert(arrives(i));
}
END_TEST

START_TEST(a_restart_signals_the_vectors_in_use)
{
	msix_device(8, true);
	plug();
	decode();
	msix_control(PCI_MSIX_FLAGS_ENABLE);
	program(0);
	fake_interrupts_deliver(&f.h.fake);
	f.h.fake.delivered = 0;
	program(4);
	fake_interrupts_deliver(&f.h.fake);
	ck_assert_uint_ge(
		f.h.fake.gsis[fake_interrupts_gsi_of(&f.h.fake, msix()->fds[0])].delivered, 1);
}
END_TEST

START_TEST(a_kernel_that_cannot_resize_without_saying_so_is_found_out)
{
	msix_device(8, false);
	plug();
	msix()->info.noresize = true;
	decode();
	msix_control(PCI_MSIX_FLAGS_ENABLE);
	program(0);
	program(5);
	ck_assert_uint_eq(armed(), 2);
	fake_interrupts_deliver(&f.h.fake);
	ck_assert(arrives(0));
	ck_assert(arrives(5));
}
END_TEST

START_TEST(a_host_out_of_vectors_leaves_those_there_are)
{
	msix_device(8, true);
	msix()->limit = 3;
	plug();
	decode();
	msix_control(PCI_MSIX_FLAGS_ENABLE);
	program(0);
	program(2);
	program(5);
	fake_interrupts_deliver(&f.h.fake);
	ck_assert_uint_eq(armed(), 2);
	ck_assert(arrives(0));
	ck_assert(arrives(2));
}
END_TEST

START_TEST(fewer_vectors_of_vfio_than_in_the_table_are_lived_with)
{
	msix_device(8, false);
	msix()->info.count = 2;
	plug();
	decode();
	msix_control(PCI_MSIX_FLAGS_ENABLE);
	program(1);
	program(7);
	ck_assert_uint_eq(armed(), 1);
	ck_assert(arrives(1));
}
END_TEST

START_TEST(msix_that_vfio_does_not_offer_is_hidden)
{
	msix_device(8, false);
	msix()->info.count = 0;
	plug();
	ck_assert_uint_eq(guest_read(PCI_CAPABILITY_LIST, 1), 0);
}
END_TEST

START_TEST(vectors_unmasked_before_msix_is_on_are_set_up_with_it)
{
	msix_device(8, true);
	plug();
	decode();
	program(1);
	program(6);
	msix_control(PCI_MSIX_FLAGS_ENABLE);
	fake_interrupts_deliver(&f.h.fake);
	ck_assert(arrives(1));
	ck_assert(arrives(6));
}
END_TEST

START_TEST(routes_that_run_out_leave_the_vector_pending)
{
	msix_device(8, false);
	f.h.fake.route_limit = 1;
	plug();
	decode();
	msix_control(PCI_MSIX_FLAGS_ENABLE);
	program(0);
	program(1);
	ck_assert(arrives(0));
	ck_assert_uint_eq(f.h.fake.routes, 1);
}
END_TEST

/* Two vCPUs: one masks and unmasks, the other turns MSI-X off and on. */
static void *unmasker(void *stop)
{
	for (unsigned int i = 0; !__atomic_load_n((bool *)stop, __ATOMIC_RELAXED) && i < 1000000;
	     i++)
		set_mask(1, i & 1);
	return NULL;
}

START_TEST(vectors_survive_a_race_of_unmask_and_enable)
{
	static bool stop;
	pthread_t thread;

	stop = false;
	msix_device(4, false);
	plug();
	decode();
	program(1);
	ck_assert_int_eq(pthread_create(&thread, NULL, unmasker, &stop), 0);
	for (unsigned int i = 0; i < 300; i++)
		msix_control(i & 1 ? 0 : PCI_MSIX_FLAGS_ENABLE);
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	msix_control(PCI_MSIX_FLAGS_ENABLE);
	program(1);
	fake_interrupts_deliver(&f.h.fake);
	ck_assert(arrives(1));
}
END_TEST

static void msi_program(bool wide, uint16_t data)
{
	guest_write(MSI + PCI_MSI_ADDRESS_LO, 4, 0xfee01000);
	if (wide)
		guest_write(MSI + PCI_MSI_ADDRESS_HI, 4, 0x1);
	guest_write(MSI + (wide ? PCI_MSI_DATA_64 : PCI_MSI_DATA_32), 2, data);
}

static void msi_control(unsigned int order, bool on)
{
	guest_write(MSI + PCI_MSI_FLAGS, 2, (uint16_t)(order << 4 | on));
}

START_TEST(one_msi_is_delivered)
{
	msi_device(1, 0);
	plug();
	decode();
	msi_program(false, 0x4031);
	msi_control(0, true);
	ck_assert_uint_eq(msi()->enabled, 1);
	ck_assert(fake_vfio_pci_interrupt(&f.dev, VFIO_PCI_MSI_IRQ_INDEX, 0));
	fake_interrupts_deliver(&f.h.fake);
	ck_assert_uint_eq(f.h.fake.last_delivered.data, 0x4031);
	ck_assert_uint_eq(f.h.fake.last_delivered.address, 0xfee01000);
	ck_assert_uint_eq(counters().msi_vectors, 1);
	/* Only VFIO writes the device's. */
	ck_assert_uint_eq(load_le16(fake_vfio_pci_config(&f.dev) + MSI + PCI_MSI_FLAGS), 0);
	ck_assert_uint_eq(load_le32(fake_vfio_pci_config(&f.dev) + MSI + PCI_MSI_ADDRESS_LO), 0);
	msi_control(0, false);
	ck_assert_uint_eq(msi()->enabled, 0);
	ck_assert_uint_eq(f.h.fake.routes, 0);
}
END_TEST

START_TEST(an_msi_moves_while_it_is_on)
{
	msi_device(1, PCI_MSI_FLAGS_64BIT);
	plug();
	decode();
	msi_program(true, 0x4031);
	msi_control(0, true);
	msi_program(true, 0x4032);
	ck_assert(fake_vfio_pci_interrupt(&f.dev, VFIO_PCI_MSI_IRQ_INDEX, 0));
	fake_interrupts_deliver(&f.h.fake);
	ck_assert_uint_eq(f.h.fake.last_delivered.data, 0x4032);
	ck_assert_uint_eq(f.h.fake.last_delivered.address, 0x1fee01000);
	ck_assert_uint_eq(f.h.fake.route_adds, 1);
	ck_assert_uint_eq(msi()->enables, 1);
}
END_TEST

START_TEST(msi_vectors_are_numbered_in_the_message)
{
	msi_device(32, PCI_MSI_FLAGS_64BIT | PCI_MSI_FLAGS_MASKBIT);
	plug();
	decode();
	msi_program(true, 0x40ff);
	msi_control(5, true);
	ck_assert_uint_eq(msi()->enabled, 32);
	ck_assert_uint_eq(f.h.fake.routes, 32);
	for (unsigned int i = 0; i < 32; i++) {
		ck_assert(fake_vfio_pci_interrupt(&f.dev, VFIO_PCI_MSI_IRQ_INDEX, i));
		fake_interrupts_deliver(&f.h.fake);
		ck_assert_uint_eq(f.h.fake.last_delivered.data, 0x40e0 + i);
	}
}
END_TEST

START_TEST(a_masked_msi_is_pending)
{
	msi_device(4, PCI_MSI_FLAGS_64BIT | PCI_MSI_FLAGS_MASKBIT);
	plug();
	decode();
	msi_program(true, 0x4040);
	guest_write(MSI + PCI_MSI_MASK_64, 4, UINT32_MAX);
	ck_assert_uint_eq(guest_read(MSI + PCI_MSI_MASK_64, 4), 0xf);
	msi_control(2, true);
	ck_assert_uint_eq(f.h.fake.routes, 0);
	fake_vfio_pci_interrupt(&f.dev, VFIO_PCI_MSI_IRQ_INDEX, 3);
	ck_assert_uint_eq(guest_read(MSI + PCI_MSI_PENDING_64, 4), 1 << 3);
	guest_write(MSI + PCI_MSI_MASK_64, 4, 0);
	ck_assert_uint_eq(f.h.fake.delivered, 1);
	ck_assert_uint_eq(f.h.fake.last_delivered.data, 0x4043);
	ck_assert_uint_eq(guest_read(MSI + PCI_MSI_PENDING_64, 4), 0);
	guest_write(MSI + PCI_MSI_MASK_64, 4, 1 << 2);
	ck_assert_uint_eq(f.h.fake.routes, 3);
}
END_TEST

START_TEST(a_host_with_one_msi_gives_one)
{
	msi_device(8, 0);
	msi()->limit = 1;
	plug();
	decode();
	msi_program(false, 0x4040);
	msi_control(3, true);
	ck_assert_uint_eq(msi()->enabled, 1);
	ck_assert_uint_eq(f.h.fake.routes, 1);
}
END_TEST

START_TEST(more_msi_than_the_device_has_are_not_taken)
{
	msi_device(2, 0);
	plug();
	ck_assert_uint_eq(guest_read(MSI + PCI_MSI_FLAGS, 2), 1 << 1);
	msi_program(false, 0x4040);
	msi_control(7, true);
	ck_assert_uint_eq(msi()->enabled, 2);
}
END_TEST

START_TEST(an_msi_without_routes_is_kept_in_its_eventfd)
{
	msi_device(1, 0);
	f.h.fake.route_limit = 0;
	plug();
	msi_control(0, true);
	ck_assert(fake_vfio_pci_interrupt(&f.dev, VFIO_PCI_MSI_IRQ_INDEX, 0));
	f.h.fake.route_limit = 1;
	msi_program(false, 0x4031);
	ck_assert_uint_eq(f.h.fake.delivered, 1);
}
END_TEST

START_TEST(intx_starts_with_the_driver_and_is_unmasked_by_the_kernel)
{
	intx_device();
	plug();
	ck_assert_uint_eq(intx()->enabled, 0);
	guest_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	ck_assert_uint_eq(intx()->enabled, 1);
	ck_assert_int_eq(fake_interrupts_gsi_of(&f.h.fake, intx()->fds[0]), PIN_GSI);
	ck_assert_int_eq(f.h.fake.irqfds[0].resample_fd, f.dev.unmask_fd);
	ck_assert(fake_vfio_pci_interrupt(&f.dev, VFIO_PCI_INTX_IRQ_INDEX, 0));
	fake_interrupts_deliver(&f.h.fake);
	ck_assert_uint_eq(f.h.fake.rises[PIN_GSI], 1);
	ck_assert(!fake_vfio_pci_interrupt(&f.dev, VFIO_PCI_INTX_IRQ_INDEX, 0));
	eventfd_signal(f.h.fake.irqfds[0].resample_fd); /* EOI */
	ck_assert(fake_vfio_pci_interrupt(&f.dev, VFIO_PCI_INTX_IRQ_INDEX, 0));
	ck_assert_uint_eq(counters().intx_exits, 0);
}
END_TEST

START_TEST(intx_stops_where_the_guest_disables_it)
{
	intx_device();
	plug();
	guest_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	guest_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_INTX_DISABLE);
	ck_assert_uint_eq(intx()->enabled, 0);
	ck_assert_uint_eq(f.h.fake.irqfd_count, 0);
	ck_assert(fake_vfio_pci_config(&f.dev)[PCI_COMMAND + 1] & PCI_COMMAND_INTX_DISABLE >> 8);
	guest_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	ck_assert_uint_eq(intx()->enabled, 1);
}
END_TEST

START_TEST(msi_and_msix_take_over_from_intx_and_give_back)
{
	intx_device();
	msix_device(4, false);
	msi_device(1, 0);
	plug();
	decode();
	ck_assert_uint_eq(intx()->enabled, 1);
	msi_control(0, true);
	ck_assert_uint_eq(intx()->enabled, 0);
	ck_assert_uint_eq(msi()->enabled, 1);
	msix_control(PCI_MSIX_FLAGS_ENABLE);
	program(0);
	ck_assert_uint_eq(msi()->enabled, 0);
	ck_assert(arrives(0));
	msix_control(0);
	ck_assert_uint_eq(msi()->enabled, 1);
	msi_control(0, false);
	ck_assert_uint_eq(intx()->enabled, 1);
	ck_assert_uint_eq(msix()->enabled, 0);
}
END_TEST

START_TEST(intx_is_unmasked_by_the_main_loop_where_it_must)
{
	intx_device();
	f.dev.fail_op[FAKE_VFIO_PCI_UNMASK_FD] = -ENOTSUP;
	plug();
	guest_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	ck_assert_uint_eq(intx()->enabled, 1);
	ck_assert(fake_vfio_pci_interrupt(&f.dev, VFIO_PCI_INTX_IRQ_INDEX, 0));
	fake_interrupts_deliver(&f.h.fake);
	eventfd_signal(f.h.fake.irqfds[0].resample_fd);
	run_loop();
	ck_assert_uint_eq(f.dev.unmasks, 1);
	ck_assert(fake_vfio_pci_interrupt(&f.dev, VFIO_PCI_INTX_IRQ_INDEX, 0));
	ck_assert_uint_eq(counters().intx_exits, 1);
	guest_write(PCI_COMMAND, 2, 0);
	run_loop();
	ck_assert_uint_eq(f.dev.unmasks, 1);
}
END_TEST

START_TEST(without_resampling_irqfds_there_is_no_intx)
{
	intx_device();
	f.h.fake.attach_error = -EINVAL;
	plug();
	guest_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	ck_assert_uint_eq(intx()->enabled, 0);
	guest_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	ck_assert_uint_eq(f.dev.calls[FAKE_VFIO_PCI_SET_IRQ_FDS], 0);
	guest_write(PCI_COMMAND, 2, 0);
}
END_TEST

START_TEST(a_reset_turns_every_interrupt_off)
{
	intx_device();
	msix_device(4, false);
	plug();
	decode();
	msix_control(PCI_MSIX_FLAGS_ENABLE);
	program(2);
	pci_function_reset(f.fn);
	f.fn->ops->reset(f.fn);
	ck_assert_uint_eq(f.dev.resets, 1);
	ck_assert_uint_eq(msix()->enabled, 0);
	ck_assert_uint_eq(intx()->enabled, 0);
	ck_assert_uint_eq(f.h.fake.routes, 0);
	ck_assert_uint_eq(f.h.fake.irqfd_count, 0);
	/* And it can be set up again. */
	decode();
	msix_control(PCI_MSIX_FLAGS_ENABLE);
	program(2);
	ck_assert(arrives(2));
}
END_TEST

START_TEST(a_device_wanted_back_is_reported_once)
{
	fake_vfio_pci_add_irq(&f.dev, VFIO_PCI_REQ_IRQ_INDEX, 1, true);
	fake_vfio_pci_add_irq(&f.dev, VFIO_PCI_ERR_IRQ_INDEX, 1, true);
	plug();
	run_loop();
	ck_assert_uint_eq(f.lost, 0);
	ck_assert(fake_vfio_pci_interrupt(&f.dev, VFIO_PCI_REQ_IRQ_INDEX, 0));
	run_loop();
	ck_assert_uint_eq(f.lost, 1);
	ck_assert_str_eq(f.lost_id, "vf0");
	ck_assert_str_eq(f.lost_reason, "the host wants the device back");
	ck_assert(fake_vfio_pci_interrupt(&f.dev, VFIO_PCI_ERR_IRQ_INDEX, 0));
	run_loop();
	ck_assert_uint_eq(f.lost, 1);
}
END_TEST

START_TEST(a_device_that_failed_is_reported)
{
	fake_vfio_pci_add_irq(&f.dev, VFIO_PCI_ERR_IRQ_INDEX, 1, true);
	plug();
	ck_assert(fake_vfio_pci_interrupt(&f.dev, VFIO_PCI_ERR_IRQ_INDEX, 0));
	run_loop();
	ck_assert_uint_eq(f.lost, 1);
	ck_assert_ptr_nonnull(strstr(f.lost_reason, "reported an error"));
}
END_TEST

static void unplug_when_lost(void *opaque, const char *id, const char *reason)
{
	fixture_device_lost(opaque, id, reason);
	unplug();
}

START_TEST(a_lost_device_may_be_unplugged_at_once)
{
	static const struct vfio_host_ops ops = {
		.slot_add = fixture_slot_add,
		.slot_remove = fixture_slot_remove,
		.device_lost = unplug_when_lost,
	};

	msix_device(4, false);
	fake_vfio_pci_add_irq(&f.dev, VFIO_PCI_REQ_IRQ_INDEX, 1, true);
	fake_vfio_pci_add_irq(&f.dev, VFIO_PCI_ERR_IRQ_INDEX, 1, true);
	f.vfio_host.ops = &ops;
	plug();
	decode();
	ck_assert(fake_vfio_pci_interrupt(&f.dev, VFIO_PCI_REQ_IRQ_INDEX, 0));
	ck_assert(fake_vfio_pci_interrupt(&f.dev, VFIO_PCI_ERR_IRQ_INDEX, 0));
	run_loop();
	ck_assert_uint_eq(f.lost, 1);
	ck_assert_str_eq(f.lost_id, "vf0");
}
END_TEST

START_TEST(interrupts_without_eventfds_do_not_exist)
{
	intx_device();
	msi_device(1, 0);
	intx()->info.eventfd = msi()->info.eventfd = false;
	plug();
	ck_assert_uint_eq(guest_read(PCI_INTERRUPT_PIN, 1), 0);
	ck_assert_uint_eq(guest_read(PCI_CAPABILITY_LIST, 1), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("vfio_pci_interrupts");
	TCase *tc = tcase_create("interrupts");

	tcase_add_checked_fixture(tc, fixture_setup, fixture_teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, a_vector_is_set_up_when_it_is_unmasked);
	tcase_add_test(tc, masking_keeps_the_vector_and_what_arrives_is_pending);
	tcase_add_test(tc, of_257_vectors_only_those_in_use_cost_routes);
	tcase_add_test(tc, an_old_kernel_gets_more_vectors_by_a_restart);
	tcase_add_test(tc, a_restart_signals_the_vectors_in_use);
	tcase_add_test(tc, a_kernel_that_cannot_resize_without_saying_so_is_found_out);
	tcase_add_test(tc, a_host_out_of_vectors_leaves_those_there_are);
	tcase_add_test(tc, fewer_vectors_of_vfio_than_in_the_table_are_lived_with);
	tcase_add_test(tc, msix_that_vfio_does_not_offer_is_hidden);
	tcase_add_test(tc, vectors_unmasked_before_msix_is_on_are_set_up_with_it);
	tcase_add_test(tc, routes_that_run_out_leave_the_vector_pending);
	tcase_add_test(tc, vectors_survive_a_race_of_unmask_and_enable);
	tcase_add_test(tc, one_msi_is_delivered);
	tcase_add_test(tc, an_msi_moves_while_it_is_on);
	tcase_add_test(tc, msi_vectors_are_numbered_in_the_message);
	tcase_add_test(tc, a_masked_msi_is_pending);
	tcase_add_test(tc, a_host_with_one_msi_gives_one);
	tcase_add_test(tc, more_msi_than_the_device_has_are_not_taken);
	tcase_add_test(tc, an_msi_without_routes_is_kept_in_its_eventfd);
	tcase_add_test(tc, intx_starts_with_the_driver_and_is_unmasked_by_the_kernel);
	tcase_add_test(tc, intx_stops_where_the_guest_disables_it);
	tcase_add_test(tc, msi_and_msix_take_over_from_intx_and_give_back);
	tcase_add_test(tc, intx_is_unmasked_by_the_main_loop_where_it_must);
	tcase_add_test(tc, without_resampling_irqfds_there_is_no_intx);
	tcase_add_test(tc, a_reset_turns_every_interrupt_off);
	tcase_add_test(tc, a_device_wanted_back_is_reported_once);
	tcase_add_test(tc, a_device_that_failed_is_reported);
	tcase_add_test(tc, a_lost_device_may_be_unplugged_at_once);
	tcase_add_test(tc, interrupts_without_eventfds_do_not_exist);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
