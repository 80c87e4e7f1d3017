/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "tests/unit/helpers/run_suite.h"
#include "tests/unit/vfio/vfio_pci_fixture.h"

/* Where the capabilities of full_device() are. */
#define PM 0x40
#define VPD 0x48
#define VENDOR 0x50
#define PCIE 0x60
#define AF 0xa0
#define MSI 0xa8
#define MSIX 0xc0
#define AER 0x100
#define SRIOV 0x180
#define DSN 0x1c0
#define ATS 0x1d0
#define DVSEC 0x1e0
#define UNKNOWN 0x200

static void full_device(void)
{
	struct fake_vfio_pci *d = &f.dev;

	fake_vfio_pci_add_bar(d, 0, 0, 0x4000, true);
	fake_vfio_pci_add_irq(d, VFIO_PCI_INTX_IRQ_INDEX, 1, false);
	fake_vfio_pci_add_irq(d, VFIO_PCI_MSI_IRQ_INDEX, 4, true);
	fake_vfio_pci_add_irq(d, VFIO_PCI_MSIX_IRQ_INDEX, 3, true);
	fake_vfio_pci_add_cap(d, PCI_CAP_ID_PM, PM);
	fake_vfio_pci_add_cap(d, PCI_CAP_ID_VPD, VPD);
	fake_vfio_pci_add_cap(d, PCI_CAP_ID_VNDR, VENDOR);
	fake_vfio_pci_config(d)[VENDOR + 2] = 16;
	fake_vfio_pci_add_cap(d, PCI_CAP_ID_EXP, PCIE);
	fake_vfio_pci_config16(d, PCIE + PCI_EXP_FLAGS, 2);
	fake_vfio_pci_config32(d, PCIE + PCI_EXP_DEVCAP, PCI_EXP_DEVCAP_FLR);
	fake_vfio_pci_add_cap(d, PCI_CAP_ID_AF, AF);
	fake_vfio_pci_config(d)[AF + PCI_AF_CAP] = PCI_AF_CAP_TP | PCI_AF_CAP_FLR;
	fake_vfio_pci_add_cap(d, PCI_CAP_ID_MSI, MSI);
	fake_vfio_pci_config16(d, MSI + PCI_MSI_FLAGS,
			       2 << 1 | PCI_MSI_FLAGS_64BIT | PCI_MSI_FLAGS_MASKBIT);
	fake_vfio_pci_add_msix(d, MSIX, 3, 0, 0x1000, 0, 0x1800);
	fake_vfio_pci_add_ext_cap(d, PCI_EXT_CAP_ID_ERR, AER);
	fake_vfio_pci_add_ext_cap(d, PCI_EXT_CAP_ID_SRIOV, SRIOV);
	fake_vfio_pci_add_ext_cap(d, PCI_EXT_CAP_ID_DSN, DSN);
	fake_vfio_pci_add_ext_cap(d, PCI_EXT_CAP_ID_ATS, ATS);
	fake_vfio_pci_add_ext_cap(d, PCI_EXT_CAP_ID_DVSEC, DVSEC);
	fake_vfio_pci_add_ext_cap(d, 0x7777, UNKNOWN);
}

/* Which capabilities the guest finds, in order: ids as text. */
static const char *found(unsigned int start, bool extended)
{
	static char text[256];
	unsigned int at = start;

	text[0] = '\0';
	for (unsigned int i = 0; at && i < 100; i++) {
		uint32_t header = guest_read(at, 4);

		if (extended && !header)
			break;
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%x@%x", i ? " " : "",
			 extended ? header & 0xffff : header & 0xff, at);
		at = extended ? header >> 20 : header >> 8 & 0xff;
	}
	return text;
}

static const char *caps(void)
{
	return found(guest_read(PCI_CAPABILITY_LIST, 1), false);
}

static const char *extended_caps(void)
{
	return found(0x100, true);
}

START_TEST(ids_and_class_are_the_devices)
{
	full_device();
	plug();
	ck_assert_uint_eq(guest_read(PCI_VENDOR_ID, 4), 0x10ab1af4);
	ck_assert_uint_eq(guest_read(PCI_CLASS_REVISION, 4), 0x02000001);
	ck_assert_uint_eq(guest_read(PCI_SUBSYSTEM_VENDOR_ID, 4), 0x00011af4);
	ck_assert_uint_eq(guest_read(PCI_INTERRUPT_PIN, 1), 1);
	ck_assert(vfio_pci_is(f.fn));
	ck_assert_ptr_eq(vfio_pci_transport(f.fn), &f.dev.transport);
}
END_TEST

START_TEST(a_function_without_intx_has_no_pin)
{
	plug();
	ck_assert_uint_eq(guest_read(PCI_INTERRUPT_PIN, 1), 0);
}
END_TEST

START_TEST(capabilities_keep_their_places_and_dangerous_ones_are_hidden)
{
	full_device();
	plug();
	ck_assert_str_eq(caps(), "1@40 3@48 9@50 10@60 13@a0 5@a8 11@c0");
	ck_assert_str_eq(extended_caps(), "1@100 3@1c0 23@1e0");
	fake_vfio_pci_config32(&f.dev, SRIOV + 8, 0x12345678);
	ck_assert_uint_eq(guest_read(SRIOV + 8, 4), 0);
	fake_vfio_pci_config32(&f.dev, UNKNOWN + 8, 0x12345678);
	ck_assert_uint_eq(guest_read(UNKNOWN + 8, 4), 0);
}
END_TEST

START_TEST(a_hidden_capability_at_the_start_becomes_the_null_one)
{
	fake_vfio_pci_add_ext_cap(&f.dev, PCI_EXT_CAP_ID_ARI, 0x100);
	fake_vfio_pci_add_ext_cap(&f.dev, PCI_EXT_CAP_ID_DSN, 0x140);
	plug();
	ck_assert_str_eq(extended_caps(), "0@100 3@140");
}
END_TEST

START_TEST(a_short_config_space_has_no_extended_part)
{
	fake_vfio_pci_add_ext_cap(&f.dev, PCI_EXT_CAP_ID_DSN, 0x100);
	f.dev.regions[VFIO_PCI_CONFIG_REGION_INDEX].size = 256;
	plug();
	ck_assert_uint_eq(guest_read(0x100, 4), 0);
	guest_write(0x100, 4, UINT32_MAX);
	ck_assert_uint_eq(guest_read(0x100, 4), 0);
}
END_TEST

START_TEST(a_config_space_too_short_for_pci_is_refused)
{
	f.dev.regions[VFIO_PCI_CONFIG_REGION_INDEX].size = 60;
	refused("config space of 0x3c bytes");
}
END_TEST

START_TEST(a_config_space_that_stops_behind_the_header_reads_zero_from_there)
{
	/* As the kernel's mediated sample device has it. */
	f.dev.regions[VFIO_PCI_CONFIG_REGION_INDEX].size = 0xff;
	f.dev.data[VFIO_PCI_CONFIG_REGION_INDEX][PCI_STATUS] &= (uint8_t)~PCI_STATUS_CAP_LIST;
	plug();
	ck_assert_uint_ne(guest_read(0, 2), 0xffff);
	ck_assert_uint_eq(guest_read(0xfc, 4), 0);
	guest_write(0xfc, 4, UINT32_MAX);
	ck_assert_uint_eq(guest_read(0xfc, 4), 0);
}
END_TEST

/* What the guest may write through to the device, told independently of the tables. */
static uint8_t passes(unsigned int offset)
{
	static const struct {
		unsigned int start, end;
		uint8_t mask;
	} ranges[] = {
		{ 0x00, 0x04, 0x00 },
		{ 0x04, 0x05, 0x04 },
		{ 0x05, 0x06, 0x04 },
		{ 0x06, 0x07, 0x00 },
		{ 0x07, 0x08, 0xf9 },
		{ 0x08, 0x40, 0x00 },
		{ PM, PM + 8, 0x00 },
		{ VPD, VPD + 2, 0x00 },
		{ VPD + 2, VPD + 8, 0xff },
		{ VENDOR, VENDOR + 2, 0x00 },
		{ VENDOR + 2, VENDOR + 16, 0xff },
		{ PCIE, PCIE + 8, 0x00 },
		{ PCIE + 8, PCIE + 9, 0x10 },
		{ PCIE + 9, PCIE + 10, 0x78 },
		{ PCIE + 10, PCIE + 11, 0x0f },
		{ PCIE + 11, PCIE + 0x28, 0x00 },
		{ PCIE + 0x28, PCIE + 0x29, 0x1f },
		{ PCIE + 0x29, PCIE + 0x2a, 0x03 },
		{ PCIE + 0x2a, PCIE + 0x3c, 0x00 },
		{ AF, AF + 6, 0x00 },
		{ MSI, MSI + 24, 0x00 },
		{ MSIX, MSIX + 12, 0x00 },
		{ AER, AER + 0x48, 0x00 },
		{ SRIOV, SRIOV + 0x40, 0x00 },
		{ DSN, DSN + 12, 0x00 },
		{ ATS, ATS + 8, 0x00 },
		{ DVSEC, DVSEC + 4, 0x00 },
		{ UNKNOWN, 0x1000, 0x00 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(ranges); i++)
		if (offset >= ranges[i].start && offset < ranges[i].end)
			return ranges[i].mask;
	return 0xff;
}

/* Bytes whose bits trigger a reset. */
static uint8_t harmless(unsigned int offset)
{
	return offset == PCIE + 9 ? 0x7f : offset == AF + PCI_AF_CTRL ? 0xfe : 0xff;
}

static void check_all_writes(unsigned int len, uint8_t fill)
{
	uint8_t *config = fake_vfio_pci_config(&f.dev);
	uint8_t before[4096];

	for (unsigned int offset = 0; offset + len <= 4096; offset += len) {
		uint8_t data[4];

		memcpy(before, config, sizeof(before));
		for (unsigned int i = 0; i < len; i++)
			data[i] = (uint8_t)(fill & harmless(offset + i));
		pci_function_config_write(f.fn, offset, data, len);
		for (unsigned int i = 0; i < 4096; i++) {
			uint8_t mask = i >= offset && i < offset + len ? passes(i) : 0;
			uint8_t want =
				(uint8_t)((before[i] & ~mask) |
					  (i >= offset && i < offset + len ? data[i - offset] & mask
									   : 0));

			if (config[i] != want)
				ck_abort_msg("write of %u at 0x%x: device byte 0x%x is 0x%x, "
					     "not 0x%x",
					     len, offset, i, config[i], want);
		}
	}
}

START_TEST(only_what_the_table_says_is_written_to_the_device)
{
	full_device();
	plug();
	for (unsigned int len = 1; len <= 4; len *= 2) {
		check_all_writes(len, 0xff);
		check_all_writes(len, 0x00);
		check_all_writes(len, 0x5a);
	}
	ck_assert_uint_eq(f.dev.resets, 0);
	ck_assert_uint_gt(counters().config_writes, 4096);
}
END_TEST

START_TEST(the_devices_errors_are_not_cleared_by_writes_beside_them)
{
	full_device();
	plug();
	fake_vfio_pci_config16(&f.dev, PCI_STATUS, 0x8010);
	guest_write(PCI_COMMAND, 4, PCI_COMMAND_MASTER);
	for (unsigned int i = 0; i < f.dev.write_count; i++)
		if (f.dev.writes[i].offset <= PCI_STATUS &&
		    f.dev.writes[i].offset + f.dev.writes[i].len > PCI_STATUS)
			ck_assert_uint_eq(f.dev.writes[i].value & 0xf900, 0);
}
END_TEST

START_TEST(unaligned_accesses_reach_the_device_by_bytes)
{
	plug();
	guest_write(0x81, 2, 0xbeef);
	ck_assert_uint_eq(load_le16(fake_vfio_pci_config(&f.dev) + 0x81), 0xbeef);
	ck_assert_uint_eq(guest_read(0x81, 2), 0xbeef);
	for (unsigned int i = 0; i < f.dev.write_count; i++)
		ck_assert_uint_eq(f.dev.writes[i].offset % f.dev.writes[i].len, 0);
}
END_TEST

START_TEST(decoding_stays_on_at_the_device)
{
	full_device();
	plug();
	guest_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	ck_assert_uint_eq(load_le16(fake_vfio_pci_config(&f.dev) + PCI_COMMAND),
			  PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	ck_assert_uint_eq(guest_read(PCI_COMMAND, 2), PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	guest_write(PCI_COMMAND, 2, 0);
	ck_assert_uint_eq(load_le16(fake_vfio_pci_config(&f.dev) + PCI_COMMAND),
			  PCI_COMMAND_IO | PCI_COMMAND_MEMORY);
	ck_assert_uint_eq(guest_read(PCI_COMMAND, 2), 0);
}
END_TEST

START_TEST(a_vf_without_a_memory_bit_shows_the_guests)
{
	full_device();
	plug();
	guest_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	fake_vfio_pci_config16(&f.dev, PCI_COMMAND, 0); /* VFs read as zero */
	ck_assert_uint_eq(guest_read(PCI_COMMAND, 2), PCI_COMMAND_MEMORY);
}
END_TEST

START_TEST(the_device_never_leaves_full_power)
{
	full_device();
	plug();
	ck_assert_uint_eq(guest_read(PM + PCI_PM_CTRL, 2), PCI_PM_CTRL_NO_SOFT_RESET);
	guest_write(PM + PCI_PM_CTRL, 2, 3);
	ck_assert_uint_eq(guest_read(PM + PCI_PM_CTRL, 2), PCI_PM_CTRL_NO_SOFT_RESET | 3);
	ck_assert_uint_eq(load_le16(fake_vfio_pci_config(&f.dev) + PM + PCI_PM_CTRL), 0);
}
END_TEST

START_TEST(a_function_level_reset_goes_through_the_transport)
{
	full_device();
	plug();
	pci_function_place_bar(f.fn, 0, 0xc0000000);
	guest_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	guest_write(PM + PCI_PM_CTRL, 2, 3);
	ck_assert_uint_ne(f.slot_count, 0);
	guest_write(PCIE + PCI_EXP_DEVCTL, 2, PCI_EXP_DEVCTL_BCR_FLR);
	ck_assert_uint_eq(f.dev.resets, 1);
	ck_assert_uint_eq(f.slot_count, 0);
	ck_assert_uint_eq(guest_read(PCI_COMMAND, 2), 0);
	ck_assert_uint_eq(guest_read(PM + PCI_PM_CTRL, 2), PCI_PM_CTRL_NO_SOFT_RESET);
	ck_assert(!(fake_vfio_pci_config(&f.dev)[PCI_COMMAND] & PCI_COMMAND_MASTER));
	ck_assert(!(guest_read(PCIE + PCI_EXP_DEVCTL, 2) & PCI_EXP_DEVCTL_BCR_FLR));
	guest_write(AF + PCI_AF_CTRL, 1, PCI_AF_CTRL_FLR);
	ck_assert_uint_eq(f.dev.resets, 2);
}
END_TEST

START_TEST(a_device_that_cannot_be_reset_offers_no_reset)
{
	full_device();
	f.dev.transport.resettable = false;
	plug();
	ck_assert_uint_eq(guest_read(PCIE + PCI_EXP_DEVCAP, 4) & PCI_EXP_DEVCAP_FLR, 0);
	ck_assert_uint_eq(guest_read(AF + PCI_AF_CAP, 1), PCI_AF_CAP_TP);
	guest_write(PCIE + PCI_EXP_DEVCTL, 2, PCI_EXP_DEVCTL_BCR_FLR);
	f.fn->ops->reset(f.fn);
	ck_assert_uint_eq(f.dev.resets, 0);
}
END_TEST

START_TEST(a_reset_that_fails_still_stops_dma)
{
	full_device();
	plug();
	guest_write(PCI_COMMAND, 2, PCI_COMMAND_MASTER);
	f.dev.fail_op[FAKE_VFIO_PCI_RESET] = -EBUSY;
	pci_function_reset(f.fn);
	f.fn->ops->reset(f.fn);
	ck_assert(!(fake_vfio_pci_config(&f.dev)[PCI_COMMAND] & PCI_COMMAND_MASTER));
}
END_TEST

START_TEST(a_device_that_stops_answering_reads_as_ones)
{
	full_device();
	plug();
	f.dev.fail_op[FAKE_VFIO_PCI_READ] = -EIO;
	f.dev.fail_op[FAKE_VFIO_PCI_WRITE] = -EIO;
	ck_assert_uint_eq(guest_read(VENDOR + 4, 4), UINT32_MAX);
	ck_assert_uint_eq(guest_read(PCI_VENDOR_ID, 4), 0x10ab1af4);
	guest_write(VENDOR + 4, 4, 1);
	guest_write(PCI_COMMAND, 2, PCI_COMMAND_MASTER);
}
END_TEST

START_TEST(a_loop_ends_the_capability_list)
{
	fake_vfio_pci_add_cap(&f.dev, PCI_CAP_ID_VPD, 0x40);
	fake_vfio_pci_add_cap(&f.dev, PCI_CAP_ID_PM, 0x50);
	fake_vfio_pci_config(&f.dev)[0x51] = 0x40;
	plug();
	ck_assert_str_eq(caps(), "3@40 1@50");
}
END_TEST

START_TEST(a_capability_that_points_to_itself_ends_the_list)
{
	fake_vfio_pci_add_cap(&f.dev, PCI_CAP_ID_VPD, 0x40);
	fake_vfio_pci_config(&f.dev)[0x41] = 0x40;
	plug();
	ck_assert_str_eq(caps(), "3@40");
}
END_TEST

START_TEST(a_link_into_the_header_ends_the_list)
{
	fake_vfio_pci_add_cap(&f.dev, PCI_CAP_ID_VPD, 0x40);
	fake_vfio_pci_config(&f.dev)[0x41] = 0x10;
	plug();
	ck_assert_str_eq(caps(), "3@40");
}
END_TEST

START_TEST(a_misaligned_link_ends_the_list)
{
	fake_vfio_pci_add_cap(&f.dev, PCI_CAP_ID_VPD, 0x40);
	fake_vfio_pci_config(&f.dev)[0x41] = 0x52;
	plug();
	ck_assert_str_eq(caps(), "3@40");
}
END_TEST

START_TEST(a_capability_over_the_end_ends_the_list)
{
	fake_vfio_pci_add_cap(&f.dev, PCI_CAP_ID_VPD, 0x40);
	fake_vfio_pci_add_cap(&f.dev, PCI_CAP_ID_VNDR, 0xf0);
	fake_vfio_pci_config(&f.dev)[0xf2] = 0x20;
	plug();
	ck_assert_str_eq(caps(), "3@40");
}
END_TEST

START_TEST(a_capability_inside_another_ends_the_list)
{
	fake_vfio_pci_add_bar(&f.dev, 0, 0, 0x4000, true);
	fake_vfio_pci_add_irq(&f.dev, VFIO_PCI_MSIX_IRQ_INDEX, 3, true);
	fake_vfio_pci_add_cap(&f.dev, PCI_CAP_ID_VPD, 0x40);
	fake_vfio_pci_add_msix(&f.dev, 0x50, 3, 0, 0, 0, 0x1000);
	fake_vfio_pci_add_cap(&f.dev, PCI_CAP_ID_PM, 0x58);
	plug();
	ck_assert_str_eq(caps(), "3@40");
	/* And what is there is nobody's. */
	guest_write(0x52, 2, 0x8000);
	ck_assert_uint_eq(load_le16(fake_vfio_pci_config(&f.dev) + 0x52), 2);
}
END_TEST

START_TEST(a_second_msix_capability_does_not_count)
{
	fake_vfio_pci_add_bar(&f.dev, 0, 0, 0x4000, true);
	fake_vfio_pci_add_irq(&f.dev, VFIO_PCI_MSIX_IRQ_INDEX, 3, true);
	fake_vfio_pci_add_msix(&f.dev, 0x50, 3, 0, 0, 0, 0x1000);
	fake_vfio_pci_add_msix(&f.dev, 0x70, 2000, 0, 0, 0, 0x1000);
	plug();
	ck_assert_str_eq(caps(), "11@50");
}
END_TEST

START_TEST(an_extended_loop_ends_the_list)
{
	fake_vfio_pci_add_ext_cap(&f.dev, PCI_EXT_CAP_ID_DSN, 0x100);
	fake_vfio_pci_add_ext_cap(&f.dev, PCI_EXT_CAP_ID_VNDR, 0x200);
	fake_vfio_pci_config32(&f.dev, 0x200, PCI_EXT_CAP_ID_VNDR | 1 << 16 | 0x100u << 20);
	plug();
	ck_assert_str_eq(extended_caps(), "3@100 b@200");
}
END_TEST

START_TEST(an_extended_link_into_the_conventional_part_ends_the_list)
{
	fake_vfio_pci_config32(&f.dev, 0x100, PCI_EXT_CAP_ID_DSN | 1 << 16 | 0x40u << 20);
	plug();
	ck_assert_str_eq(extended_caps(), "3@100");
}
END_TEST

START_TEST(an_extended_capability_over_the_end_ends_the_list)
{
	fake_vfio_pci_add_ext_cap(&f.dev, PCI_EXT_CAP_ID_DSN, 0x100);
	fake_vfio_pci_add_ext_cap(&f.dev, PCI_EXT_CAP_ID_ERR, 0xffc);
	plug();
	ck_assert_str_eq(extended_caps(), "3@100");
}
END_TEST

START_TEST(a_config_space_full_of_capabilities_is_walked_to_its_end)
{
	for (unsigned int at = 0x100; at < 0x1000; at += 4)
		fake_vfio_pci_config32(&f.dev, at,
				       0x7777 | 1 << 16 | (at + 4 < 0x1000 ? (at + 4) << 20 : 0));
	plug();
	ck_assert_str_eq(extended_caps(), "");
	guest_write(0xffc, 4, 0);
	ck_assert_uint_eq(load_le32(fake_vfio_pci_config(&f.dev) + 0xffc), 0x17777);
}
END_TEST

START_TEST(a_device_that_is_gone_is_refused)
{
	memset(fake_vfio_pci_config(&f.dev), 0xff, 4096);
	refused("does not answer");
}
END_TEST

START_TEST(a_bridge_is_refused)
{
	fake_vfio_pci_config(&f.dev)[PCI_HEADER_TYPE] = 1;
	refused("bridges cannot be assigned");
}
END_TEST

START_TEST(what_is_no_pci_device_is_refused)
{
	f.dev.transport.is_pci = false;
	refused("no PCI device");
}
END_TEST

static void nvidia(void)
{
	fake_vfio_pci_config32(&f.dev, PCI_VENDOR_ID, 0x233010de);
	fake_vfio_pci_config32(&f.dev, PCI_CLASS_REVISION, 0x030200a1);
	f.options.gpudirect_clique = 5;
}

START_TEST(a_gpudirect_clique_is_a_capability_of_its_own)
{
	nvidia();
	fake_vfio_pci_add_cap(&f.dev, PCI_CAP_ID_VPD, 0x60);
	plug();
	ck_assert_str_eq(caps(), "3@60 9@c8");
	ck_assert_uint_eq(guest_read(0xca, 2), 'P' << 8 | 8);
	ck_assert_uint_eq(guest_read(0xcc, 4), 5u << 19 | 'P' << 8 | '2');
	guest_write(0xcc, 4, UINT32_MAX);
	ck_assert_uint_eq(load_le32(fake_vfio_pci_config(&f.dev) + 0xcc), 0);
}
END_TEST

START_TEST(a_gpudirect_clique_goes_to_its_second_place)
{
	nvidia();
	fake_vfio_pci_add_cap(&f.dev, PCI_CAP_ID_VPD, 0xc8);
	plug();
	ck_assert_str_eq(caps(), "3@c8 9@d4");
}
END_TEST

START_TEST(a_gpudirect_clique_needs_a_gpu_and_a_place)
{
	f.options.gpudirect_clique = 5;
	refused("not a display device of NVIDIA's");
	nvidia();
	f.options.gpudirect_clique = 16;
	ck_assert(!try_plug());
	ck_assert_int_eq(f.err.kind, ERROR_BAD_REQUEST);
	nvidia();
	fake_vfio_pci_add_cap(&f.dev, PCI_CAP_ID_VNDR, 0xc4);
	fake_vfio_pci_config(&f.dev)[0xc6] = 0x20;
	refused("are taken");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("vfio_pci_config");
	TCase *tc = tcase_create("config");

	tcase_add_checked_fixture(tc, fixture_setup, fixture_teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, ids_and_class_are_the_devices);
	tcase_add_test(tc, a_function_without_intx_has_no_pin);
	tcase_add_test(tc, capabilities_keep_their_places_and_dangerous_ones_are_hidden);
	tcase_add_test(tc, a_hidden_capability_at_the_start_becomes_the_null_one);
	tcase_add_test(tc, a_short_config_space_has_no_extended_part);
	tcase_add_test(tc, a_config_space_too_short_for_pci_is_refused);
	tcase_add_test(tc, a_config_space_that_stops_behind_the_header_reads_zero_from_there);
	tcase_add_test(tc, only_what_the_table_says_is_written_to_the_device);
	tcase_add_test(tc, the_devices_errors_are_not_cleared_by_writes_beside_them);
	tcase_add_test(tc, unaligned_accesses_reach_the_device_by_bytes);
	tcase_add_test(tc, decoding_stays_on_at_the_device);
	tcase_add_test(tc, a_vf_without_a_memory_bit_shows_the_guests);
	tcase_add_test(tc, the_device_never_leaves_full_power);
	tcase_add_test(tc, a_function_level_reset_goes_through_the_transport);
	tcase_add_test(tc, a_device_that_cannot_be_reset_offers_no_reset);
	tcase_add_test(tc, a_reset_that_fails_still_stops_dma);
	tcase_add_test(tc, a_device_that_stops_answering_reads_as_ones);
	tcase_add_test(tc, a_loop_ends_the_capability_list);
	tcase_add_test(tc, a_capability_that_points_to_itself_ends_the_list);
	tcase_add_test(tc, a_link_into_the_header_ends_the_list);
	tcase_add_test(tc, a_misaligned_link_ends_the_list);
	tcase_add_test(tc, a_capability_over_the_end_ends_the_list);
	tcase_add_test(tc, a_capability_inside_another_ends_the_list);
	tcase_add_test(tc, a_second_msix_capability_does_not_count);
	tcase_add_test(tc, an_extended_loop_ends_the_list);
	tcase_add_test(tc, an_extended_link_into_the_conventional_part_ends_the_list);
	tcase_add_test(tc, an_extended_capability_over_the_end_ends_the_list);
	tcase_add_test(tc, a_config_space_full_of_capabilities_is_walked_to_its_end);
	tcase_add_test(tc, a_device_that_is_gone_is_refused);
	tcase_add_test(tc, a_bridge_is_refused);
	tcase_add_test(tc, what_is_no_pci_device_is_refused);
	tcase_add_test(tc, a_gpudirect_clique_is_a_capability_of_its_own);
	tcase_add_test(tc, a_gpudirect_clique_goes_to_its_second_place);
	tcase_add_test(tc, a_gpudirect_clique_needs_a_gpu_and_a_place);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
