/* SPDX-License-Identifier: Apache-2.0 */
/* The command loop. */
#include "probe.h"

#define PVPANIC 0x505

uint64_t fault_vector, fault_error, fault_rip, fault_address;
void main(void) __attribute__((noreturn));
void fault(void) __attribute__((noreturn));

static bool poll_serial;

static void command_ping(char *args)
{
	(void)args;
	print("pong\n");
}

static void command_timer(char *args)
{
	uint64_t n, from = irq_count[VECTOR_TIMER - 32], start = rdtsc(), seen;

	if (!next_number(&args, &n)) {
		print("error <n> wanted\n");
		return;
	}
	lapic_timer(1000, true);
	while (seen = irq_total, irq_count[VECTOR_TIMER - 32] - from < n)
		wait_for_interrupt(seen);
	lapic_timer(0, false);
	print("timer ok ticks=%lu us=%lu\n", irq_count[VECTOR_TIMER - 32] - from,
	      (rdtsc() - start) * 1000 / platform.tsc_khz);
}

static void command_mmio(char *args)
{
	uint64_t address, len, value;

	if (!next_number(&args, &address) || !next_number(&args, &len) ||
	    (len != 1 && len != 2 && len != 4 && len != 8) || !map_range(address, len))
		print("error <addr> 1|2|4|8 [<value>] wanted\n");
	else if (next_number(&args, &value)) {
		mmio_write(address, (unsigned int)len, value);
		print("mmio ok\n");
	} else
		print("mmio %lx\n", mmio_read(address, (unsigned int)len));
}

static void port_in(char *args, unsigned int len)
{
	uint64_t port;

	if (!next_number(&args, &port) || port > 0xffff)
		print("error <port> wanted\n");
	else
		print("in %x\n", len == 1   ? in8((uint16_t)port)
				 : len == 2 ? in16((uint16_t)port)
					    : in32((uint16_t)port));
}

static void port_out(char *args, unsigned int len)
{
	uint64_t port, value;

	if (!next_number(&args, &port) || port > 0xffff || !next_number(&args, &value)) {
		print("error <port> <value> wanted\n");
		return;
	}
	if (len == 1)
		out8((uint16_t)port, (uint8_t)value);
	else if (len == 2)
		out16((uint16_t)port, (uint16_t)value);
	else
		out32((uint16_t)port, (uint32_t)value);
	print("out ok\n");
}

static void command_inb(char *args)
{
	port_in(args, 1);
}

static void command_inw(char *args)
{
	port_in(args, 2);
}

static void command_inl(char *args)
{
	port_in(args, 4);
}

static void command_outb(char *args)
{
	port_out(args, 1);
}

static void command_outw(char *args)
{
	port_out(args, 2);
}

static void command_outl(char *args)
{
	port_out(args, 4);
}

static void command_cpuid(char *args)
{
	uint64_t leaf, subleaf = 0;
	uint32_t regs[4];

	if (!next_number(&args, &leaf)) {
		print("error <leaf> [<subleaf>] wanted\n");
		return;
	}
	next_number(&args, &subleaf);
	gate(GATE_CPUID, leaf, subleaf, regs);
	print("cpuid %x %x %x %x\n", regs[0], regs[1], regs[2], regs[3]);
}

static void command_nmi(char *args)
{
	(void)args;
	print("nmi %lu\n", nmi_count);
}

static void command_irqs(char *args)
{
	(void)args;
	print("irqs");
	for (unsigned int i = 0; i < ARRAY_SIZE(irq_count); i++)
		print(" %lu", irq_count[i]);
	print("\n");
}

static void command_info(char *args)
{
	(void)args;
	print("info mem=%lu cpus=%u tsc_khz=%lu cmdline=%s\n", (platform.ram_bytes + MIB - 1) / MIB,
	      platform.cpus, platform.tsc_khz, platform.cmdline);
}

static void command_shutdown(char *args)
{
	(void)args;
	print("shutdown\n");
	shut_down();
}

static void command_reboot(char *args)
{
	(void)args;
	print("reboot\n");
	out8(0x64, 0xfe);
}

static void command_triple(char *args)
{
	(void)args;
	print("triple\n");
	gate(GATE_TRIPLE_FAULT, 0, 0, NULL);
}

static void command_panic(char *args)
{
	(void)args;
	print("panic\n");
	out8(PVPANIC, 1);
}

static void command_halt(char *args)
{
	(void)args;
	print("halt\n");
	gate(GATE_HALT, 0, 0, NULL);
}

static void command_spin(char *args)
{
	(void)args;
	print("spin\n");
	for (;;)
		cpu_relax();
}

static const struct {
	const char *name;
	void (*run)(char *args);
} commands[] = {
	{ "ping", command_ping },	  { "info", command_info },
	{ "sum", command_sum },		  { "fill", command_fill },
	{ "dirty", command_dirty },	  { "dirtystop", command_dirtystop },
	{ "verify", command_verify },	  { "blk", command_blk },
	{ "timer", command_timer },	  { "mmio", command_mmio },
	{ "inb", command_inb },		  { "inw", command_inw },
	{ "inl", command_inl },		  { "outb", command_outb },
	{ "outw", command_outw },	  { "outl", command_outl },
	{ "cpuid", command_cpuid },	  { "pciscan", command_pciscan },
	{ "smp", command_smp },		  { "apcount", command_apcount },
	{ "testdev", command_testdev },	  { "nmi", command_nmi },
	{ "irqs", command_irqs },	  { "shutdown", command_shutdown },
	{ "reboot", command_reboot },	  { "triple", command_triple },
	{ "panic", command_panic },	  { "halt", command_halt },
	{ "spin", command_spin },	  { "dma", command_dma },
	{ "dmacheck", command_dmacheck }, { "dmastop", command_dmastop },
};

static void run(char *line)
{
	const char *name = next_word(&line);

	for (unsigned int i = 0; i < ARRAY_SIZE(commands); i++) {
		if (equal(name, commands[i].name)) {
			commands[i].run(line);
			return;
		}
	}
	print("error unknown command %s\n", name);
}

static void loop(void) __attribute__((noreturn));
static void loop(void)
{
	for (;;) {
		uint64_t seen = irq_total;
		bool busy = dirty_work() | dma_work();
		char *line = serial_line();

		testdev_work();
		if (line)
			run(line);
		else if (!busy && !poll_serial)
			wait_for_interrupt(seen);
	}
}

/* Where exceptions end up. The command that caused it is given up. */
void fault(void)
{
	print("fault vector=%lu error=%lx rip=%lx address=%lx\n", fault_vector, fault_error,
	      fault_rip, fault_address);
	loop();
}

void main(void)
{
	out8(DEBUG_PORT, MARK_MAIN);
	lapic_init();
	platform_init();
	if (cmdline_has("bench"))
		shut_down();
	poll_serial = cmdline_has("poll");
	platform_tsc_init();
	serial_init(!poll_serial);
	if (!cmdline_has("quiet"))
		print("PROBE ready mem=%lu cpus=%u\n", (platform.ram_bytes + MIB - 1) / MIB,
		      platform.cpus);
	out8(DEBUG_PORT, MARK_READY);
	loop();
}
