/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/helpers/run_suite.h"
#include "tests/unit/helpers/state_case.h"
#include "tests/unit/helpers/vfio_state_device.h"
#include "tests/unit/vfio/vfio_pci_fixture.h"

#define PM VFIO_STATE_PM
#define MSI VFIO_STATE_MSI
#define MSIX VFIO_STATE_MSIX
#define EXP VFIO_STATE_EXP
#define VNDR VFIO_STATE_VNDR
#define DVSEC VFIO_STATE_DVSEC
#define AT 0x800000000ULL
#define NODE "/vf0/vfio-pci"
#define DEVCTL_SAVED (PCI_EXP_DEVCTL_RELAX_EN | PCI_EXP_DEVCTL_READRQ_1024B)

static void build_device(void)
{
	vfio_state_device(&f.dev);
}

static void *make(void)
{
	fixture_setup();
	build_device();
	plug();
	return f.fn;
}

static void destroy(void *device)
{
	fixture_teardown();
}

static void place(void)
{
	pci_function_place_bar(f.fn, 0, AT);
	pci_function_place_bar(f.fn, 2, 0xd000);
	guest_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_IO | PCI_COMMAND_MASTER);
	guest_write(PCI_INTERRUPT_LINE, 1, 11);
	guest_write(PM + PCI_PM_CTRL, 2, PCI_PM_CTRL_PME_ENABLE);
	guest_write(EXP + PCI_EXP_DEVCTL, 2, DEVCTL_SAVED | PCI_EXP_DEVCTL_CERE);
	guest_write(EXP + PCI_EXP_DEVCTL2, 2, 0x6);
}

/* MSI-X on: vector 1 interrupts, vector 3 is masked and pending. */
static void use_msix(void *device)
{
	place();
	for (unsigned int v = 1; v < 4; v += 2) {
		mmio_write(AT + v * 16, 8, 0xfee00000);
		mmio_write(AT + v * 16 + 8, 4, 0x4000 + v);
		mmio_write(AT + v * 16 + 12, 4, 0);
	}
	guest_write(MSIX + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE);
	mmio_write(AT + 3 * 16 + 12, 4, 1);
	ck_assert(fake_vfio_pci_interrupt(&f.dev, VFIO_PCI_MSIX_IRQ_INDEX, 3));
	fake_interrupts_deliver(&f.h.fake);
}

/* MSI on with 4 vectors: 2 is masked and pending. */
static void use_msi(void *device)
{
	place();
	guest_write(MSI + PCI_MSI_ADDRESS_LO, 4, 0xfee01000);
	guest_write(MSI + PCI_MSI_DATA_64, 2, 0x4120);
	guest_write(MSI + PCI_MSI_MASK_64, 4, 1 << 2);
	guest_write(MSI + PCI_MSI_FLAGS, 2, PCI_MSI_FLAGS_ENABLE | 2 << 4);
	ck_assert(fake_vfio_pci_interrupt(&f.dev, VFIO_PCI_MSI_IRQ_INDEX, 2));
	fake_interrupts_deliver(&f.h.fake);
}

static void use_intx(void *device)
{
	place();
}

static int save(void *device, struct state_writer *writer, struct error *err)
{
	return pci_function_save(device, writer, err);
}

static int load(void *device, const struct state_node *node, struct error *err)
{
	return pci_function_load(device, node, err);
}

#define CASE(prepare_fn, golden_name) \
	{ \
		.golden = (golden_name), .make = make, .prepare = (prepare_fn), .save = save, \
		.load = load, .destroy = destroy, \
	}

static const struct state_case msix_case = CASE(use_msix, "vfio-pci-v1");
static const struct state_case msi_case = CASE(use_msi, "vfio-pci-msi-v1");
static const struct state_case intx_case = CASE(use_intx, "vfio-pci-intx-v1");

START_TEST(a_fresh_function_takes_it_and_saves_the_same)
{
	state_case_round_trip(&msix_case);
	state_case_round_trip(&msi_case);
	state_case_round_trip(&intx_case);
}
END_TEST

START_TEST(what_version_1_wrote_is_read)
{
	state_case_golden(&msix_case);
	state_case_golden(&msi_case);
	state_case_golden(&intx_case);
}
END_TEST

START_TEST(what_is_missing_or_malformed_is_refused_by_name)
{
	state_case_refusals(&msix_case);
	state_case_refusals(&msi_case);
}
END_TEST

/* Saves what `c` prepares, and loads it in a device just made: f is that one. */
static void move(const struct state_case *c)
{
	struct state_blob blob = state_case_prepared(c);

	make();
	ck_assert_msg(!state_case_load(c, f.fn, blob.data, blob.len, &f.err), "%s", f.err.message);
	free(blob.data);
}

static uint16_t device_config16(unsigned int offset)
{
	return load_le16(fake_vfio_pci_config(&f.dev) + offset);
}

START_TEST(the_guest_finds_its_registers_and_bars)
{
	move(&msix_case);
	ck_assert_uint_eq(guest_read(PCI_COMMAND, 2),
			  PCI_COMMAND_MEMORY | PCI_COMMAND_IO | PCI_COMMAND_MASTER);
	ck_assert_uint_eq(guest_read(PCI_INTERRUPT_LINE, 1), 11);
	ck_assert_uint_eq(guest_read(PM + PCI_PM_CTRL, 2) & PCI_PM_CTRL_PME_ENABLE,
			  PCI_PM_CTRL_PME_ENABLE);
	ck_assert_uint_eq(guest_read(EXP + PCI_EXP_DEVCTL, 2) & PCI_EXP_DEVCTL_CERE,
			  PCI_EXP_DEVCTL_CERE);
	ck_assert_uint_eq(f.fn->bars[0].address, AT);
	ck_assert(f.fn->bars[0].mapped && f.fn->bars[2].mapped);
	/* All but the pages of the table and of the pending bits. */
	ck_assert_uint_eq(counters().mapped_bytes, 0x10000 - 0x2000);
	ck_assert_uint_eq(mmio_read(AT + 3 * 16 + 8, 4), 0x4003);
	destroy(NULL);
}
END_TEST

START_TEST(the_device_gets_back_what_its_state_does_not_carry)
{
	move(&msix_case);
	ck_assert_uint_eq(device_config16(PCI_COMMAND) & (PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY),
			  PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY);
	ck_assert_uint_eq(device_config16(EXP + PCI_EXP_DEVCTL), DEVCTL_SAVED);
	ck_assert_uint_eq(device_config16(EXP + PCI_EXP_DEVCTL2), 0x6);
	destroy(NULL);
}
END_TEST

START_TEST(msix_vectors_are_armed_again)
{
	const struct fake_vfio_pci_irq *irq;
	unsigned int before;

	move(&msix_case);
	irq = &f.dev.irqs[VFIO_PCI_MSIX_IRQ_INDEX];
	ck_assert_uint_ge(irq->enabled, 2);
	before = f.h.fake.delivered;
	ck_assert(fake_vfio_pci_interrupt(&f.dev, VFIO_PCI_MSIX_IRQ_INDEX, 1));
	fake_interrupts_deliver(&f.h.fake);
	ck_assert_uint_eq(f.h.fake.delivered, before + 1);
	ck_assert_uint_eq(f.h.fake.last_delivered.data, 0x4001);
	/* What was pending comes when the guest unmasks it. */
	ck_assert_uint_eq(mmio_read(AT + 0x8000, 8), 1 << 3);
	mmio_write(AT + 3 * 16 + 12, 4, 0);
	ck_assert_uint_eq(f.h.fake.delivered, before + 2);
	ck_assert_uint_eq(f.h.fake.last_delivered.data, 0x4003);
	destroy(NULL);
}
END_TEST

START_TEST(msi_vectors_are_armed_again)
{
	unsigned int before;

	move(&msi_case);
	ck_assert_uint_eq(f.dev.irqs[VFIO_PCI_MSI_IRQ_INDEX].enabled, 4);
	before = f.h.fake.delivered;
	ck_assert(fake_vfio_pci_interrupt(&f.dev, VFIO_PCI_MSI_IRQ_INDEX, 1));
	fake_interrupts_deliver(&f.h.fake);
	ck_assert_uint_eq(f.h.fake.delivered, before + 1);
	ck_assert_uint_eq(f.h.fake.last_delivered.data, 0x4121);
	ck_assert_uint_eq(guest_read(MSI + PCI_MSI_PENDING_64, 4), 1 << 2);
	guest_write(MSI + PCI_MSI_MASK_64, 4, 0);
	ck_assert_uint_eq(f.h.fake.delivered, before + 2);
	ck_assert_uint_eq(f.h.fake.last_delivered.data, 0x4122);
	destroy(NULL);
}
END_TEST

START_TEST(the_pin_is_armed_again_and_raised_once)
{
	move(&intx_case);
	ck_assert_uint_eq(f.dev.irqs[VFIO_PCI_INTX_IRQ_INDEX].enabled, 1);
	fake_interrupts_deliver(&f.h.fake);
	ck_assert_uint_eq(f.h.fake.rises[17], 1);
	destroy(NULL);
}
END_TEST

/* Loads what msix_case saved in a device that `change` made another. */
static void mismatch(void (*change)(void), const char *part)
{
	struct state_blob blob = state_case_prepared(&msix_case);
	unsigned int writes;

	fixture_setup();
	build_device();
	change();
	plug();
	writes = f.dev.write_count;
	ck_assert_int_lt(state_case_load(&msix_case, f.fn, blob.data, blob.len, &f.err), 0);
	ck_assert_msg(strstr(f.err.message, part), "%s: %s", part, f.err.message);
	ck_assert_msg(strstr(f.err.message, "/vf0"), "%s", f.err.message);
	/* It was not touched. */
	ck_assert_uint_eq(f.dev.write_count, writes);
	ck_assert_uint_eq(f.dev.irqs[VFIO_PCI_MSIX_IRQ_INDEX].enabled, 0);
	free(blob.data);
	destroy(NULL);
}

static void other_device(void)
{
	fake_vfio_pci_config16(&f.dev, PCI_DEVICE_ID, 0x1234);
}

static void other_revision(void)
{
	fake_vfio_pci_config(&f.dev)[PCI_REVISION_ID] = 4;
}

static void other_class(void)
{
	fake_vfio_pci_config(&f.dev)[PCI_CLASS_DEVICE] ^= 0x80;
}

static void other_subsystem(void)
{
	fake_vfio_pci_config(&f.dev)[PCI_SUBSYSTEM_ID] = 0x35;
}

static void larger_bar(void)
{
	f.dev.regions[2].size = 0x40;
}

static void other_bar_kind(void)
{
	fake_vfio_pci_config32(&f.dev, PCI_BASE_ADDRESS_0, PCI_BASE_ADDRESS_MEM_TYPE_64);
}

static void no_rom(void)
{
	f.dev.regions[VFIO_PCI_ROM_REGION_INDEX].size = 0;
}

static void fewer_vectors(void)
{
	fake_vfio_pci_config16(&f.dev, MSIX + PCI_MSIX_FLAGS, 3);
}

static void table_elsewhere(void)
{
	fake_vfio_pci_config32(&f.dev, MSIX + PCI_MSIX_TABLE, 0x4000);
}

static void no_msi(void)
{
	f.dev.irqs[VFIO_PCI_MSI_IRQ_INDEX].info.count = 0;
}

static void capability_elsewhere(void)
{
	uint8_t *config = fake_vfio_pci_config(&f.dev);

	config[EXP + 1] = VNDR + 8;
	memcpy(config + VNDR + 8, config + VNDR, 8);
}

static void longer_vendor_capability(void)
{
	fake_vfio_pci_config(&f.dev)[VNDR + 2] = 12;
}

static void other_device_capabilities(void)
{
	fake_vfio_pci_config32(&f.dev, EXP + PCI_EXP_DEVCAP, PCI_EXP_DEVCAP_FLR | 0x8002);
}

static void other_capabilities2(void)
{
	fake_vfio_pci_config32(&f.dev, EXP + PCI_EXP_DEVCAP2, 0x1e);
}

static void no_reset(void)
{
	f.dev.transport.resettable = false;
}

static void other_dvsec(void)
{
	fake_vfio_pci_config16(&f.dev, DVSEC + 8, 0x9);
}

static void smaller_config(void)
{
	f.dev.regions[VFIO_PCI_CONFIG_REGION_INDEX].size = 0x100;
}

START_TEST(another_device_is_refused_by_offset_and_values_before_it_is_touched)
{
	static const struct {
		void (*change)(void);
		const char *part;
	} rows[] = {
		{ other_device, "1af4:10ab, here is 1af4:1234" },
		{ other_revision, "has 0x03 at 0x8, here is 0x04" },
		{ other_class, "at 0xa, here is" },
		{ other_subsystem, "has 0x34 at 0x2e, here is 0x35" },
		{ larger_bar, "bar2 is io 0x20, here io 0x40" },
		{ other_bar_kind, "bar0 is mem64 prefetchable 0x10000, here mem64 0x10000" },
		{ no_rom, "rom is mem32 0x1000, here none" },
		{ fewer_vectors, "has 0x07 at 0x72, here is 0x03" },
		{ table_elsewhere, "has 0x00 at 0x75, here is 0x40" },
		{ no_msi, "at 0x41, here is" },
		{ capability_elsewhere, "at 0x81, here is" },
		{ longer_vendor_capability, "has 0x08 at 0xc2, 0000:01:10.0 has 0x0c" },
		{ other_device_capabilities, "has 0x01 at 0x84, 0000:01:10.0 has 0x02" },
		{ other_capabilities2, "has 0x1f at 0xa4, 0000:01:10.0 has 0x1e" },
		{ no_reset, "has 0x10 at 0x87, 0000:01:10.0 has 0x00" },
		{ other_dvsec, "has 0x07 at 0x108, 0000:01:10.0 has 0x09" },
		{ smaller_config, "config-size is 4096, here 256" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		mismatch(rows[i].change, rows[i].part);
}
END_TEST

static void other_slot_power(void)
{
	fake_vfio_pci_config32(&f.dev, EXP + PCI_EXP_DEVCAP,
			       PCI_EXP_DEVCAP_FLR | 0x8001 | 25 << 18);
	fake_vfio_pci_config32(&f.dev, EXP + PCI_EXP_LNKCAP, 0x12345);
}

START_TEST(what_is_the_slots_may_differ)
{
	struct state_blob blob = state_case_prepared(&msix_case);

	fixture_setup();
	build_device();
	other_slot_power();
	plug();
	ck_assert_msg(!state_case_load(&msix_case, f.fn, blob.data, blob.len, &f.err), "%s",
		      f.err.message);
	free(blob.data);
	destroy(NULL);
}
END_TEST

START_TEST(a_bar_saved_where_it_cannot_be_is_refused)
{
	struct state_blob blob = state_case_prepared(&msix_case);
	const struct pci_windows windows = { .mem64 = { .base = AT + 0x10000, .size = 0x10000 },
					     .io = { .base = 0, .size = 0x10000 } };

	make();
	f.fn->windows = &windows;
	ck_assert_int_eq(state_case_load(&msix_case, f.fn, blob.data, blob.len, &f.err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(f.err.message, "bar0"));
	ck_assert_ptr_nonnull(strstr(f.err.message, "outside the root's windows"));
	free(blob.data);
	destroy(NULL);
}
END_TEST

/* Every call of the device fails in turn; `spared` of them there is a way around. */
static void fails_at_every_call(const struct state_case *c, unsigned int spared)
{
	struct state_blob blob = state_case_prepared(c);
	unsigned int n = 0, loads = 0, failed;

	do {
		make();
		f.dev.fail_at = f.dev.total + ++n;
		loads += !state_case_load(c, f.fn, blob.data, blob.len, &f.err);
		failed = f.dev.failed;
		f.dev.fail_at = 0;
		destroy(NULL);
	} while (failed);
	ck_assert_uint_gt(n, 7);
	ck_assert_uint_eq(loads, spared + 1);
	free(blob.data);
}

START_TEST(any_call_that_fails_fails_the_load_and_leaves_nothing)
{
	fails_at_every_call(&msix_case, 0);
	/* Unmasking by an eventfd: the main loop does it. */
	fails_at_every_call(&intx_case, 1);
}
END_TEST

START_TEST(a_missing_route_or_irqfd_fails_the_load)
{
	const struct state_case *cases[] = { &msix_case, &msi_case };

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct state_blob blob = state_case_prepared(cases[i]);

		make();
		f.h.fake.route_limit = 0;
		ck_assert_int_eq(state_case_load(cases[i], f.fn, blob.data, blob.len, &f.err),
				 -ENOSPC);
		destroy(NULL);
		make();
		f.h.fake.attach_error = -EBUSY;
		ck_assert_int_lt(state_case_load(cases[i], f.fn, blob.data, blob.len, &f.err), 0);
		ck_assert_ptr_nonnull(strstr(f.err.message, "vf0"));
		destroy(NULL);
		free(blob.data);
	}
}
END_TEST

START_TEST(a_device_that_does_not_answer_is_not_saved)
{
	struct state_writer *writer = state_writer_new(NULL);

	make();
	f.dev.fail_op[FAKE_VFIO_PCI_READ] = -EIO;
	ck_assert_int_eq(pci_function_save(f.fn, writer, &f.err), -EIO);
	ck_assert_ptr_nonnull(strstr(f.err.message, "vf0"));
	ck_assert_ptr_nonnull(strstr(f.err.message, "0000:01:10.0"));
	f.dev.fail_op[FAKE_VFIO_PCI_READ] = 0;
	state_writer_free(writer);
	destroy(NULL);
}
END_TEST

/* The halves of a load: the first leaves the device alone. */
START_TEST(restoring_the_view_does_not_touch_the_device)
{
	/* With both halves it does: 'the_device_gets_back...'. Here the device would fail
	 * every write and every set-up of interrupts. */
	struct state_blob blob = state_case_prepared(&msix_case);
	struct state_node root, node = { .offset = -1 };

	make();
	ck_assert_int_eq(state_tree_open(blob.data, blob.len, &root, NULL), 0);
	ck_assert(state_next_child(&root, &node));
	f.dev.fail_op[FAKE_VFIO_PCI_WRITE] = -EIO;
	f.dev.fail_op[FAKE_VFIO_PCI_SET_IRQ_FDS] = -EIO;
	ck_assert_int_eq(pci_function_load(f.fn, &node, &f.err), -EIO);
	/* The view is there: it was the arming that failed. */
	ck_assert_uint_eq(guest_read(PCI_INTERRUPT_LINE, 1), 11);
	ck_assert_uint_eq(f.h.fake.irqfd_count, 1);
	ck_assert_ptr_nonnull(strstr(f.err.message, "write config space"));
	f.dev.fail_op[FAKE_VFIO_PCI_WRITE] = f.dev.fail_op[FAKE_VFIO_PCI_SET_IRQ_FDS] = 0;
	free(blob.data);
	destroy(NULL);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vfio_pci_state");
	TCase *t = tcase_create("state");

	tcase_set_timeout(t, 60);
	tcase_add_test(t, a_fresh_function_takes_it_and_saves_the_same);
	tcase_add_test(t, what_version_1_wrote_is_read);
	tcase_add_test(t, what_is_missing_or_malformed_is_refused_by_name);
	tcase_add_test(t, the_guest_finds_its_registers_and_bars);
	tcase_add_test(t, the_device_gets_back_what_its_state_does_not_carry);
	tcase_add_test(t, msix_vectors_are_armed_again);
	tcase_add_test(t, msi_vectors_are_armed_again);
	tcase_add_test(t, the_pin_is_armed_again_and_raised_once);
	tcase_add_test(t, another_device_is_refused_by_offset_and_values_before_it_is_touched);
	tcase_add_test(t, what_is_the_slots_may_differ);
	tcase_add_test(t, a_bar_saved_where_it_cannot_be_is_refused);
	tcase_add_test(t, any_call_that_fails_fails_the_load_and_leaves_nothing);
	tcase_add_test(t, a_missing_route_or_irqfd_fails_the_load);
	tcase_add_test(t, a_device_that_does_not_answer_is_not_saved);
	tcase_add_test(t, restoring_the_view_does_not_touch_the_device);
	suite_add_tcase(s, t);
	return run_suite(s);
}
