/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device's capability lists, and which of it the guest gets. A capability stays at
 * its offset; what is hidden is left out of the list and reads as zero.
 *
 *   passed    read from and written to the device: VPD, vendor specific, HyperTransport,
 *             PCI-X, SATA; extended: vendor specific (both kinds)
 *   read      read from the device, writes go nowhere, since the host's own drivers are
 *             in charge of it: subsystem ids; extended: AER, virtual channels, serial
 *             number, power budgeting, LTR, L1 substates, and of the link
 *   partly    PCI Express: reading as above; written to the device are relaxed ordering,
 *             no-snoop, read request size, completion timeout, ID-based ordering and the
 *             error bits of device status; error reporting enables are ours; FLR is the
 *             transport's reset. Advanced Features: the same FLR
 *   ours      MSI and MSI-X. Power management: the guest changes a state that the device
 *             does not follow (its driver would revoke mapped BARs in D3hot), and is told
 *             that nothing is lost by it
 *   hidden    what leads out of the guest or needs the bridge above: SR-IOV, ATS, PRI,
 *             PASID, ACS, ARI, Resizable BAR (both), multicast, DPA, TPH, DPC, PTM, DOE,
 *             enhanced allocation, hot-plug, slot numbering, AGP, debug port, secure device
 *             - and everything these tables do not know
 *
 * The lists are the device's word: a loop, an offset outside or not at a multiple of four,
 * one capability inside another or over the end, end the list with a warning.
 */
#include <errno.h>
#include <stdlib.h>

#include "vfio/vfio_pci_private.h"

enum treatment { HIDE, PASS, READ, OWN };

struct rule {
	uint16_t id;
	uint8_t treatment;
	uint16_t least, most; /* bytes: what must fit, what is the capability's */
};

static const struct rule rules[] = {
	{ PCI_CAP_ID_PM, OWN, PCI_PM_SIZEOF, PCI_PM_SIZEOF },
	{ PCI_CAP_ID_AGP, HIDE, 4, 12 },
	{ PCI_CAP_ID_VPD, PASS, 8, 8 },
	{ PCI_CAP_ID_SLOTID, HIDE, 4, 4 },
	{ PCI_CAP_ID_MSI, OWN, 10, 24 },
	{ PCI_CAP_ID_CHSWP, HIDE, 4, 4 },
	{ PCI_CAP_ID_PCIX, PASS, 8, 24 },
	{ PCI_CAP_ID_HT, PASS, 4, 4 },
	{ PCI_CAP_ID_VNDR, PASS, 3, 3 },
	{ PCI_CAP_ID_DBG, HIDE, 4, 4 },
	{ PCI_CAP_ID_CCRC, HIDE, 4, 4 },
	{ PCI_CAP_ID_SHPC, HIDE, 4, 8 },
	{ PCI_CAP_ID_SSVID, READ, 8, 8 },
	{ PCI_CAP_ID_AGP3, HIDE, 4, 12 },
	{ PCI_CAP_ID_SECDEV, HIDE, 4, 24 },
	{ PCI_CAP_ID_EXP, OWN, PCI_CAP_EXP_RC_ENDPOINT_SIZEOF_V1, 0x3c },
	{ PCI_CAP_ID_MSIX, OWN, PCI_CAP_MSIX_SIZEOF, PCI_CAP_MSIX_SIZEOF },
	{ PCI_CAP_ID_SATA, PASS, 4, 8 },
	{ PCI_CAP_ID_AF, OWN, 6, 6 },
	{ PCI_CAP_ID_EA, HIDE, 4, 0x40 },
};

#define EXT_DLF 0x25
#define EXT_PL_16GT 0x26
#define EXT_PL_32GT 0x2a

static const struct rule extended_rules[] = {
	{ PCI_EXT_CAP_ID_ERR, READ, 0x2c, 0x48 },
	{ PCI_EXT_CAP_ID_VC, READ, 0x10, 0x80 },
	{ PCI_EXT_CAP_ID_DSN, READ, 0xc, 0xc },
	{ PCI_EXT_CAP_ID_PWR, READ, 0x10, 0x10 },
	{ PCI_EXT_CAP_ID_MFVC, READ, 0x10, 0x80 },
	{ PCI_EXT_CAP_ID_VC9, READ, 0x10, 0x80 },
	{ PCI_EXT_CAP_ID_VNDR, PASS, 8, 8 },
	{ PCI_EXT_CAP_ID_LTR, READ, 8, 8 },
	{ PCI_EXT_CAP_ID_SECPCI, READ, 0xc, 0x2c },
	{ PCI_EXT_CAP_ID_L1SS, READ, 0x10, 0x14 },
	{ PCI_EXT_CAP_ID_DVSEC, PASS, 0xa, 0xa },
	{ EXT_DLF, READ, 0xc, 0xc },
	{ EXT_PL_16GT, READ, 0x20, 0x30 },
	{ EXT_PL_32GT, READ, 0x20, 0x24 },
	/* Hidden whole, and without these bounds up to what comes next. */
	{ PCI_EXT_CAP_ID_ARI, HIDE, 4, 8 },
	{ PCI_EXT_CAP_ID_ATS, HIDE, 4, 8 },
	{ PCI_EXT_CAP_ID_SRIOV, HIDE, 4, 0x40 },
	{ PCI_EXT_CAP_ID_PRI, HIDE, 4, 0x10 },
	{ PCI_EXT_CAP_ID_PASID, HIDE, 4, 8 },
	{ PCI_EXT_CAP_ID_REBAR, HIDE, 4, 0x34 },
	{ PCI_EXT_CAP_ID_PTM, HIDE, 4, 0xc },
};

/* Register bits of the capabilities that are ours in part: of the device, read and
 * written, and ours. */
struct field {
	uint8_t offset, bytes;
	uint32_t device_read, device_write, ours;
};

#define DEVCTL_TO_DEVICE \
	(PCI_EXP_DEVCTL_RELAX_EN | PCI_EXP_DEVCTL_NOSNOOP_EN | PCI_EXP_DEVCTL_READRQ)
#define DEVCTL_OURS \
	(PCI_EXP_DEVCTL_CERE | PCI_EXP_DEVCTL_NFERE | PCI_EXP_DEVCTL_FERE | PCI_EXP_DEVCTL_URRE)
#define DEVCTL2_TO_DEVICE \
	(PCI_EXP_DEVCTL2_COMP_TIMEOUT | PCI_EXP_DEVCTL2_COMP_TMOUT_DIS | \
	 PCI_EXP_DEVCTL2_IDO_REQ_EN | PCI_EXP_DEVCTL2_IDO_CMP_EN)
#define DEVSTA_ERRORS \
	(PCI_EXP_DEVSTA_CED | PCI_EXP_DEVSTA_NFED | PCI_EXP_DEVSTA_FED | PCI_EXP_DEVSTA_URD)

static const struct field pcie_fields[] = {
	{ PCI_EXP_DEVCTL, 2, 0xffff & ~(DEVCTL_OURS | PCI_EXP_DEVCTL_BCR_FLR), DEVCTL_TO_DEVICE,
	  DEVCTL_OURS },
	{ PCI_EXP_DEVSTA, 2, 0xffff, DEVSTA_ERRORS, 0 },
	{ PCI_EXP_DEVCTL2, 2, 0xffff, DEVCTL2_TO_DEVICE, 0 },
};

static const struct field pm_fields[] = {
	/* No data, no bridge; the state is ours. */
	{ PCI_PM_CTRL, 4, 0, 0, PCI_PM_CTRL_STATE_MASK | PCI_PM_CTRL_PME_ENABLE },
};

struct cap {
	const struct rule *rule; /* NULL: unknown */
	unsigned int offset, len;
	uint32_t header; /* extended: as read; else id */
};

/* Every dword starts at most one. */
#define CAPS_MAX (PCI_CONFIG_SIZE / 4)

struct walk {
	struct vfio_pci *self;
	unsigned int start, end; /* where the list may be */
	bool extended;
	unsigned int count;
	struct cap caps[CAPS_MAX];
};

static const struct rule *find_rule(const struct walk *walk, uint16_t id)
{
	const struct rule *table = walk->extended ? extended_rules : rules;
	size_t count = walk->extended ? ARRAY_SIZE(extended_rules) : ARRAY_SIZE(rules);

	for (size_t i = 0; i < count; i++)
		if (table[i].id == id)
			return &table[i];
	return NULL;
}

static void end_list(const struct walk *walk, unsigned int offset, const char *why)
{
	log_warn(walk->self->fn.host->log,
		 "%s: %s: %scapability list ends early: the one at 0x%x %s: ignored, with those "
		 "after it",
		 walk->self->fn.id, walk->self->transport->name, walk->extended ? "extended " : "",
		 offset, why);
}

static bool seen(const struct walk *walk, unsigned int offset)
{
	for (unsigned int i = 0; i < walk->count; i++)
		if (walk->caps[i].offset == offset)
			return true;
	return false;
}

/* Where the capabilities start, by the links between them. */
static int follow(struct walk *walk, unsigned int offset, struct error *err)
{
	while (offset) {
		uint32_t header;
		int r;

		if (offset < walk->start || offset > walk->end - 4) {
			end_list(walk, offset, "is outside");
			break;
		}
		if (offset % 4) {
			end_list(walk, offset, "is misaligned");
			break;
		}
		if (seen(walk, offset)) {
			end_list(walk, offset, "was there already (a loop)");
			break;
		}
		r = vfio_pci_config_load(walk->self, offset, 4, &header, err);
		if (r)
			return r;
		/* No extended capabilities at all reads as zero. */
		if (header == UINT32_MAX || (walk->extended && !header))
			break;
		walk->caps[walk->count++] = (struct cap){
			.rule = find_rule(walk,
					  walk->extended ? (uint16_t)header : (uint8_t)header),
			.offset = offset,
			.header = header,
		};
		offset = walk->extended ? header >> 20 : header >> 8 & 0xff;
	}
	return 0;
}

/* Up to the next capability, wherever in the list that is. */
static unsigned int gap_after(const struct walk *walk, unsigned int offset)
{
	unsigned int end = walk->end;

	for (unsigned int i = 0; i < walk->count; i++)
		if (walk->caps[i].offset > offset && walk->caps[i].offset < end)
			end = walk->caps[i].offset;
	return end - offset;
}

/* What the capability itself says of its length; 0: the rule knows. */
static unsigned int own_length(const struct walk *walk, const struct cap *cap)
{
	uint16_t flags = (uint16_t)(cap->header >> 16);

	if (walk->extended || !cap->rule)
		return 0;
	if (cap->rule->id == PCI_CAP_ID_MSI)
		return (unsigned int)vfio_pci_msi_length(flags);
	if (cap->rule->id == PCI_CAP_ID_VNDR)
		return flags & 0xff;
	return 0;
}

static void apply_range(struct vfio_pci *self, const struct cap *cap, enum treatment treatment)
{
	bool read = treatment == PASS || treatment == READ, write = treatment == PASS;

	memset(self->device_read + cap->offset, read ? 0xff : 0, cap->len);
	memset(self->device_write + cap->offset, write ? 0xff : 0, cap->len);
}

/* How far each reaches; the list ends at the first that cannot be. */
static void measure(struct walk *walk)
{
	unsigned int good = walk->count;

	for (unsigned int i = 0; i < walk->count; i++) {
		struct cap *cap = &walk->caps[i];
		unsigned int gap = gap_after(walk, cap->offset), own = own_length(walk, cap);

		cap->len = cap->rule ? MIN(gap, (unsigned int)cap->rule->most) : gap;
		if (good == walk->count && (own > gap || (cap->rule && gap < cap->rule->least))) {
			end_list(walk, cap->offset, "is longer than its place");
			good = i;
		}
		if (i >= good) /* half of anything: nobody's */
			apply_range(walk->self, cap, HIDE);
		else if (own > cap->len || (own && cap->rule->treatment == OWN))
			cap->len = own;
	}
	walk->count = good;
}

static void apply_fields(struct vfio_pci *self, const struct cap *cap, const struct field *fields,
			 size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (fields[i].offset + fields[i].bytes <= cap->len)
			vfio_pci_config_rule(self, cap->offset + fields[i].offset, fields[i].bytes,
					     fields[i].device_read, fields[i].device_write,
					     fields[i].ours);
}

/* Room in the guest's list, at the device's own place. */
static int link_at(struct vfio_pci *self, uint8_t id, unsigned int offset, unsigned int len)
{
	int r;

	self->fn.next_cap = offset;
	r = pci_function_add_capability(&self->fn, id, MAX(len, 2u));
	vfio_pci_config_rule(self, offset, 2, 0, 0, 0);
	return r < 0 ? r : 0;
}

static void add_pm(struct vfio_pci *self, const struct cap *cap)
{
	apply_range(self, cap, READ);
	apply_fields(self, cap, pm_fields, ARRAY_SIZE(pm_fields));
	store_le16(self->fn.config + cap->offset + PCI_PM_CTRL, PCI_PM_CTRL_NO_SOFT_RESET);
}

static int add_pcie(struct vfio_pci *self, const struct cap *cap, struct error *err)
{
	uint32_t control;
	int r = vfio_pci_config_load(self, cap->offset + PCI_EXP_DEVCTL, 2, &control, err);

	if (r)
		return r;
	apply_range(self, cap, READ);
	apply_fields(self, cap, pcie_fields, ARRAY_SIZE(pcie_fields));
	store_le16(self->fn.config + cap->offset + PCI_EXP_DEVCTL,
		   (uint16_t)(control & DEVCTL_OURS));
	self->pcie_cap = cap->offset;
	/* Without a reset there is none to offer. */
	if (!self->transport->resettable)
		self->device_read[cap->offset + PCI_EXP_DEVCAP + 3] &=
			(uint8_t) ~(PCI_EXP_DEVCAP_FLR >> 24);
	return 0;
}

static void add_af(struct vfio_pci *self, const struct cap *cap)
{
	apply_range(self, cap, READ);
	self->device_read[cap->offset + PCI_AF_CTRL] = 0;
	if (!self->transport->resettable)
		self->device_read[cap->offset + PCI_AF_CAP] &= (uint8_t)~PCI_AF_CAP_FLR;
	self->af_cap = cap->offset;
}

static int add_own(struct vfio_pci *self, const struct cap *cap, struct error *err)
{
	switch (cap->rule->id) {
	case PCI_CAP_ID_MSIX:
		/* msix_new links it. */
		self->fn.next_cap = cap->offset;
		return self->msix.cap ? 0 : vfio_pci_msix_add(self, cap->offset, err);
	case PCI_CAP_ID_MSI:
		if (self->msi.cap || !self->msi.irq.count)
			return 0;
		if (!link_at(self, PCI_CAP_ID_MSI, cap->offset, cap->len))
			return vfio_pci_msi_add(self, cap->offset, err);
		return 0;
	case PCI_CAP_ID_EXP:
		if (self->pcie_cap || link_at(self, PCI_CAP_ID_EXP, cap->offset, cap->len))
			return 0;
		return add_pcie(self, cap, err);
	default: break;
	}
	if (link_at(self, (uint8_t)cap->rule->id, cap->offset, cap->len))
		return 0;
	if (cap->rule->id == PCI_CAP_ID_PM)
		add_pm(self, cap);
	else if (!self->af_cap)
		add_af(self, cap);
	/* After its range was set: these two bytes are the list's. */
	vfio_pci_config_rule(self, cap->offset, 2, 0, 0, 0);
	return 0;
}

static int add_cap(struct vfio_pci *self, const struct cap *cap, struct error *err)
{
	enum treatment treatment = cap->rule ? (enum treatment)cap->rule->treatment : HIDE;
	int r;

	apply_range(self, cap, treatment);
	if (treatment == HIDE)
		return 0;
	if (treatment == OWN) {
		r = add_own(self, cap, err);
		vfio_pci_config_rule(self, cap->offset, 2, 0, 0, 0);
		return r;
	}
	link_at(self, (uint8_t)cap->rule->id, cap->offset, cap->len);
	return 0;
}

static void add_extended(struct vfio_pci *self, const struct cap *cap)
{
	enum treatment treatment = cap->rule ? (enum treatment)cap->rule->treatment : HIDE;
	bool first = cap->offset == PCI_CONVENTIONAL_END;

	apply_range(self, cap, treatment);
	if (treatment == HIDE && !first)
		return;
	/* The list starts at 0x100 in any case: with the null capability, id 0. */
	self->fn.next_ext_cap = cap->offset;
	pci_function_add_extended_capability(
		&self->fn, treatment == HIDE ? 0 : (uint16_t)cap->header,
		treatment == HIDE ? 0 : cap->header >> 16 & 0xf, MAX(cap->len, 4u));
	vfio_pci_config_rule(self, cap->offset, 4, 0, 0, 0);
}

static int add_conventional(struct vfio_pci *self, struct walk *walk, struct error *err)
{
	uint32_t status, first;
	int r;

	r = vfio_pci_config_load(self, PCI_STATUS, 2, &status, err);
	if (!r)
		r = vfio_pci_config_load(self, PCI_CAPABILITY_LIST, 1, &first, err);
	if (r || !(status & PCI_STATUS_CAP_LIST))
		return r;
	walk->start = PCI_HEADER_END;
	walk->end = MIN(self->config_size, (unsigned int)PCI_CONVENTIONAL_END);
	walk->extended = false;
	walk->count = 0;
	r = follow(walk, first, err);
	if (r)
		return r;
	measure(walk);
	for (unsigned int i = 0; i < walk->count; i++) {
		r = add_cap(self, &walk->caps[i], err);
		if (r)
			return r;
	}
	return 0;
}

static int add_all_extended(struct vfio_pci *self, struct walk *walk, struct error *err)
{
	int r;

	if (self->config_size <= PCI_CONVENTIONAL_END)
		return 0;
	walk->start = PCI_CONVENTIONAL_END;
	walk->end = PCI_CONFIG_SIZE;
	walk->extended = true;
	walk->count = 0;
	r = follow(walk, PCI_CONVENTIONAL_END, err);
	if (r)
		return r;
	measure(walk);
	for (unsigned int i = 0; i < walk->count; i++)
		add_extended(self, &walk->caps[i]);
	return 0;
}

static bool is_free(const struct walk *walk, unsigned int offset, unsigned int len)
{
	for (unsigned int i = 0; i < walk->count; i++) {
		const struct cap *cap = &walk->caps[i];

		if (offset < cap->offset + cap->len && cap->offset < offset + len)
			return false;
	}
	return true;
}

/*
 * NVIDIA's: a vendor specific capability that tells its driver which devices can reach
 * each other directly. Length, "P2P", clique << 3, 0. The driver looks for it in either of
 * two places.
 */
static int add_clique(struct vfio_pci *self, const struct walk *walk, struct error *err)
{
	static const uint8_t places[] = { 0xc8, 0xd4 };
	const uint8_t *config = self->fn.config;
	int clique = self->options.gpudirect_clique;

	if (clique < 0)
		return 0;
	if (clique > 15)
		return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
				      "%s: GPUDirect clique %d: there are 0 to 15", self->fn.id,
				      clique);
	if (load_le16(config + PCI_VENDOR_ID) != 0x10de || config[PCI_CLASS_DEVICE + 1] != 0x03)
		return error_set_kind(
			err, ERROR_BAD_REQUEST, EINVAL,
			"%s: GPUDirect clique: %s is not a display device of NVIDIA's", self->fn.id,
			self->transport->name);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		const uint8_t body[] = { 8, 'P', '2', 'P', (uint8_t)(clique << 3), 0 };
		unsigned int at = places[i];

		if (!is_free(walk, at, 8) || link_at(self, PCI_CAP_ID_VNDR, at, 8))
			continue;
		vfio_pci_config_rule(self, at, 4, 0, 0, 0);
		vfio_pci_config_rule(self, at + 4, 4, 0, 0, 0);
		memcpy(self->fn.config + at + 2, body, sizeof(body));
		return 0;
	}
	return error_set(err, ENOSPC,
			 "%s: GPUDirect clique: the places for it (0xc8, 0xd4) are taken in %s",
			 self->fn.id, self->transport->name);
}

int vfio_pci_caps_add(struct vfio_pci *self, struct error *err)
{
	struct walk *walk = calloc(1, sizeof(*walk));
	int r;

	if (!walk)
		return error_set_errno(err, ENOMEM, "%s: capabilities", self->fn.id);
	walk->self = self;
	r = add_conventional(self, walk, err);
	if (!r)
		r = add_clique(self, walk, err);
	if (!r)
		r = add_all_extended(self, walk, err);
	if (!r)
		memcpy(self->power_on, self->fn.config, sizeof(self->power_on));
	free(walk);
	return r;
}
