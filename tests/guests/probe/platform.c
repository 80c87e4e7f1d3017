/* SPDX-License-Identifier: Apache-2.0 */
/* What the machine says of itself: start_info, and the ACPI tables behind it. */
#include "probe.h"

#define ECAM_DEFAULT 0xe0000000UL
#define SLEEP_CONTROL_DEFAULT 0xf0000004UL
#define SLEEP_S5 (5 << 2 | 1 << 5)
#define FADT_SLEEP_CONTROL 244

struct platform platform;

struct start_info {
	uint32_t magic, version, flags, nr_modules;
	uint64_t modlist_paddr, cmdline_paddr, rsdp_paddr, memmap_paddr;
	uint32_t memmap_entries, reserved;
};

struct memmap_entry {
	uint64_t addr, size;
	uint32_t type, reserved;
};

static uint32_t get32(const uint8_t *p)
{
	return *(const uint32_t *)p;
}

static uint64_t get64(const uint8_t *p)
{
	return *(const uint64_t *)p;
}

static void read_madt(const uint8_t *table, uint32_t len)
{
	for (uint32_t at = 44; at + 2 <= len && table[at + 1] >= 2; at += table[at + 1]) {
		const uint8_t *e = table + at;

		if (platform.cpus == CPUS_MAX)
			return;
		if (e[0] == 0 && get32(e + 4) & 1)
			platform.apic_ids[platform.cpus++] = e[3];
		else if (e[0] == 9 && get32(e + 8) & 1)
			platform.apic_ids[platform.cpus++] = get32(e + 4);
	}
}

static void read_table(const uint8_t *table)
{
	uint32_t len = get32(table + 4);

	switch (get32(table)) {
	case 0x43495041: /* APIC */ read_madt(table, len); break;
	case 0x4746434d: /* MCFG */
		platform.ecam = get64(table + 44);
		platform.ecam_buses = table[55] - table[54] + 1U;
		break;
	case 0x50434146: /* FACP */
		if (len >= FADT_SLEEP_CONTROL + 12 && get64(table + FADT_SLEEP_CONTROL + 4))
			platform.sleep_control = get64(table + FADT_SLEEP_CONTROL + 4);
		break;
	}
}

static void read_acpi(const uint8_t *rsdp)
{
	const uint8_t *root;
	bool wide = rsdp[15] >= 2 && get64(rsdp + 24);
	unsigned int size = wide ? 8 : 4;

	root = (const uint8_t *)(wide ? get64(rsdp + 24) : get32(rsdp + 16));
	for (uint32_t at = 36; at + size <= get32(root + 4); at += size)
		read_table((const uint8_t *)(wide ? get64(root + at) : get32(root + at)));
}

void platform_init(void)
{
	const struct start_info *info = (const struct start_info *)start_info;
	const struct memmap_entry *map = (const struct memmap_entry *)info->memmap_paddr;

	platform.ecam = ECAM_DEFAULT;
	platform.ecam_buses = 1;
	platform.sleep_control = SLEEP_CONTROL_DEFAULT;
	platform.cmdline = info->cmdline_paddr ? (const char *)info->cmdline_paddr : "";
	for (uint32_t i = 0; info->version >= 1 && i < info->memmap_entries; i++) {
		if (map[i].type != 1)
			continue;
		platform.ram_bytes += map[i].size;
		if (platform.ram_count < ARRAY_SIZE(platform.ram))
			platform.ram[platform.ram_count++] =
				(struct ram){ map[i].addr, map[i].addr + map[i].size };
	}
	if (info->rsdp_paddr)
		read_acpi((const uint8_t *)info->rsdp_paddr);
	if (!platform.cpus)
		platform.apic_ids[platform.cpus++] = lapic_id();
}

bool cmdline_has(const char *word)
{
	for (const char *p = platform.cmdline; *p;) {
		const char *w = word;

		while (*w && *p == *w) {
			p++;
			w++;
		}
		if (!*w && (!*p || *p == ' '))
			return true;
		while (*p && *p != ' ')
			p++;
		while (*p == ' ')
			p++;
	}
	return false;
}

bool is_free_ram(uint64_t start, uint64_t len)
{
	if (start < PROBE_END || start + len < start)
		return false;
	for (unsigned int i = 0; i < platform.ram_count; i++)
		if (start >= platform.ram[i].start && start + len <= platform.ram[i].end)
			return true;
	return false;
}

void shut_down(void)
{
	out8(DEBUG_PORT, MARK_END);
	mmio_write(platform.sleep_control, 1, SLEEP_S5);
	/* Machines without these registers: a reset ends them as well. */
	out8(0x64, 0xfe);
	for (unsigned int i = 0; i < 1000000; i++)
		cpu_relax();
	gate(GATE_TRIPLE_FAULT, 0, 0, NULL);
	__builtin_unreachable();
}
