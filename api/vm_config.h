/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a VM is made of: the one form that the command line, the JSON of
 * `vm.create` and the machine share. Fields, names and defaults are those of Cloud
 * Hypervisor's VmConfig; JSON keys equal the field names unless noted.
 *
 * Plain data. Strings and arrays are malloc'd and owned by their struct; a config
 * is filled by one thread and then read-only, but for hot-plug, which the machine
 * does under its own lock. The *_init functions set the defaults, *_destroy releases
 * what a struct owns and zeroes it. Sizes are bytes.
 */
#ifndef API_VM_CONFIG_H
#define API_VM_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

#define VM_CPUS_MAX 64

struct cpus_config {
	unsigned int boot_vcpus; /* 1 */
	unsigned int max_vcpus;	 /* boot_vcpus; must equal it: CPU hot-plug is not offered */
	/* topology (all 0: one package of boot_vcpus cores) */
	unsigned int threads_per_core, cores_per_die, dies_per_package, packages;
	bool kvm_hyperv;
};

struct memory_config {
	uint64_t size;					  /* 512 MiB */
	bool mergeable, shared, hugepages, prefault, thp; /* thp: true; shared is always so */
	uint64_t hugepage_size; /* 0: the host's default size where hugepages is set */
};

struct payload_config {
	char *kernel, *cmdline, *initramfs;
};

struct rate_bucket_config {
	uint64_t size, one_time_burst, refill_time; /* refill_time in ms; size 0: no limit */
};

struct rate_config { /* rate_limiter_config: { bandwidth, ops } */
	struct rate_bucket_config bandwidth, ops;
};

struct disk_config {
	char *id; /* NULL: "_disk<N>" is given at creation */
	char *path;
	bool readonly, direct;
	bool disable_io_uring;
	char *serial;
	unsigned int num_queues; /* 1 */
	unsigned int queue_size; /* 128 */
	struct rate_config rate_limiter_config;
};

struct net_config {
	char *id; /* "_net<N>" */
	char *tap;
	char *ip, *mask;	 /* NULL */
	char *mac;		 /* NULL: random */
	unsigned int mtu;	 /* 0: unset */
	unsigned int num_queues; /* 2: one pair */
	unsigned int queue_size; /* 256 */
	bool vhost;		 /* Ferry: kernel data path where the host has it; false */
	bool offload_tso, offload_ufo, offload_csum; /* true */
	int *fds; /* "fd"; own them: closed by destroy unless taken */
	unsigned int fd_count;
	struct rate_config rate_limiter_config;
};

struct vsock_config {
	char *id; /* "_vsock0" */
	uint64_t cid;
	char *socket; /* NULL: vhost-vsock (Ferry) */
};

/* Which pages an assigned device's DMA made dirty is found out ... */
enum dirty_tracking {
	DIRTY_TRACKING_AUTO, /* by the best way the device has, or it is not moved while it runs */
	DIRTY_TRACKING_ALL,  /* by none: all it can reach counts as dirty, in every round */
};

/* How the state of an assigned device is had out of band (docs/plugins.md). */
struct device_migration_config {
	char *plugin_path; /* NULL: in band */
	char *plugin_arg;  /* NULL: none */
};

/* An assigned PCI device or mediated device. */
struct device_config {
	char *id;		     /* "_vfio<N>" */
	char *path;		     /* sysfs folder; NULL where fd is given */
	int fd;			     /* an opened VFIO cdev that came with the request; -1; owned */
	bool iommufd;		     /* true: cdev where the host has it; false: group and type1 */
	int x_nv_gpudirect_clique;   /* 0-15, -1: none */
	uint8_t x_exclude_mmap_bars; /* bit n: BAR n is not mapped; JSON and options: [n, ...] */
	struct device_migration_config migration;
	enum dirty_tracking dirty_tracking;
};

/* A PCI device served over a vfio-user socket. */
struct user_device_config {
	char *id; /* "_vfio_user<N>" */
	char *socket;
	struct device_migration_config migration;
	enum dirty_tracking dirty_tracking;
};

struct rng_config {
	char *src; /* "/dev/urandom" */
};

struct balloon_config {
	uint64_t size;
	bool deflate_on_oom, free_page_reporting;
};

enum console_mode {
	CONSOLE_OFF,
	CONSOLE_PTY,
	CONSOLE_TTY,
	CONSOLE_FILE,
	CONSOLE_SOCKET,
	CONSOLE_NULL
};

struct console_config {
	enum console_mode mode; /* JSON: "Off", "Pty", "Tty", "File", "Socket", "Null" */
	char *file;		/* File: path; Pty: filled in with the pty's path */
	char *socket;		/* Socket: path */
	uint16_t iobase;	/* debug_console only: 0xe9 */
};

struct platform_config {
	char *serial_number, *uuid;
	char **oem_strings;
	unsigned int oem_string_count;
};

struct landlock_rule {
	char *path;
	bool read, write; /* access: "r", "w", "rw" */
};

struct vm_config {
	struct cpus_config cpus;
	struct memory_config memory;
	struct payload_config payload;
	struct disk_config *disks;
	unsigned int disk_count;
	struct net_config *nets; /* JSON "net" */
	unsigned int net_count;
	struct vsock_config *vsock; /* NULL: none */
	struct device_config *devices;
	unsigned int device_count;
	struct user_device_config *user_devices;
	unsigned int user_device_count;
	struct rng_config rng;
	struct balloon_config *balloon;	     /* NULL: none */
	struct console_config serial;	     /* Null */
	struct console_config console;	     /* Tty */
	struct console_config debug_console; /* Off */
	bool pvpanic;
	bool watchdog; /* must be false: not offered */
	struct platform_config platform;
	bool landlock_enable;
	struct landlock_rule *landlock_rules;
	unsigned int landlock_rule_count;
};

void vm_config_init(struct vm_config *config);
void vm_config_destroy(struct vm_config *config);
void disk_config_init(struct disk_config *disk);
void disk_config_destroy(struct disk_config *disk);
void net_config_init(struct net_config *net);
void net_config_destroy(struct net_config *net);
void vsock_config_init(struct vsock_config *vsock);
void vsock_config_destroy(struct vsock_config *vsock);

void device_config_init(struct device_config *device);
void device_config_destroy(struct device_config *device);
void user_device_config_destroy(struct user_device_config *device);

/*
 * What can be said without looking at the host: ranges, powers of two, a kernel
 * present, duplicate ids, topology that multiplies up. Gives ids to devices that
 * have none. ERROR_BAD_REQUEST names field and device.
 */
int vm_config_validate(struct vm_config *config, struct error *err);
int disk_config_validate(const struct disk_config *disk, struct error *err);
int net_config_validate(const struct net_config *net, struct error *err);
int vsock_config_validate(const struct vsock_config *vsock, struct error *err);
int device_config_validate(const struct device_config *device, struct error *err);
int user_device_config_validate(const struct user_device_config *device, struct error *err);

/*
 * Whether a sound device can join those that the VM of a sound config has: no other has its
 * path (disks that are both read-only may), tap or socket, and there are vCPUs for its
 * queues. ERROR_BAD_REQUEST names field and device. vm_config_validate() asks the same.
 */
int vm_config_admit_disk(const struct vm_config *config, const struct disk_config *disk,
			 struct error *err);
int vm_config_admit_net(const struct vm_config *config, const struct net_config *net,
			struct error *err);
int vm_config_admit_vsock(const struct vm_config *config, const struct vsock_config *vsock,
			  struct error *err);
int vm_config_admit_device(const struct vm_config *config, const struct device_config *device,
			   struct error *err);
int vm_config_admit_user_device(const struct vm_config *config,
				const struct user_device_config *device, struct error *err);

#endif
