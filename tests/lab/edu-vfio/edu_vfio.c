// SPDX-License-Identifier: GPL-2.0
/*
 * edu_vfio.c - a vfio-pci variant driver for QEMU's edu device, for the lab
 *
 * A PCI device with real DMA behind a real IOMMU, MSI, device migration (v2:
 * STOP_COPY, P2P and PRE_COPY) and DMA logging, as no ready-made emulated
 * device has them all. Everything a guest does to the registers is trapped
 * (BAR 0 cannot be mapped), which is how the driver knows what the device
 * writes and what to save.
 *
 * DMA: edu copies up to 4 KiB between its buffer and memory, about 100 ms after
 * the command. In P2P and stopped states a command is kept and started when
 * the device runs again; a state without DMA is entered when the copy in flight
 * is done. Logged are the pages that copies to memory write to.
 *
 * Stream of a migration: a record of kind FILL, `state_kib` of a known pattern
 * (what PRE_COPY reports as initial bytes, checked when loaded), then a record
 * of kind REGS when the device is stopped. The 4 KiB buffer inside the device
 * is not saved: only DMA reaches it, and the driver has none of its own.
 *
 * Module parameters, also while it runs: state_kib; fail_state, the number of
 * an enum vfio_device_mig_state that cannot be entered (-1: none).
 */
#include <linux/anon_inodes.h>
#include <linux/delay.h>
#include <linux/file.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/vfio_pci_core.h>
#include <linux/xarray.h>

#define EDU_MAGIC 0x45445546u
#define EDU_VERSION 1u

enum edu_register {
	EDU_LIVENESS = 0x04,
	EDU_FACTORIAL = 0x08,
	EDU_STATUS = 0x20,
	EDU_IRQ = 0x24,
	EDU_IRQ_RAISE = 0x60,
	EDU_DMA_SRC = 0x80,
	EDU_DMA_DST = 0x88,
	EDU_DMA_COUNT = 0x90,
	EDU_DMA_COMMAND = 0x98,
	EDU_REGISTERS_END = 0xa0,
};
enum { EDU_DMA_START = 1, EDU_DMA_TO_MEMORY = 2, EDU_COMPUTING = 1 };
enum edu_kind { EDU_FILL = 1, EDU_REGS = 2 };

struct edu_record {
	__le32 magic, version, kind, length;
};

struct edu_regs {
	__le32 src, dst, count, kept_command;
	__le32 liveness, factorial, status, irq;
};

/* One side of a migration: its file and the stream so far. */
struct edu_stream {
	struct file *filp;
	struct edu_device *edu;
	struct mutex lock;
	bool disabled;
	size_t size, room;
	u8 *data;
};

struct edu_device {
	struct vfio_pci_core_device core;
	struct mutex lock; /* all below */
	enum vfio_device_mig_state state;
	struct edu_stream *saving, *resuming;
	struct edu_regs regs; /* as the guest wrote them */
	bool logging, in_flight;
	u64 flight_iova, flight_length;
	struct xarray dirty;
};

static unsigned int state_kib = 64;
module_param(state_kib, uint, 0644);
static int fail_state = -1;
module_param(fail_state, int, 0644);

static struct edu_device *to_edu(struct vfio_device *vdev)
{
	return container_of(vdev, struct edu_device, core.vdev);
}

static int edu_read32(struct edu_device *edu, unsigned int reg, u32 *value)
{
	void __iomem *bar = vfio_pci_core_get_iomap(&edu->core, 0);

	if (IS_ERR(bar))
		return PTR_ERR(bar);
	return vfio_pci_core_ioread32(&edu->core, true, value, bar + reg);
}

/* 32 bits, as vfio-pci writes on x86; edu then clears the upper half. */
static int edu_write_reg(struct edu_device *edu, unsigned int reg, u32 value)
{
	void __iomem *bar = vfio_pci_core_get_iomap(&edu->core, 0);

	if (IS_ERR(bar))
		return PTR_ERR(bar);
	return vfio_pci_core_iowrite32(&edu->core, true, value, bar + reg);
}

/* --- DMA and its log ------------------------------------------------------ */

static bool edu_may_dma(struct edu_device *edu)
{
	return edu->state == VFIO_DEVICE_STATE_RUNNING || edu->state == VFIO_DEVICE_STATE_PRE_COPY;
}

static int edu_mark(struct edu_device *edu, u64 iova, u64 length)
{
	u64 page;
	int ret;

	if (length == 0)
		return 0;
	for (page = iova >> PAGE_SHIFT; page <= (iova + length - 1) >> PAGE_SHIFT; page++) {
		ret = xa_err(xa_store(&edu->dirty, page, xa_mk_value(1), GFP_KERNEL));
		if (ret)
			return ret;
	}
	return 0;
}

static bool edu_dma_active(struct edu_device *edu)
{
	u32 command;

	/* With memory decoding off there is no telling: edu is done after 100 ms. */
	if (edu_read32(edu, EDU_DMA_COMMAND, &command)) {
		msleep(200);
		return false;
	}
	return command & EDU_DMA_START;
}

static int edu_quiesce(struct edu_device *edu)
{
	int tries;

	for (tries = 0; tries < 400; tries++) {
		if (!edu_dma_active(edu))
			return 0;
		msleep(5);
	}
	return -ETIMEDOUT;
}

static int edu_command(struct edu_device *edu, u32 command)
{
	u64 length = min_t(u32, le32_to_cpu(edu->regs.count), SZ_4K);

	if (!(command & EDU_DMA_START) || edu_dma_active(edu))
		return 0; /* edu ignores both */
	if (!edu_may_dma(edu)) {
		edu->regs.kept_command = cpu_to_le32(command);
		return 0;
	}
	edu->regs.kept_command = 0;
	if (edu->in_flight && edu->logging) /* the one before, by now done */
		edu_mark(edu, edu->flight_iova, edu->flight_length);
	edu->in_flight = command & EDU_DMA_TO_MEMORY;
	edu->flight_iova = le32_to_cpu(edu->regs.dst);
	edu->flight_length = length;
	return edu_write_reg(edu, EDU_DMA_COMMAND, command);
}

static int edu_log_start(struct vfio_device *vdev, struct rb_root_cached *ranges, u32 nnodes,
			 u64 *page_size)
{
	struct edu_device *edu = to_edu(vdev);

	/* The ranges bound what user space asks for, not what edu can reach. */
	guard(mutex)(&edu->lock);
	if (edu->logging)
		return -EBUSY;
	edu->logging = true;
	*page_size = PAGE_SIZE;
	return 0;
}

static int edu_log_stop(struct vfio_device *vdev)
{
	struct edu_device *edu = to_edu(vdev);

	guard(mutex)(&edu->lock);
	edu->logging = false;
	xa_destroy(&edu->dirty);
	return 0;
}

static int edu_log_read_and_clear(struct vfio_device *vdev, unsigned long iova,
				  unsigned long length, struct iova_bitmap *dirty)
{
	struct edu_device *edu = to_edu(vdev);
	unsigned long page, last = (iova + length - 1) >> PAGE_SHIFT;
	void *entry;
	bool active;
	int ret;

	guard(mutex)(&edu->lock);
	if (!edu->logging)
		return -EINVAL;
	/* A page is written at an unknown moment until the copy is done: it is
	 * dirty in every reading up to the first that begins after that. */
	active = edu->in_flight && edu_dma_active(edu);
	if (edu->in_flight) {
		ret = edu_mark(edu, edu->flight_iova, edu->flight_length);
		if (ret)
			return ret;
		edu->in_flight = active;
	}
	xa_for_each_range(&edu->dirty, page, entry, iova >> PAGE_SHIFT, last)
	{
		iova_bitmap_set(dirty, page << PAGE_SHIFT, PAGE_SIZE);
		xa_erase(&edu->dirty, page);
	}
	return 0;
}

static const struct vfio_log_ops edu_log_ops = {
	.log_start = edu_log_start,
	.log_stop = edu_log_stop,
	.log_read_and_clear = edu_log_read_and_clear,
};

/* --- registers -------------------------------------------------------------- */

static int edu_guest_write(struct edu_device *edu, unsigned int reg, u32 value)
{
	switch (reg) {
	case EDU_LIVENESS: edu->regs.liveness = cpu_to_le32(value); break;
	case EDU_FACTORIAL: edu->regs.factorial = cpu_to_le32(value); break;
	case EDU_STATUS: edu->regs.status = cpu_to_le32(value); break;
	case EDU_DMA_SRC: edu->regs.src = cpu_to_le32(value); break;
	case EDU_DMA_DST: edu->regs.dst = cpu_to_le32(value); break;
	case EDU_DMA_COUNT: edu->regs.count = cpu_to_le32(value); break;
	case EDU_DMA_COMMAND: return edu_command(edu, value);
	}
	return edu_write_reg(edu, reg, value);
}

static ssize_t edu_write(struct vfio_device *vdev, const char __user *buf, size_t count,
			 loff_t *ppos)
{
	struct edu_device *edu = to_edu(vdev);
	u64 pos = *ppos & VFIO_PCI_OFFSET_MASK, value = 0;
	int ret;

	if (VFIO_PCI_OFFSET_TO_INDEX(*ppos) != VFIO_PCI_BAR0_REGION_INDEX ||
	    pos >= EDU_REGISTERS_END)
		return vfio_pci_core_write(vdev, buf, count, ppos);
	if ((count != 4 && count != 8) || pos % 4)
		return -EINVAL;
	if (copy_from_user(&value, buf, count))
		return -EFAULT;
	scoped_guard(mutex, &edu->lock) ret = edu_guest_write(edu, pos, (u32)value);
	if (ret)
		return ret;
	*ppos += count;
	return count;
}

static int edu_mmap(struct vfio_device *vdev, struct vm_area_struct *vma)
{
	return -EINVAL; /* every access must pass edu_write() */
}

static int edu_registers_save(struct edu_device *edu, struct edu_regs *out)
{
	u32 irq;
	int ret = edu_read32(edu, EDU_IRQ, &irq);

	*out = edu->regs;
	out->irq = cpu_to_le32(ret ? 0 : irq);
	return 0;
}

static int edu_registers_load(struct edu_device *edu, const struct edu_regs *in)
{
	u32 status = EDU_COMPUTING;
	int tries, ret;

	edu->regs = *in;
	edu->regs.irq = 0;
	ret = edu_write_reg(edu, EDU_LIVENESS, le32_to_cpu(in->liveness)) ?:
	      edu_write_reg(edu, EDU_DMA_SRC, le32_to_cpu(in->src)) ?:
	      edu_write_reg(edu, EDU_DMA_DST, le32_to_cpu(in->dst)) ?:
	      edu_write_reg(edu, EDU_DMA_COUNT, le32_to_cpu(in->count)) ?:
	      edu_write_reg(edu, EDU_STATUS, 0) ?:
	      edu_write_reg(edu, EDU_FACTORIAL, le32_to_cpu(in->factorial));
	for (tries = 0; !ret && (status & EDU_COMPUTING) && tries < 100; tries++) {
		usleep_range(100, 200);
		ret = edu_read32(edu, EDU_STATUS, &status);
	}
	ret = ret ?: edu_write_reg(edu, EDU_STATUS, le32_to_cpu(in->status));
	if (!ret && in->irq)
		ret = edu_write_reg(edu, EDU_IRQ_RAISE, le32_to_cpu(in->irq));
	return ret;
}

/* --- migration ---------------------------------------------------------------- */

static void edu_stream_disable(struct edu_stream **slot)
{
	struct edu_stream *stream = *slot;

	if (!stream)
		return;
	scoped_guard(mutex, &stream->lock) stream->disabled = true;
	fput(stream->filp);
	*slot = NULL;
}

static int edu_stream_release(struct inode *inode, struct file *filp)
{
	struct edu_stream *stream = filp->private_data;

	mutex_destroy(&stream->lock);
	kvfree(stream->data);
	kfree(stream);
	return 0;
}

static bool edu_in_precopy(struct edu_device *edu)
{
	return edu->state == VFIO_DEVICE_STATE_PRE_COPY ||
	       edu->state == VFIO_DEVICE_STATE_PRE_COPY_P2P;
}

static ssize_t edu_save_read(struct file *filp, char __user *buf, size_t len, loff_t *pos)
{
	struct edu_stream *stream = filp->private_data;

	if (pos)
		return -ESPIPE;
	pos = &filp->f_pos;
	guard(mutex)(&stream->lock);
	if (stream->disabled)
		return -ENODEV;
	len = min_t(size_t, len, stream->size - *pos);
	if (!len) /* what PRE_COPY has to say for now, or the end */
		return READ_ONCE(stream->edu->saving) && edu_in_precopy(stream->edu) ? -ENOMSG : 0;
	if (copy_to_user(buf, stream->data + *pos, len))
		return -EFAULT;
	*pos += len;
	return len;
}

static long edu_save_ioctl(struct file *filp, unsigned int cmd, unsigned long arg)
{
	struct edu_stream *stream = filp->private_data;
	struct edu_device *edu = stream->edu;
	struct vfio_precopy_info info = {};
	int ret = vfio_check_precopy_ioctl(&edu->core.vdev, cmd, arg, &info);

	if (ret)
		return ret;
	guard(mutex)(&edu->lock);
	guard(mutex)(&stream->lock);
	if (stream->disabled)
		return -ENODEV;
	if (!edu_in_precopy(edu))
		return -EINVAL;
	info.initial_bytes = stream->size - filp->f_pos;
	info.dirty_bytes = 0;
	return copy_to_user((void __user *)arg, &info,
			    offsetofend(struct vfio_precopy_info, dirty_bytes))
		       ? -EFAULT
		       : 0;
}

static ssize_t edu_resume_write(struct file *filp, const char __user *buf, size_t len, loff_t *pos)
{
	struct edu_stream *stream = filp->private_data;

	if (pos)
		return -ESPIPE;
	guard(mutex)(&stream->lock);
	if (stream->disabled)
		return -ENODEV;
	if (len > stream->room - stream->size)
		return -ENOSPC;
	if (copy_from_user(stream->data + stream->size, buf, len))
		return -EFAULT;
	stream->size += len;
	return len;
}

static const struct file_operations edu_save_fops = {
	.owner = THIS_MODULE,
	.read = edu_save_read,
	.unlocked_ioctl = edu_save_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.release = edu_stream_release,
};

static const struct file_operations edu_resume_fops = {
	.owner = THIS_MODULE,
	.write = edu_resume_write,
	.release = edu_stream_release,
};

static struct edu_stream *edu_stream_new(struct edu_device *edu, const struct file_operations *fops,
					 int flags)
{
	struct edu_stream *stream = kzalloc(sizeof(*stream), GFP_KERNEL_ACCOUNT);

	if (!stream)
		return ERR_PTR(-ENOMEM);
	stream->room = (size_t)READ_ONCE(state_kib) * SZ_1K + SZ_4K;
	stream->data = kvzalloc(stream->room, GFP_KERNEL_ACCOUNT);
	stream->filp = stream->data ? anon_inode_getfile("edu_mig", fops, stream, flags)
				    : ERR_PTR(-ENOMEM);
	if (IS_ERR(stream->filp)) {
		int ret = PTR_ERR(stream->filp);

		kvfree(stream->data);
		kfree(stream);
		return ERR_PTR(ret);
	}
	stream_open(stream->filp->f_inode, stream->filp);
	mutex_init(&stream->lock);
	stream->edu = edu;
	return stream;
}

static u8 edu_pattern(size_t i)
{
	return (u8)(i * 31 + (i >> 8));
}

static u8 *edu_append(struct edu_stream *stream, enum edu_kind kind, size_t length)
{
	struct edu_record record = { cpu_to_le32(EDU_MAGIC), cpu_to_le32(EDU_VERSION),
				     cpu_to_le32(kind), cpu_to_le32(length) };
	u8 *at = stream->data + stream->size;

	memcpy(at, &record, sizeof(record));
	stream->size += sizeof(record) + length;
	return at + sizeof(record);
}

static int edu_save_begin(struct edu_device *edu)
{
	struct edu_stream *stream = edu_stream_new(edu, &edu_save_fops, O_RDONLY);
	size_t i, length;
	u8 *fill;

	if (IS_ERR(stream))
		return PTR_ERR(stream);
	length = stream->room - SZ_4K;
	fill = edu_append(stream, EDU_FILL, length);
	for (i = 0; i < length; i++)
		fill[i] = edu_pattern(i);
	edu->saving = stream;
	return 0;
}

static int edu_save_end(struct edu_device *edu)
{
	struct edu_regs regs;
	int ret = edu_registers_save(edu, &regs);

	if (ret)
		return ret;
	guard(mutex)(&edu->saving->lock);
	memcpy(edu_append(edu->saving, EDU_REGS, sizeof(regs)), &regs, sizeof(regs));
	return 0;
}

static int edu_load(struct edu_device *edu)
{
	struct edu_stream *stream = edu->resuming;
	size_t at = 0, i, length;
	struct edu_record record;
	struct edu_regs regs;
	bool have_regs = false;

	guard(mutex)(&stream->lock);
	while (stream->size - at >= sizeof(record)) {
		memcpy(&record, stream->data + at, sizeof(record));
		at += sizeof(record);
		length = le32_to_cpu(record.length);
		if (le32_to_cpu(record.magic) != EDU_MAGIC ||
		    le32_to_cpu(record.version) != EDU_VERSION || length > stream->size - at)
			return -EINVAL;
		if (le32_to_cpu(record.kind) == EDU_FILL) {
			for (i = 0; i < length; i++)
				if (stream->data[at + i] != edu_pattern(i))
					return -EBADMSG;
		} else if (le32_to_cpu(record.kind) == EDU_REGS && length == sizeof(regs)) {
			memcpy(&regs, stream->data + at, sizeof(regs));
			have_regs = true;
		} else {
			return -EINVAL;
		}
		at += length;
	}
	if (at != stream->size || !have_regs)
		return -EINVAL;
	return edu_registers_load(edu, &regs);
}

/* One arc; the caller stores the new state. A file is returned in *filp. */
static int edu_step(struct edu_device *edu, enum vfio_device_mig_state next, struct file **filp)
{
#define ARC(from, to) (VFIO_DEVICE_STATE_##from << 8 | VFIO_DEVICE_STATE_##to)
	int ret;

	if (next == fail_state)
		return -EIO;
	switch (edu->state << 8 | next) {
	case ARC(RUNNING, RUNNING_P2P):
	case ARC(PRE_COPY, PRE_COPY_P2P): return edu_quiesce(edu);
	case ARC(RUNNING_P2P, RUNNING):
	case ARC(PRE_COPY_P2P, PRE_COPY):
	case ARC(RUNNING_P2P, STOP):
	case ARC(STOP, RUNNING_P2P): return 0;
	case ARC(RUNNING, PRE_COPY):
	case ARC(RUNNING_P2P, PRE_COPY_P2P):
	case ARC(STOP, STOP_COPY):
		ret = edu_save_begin(edu);
		if (!ret && next == VFIO_DEVICE_STATE_STOP_COPY) {
			ret = edu_save_end(edu);
			if (ret)
				edu_stream_disable(&edu->saving);
		}
		if (!ret)
			*filp = get_file(edu->saving->filp);
		return ret;
	case ARC(PRE_COPY_P2P, STOP_COPY): return edu_save_end(edu); /* the file goes on */
	case ARC(PRE_COPY, RUNNING):
	case ARC(PRE_COPY_P2P, RUNNING_P2P):
	case ARC(STOP_COPY, STOP): edu_stream_disable(&edu->saving); return 0;
	case ARC(STOP, RESUMING):
		edu->resuming = edu_stream_new(edu, &edu_resume_fops, O_WRONLY);
		if (IS_ERR(edu->resuming)) {
			ret = PTR_ERR(edu->resuming);
			edu->resuming = NULL;
			return ret;
		}
		*filp = get_file(edu->resuming->filp);
		return 0;
	case ARC(RESUMING, STOP):
		ret = edu_load(edu);
		if (!ret)
			edu_stream_disable(&edu->resuming);
		return ret;
	}
	WARN_ON(true); /* vfio_mig_get_next_state() gives no other arc */
	return -EINVAL;
#undef ARC
}

static struct file *edu_set_state(struct vfio_device *vdev, enum vfio_device_mig_state wanted)
{
	struct edu_device *edu = to_edu(vdev);
	struct file *filp = NULL;
	int ret = 0;

	guard(mutex)(&edu->lock);
	while (wanted != edu->state) {
		enum vfio_device_mig_state next;

		ret = vfio_mig_get_next_state(vdev, edu->state, wanted, &next);
		ret = ret ?: edu_step(edu, next, &filp);
		if (ret)
			break;
		edu->state = next;
		if (WARN_ON(filp && wanted != edu->state)) {
			ret = -EINVAL;
			break;
		}
	}
	if (ret && filp)
		fput(filp);
	if (!ret && edu_may_dma(edu) && edu->regs.kept_command)
		edu_command(edu, le32_to_cpu(edu->regs.kept_command));
	return ret ? ERR_PTR(ret) : filp;
}

static int edu_get_state(struct vfio_device *vdev, enum vfio_device_mig_state *state)
{
	struct edu_device *edu = to_edu(vdev);

	guard(mutex)(&edu->lock);
	*state = edu->state;
	return 0;
}

static int edu_get_data_size(struct vfio_device *vdev, unsigned long *length)
{
	*length = (unsigned long)READ_ONCE(state_kib) * SZ_1K + 2 * sizeof(struct edu_record) +
		  sizeof(struct edu_regs);
	return 0;
}

static const struct vfio_migration_ops edu_migration_ops = {
	.migration_set_state = edu_set_state,
	.migration_get_state = edu_get_state,
	.migration_get_data_size = edu_get_data_size,
};

/* --- the device ------------------------------------------------------------------ */

/* Back to RUNNING with empty registers; edu itself has no reset. */
static void edu_reset(struct edu_device *edu)
{
	static const struct edu_regs empty;

	guard(mutex)(&edu->lock);
	edu_quiesce(edu);
	edu_stream_disable(&edu->saving);
	edu_stream_disable(&edu->resuming);
	edu_registers_load(edu, &empty);
	edu->state = VFIO_DEVICE_STATE_RUNNING;
}

static long edu_ioctl(struct vfio_device *vdev, unsigned int cmd, unsigned long arg)
{
	switch (cmd) {
	case VFIO_DEVICE_RESET: edu_reset(to_edu(vdev)); return 0;
	case VFIO_DEVICE_IOEVENTFD: return -ENOTTY; /* would pass by edu_write() */
	}
	return vfio_pci_core_ioctl(vdev, cmd, arg);
}

static int edu_init(struct vfio_device *vdev)
{
	struct edu_device *edu = to_edu(vdev);

	mutex_init(&edu->lock);
	xa_init(&edu->dirty);
	vdev->migration_flags =
		VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P | VFIO_MIGRATION_PRE_COPY;
	vdev->mig_ops = &edu_migration_ops;
	vdev->log_ops = &edu_log_ops;
	return vfio_pci_core_init_dev(vdev);
}

static int edu_open(struct vfio_device *vdev)
{
	struct edu_device *edu = to_edu(vdev);
	int ret = vfio_pci_core_enable(&edu->core);

	if (ret)
		return ret;
	vfio_pci_core_finish_enable(&edu->core);
	edu->core.bar_mmap_supported[0] = false;
	edu->core.reset_works = true;
	edu->state = VFIO_DEVICE_STATE_RUNNING;
	memset(&edu->regs, 0, sizeof(edu->regs));
	edu->in_flight = false;
	return 0;
}

static void edu_close(struct vfio_device *vdev)
{
	struct edu_device *edu = to_edu(vdev);

	scoped_guard(mutex, &edu->lock)
	{
		edu_stream_disable(&edu->saving);
		edu_stream_disable(&edu->resuming);
		edu->logging = false;
		xa_destroy(&edu->dirty);
		edu_quiesce(edu);
	}
	edu->core.reset_works = false;
	vfio_pci_core_close_device(vdev);
}

static const struct vfio_device_ops edu_ops = {
	.name = "edu-vfio",
	.init = edu_init,
	.release = vfio_pci_core_release_dev,
	.open_device = edu_open,
	.close_device = edu_close,
	.ioctl = edu_ioctl,
	.get_region_info_caps = vfio_pci_ioctl_get_region_info,
	.device_feature = vfio_pci_core_ioctl_feature,
	.read = vfio_pci_core_read,
	.write = edu_write,
	.mmap = edu_mmap,
	.request = vfio_pci_core_request,
	.match = vfio_pci_core_match,
	.match_token_uuid = vfio_pci_core_match_token_uuid,
	.bind_iommufd = vfio_iommufd_physical_bind,
	.unbind_iommufd = vfio_iommufd_physical_unbind,
	.attach_ioas = vfio_iommufd_physical_attach_ioas,
	.detach_ioas = vfio_iommufd_physical_detach_ioas,
};

static int edu_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct edu_device *edu = vfio_alloc_device(edu_device, core.vdev, &pdev->dev, &edu_ops);
	int ret;

	if (IS_ERR(edu))
		return PTR_ERR(edu);
	dev_set_drvdata(&pdev->dev, &edu->core);
	ret = vfio_pci_core_register_device(&edu->core);
	if (ret)
		vfio_put_device(&edu->core.vdev);
	return ret;
}

static void edu_remove(struct pci_dev *pdev)
{
	struct vfio_pci_core_device *core = dev_get_drvdata(&pdev->dev);

	vfio_pci_core_unregister_device(core);
	vfio_put_device(&core->vdev);
}

static const struct pci_device_id edu_ids[] = { { PCI_DRIVER_OVERRIDE_DEVICE_VFIO(0x1234, 0x11e8) },
						{} };
MODULE_DEVICE_TABLE(pci, edu_ids);

static struct pci_driver edu_driver = {
	.name = KBUILD_MODNAME,
	.id_table = edu_ids,
	.probe = edu_probe,
	.remove = edu_remove,
	.err_handler = &vfio_pci_core_err_handlers,
	.driver_managed_dma = true,
};
module_pci_driver(edu_driver);

MODULE_IMPORT_NS("IOMMUFD");
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("vfio-pci variant driver for QEMU's edu device, with migration and DMA logging");
