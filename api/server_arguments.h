/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request's body as the arguments of its operation. A parser leaves nothing to
 * release where it fails; the descriptors it takes are -1 in the request afterwards.
 * Private to api/.
 */
#ifndef API_SERVER_ARGUMENTS_H
#define API_SERVER_ARGUMENTS_H

#include "api/server_internal.h"

#define API_UNASKED UINT64_MAX

struct api_named_size {
	char *id;
	uint64_t size;
};

struct api_resize {
	unsigned int vcpus;    /* 0: not named */
	uint64_t ram, balloon; /* API_UNASKED: not named */
};

union api_arguments {
	struct vm_config vm;
	struct disk_config disk;
	struct net_config net;
	struct vsock_config vsock;
	struct device_config device;
	struct user_device_config user_device;
	struct api_named_size named;
	struct api_resize resize;
	struct snapshot_config snapshot;
	struct restore_config restore;
	struct send_migration_config send_migration;
	struct receive_migration_config receive_migration;
	struct live_update_config live_update;
};

typedef int (*api_parse_fn)(struct api_request *request, const json_t *body,
			    union api_arguments *args, struct error *err);

/* Loads the body and hands it to parse. */
int api_arguments_parse(struct api_request *request, api_parse_fn parse, union api_arguments *args,
			struct error *err);

int api_parse_vm(struct api_request *request, const json_t *body, union api_arguments *args,
		 struct error *err);
int api_parse_disk(struct api_request *request, const json_t *body, union api_arguments *args,
		   struct error *err);
int api_parse_net(struct api_request *request, const json_t *body, union api_arguments *args,
		  struct error *err);
int api_parse_vsock(struct api_request *request, const json_t *body, union api_arguments *args,
		    struct error *err);
int api_parse_device(struct api_request *request, const json_t *body, union api_arguments *args,
		     struct error *err);
int api_parse_user_device(struct api_request *request, const json_t *body,
			  union api_arguments *args, struct error *err);
int api_parse_id(struct api_request *request, const json_t *body, union api_arguments *args,
		 struct error *err);
int api_parse_resize(struct api_request *request, const json_t *body, union api_arguments *args,
		     struct error *err);
int api_parse_resize_disk(struct api_request *request, const json_t *body,
			  union api_arguments *args, struct error *err);
int api_parse_snapshot(struct api_request *request, const json_t *body, union api_arguments *args,
		       struct error *err);
int api_parse_restore(struct api_request *request, const json_t *body, union api_arguments *args,
		      struct error *err);
int api_parse_send_migration(struct api_request *request, const json_t *body,
			     union api_arguments *args, struct error *err);
int api_parse_receive_migration(struct api_request *request, const json_t *body,
				union api_arguments *args, struct error *err);
int api_parse_live_update(struct api_request *request, const json_t *body,
			  union api_arguments *args, struct error *err);
void api_release_vm(union api_arguments *args);
void api_release_disk(union api_arguments *args);
void api_release_net(union api_arguments *args);
void api_release_vsock(union api_arguments *args);
void api_release_device(union api_arguments *args);
void api_release_user_device(union api_arguments *args);
void api_release_named(union api_arguments *args);
void api_release_snapshot(union api_arguments *args);
void api_release_restore(union api_arguments *args);
void api_release_send_migration(union api_arguments *args);
void api_release_receive_migration(union api_arguments *args);
void api_release_live_update(union api_arguments *args);

#endif
