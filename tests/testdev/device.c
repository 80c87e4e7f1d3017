/* SPDX-License-Identifier: Apache-2.0 */
/* The device proper: config space, registers, DMA engine. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/fd.h"
#include "tests/testdev/testdev.h"

static void init_config(struct testdev *t)
{
	uint8_t *c = t->config;

	memset(c, 0, sizeof(t->config));
	store_le16(c + 0x00, TESTDEV_VENDOR);
	store_le16(c + 0x02, TESTDEV_DEVICE);
	store_le16(c + 0x06, 0x0010); /* status: capabilities */
	store_le32(c + 0x08, (uint32_t)TESTDEV_CLASS << 8 | TESTDEV_REVISION);
	store_le32(c + 0x18, 0xc); /* BAR2: 64 bits, prefetchable */
	store_le16(c + 0x2c, TESTDEV_VENDOR);
	store_le16(c + 0x2e, TESTDEV_DEVICE);
	c[0x34] = TESTDEV_CAP_MSIX;
	c[0x3d] = 1; /* INTA */
	c[TESTDEV_CAP_MSIX] = 0x11;
	c[TESTDEV_CAP_MSIX + 1] = TESTDEV_CAP_MSI;
	store_le16(c + TESTDEV_CAP_MSIX + 2, (uint16_t)(t->o.vectors - 1));
	store_le32(c + TESTDEV_CAP_MSIX + 4, 0 | 1); /* table: BAR1 + 0 */
	store_le32(c + TESTDEV_CAP_MSIX + 8, TESTDEV_MSIX_PBA | 1);
	c[TESTDEV_CAP_MSI] = 0x05;
	store_le16(c + TESTDEV_CAP_MSI + 2, 0x0080 | 2 << 1); /* 64 bits, 4 messages */
}

void testdev_reset(struct testdev *t)
{
	init_config(t);
	t->scratch = t->irq_status = t->irq_count = 0;
	t->dma_src = t->dma_dst = 0;
	t->dma_len = t->dma_ctrl = t->dma_error = t->dma_count = 0;
	t->dma_status = TESTDEV_DMA_IDLE;
	t->dma_pending = false;
	t->doorbell_count = t->doorbell_irq = 0;
	t->irqs.intx_masked = false;
	memset(t->msix_table, 0, sizeof(t->msix_table));
	t->dma_now = (struct testdev_dma){ 0 };
	testdev_migration_reset(t);
	t->reset_count++;
}

int testdev_init(struct testdev *t)
{
	off_t size = t->o.fault == FAULT_SHORT_FILE ? 0x2000 : TESTDEV_BAR2_SIZE;

	t->doorbell_fd = eventfd_new();
	t->bar2_fd = memfd_create("ferry-testdev", MFD_CLOEXEC);
	if (t->doorbell_fd < 0 || t->bar2_fd < 0 || ftruncate(t->bar2_fd, size))
		return -errno;
	t->bar2 = mmap(NULL, TESTDEV_BAR2_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, t->bar2_fd, 0);
	if (t->bar2 == MAP_FAILED)
		return -errno;
	testdev_irqs_init(t);
	if (testdev_migration_init(t))
		return -ENOMEM;
	testdev_reset(t);
	t->reset_count = 0;
	return 0;
}

static uint32_t shared_sum(const struct testdev *t)
{
	uint32_t sum = 0;

	for (unsigned int i = 0; i < 4096; i += 4)
		sum += load_le32(t->bar2 + TESTDEV_AREA0 + i);
	return sum;
}

static uint32_t read_register(const struct testdev *t, uint64_t offset)
{
	switch (offset) {
	case TESTDEV_ID: return TESTDEV_ID_VALUE;
	case TESTDEV_VERSION: return 1;
	case TESTDEV_SCRATCH: return t->scratch;
	case TESTDEV_INVERSE: return ~t->scratch;
	case TESTDEV_IRQ_STATUS: return t->irq_status;
	case TESTDEV_IRQ_COUNT: return t->irq_count;
	case TESTDEV_DMA_SRC: return (uint32_t)t->dma_src;
	case TESTDEV_DMA_SRC + 4: return (uint32_t)(t->dma_src >> 32);
	case TESTDEV_DMA_DST: return (uint32_t)t->dma_dst;
	case TESTDEV_DMA_DST + 4: return (uint32_t)(t->dma_dst >> 32);
	case TESTDEV_DMA_LEN: return t->dma_len;
	case TESTDEV_DMA_CTRL: return t->dma_ctrl & ~TESTDEV_DMA_START;
	case TESTDEV_DMA_STATUS: return t->dma_status;
	case TESTDEV_DMA_ERROR: return t->dma_error;
	case TESTDEV_DMA_COUNT: return t->dma_count;
	case TESTDEV_DOORBELL_COUNT: return t->doorbell_count;
	case TESTDEV_DOORBELL_IRQ: return t->doorbell_irq;
	case TESTDEV_RESET_COUNT: return t->reset_count;
	case TESTDEV_SHARED_SUM: return shared_sum(t);
	case TESTDEV_STATE_SUM: return (uint32_t)t->migration.filler.generations;
	case TESTDEV_LOAD_COUNT: return t->migration.loads;
	default: return 0;
	}
}

/* Any size, any alignment: by bytes of registers. */
void testdev_bar0_read(struct testdev *t, uint64_t offset, uint8_t *data, size_t len)
{
	for (size_t i = 0; i < len;) {
		uint64_t at = align_down(offset + i, 4);
		uint32_t value = read_register(t, at);

		for (; i < len && offset + i < at + 4; i++)
			data[i] = (uint8_t)(value >> 8 * (offset + i - at));
	}
}

static void set_half(uint64_t *value, bool high, uint32_t half)
{
	*value = high ? (*value & 0xffffffff) | (uint64_t)half << 32
		      : (*value & ~0xffffffffULL) | half;
}

static void start_dma(struct testdev *t)
{
	/* One at a time. */
	if (!(t->dma_ctrl & TESTDEV_DMA_START) || t->dma_pending)
		return;
	t->dma_status = TESTDEV_DMA_BUSY;
	t->dma_pending = true;
	t->dma_now = (struct testdev_dma){
		.src = t->dma_src,
		.dst = t->dma_dst,
		.len = t->dma_len,
		.ctrl = t->dma_ctrl,
	};
	if (t->dma_ctrl & TESTDEV_DMA_SYNC)
		testdev_finish_dma(t);
}

static void write_register(struct testdev *t, uint64_t offset, uint32_t value)
{
	switch (offset) {
	case TESTDEV_SCRATCH: t->scratch = value; break;
	case TESTDEV_IRQ_ACK: t->irq_status &= ~value; break;
	case TESTDEV_IRQ_TRIGGER: testdev_raise(t, value, TESTDEV_IRQ_TRIGGERED); break;
	case TESTDEV_DMA_SRC:
	case TESTDEV_DMA_SRC + 4: set_half(&t->dma_src, offset & 4, value); break;
	case TESTDEV_DMA_DST:
	case TESTDEV_DMA_DST + 4: set_half(&t->dma_dst, offset & 4, value); break;
	case TESTDEV_DMA_LEN: t->dma_len = value; break;
	case TESTDEV_DMA_CTRL:
		t->dma_ctrl = value;
		start_dma(t);
		break;
	case TESTDEV_DOORBELL_IRQ: t->doorbell_irq = value & 1; break;
	case TESTDEV_STATE_TOUCH: testdev_filler_touch(t, value); break;
	case TESTDEV_DOORBELL: testdev_doorbell(t); break;
	default: break;
	}
}

/* Whole registers only; other writes are dropped. */
void testdev_bar0_write(struct testdev *t, uint64_t offset, const uint8_t *data, size_t len)
{
	if (offset % 4 || len % 4)
		return;
	for (size_t i = 0; i < len; i += 4)
		write_register(t, offset + i, load_le32(data + i));
}

void testdev_doorbell(struct testdev *t)
{
	t->doorbell_count++;
	if (t->doorbell_irq)
		testdev_raise(t, 2, TESTDEV_IRQ_DOORBELL);
}

#define DMA_PART 65536U

/* The next part of the transfer, up to `most`. */
static int copy(struct testdev *t, uint32_t most)
{
	static uint8_t buffer[DMA_PART];
	struct testdev_dma *d = &t->dma_now;
	uint32_t part = MIN(d->len - d->done, most);
	int error = 0;

	if (d->len > TESTDEV_DMA_MAX)
		return EMSGSIZE;
	if (d->ctrl & TESTDEV_DMA_FILL)
		memset(buffer, (uint8_t)d->src, part);
	else
		error = testdev_dma_read(t, d->src + d->done, buffer, part);
	if (!error)
		error = testdev_dma_write(t, d->dst + d->done, buffer, part);
	if (!error)
		d->done += part;
	return error;
}

static void end_dma(struct testdev *t, int error)
{
	t->dma_pending = false;
	t->dma_error = (uint32_t)error;
	t->dma_count += !error;
	t->dma_status = error ? TESTDEV_DMA_FAILED : TESTDEV_DMA_DONE;
	if (t->dma_now.ctrl & TESTDEV_DMA_IRQ)
		testdev_raise(t, t->dma_now.ctrl >> TESTDEV_DMA_VECTOR_SHIFT, TESTDEV_IRQ_DMA);
}

void testdev_finish_dma(struct testdev *t)
{
	while (t->dma_pending) {
		int error = copy(t, DMA_PART);

		if (error || t->dma_now.done == t->dma_now.len)
			end_dma(t, error);
	}
}

/* What the rate lets it do by now, at most a part. */
static uint32_t dma_due(struct testdev *t)
{
	struct testdev_dma *d = &t->dma_now;
	double due;

	if (!t->o.dma_rate)
		return DMA_PART;
	if (!d->started_ns) {
		d->started_ns = clock_ns();
		d->started_done = d->done;
	}
	due = (double)(clock_ns() - d->started_ns) * (double)t->o.dma_rate / 1e9 + d->started_done -
	      d->done;
	return due <= 0 ? 0 : due > DMA_PART ? DMA_PART : (uint32_t)due;
}

int testdev_run_dma(struct testdev *t)
{
	uint32_t due;
	int error;

	if (!t->dma_pending)
		return -1;
	if (!testdev_dma_allowed(t)) {
		t->dma_now.started_ns = 0; /* goes on from there */
		return -1;
	}
	due = dma_due(t);
	if (!due && t->dma_now.len)
		return 1;
	error = copy(t, due);
	if (error || t->dma_now.done == t->dma_now.len)
		end_dma(t, error);
	return t->dma_pending ? (t->o.dma_rate ? 1 : 0) : -1;
}
