/* SPDX-License-Identifier: Apache-2.0 */
/* The 16550 at COM1: polled output, input by interrupt (or polled, on request). */
#include "probe.h"

#define PORT 0x3f8
#define FIFO 16
#define IER 1
#define FCR 2
#define LCR 3
#define MCR 4
#define LSR 5
#define LSR_DATA 0x01
#define LSR_EMPTY 0x20
#define GSI 4

void serial_init(bool interrupts)
{
	out8(PORT + LCR, 0x03); /* 8N1 */
	out8(PORT + FCR, 0x07); /* on, cleared */
	out8(PORT + MCR, 0x0b); /* DTR, RTS, OUT2: interrupts reach the pin */
	if (interrupts) {
		ioapic_route(GSI, VECTOR_SERIAL);
		out8(PORT + IER, 0x01);
	}
}

static void put(char c)
{
	static unsigned int room;

	/* An access costs an exit: ask only when the FIFO may be full. */
	while (!room) {
		if (in8(PORT + LSR) & LSR_EMPTY)
			room = FIFO;
		else
			cpu_relax();
	}
	out8(PORT, (uint8_t)c);
	room--;
}

static void put_number(uint64_t value, unsigned int base)
{
	char digits[24];
	unsigned int n = 0;

	do {
		digits[n++] = "0123456789abcdef"[value % base];
		value /= base;
	} while (value);
	while (n)
		put(digits[--n]);
}

void print(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	for (const char *f = format; *f; f++) {
		bool is_long;

		if (*f != '%') {
			put(*f);
			continue;
		}
		is_long = *++f == 'l';
		f += is_long;
		if (*f == 's')
			for (const char *s = va_arg(args, const char *); *s; s++)
				put(*s);
		else if (is_long)
			put_number(va_arg(args, uint64_t), *f == 'x' ? 16 : 10);
		else
			put_number(va_arg(args, uint32_t), *f == 'x' ? 16 : 10);
	}
	va_end(args);
}

char *serial_line(void)
{
	static char line[256];
	static unsigned int len;

	while (in8(PORT + LSR) & LSR_DATA) {
		char c = (char)in8(PORT);

		if (c == '\n' || c == '\r') {
			bool any = len;

			line[len] = '\0';
			len = 0;
			if (any)
				return line;
		} else if (len < sizeof(line) - 1) {
			line[len++] = c;
		}
	}
	return NULL;
}
