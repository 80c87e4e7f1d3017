/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The assigned function's insides, shared by vfio_pci*.c.
 *
 * Locks, in this order: fn.write_lock, fn.lock (pci_function.h), irq_lock. With fn.lock
 * only config space is touched, ours and the device's. irq_lock guards everything about
 * interrupts and is held while the device's are set up; nothing that takes the other two
 * is called with it. Nothing here waits for the main loop in a vCPU's thread: the main
 * loop may be waiting for that vCPU.
 */
#ifndef VFIO_VFIO_PCI_PRIVATE_H
#define VFIO_VFIO_PCI_PRIVATE_H

#include <linux/vfio.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/bytes.h"
#include "devices/pci/msix.h"
#include "devices/pci/pci_registers.h"
#include "vfio/vfio_pci.h"

/* A sparse area cut by the pages of MSI-X table and PBA leaves at most two more. */
#define VFIO_PCI_AREAS_MAX (VFIO_SPARSE_AREAS_MAX + 2)
#define VFIO_PCI_MSI_MAX 32

struct vfio_pci;
struct vfio_pci_peer;

/* A part of a BAR that the guest reaches without an exit. */
struct vfio_pci_area {
	uint64_t offset, size;
	void *hva;
	int slot; /* while the BAR is on the bus; -1: trapped */
};

/* A register of a BAR whose writes are a signal. */
struct vfio_pci_ioevent {
	struct vfio_ioeventfd io; /* the fd is the transport's */
	bool attached;
	uint64_t address; /* where it is attached */
};

struct vfio_pci_bar {
	struct vfio_pci *self;
	unsigned int index;
	struct vfio_region region;
	unsigned int area_count;
	struct vfio_pci_area areas[VFIO_PCI_AREAS_MAX];
	unsigned int ioevent_count;
	struct vfio_pci_ioevent *ioevents;
};

struct vfio_pci_rom {
	struct vfio_region region;
	uint8_t *_Atomic shadow; /* read when the guest first enables the ROM */
	bool read;
};

enum vfio_pci_irq_mode {
	VFIO_PCI_IRQ_NONE,
	VFIO_PCI_IRQ_INTX,
	VFIO_PCI_IRQ_MSI,
	VFIO_PCI_IRQ_MSIX
};

struct vfio_pci_intx {
	struct vfio_irq irq;
	int fd;		 /* the device raises it */
	int resample_fd; /* KVM signals it at EOI, the kernel's vfio unmasks */
	int forward_fd;	 /* KVM signals it at EOI, the main loop unmasks: no unmask_fd */
	struct loop_source *forward;
	unsigned int gsi;
	int resampled_by; /* which of the two KVM signals */
	bool on;
};

struct vfio_pci_msi {
	struct vfio_irq irq;
	unsigned int cap;    /* 0: none */
	bool wide, maskable; /* 64-bit address, mask and pending registers */
	unsigned int max;    /* vectors the device has */
	unsigned int count;  /* enabled now */
	struct {
		int fd, gsi; /* -1: none */
		struct msi_message routed;
	} vectors[VFIO_PCI_MSI_MAX];
};

struct vfio_pci_msix {
	struct vfio_irq irq;
	unsigned int cap; /* 0: none */
	unsigned int count;
	unsigned int table_bar, pba_bar;
	uint64_t table_offset, table_size, pba_offset, pba_size; /* pba_size 0: nowhere */
	struct msix *msix;
	unsigned int enabled; /* the device's vectors [0, enabled) are set up */
	bool *wanted;	      /* unmasked by the guest */
	bool *armed;	      /* its eventfd is at the device */
	int *fds;	      /* room for a set_irq_fds */
};

/* Errors and removal requests: vfio_pci_events.c. */
struct vfio_pci_event {
	struct vfio_pci *self;
	uint32_t index; /* VFIO_PCI_ERR_IRQ_INDEX ... */
	const char *reason;
	int fd;
	struct loop_source *source;
};

enum { VFIO_PCI_EVENT_ERROR, VFIO_PCI_EVENT_REQUEST, VFIO_PCI_EVENTS };

struct vfio_pci {
	struct pci_function fn; /* first */
	struct vfio_host vfio_host;
	struct vfio_transport *transport;
	struct vfio_pci_options options; /* but id: that is fn.id */
	struct log_limit log_limit;

	/* Config space: see vfio_pci_config.c. */
	struct vfio_region config_region;
	unsigned int config_size;
	uint8_t device_read[PCI_CONFIG_SIZE];  /* bits the guest reads from the device */
	uint8_t device_write[PCI_CONFIG_SIZE]; /* bits it writes to the device */
	uint8_t power_on[PCI_CONFIG_SIZE];     /* of the bits that are ours, after a reset */
	uint8_t fixed[PCI_CONFIG_SIZE];	       /* what its state has and cannot change */
	unsigned int pcie_cap, af_cap;	       /* 0: none */
	bool reset_wanted;		       /* by the config write in progress */

	struct vfio_pci_bar bars[PCI_BARS];
	struct vfio_pci_rom rom;

	pthread_mutex_t irq_lock;
	enum vfio_pci_irq_mode irq_mode;
	bool held; /* no irqfd is attached: another process has the eventfds, too */
	struct vfio_pci_intx intx;
	struct vfio_pci_msi msi;
	struct vfio_pci_msix msix;

	struct vfio_pci_event events[VFIO_PCI_EVENTS];
	bool lost; /* said so already */
	struct vfio_pci_peer *peer;

	atomic_ullong config_reads, config_writes, bar_reads, bar_writes, intx_exits;
	atomic_ullong msi_vectors, mapped_bytes;
};

static inline struct vfio_pci *vfio_pci_of(struct pci_function *fn)
{
	return (struct vfio_pci *)fn;
}

/* What the guest, or a device, can cause at will. */
#define vfio_pci_complain(self, level, ...) \
	log_limited((self)->fn.host->log, &(self)->log_limit, level, __VA_ARGS__)

/* vfio_pci_config.c: the header, and how accesses are split between us and the device. */
int vfio_pci_config_open(struct vfio_pci *self, struct pci_ids *ids, struct error *err);
void vfio_pci_config_header(struct vfio_pci *self);
int vfio_pci_config_load(struct vfio_pci *self, unsigned int offset, unsigned int len,
			 uint32_t *value, struct error *err);
/* Bits of a register of up to 4 bytes: read from the device, written to it, kept by us. */
void vfio_pci_config_rule(struct vfio_pci *self, unsigned int offset, unsigned int len,
			  uint32_t device_read, uint32_t device_write, uint32_t ours);
/* Decoding on; bus mastering and INTx disable as in `guest`, a command register. */
int vfio_pci_config_command(struct vfio_pci *self, uint16_t guest, struct error *err);
/* The bits of a register, at most 2 bytes, that the guest's writes reach, as in value. */
int vfio_pci_config_put(struct vfio_pci *self, unsigned int offset, unsigned int len,
			uint32_t value, struct error *err);
/* Our bits as after power-on; the header's are pci_function_reset's. */
void vfio_pci_config_reset(struct vfio_pci *self);
bool vfio_pci_config_read(struct pci_function *fn, unsigned int offset, void *data,
			  unsigned int len);
bool vfio_pci_config_write(struct pci_function *fn, unsigned int offset, const void *data,
			   unsigned int len);

/* vfio_pci_caps.c: both capability lists, by table. BARs must be known. */
int vfio_pci_caps_add(struct vfio_pci *self, struct error *err);

/* vfio_pci_bars.c */
int vfio_pci_bars_add(struct vfio_pci *self, struct error *err);
/* After the capabilities: what the MSI-X table leaves can be mapped. */
void vfio_pci_bars_map(struct vfio_pci *self);
void vfio_pci_bars_free(struct vfio_pci *self);
void vfio_pci_bar_mapped(struct pci_function *fn, unsigned int bar);
void vfio_pci_bar_unmapped(struct pci_function *fn, unsigned int bar);
void vfio_pci_bar_confirmed(struct pci_function *fn, unsigned int bar);

/* vfio_pci_ioevents.c: after the BARs are mapped. */
int vfio_pci_ioevents_add(struct vfio_pci *self, struct error *err);
/* The BAR came to an address, or left it. Any thread. */
void vfio_pci_ioevents_attach(struct vfio_pci_bar *bar, uint64_t address);
void vfio_pci_ioevents_detach(struct vfio_pci_bar *bar);
void vfio_pci_ioevents_free(struct vfio_pci *self);

/* vfio_pci_rom.c */
int vfio_pci_rom_add(struct vfio_pci *self, struct error *err);
void vfio_pci_rom_load(struct vfio_pci *self);
void vfio_pci_rom_free(struct vfio_pci *self);

/* vfio_pci_irq.c: which of the three kinds is on. */
int vfio_pci_irq_init(struct vfio_pci *self, struct error *err);
/* As config space now says. With write_lock held, or no vCPU running. */
void vfio_pci_irq_update(struct vfio_pci *self);
/* The same for a function just made, none of whose interrupts are on: fails where the
 * device, a route or an irqfd refuses. */
int vfio_pci_irq_arm(struct vfio_pci *self, struct error *err);
void vfio_pci_irq_free(struct vfio_pci *self);
void vfio_pci_irq_disable(struct vfio_pci *self, uint32_t index);

/* vfio_pci_intx.c, vfio_pci_msi.c, vfio_pci_msix.c: start and stop with irq_lock held. */
int vfio_pci_intx_init(struct vfio_pci *self, struct error *err);
int vfio_pci_intx_start(struct vfio_pci *self, struct error *err);
void vfio_pci_intx_stop(struct vfio_pci *self);
/* Of what came along: the loop listens from now on. */
int vfio_pci_intx_own(struct vfio_pci *self, struct error *err);
void vfio_pci_intx_free(struct vfio_pci *self);

/* Bytes of an MSI capability with this message control. */
int vfio_pci_msi_length(uint16_t flags);
int vfio_pci_msi_add(struct vfio_pci *self, unsigned int cap, struct error *err);
bool vfio_pci_msi_enabled(const struct vfio_pci *self);
int vfio_pci_msi_start(struct vfio_pci *self, struct error *err);
void vfio_pci_msi_update(struct vfio_pci *self);
/* As vfio_pci_msi_update, and fails at the first vector that does not interrupt. */
int vfio_pci_msi_route(struct vfio_pci *self, struct error *err);
void vfio_pci_msi_stop(struct vfio_pci *self);
void vfio_pci_msi_free(struct vfio_pci *self);
/* Vectors that were signalled while they are masked: bit n is vector n. */
uint32_t vfio_pci_msi_pending(struct vfio_pci *self);
/* Before start: they were signalled. Not more bits than vectors. */
int vfio_pci_msi_raise(struct vfio_pci *self, uint32_t pending, struct error *err);
/* Puts pending bits into what the guest reads. With fn.lock held. */
void vfio_pci_msi_read(struct vfio_pci *self, unsigned int offset, uint8_t *data, unsigned int len);

int vfio_pci_msix_add(struct vfio_pci *self, unsigned int cap, struct error *err);
bool vfio_pci_msix_enabled(const struct vfio_pci *self);
int vfio_pci_msix_start(struct vfio_pci *self, struct error *err);
void vfio_pci_msix_stop(struct vfio_pci *self);
void vfio_pci_msix_free(struct vfio_pci *self);
/* An access to a BAR: true where it was the table's or the PBA's. */
bool vfio_pci_msix_read(struct vfio_pci *self, unsigned int bar, uint64_t offset, void *data,
			unsigned int len);
bool vfio_pci_msix_write(struct vfio_pci *self, unsigned int bar, uint64_t offset, const void *data,
			 unsigned int len);

/*
 * vfio_pci_state.c: ops->save and ops->load. Load is two steps, so that a function whose
 * device was never stopped can have the first alone:
 *   restore  compares, then makes our view what was saved; the device is not written to
 *   arm      makes the device what our view says: command, control registers, interrupts
 */
int vfio_pci_state_learn(struct vfio_pci *self, struct error *err); /* when it is made */
int vfio_pci_state_save(struct pci_function *fn, struct state_writer *writer, struct error *err);
int vfio_pci_state_load(struct pci_function *fn, const struct state_node *node, struct error *err);
int vfio_pci_state_restore(struct vfio_pci *self, const struct state_node *node, struct error *err);
int vfio_pci_state_arm(struct vfio_pci *self, const struct state_node *node, struct error *err);

/* Another process still uses the device: it is left as it is. */
static inline bool vfio_pci_is_kept(const struct vfio_pci *self)
{
	return self->fn.host->kept;
}

/* vfio_pci_keep.c: with host->kept, instead of arm. First take, before restore. */
int vfio_pci_keep_take(struct vfio_pci *self, struct error *err);
void vfio_pci_keep_resume(struct vfio_pci *self);
/* irqfds of the kind that is on, with irq_lock held: off while held, else as the guest has
 * them. */
void vfio_pci_intx_hold(struct vfio_pci *self);

/* vfio_pci_events.c */
int vfio_pci_events_add(struct vfio_pci *self, struct error *err);
/* Of those that came along: listens from now on. */
int vfio_pci_events_own(struct vfio_pci *self, struct error *err);
void vfio_pci_events_free(struct vfio_pci *self);

/* vfio_pci_peer.c: BARs in the space other devices do DMA through. NULL: nowhere. */
struct vfio_pci_peer *vfio_pci_peer_new(struct vfio_pci *self);
/* A BAR came to an address, or (0) left it. Any thread. */
void vfio_pci_peer_place(struct vfio_pci_peer *peer, unsigned int bar, uint64_t address);
/* Main loop; takes everything off first. NULL is allowed. */
void vfio_pci_peer_free(struct vfio_pci_peer *peer);

#endif
