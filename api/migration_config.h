/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What vm.snapshot, vm.restore, vm.send-migration and vm.receive-migration are asked
 * to do. Fields, names and defaults are those of Cloud Hypervisor's bodies where it has
 * them; what Ferry adds is marked so. JSON keys equal the field names unless noted.
 *
 * Plain data, as in vm_config.h: strings and arrays are malloc'd and owned by their
 * struct, *_init sets the defaults, *_destroy releases and zeroes. The readers hand out
 * what was validated: URLs that parse, ranges that hold, combinations that make sense.
 */
#ifndef API_MIGRATION_CONFIG_H
#define API_MIGRATION_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "api/vm_config.h"
#include "base/error.h"

#define SEND_CONNECTIONS_MAX 128
#define SEND_THROTTLE_MAX 99 /* % */

/* --- URLs ------------------------------------------------------------------------- */

enum config_url_kind {
	CONFIG_URL_FILE = 1, /* file:///absolute/path */
	CONFIG_URL_UNIX = 2, /* unix:/path */
	CONFIG_URL_TCP = 4,  /* tcp:host:port, tcp:[v6]:port */
};

/* Points into the text it was made from. */
struct config_url {
	enum config_url_kind kind;
	const char *path; /* file, unix; NULL for tcp */
	const char *host; /* tcp; host_len bytes, not NUL-terminated, no brackets */
	size_t host_len;
	const char *port; /* tcp; decimal, 1 to 65535 */
};

/* kinds: those allowed, or'ed. ERROR_BAD_REQUEST "<field>: ...". */
int config_url_parse(struct config_url *url, const char *text, unsigned int kinds,
		     const char *field, struct error *err);

/* --- snapshot --------------------------------------------------------------------- */

enum snapshot_compress { SNAPSHOT_COMPRESS_NONE, SNAPSHOT_COMPRESS_ZSTD };

struct snapshot_config {
	char *destination_url; /* file:///dir: made by the snapshot; must not be there */
	/* Ferry's: */
	bool live;			 /* RAM is written while the guest runs again; true */
	enum snapshot_compress compress; /* JSON "none", "zstd"; none */
	char *base_url; /* differential: a snapshot this one refers to; NULL: full */
};

void snapshot_config_init(struct snapshot_config *config);
void snapshot_config_destroy(struct snapshot_config *config);
int snapshot_config_validate(const struct snapshot_config *config, struct error *err);
/* *config is initialised by the call; on failure nothing is to be destroyed. */
int snapshot_config_from_json(struct snapshot_config *config, const json_t *json,
			      struct error *err);
json_t *snapshot_config_to_json(const struct snapshot_config *config);

/* --- what differs where a VM comes up again ---------------------------------------------- */

/* Each by the id that the device has in the configuration that came along. */
struct net_override {
	char *id;
	char *tap, *mac; /* NULL: as it was */
};

/* Cloud Hypervisor's "net_fds": [{id, num_fds, fds}]; descriptors come with the request. */
struct net_fds_override {
	char *id;
	int *fds; /* owned: closed by destroy unless taken (-1) */
	unsigned int fd_count;
};

struct disk_override {
	char *id, *path;
};

/* An assigned device's other path; NULL: a descriptor that comes with the request, behind
 * those of net_fds. */
struct device_override {
	char *id, *path;
	int fd;					  /* owned: closed by destroy unless taken (-1) */
	struct device_migration_config migration; /* NULL: as it was */
};

struct user_device_override {
	char *id, *socket;
	struct device_migration_config migration; /* NULL: as it was */
};

struct vsock_override {
	char *socket; /* NULL: as it was */
	uint64_t cid; /* 0: as it was */
};

struct config_overrides {
	struct net_override *nets; /* JSON "net" */
	unsigned int net_count;
	struct net_fds_override *net_fds;
	unsigned int net_fds_count;
	struct disk_override *disks;
	unsigned int disk_count;
	struct device_override *devices;
	unsigned int device_count;
	struct user_device_override *user_devices;
	unsigned int user_device_count;
	struct vsock_override *vsock;		 /* NULL: as it was */
	struct console_config *serial, *console; /* NULL: as they were */
};

void config_overrides_destroy(struct config_overrides *overrides);
/*
 * Puts the overrides into config and validates the result. Descriptors go over to it.
 * ERROR_BAD_REQUEST names an id that is no device of the VM. On failure config is still
 * to be destroyed, and may have some of them.
 */
int config_overrides_apply(struct config_overrides *overrides, struct vm_config *config,
			   struct error *err);

/* --- restore ------------------------------------------------------------------------ */

/* JSON: Cloud Hypervisor's Copy, OnDemand, CopyOnWrite, or Ferry's eager, lazy, shared. */
enum memory_restore_mode {
	MEMORY_RESTORE_EAGER,  /* all RAM is read before the VM runs */
	MEMORY_RESTORE_LAZY,   /* userfaultfd; the rest is read in the background */
	MEMORY_RESTORE_SHARED, /* the file is mapped privately: clones share clean pages */
};

struct restore_config {
	char *source_url; /* file:///dir */
	bool prefault;	  /* not with lazy */
	enum memory_restore_mode memory_restore_mode;
	bool resume;			   /* false: paused */
	struct config_overrides overrides; /* keys beside the others, not in an object */
};

void restore_config_init(struct restore_config *config);
void restore_config_destroy(struct restore_config *config);
int restore_config_validate(const struct restore_config *config, struct error *err);
int restore_config_from_json(struct restore_config *config, const json_t *json, struct error *err);
json_t *restore_config_to_json(const struct restore_config *config);

/* --- migration ----------------------------------------------------------------------- */

/* JSON: Precopy, MemFDs, Postcopy, or in lower case. */
enum send_memory_mode {
	SEND_PRECOPY,
	SEND_MEMFDS,   /* RAM is handed over: same host, unix: only; "local" says it too */
	SEND_POSTCOPY, /* the VM runs there before its RAM is there: not with assigned devices */
};

/* JSON: Cancel, Ignore, or in lower case. */
enum send_timeout_strategy {
	SEND_TIMEOUT_CANCEL, /* the VM goes on here */
	SEND_TIMEOUT_IGNORE, /* hand over now, whatever the downtime */
};

struct send_migration_config {
	char *destination_url;			     /* unix: or tcp: */
	bool local;				     /* after validation: memory_mode is MEMFDS */
	enum send_memory_mode memory_mode;	     /* PRECOPY */
	uint64_t downtime_ms;			     /* 300 */
	uint64_t timeout_s;			     /* 3600 */
	enum send_timeout_strategy timeout_strategy; /* CANCEL */
	unsigned int connections;		     /* 1; more by tcp: only */
	bool preserve_source; /* when it is over the VM stays here, paused; false: deleted */
	char *tls_dir;	      /* tcp: only; certificates and key (migration/tls.h); NULL: no TLS */
	/* Ferry's: */
	uint64_t bandwidth;	   /* bytes/s over all connections; 0: no limit */
	unsigned int max_throttle; /* % of their time that vCPUs may lose; 0: never; 99 */
	bool checksum;		   /* CRC32C over the pages too; false */
};

void send_migration_config_init(struct send_migration_config *config);
void send_migration_config_destroy(struct send_migration_config *config);
/* Makes local and memory_mode agree. */
int send_migration_config_validate(struct send_migration_config *config, struct error *err);
int send_migration_config_from_json(struct send_migration_config *config, const json_t *json,
				    struct error *err);
json_t *send_migration_config_to_json(const struct send_migration_config *config);

struct receive_migration_config {
	char *receiver_url; /* unix: or tcp: to listen on */
	char *tls_dir;	    /* as above: a source without a certificate is refused */
	/* Ferry's: */
	bool resume; /* true: runs where it ran before; false: stays paused here */
	struct config_overrides overrides; /* as in restore_config */
};

void receive_migration_config_init(struct receive_migration_config *config);
void receive_migration_config_destroy(struct receive_migration_config *config);
int receive_migration_config_validate(const struct receive_migration_config *config,
				      struct error *err);
int receive_migration_config_from_json(struct receive_migration_config *config, const json_t *json,
				       struct error *err);
json_t *receive_migration_config_to_json(const struct receive_migration_config *config);

#endif
