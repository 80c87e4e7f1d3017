/* SPDX-License-Identifier: Apache-2.0 */
/* The registers of ferry-testdev; for its server, tests and guests alike. All little
 * endian, 32 bits wide unless they say 64. */
#ifndef TESTS_TESTDEV_TESTDEV_REGS_H
#define TESTS_TESTDEV_TESTDEV_REGS_H

/* A vendor and device id that no driver binds; class "unassigned". */
#define TESTDEV_VENDOR 0x1234
#define TESTDEV_DEVICE 0x7e57
#define TESTDEV_REVISION 1
#define TESTDEV_CLASS 0xff0000
#define TESTDEV_CONFIG_SIZE 256
#define TESTDEV_CAP_MSIX 0x40
#define TESTDEV_CAP_MSI 0x60
#define TESTDEV_MSI_VECTORS 4

/* BAR0: registers; trapped, the doorbell as an ioeventfd where the VMM can. */
#define TESTDEV_BAR0_SIZE 0x1000
#define TESTDEV_ID 0x00		    /* ro: TESTDEV_ID_VALUE */
#define TESTDEV_VERSION 0x04	    /* ro: 1 */
#define TESTDEV_SCRATCH 0x08	    /* rw */
#define TESTDEV_INVERSE 0x0c	    /* ro: ~SCRATCH */
#define TESTDEV_IRQ_STATUS 0x10	    /* ro: causes; INTx is pending while it is not 0 */
#define TESTDEV_IRQ_ACK 0x14	    /* wo: clears these causes */
#define TESTDEV_IRQ_TRIGGER 0x18    /* wo: raises this vector, cause TRIGGER */
#define TESTDEV_IRQ_COUNT 0x1c	    /* ro: interrupts raised since reset */
#define TESTDEV_DMA_SRC 0x20	    /* rw, 64: guest-physical */
#define TESTDEV_DMA_DST 0x28	    /* rw, 64: guest-physical */
#define TESTDEV_DMA_LEN 0x30	    /* rw: bytes, up to TESTDEV_DMA_MAX */
#define TESTDEV_DMA_CTRL 0x34	    /* rw: starts with TESTDEV_DMA_START */
#define TESTDEV_DMA_STATUS 0x38	    /* ro: to poll */
#define TESTDEV_DMA_ERROR 0x3c	    /* ro: errno of the last transfer */
#define TESTDEV_DMA_COUNT 0x40	    /* ro: transfers that succeeded since reset */
#define TESTDEV_DOORBELL_COUNT 0x44 /* ro: signals since reset (writes may be merged) */
#define TESTDEV_DOORBELL_IRQ 0x48   /* rw: 1: a doorbell raises vector 2 */
#define TESTDEV_RESET_COUNT 0x4c    /* ro: resets since the server started */
#define TESTDEV_SHARED_SUM 0x50	    /* ro: sum of the words of BAR2's first mapped page */
#define TESTDEV_STATE_SUM 0x54	    /* ro: generations of all pages of filler, summed up */
#define TESTDEV_STATE_TOUCH 0x58    /* wo: so many pages of filler get a new generation */
#define TESTDEV_LOAD_COUNT 0x5c	    /* ro: states loaded since the server started */
#define TESTDEV_DOORBELL 0x800	    /* wo: any value, 4 bytes */

#define TESTDEV_ID_VALUE 0x54534554 /* "TEST" */

#define TESTDEV_IRQ_DMA 0x1
#define TESTDEV_IRQ_TRIGGERED 0x2
#define TESTDEV_IRQ_DOORBELL 0x4

#define TESTDEV_DMA_START 0x1
#define TESTDEV_DMA_IRQ 0x2  /* raises the vector in bits 16-31 at the end */
#define TESTDEV_DMA_SYNC 0x4 /* done before the write is answered, else soon after */
#define TESTDEV_DMA_FILL 0x8 /* stores the low byte of SRC instead of copying */
#define TESTDEV_DMA_VECTOR_SHIFT 16
#define TESTDEV_DMA_MAX 0x1000000

#define TESTDEV_DMA_IDLE 0
#define TESTDEV_DMA_BUSY 1
#define TESTDEV_DMA_DONE 2
#define TESTDEV_DMA_FAILED 3

/* BAR1: MSI-X table and pending bits. */
#define TESTDEV_BAR1_SIZE 0x10000
#define TESTDEV_MSIX_PBA 0x8000

/* BAR2 (64 bits, prefetchable): memory shared with the server. Page 0 and the last one
 * are trapped, two areas between them can be mapped. */
#define TESTDEV_BAR2_SIZE 0x100000
#define TESTDEV_AREA0 0x1000
#define TESTDEV_AREA0_SIZE 0x7f000
#define TESTDEV_AREA1 0x80000
#define TESTDEV_AREA1_SIZE 0x7f000

#endif
