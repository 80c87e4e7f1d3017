/* SPDX-License-Identifier: Apache-2.0 */
/* MARK is begin or end: around what the linker takes of OpenSSL, in each section with
 * pointers, in the linker's order. For gen_late.c. */
#define PASTE(a, b) a##b
#define NAME(part, mark) PASTE(part, mark)

	.section .data.rel.ro.local, "aw"
	.globl NAME(tls_late_local_, MARK)
NAME(tls_late_local_, MARK):

	.section .data.rel.ro, "aw"
	.globl NAME(tls_late_constant_, MARK)
NAME(tls_late_constant_, MARK):

	.data
	.globl NAME(tls_late_data_, MARK)
NAME(tls_late_data_, MARK):

	.section .note.GNU-stack, "", @progbits
