/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OpenSSL costs nothing before it is used. Ferry is one position-independent file, and at
 * its start every pointer in its data is relocated: for the tables of this library alone
 * that is more than all the rest, half a millisecond and half a MiB of private memory,
 * and most VMs never need it. So the build (gen_late.c) takes the relocations of OpenSSL's
 * data out of those that are done at the start, and they are done here, when the first
 * migration asks for TLS. Likewise OpenSSL's look at the CPU, which it takes before main().
 *
 * Once in a process; that it was done is the only state. Where the build left all as it
 * was (tests, sanitizers), there is nothing to do.
 */
#ifndef MIGRATION_TLS_LATE_H
#define MIGRATION_TLS_LATE_H

#include <stdint.h>

/* Before anything else of OpenSSL; any thread, any number of times. 0 or -errno. */
int tls_late_start(void);

/* What gen_late.c writes into the linked file; addresses count from the file's start. */
#define TLS_LATE_PARTS 3
struct tls_late {
	uint64_t table; /* Elf64_Rela each, R_X86_64_RELATIVE; 0: there are none */
	struct {	/* one behind the other there, each by address */
		uint64_t count;
		uint64_t writable; /* as long as the process lives; else read-only again */
	} parts[TLS_LATE_PARTS];
};

#endif
