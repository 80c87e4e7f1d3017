/* SPDX-License-Identifier: Apache-2.0 */
/* An assigned function goes on in another process: two functions of one device, on two
 * hosts, of which one has the device at a time. */
#include "tests/unit/helpers/run_suite.h"
#include "tests/unit/helpers/state_case.h"
#include "tests/unit/vfio/vfio_pci_fixture.h"

#define MSI 0x50
#define MSIX 0x70
#define AT 0x800000000ULL

static struct {
	struct fake_host host;
	struct pci_function *fn;
	struct kept kept;
	struct vfio_transport_ops ops;
	unsigned int keeps, holds, owns;
	int keep_fails;
} two;

static int keep_transport(struct vfio_transport *t, struct kept *kept, const char *id, bool paused,
			  struct error *err)
{
	two.keeps++;
	ck_assert_str_eq(id, "vf0");
	return two.keep_fails ? error_set(err, two.keep_fails, "not this one") : 0;
}

static int hold_transport(struct vfio_transport *t, bool hold, struct error *err)
{
	two.holds++;
	return 0;
}

static int own_transport(struct vfio_transport *t, struct error *err)
{
	two.owns++;
	return 0;
}

static void setup(void)
{
	fixture_setup();
	memset(&two, 0, sizeof(two));
	ck_assert_int_eq(fake_host_init(&two.host), 0);
	two.ops = *f.dev.transport.ops;
	two.ops.keep = keep_transport;
	two.ops.hold = hold_transport;
	two.ops.own = own_transport;
	f.dev.transport.ops = &two.ops;
	fake_vfio_pci_add_bar(&f.dev, 0,
			      PCI_BASE_ADDRESS_MEM_TYPE_64 | PCI_BASE_ADDRESS_MEM_PREFETCH, 0x10000,
			      true);
	fake_vfio_pci_add_irq(&f.dev, VFIO_PCI_INTX_IRQ_INDEX, 1, true);
	fake_vfio_pci_add_irq(&f.dev, VFIO_PCI_MSI_IRQ_INDEX, 4, true);
	fake_vfio_pci_add_irq(&f.dev, VFIO_PCI_MSIX_IRQ_INDEX, 8, false);
	fake_vfio_pci_add_irq(&f.dev, VFIO_PCI_ERR_IRQ_INDEX, 1, true);
	fake_vfio_pci_add_irq(&f.dev, VFIO_PCI_REQ_IRQ_INDEX, 1, true);
	fake_vfio_pci_add_cap(&f.dev, PCI_CAP_ID_MSI, MSI);
	fake_vfio_pci_config16(&f.dev, MSI + PCI_MSI_FLAGS,
			       PCI_MSI_FLAGS_64BIT | PCI_MSI_FLAGS_MASKBIT | 2 << 1);
	fake_vfio_pci_add_msix(&f.dev, MSIX, 8, 0, 0, 0, 0x8000);
	plug();
	pci_function_place_bar(f.fn, 0, AT);
	guest_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

static void use_intx(void)
{
}

static void use_msi(void)
{
	guest_write(MSI + PCI_MSI_ADDRESS_LO, 4, 0xfee01000);
	guest_write(MSI + PCI_MSI_DATA_64, 2, 0x4120);
	guest_write(MSI + PCI_MSI_MASK_64, 4, 1 << 2);
	guest_write(MSI + PCI_MSI_FLAGS, 2, PCI_MSI_FLAGS_ENABLE | 2 << 4);
}

static void use_msix(void)
{
	mmio_write(AT + 16, 8, 0xfee00000);
	mmio_write(AT + 16 + 8, 4, 0x4001);
	mmio_write(AT + 16 + 12, 4, 0);
	guest_write(MSIX + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE);
}

static const struct {
	void (*use)(void);
	uint32_t index;
} kinds[] = {
	{ use_intx, VFIO_PCI_INTX_IRQ_INDEX },
	{ use_msi, VFIO_PCI_MSI_IRQ_INDEX },
	{ use_msix, VFIO_PCI_MSIX_IRQ_INDEX },
};

/* Interrupts that the guest has had, on either host. */
static unsigned int delivered(struct fake_host *h)
{
	fake_interrupts_deliver(&h->fake);
	return h->fake.delivered;
}

/* What was asked of the device but to be read. */
static unsigned int touched(void)
{
	return f.dev.write_count + f.dev.resets + f.dev.closes + f.dev.masks + f.dev.unmasks +
	       f.dev.calls[FAKE_VFIO_PCI_SET_IRQ_FDS] + f.dev.calls[FAKE_VFIO_PCI_UNMASK_FD];
}

static int save(void *device, struct state_writer *writer, struct error *err)
{
	return pci_function_save(device, writer, err);
}

static int load(void *device, const struct state_node *node, struct error *err)
{
	return pci_function_load(device, node, err);
}

static const struct state_case state = { .save = save, .load = load };

/* Held, kept and saved by one; made and loaded by the other. */
static void hand_over(void)
{
	struct state_blob blob;

	ck_assert_int_eq(vfio_pci_keep(f.fn, &two.kept, false, &f.err), 0);
	ck_assert_int_eq(vfio_pci_hold(f.fn, true, &f.err), 0);
	ck_assert_uint_eq(f.h.fake.irqfd_count, 0);
	ck_assert_msg(!vfio_pci_keep(f.fn, &two.kept, true, &f.err), "%s", f.err.message);
	blob = state_case_save(&state, f.fn);
	two.host.host.kept = &two.kept;
	two.fn = vfio_pci_new(&two.host.host, &f.vfio_host, &f.dev.transport, &f.options, &f.err);
	ck_assert_msg(two.fn != NULL, "%s", f.err.message);
	two.fn->devfn = f.fn->devfn;
	two.fn->intx = (struct irq_line){ .interrupts = &two.host.host.interrupts, .gsi = 17 };
	ck_assert_msg(!state_case_load(&state, two.fn, blob.data, blob.len, &f.err), "%s",
		      f.err.message);
	free(blob.data);
	ck_assert_uint_eq(two.host.fake.irqfd_count, 0);
}

static void drop(struct fake_host *host, struct pci_function *fn)
{
	/* As a process that ends: nothing is undone at the device. */
	host->host.kept = &two.kept;
	pci_function_unmap(fn);
	fn->ops->free(fn);
	host->host.kept = NULL;
}

static void teardown(void)
{
	kept_destroy(&two.kept);
	fake_vfio_pci_destroy(&f.dev);
	fake_host_destroy(&f.h);
	fake_host_destroy(&two.host);
}

START_TEST(interrupts_of_the_gap_arrive_at_the_new_one)
{
	unsigned int before, asked;

	kinds[_i].use();
	before = delivered(&f.h);
	asked = touched();
	hand_over();
	ck_assert_uint_eq(touched(), asked);
	/* In the gap nobody has it, and it is not lost. */
	ck_assert(fake_vfio_pci_interrupt(&f.dev, kinds[_i].index, kinds[_i].index ? 1 : 0));
	ck_assert_uint_eq(delivered(&f.h), before);
	ck_assert_uint_eq(delivered(&two.host), 0);
	two.host.host.kept = NULL;
	ck_assert_msg(!vfio_pci_own(two.fn, &f.err), "%s", f.err.message);
	ck_assert_uint_eq(two.owns, 1);
	ck_assert_uint_eq(delivered(&two.host), 1);
	ck_assert_uint_eq(delivered(&f.h), before);
	/* Neither the device's vectors nor anything else was set up again. */
	ck_assert_uint_eq(touched(), asked);
	/* And the next ones; the pin is masked until the guest has seen to it. */
	if (_i) {
		ck_assert(fake_vfio_pci_interrupt(&f.dev, kinds[_i].index, 1));
		ck_assert_uint_eq(delivered(&two.host), 2);
	}
	ck_assert_uint_eq(delivered(&f.h), before);
	drop(&f.h, f.fn);
	drop(&two.host, two.fn);
}
END_TEST

START_TEST(the_old_one_goes_on_where_the_new_one_fails)
{
	unsigned int before, asked;

	kinds[_i].use();
	before = delivered(&f.h);
	asked = touched();
	hand_over();
	ck_assert(fake_vfio_pci_interrupt(&f.dev, kinds[_i].index, kinds[_i].index ? 1 : 0));
	pci_function_unmap(two.fn);
	two.fn->ops->free(two.fn); /* with kept: as if it had never been */
	f.dev.closes--;
	ck_assert_uint_eq(touched(), asked);
	ck_assert_int_eq(vfio_pci_hold(f.fn, false, &f.err), 0);
	ck_assert_uint_eq(delivered(&f.h), before + 1);
	ck_assert_uint_eq(touched(), asked);
	ck_assert_uint_eq(two.holds, 2);
	drop(&f.h, f.fn);
}
END_TEST

START_TEST(a_masked_vector_stays_pending)
{
	use_msix();
	mmio_write(AT + 16 + 12, 4, 1);
	ck_assert(fake_vfio_pci_interrupt(&f.dev, VFIO_PCI_MSIX_IRQ_INDEX, 1));
	hand_over();
	two.host.host.kept = NULL;
	ck_assert_int_eq(vfio_pci_own(two.fn, &f.err), 0);
	ck_assert_uint_eq(delivered(&two.host), 0);
	bus_write(two.host.host.mmio, AT + 16 + 12, "\0\0\0\0", 4);
	ck_assert_uint_eq(delivered(&two.host), 1);
	drop(&f.h, f.fn);
	drop(&two.host, two.fn);
}
END_TEST

START_TEST(what_does_not_come_along_whole_is_refused)
{
	static const char *const needed[] = { "vf0/intx", "vf0/intx/resample", "vf0/interrupts" };
	struct state_blob blob;

	use_msix();
	ck_assert_int_eq(vfio_pci_keep(f.fn, &two.kept, false, &f.err), 0);
	ck_assert_int_eq(vfio_pci_hold(f.fn, true, &f.err), 0);
	ck_assert_int_eq(vfio_pci_keep(f.fn, &two.kept, true, &f.err), 0);
	blob = state_case_save(&state, f.fn);
	for (unsigned int i = 0; i < two.kept.count; i++)
		if (!strcmp(two.kept.entries[i].name, needed[_i]))
			two.kept.entries[i].name[0] = 'x';
	two.host.host.kept = &two.kept;
	two.fn = vfio_pci_new(&two.host.host, &f.vfio_host, &f.dev.transport, &f.options, &f.err);
	if (two.fn) {
		two.fn->devfn = f.fn->devfn;
		ck_assert_int_eq(state_case_load(&state, two.fn, blob.data, blob.len, &f.err),
				 -EBADMSG);
		drop(&two.host, two.fn);
	}
	ck_assert_ptr_nonnull(strstr(f.err.message, "did not come along whole"));
	free(blob.data);
	drop(&f.h, f.fn);
}
END_TEST

START_TEST(a_transport_that_cannot_says_so)
{
	two.keep_fails = EOPNOTSUPP;
	ck_assert_int_eq(vfio_pci_keep(f.fn, &two.kept, false, &f.err), -EOPNOTSUPP);
	two.ops.keep = NULL;
	ck_assert_int_eq(vfio_pci_keep(f.fn, &two.kept, false, &f.err), -EOPNOTSUPP);
	ck_assert_ptr_nonnull(strstr(f.err.message, "device vf0"));
	drop(&f.h, f.fn);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vfio_pci_keep");
	TCase *c = tcase_create("keep");

	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_loop_test(c, interrupts_of_the_gap_arrive_at_the_new_one, 0, ARRAY_SIZE(kinds));
	tcase_add_loop_test(c, the_old_one_goes_on_where_the_new_one_fails, 0, ARRAY_SIZE(kinds));
	tcase_add_test(c, a_masked_vector_stays_pending);
	tcase_add_loop_test(c, what_does_not_come_along_whole_is_refused, 0, 3);
	tcase_add_test(c, a_transport_that_cannot_says_so);
	suite_add_tcase(s, c);
	return run_suite(s);
}
