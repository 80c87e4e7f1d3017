/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each path does. A route answers at once (quick), or turns its body into the
 * arguments of a job (parse) that the worker runs (run).
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/json_fields.h"
#include "api/server_arguments.h"

enum job_stage { JOB_QUEUED, JOB_BEGUN, JOB_CANCELLED };

struct request_job {
	struct api_job job;
	atomic_int stage; /* enum job_stage; either thread leaves JOB_QUEUED */
	struct api_server *server;
	const struct api_route *route;
	struct api_connection *connection; /* NULL: the client has left */
	union api_arguments args;
	struct vm_device_place place;
	struct live_update_result updated;
};

struct api_route {
	const char *path;
	unsigned int method;
	/* Answers at once. */
	int (*quick)(struct api_request *request, struct api_reply *reply, struct error *err);
	/* Long: NULL parse: no body. On failure nothing is to be released. */
	api_parse_fn parse;
	void (*release)(union api_arguments *args);
	int (*run)(struct request_job *j, struct error *err);
	bool places;  /* 200 {id, bdf} where a running VM got a device */
	bool updates; /* 200 with what a live update took */
	/* The operation that it needs, in struct vm_ops; 0: none, or one that is always there. */
	size_t needs;
	/* What is going on while it runs ("the VM is being migrated"): it may take long, and
	 * other operations are refused rather than kept waiting. */
	const char *exclusive;
	bool ends_exclusive; /* cancels it instead of being refused */
};

/* --- replies ------------------------------------------------------------------------ */

void api_reply_destroy(struct api_reply *reply)
{
	json_decref(reply->json);
	strbuf_free(&reply->text);
	*reply = (struct api_reply){ 0 };
}

/* Cloud Hypervisor's form: an array of messages, from the outermost in. */
void api_reply_problem(struct api_reply *reply, int status, const char *problem)
{
	api_reply_destroy(reply);
	reply->status = status;
	reply->json = json_pack("[o]", json_text(problem));
}

void api_reply_error(struct api_reply *reply, const struct error *err)
{
	static const int status[] = {
		[ERROR_FAILED] = 500,	   [ERROR_BAD_REQUEST] = 400, [ERROR_NOT_FOUND] = 404,
		[ERROR_WRONG_STATE] = 405, [ERROR_CONFLICT] = 409,
	};

	api_reply_problem(reply, status[err->kind], err->message);
}

static int reply_json(struct api_reply *reply, json_t *json, struct error *err)
{
	if (!json)
		return err->code ? err->code : error_set_errno(err, ENOMEM, "make response");
	reply->status = 200;
	reply->json = json;
	return 0;
}

/* --- quick ---------------------------------------------------------------------------- */

static int vmm_ping(struct api_request *request, struct api_reply *reply, struct error *err)
{
	const char *version = request->server->version;
	json_t *json = json_object();

	if (!json || json_object_set_new(json, "build_version", json_text(version)) ||
	    json_object_set_new(json, "version", json_text(version)) ||
	    json_object_set_new(json, "pid", json_integer(getpid())) ||
	    json_object_set_new(json, "features", json_array())) {
		json_decref(json);
		json = NULL;
	}
	return reply_json(reply, json, err);
}

static int vm_info(struct api_request *request, struct api_reply *reply, struct error *err)
{
	return reply_json(reply, request->server->ops.info(request->server->vm, err), err);
}

static int vm_counters(struct api_request *request, struct api_reply *reply, struct error *err)
{
	return reply_json(reply, request->server->ops.counters(request->server->vm, err), err);
}

static int migration(struct api_request *request, struct api_reply *reply, struct error *err)
{
	struct vm_migration_progress *progress = calloc(1, sizeof(*progress));
	json_t *json = NULL;

	if (progress) {
		request->server->ops.migration(request->server->vm, progress);
		json = vm_migration_progress_to_json(progress);
	}
	free(progress);
	return reply_json(reply, json, err);
}

/* What has not begun yet never will; what has, the VM ends in its own time. */
static int cancel_exclusive(struct api_server *server, struct error *err)
{
	int queued = JOB_QUEUED;

	if (server->exclusive &&
	    atomic_compare_exchange_strong(&server->exclusive->stage, &queued, JOB_CANCELLED))
		return 0;
	return server->ops.cancel_migration(server->vm, err);
}

static int cancel_migration(struct api_request *request, struct api_reply *reply, struct error *err)
{
	reply->status = 204;
	return cancel_exclusive(request->server, err);
}

static int metrics(struct api_request *request, struct api_reply *reply, struct error *err)
{
	api_metrics_write(request->server, &reply->text);
	if (reply->text.failed)
		return error_set_errno(err, ENOMEM, "make response");
	reply->status = 200;
	return 0;
}

/* --- long --------------------------------------------------------------------------------- */

#define OPERATION(name) \
	static int run_##name(struct request_job *j, struct error *err) \
	{ \
		return j->server->ops.name(j->server->vm, err); \
	}

OPERATION(delete)
OPERATION(boot)
OPERATION(shutdown)
OPERATION(reboot)
OPERATION(pause)
OPERATION(resume)
OPERATION(power_button)
OPERATION(nmi)

static int run_vmm_shutdown(struct request_job *j, struct error *err)
{
	j->server->ops.vmm_shutdown(j->server->vm);
	return 0;
}

static int run_create(struct request_job *j, struct error *err)
{
	return j->server->ops.create(j->server->vm, &j->args.vm, err);
}

static int run_add_disk(struct request_job *j, struct error *err)
{
	return j->server->ops.add_disk(j->server->vm, &j->args.disk, &j->place, err);
}

static int run_add_net(struct request_job *j, struct error *err)
{
	return j->server->ops.add_net(j->server->vm, &j->args.net, &j->place, err);
}

static int run_add_vsock(struct request_job *j, struct error *err)
{
	return j->server->ops.add_vsock(j->server->vm, &j->args.vsock, &j->place, err);
}

static int not_offered(const char *what, struct error *err)
{
	return error_set(err, EOPNOTSUPP, "%s: not supported by this ferry", what);
}

static int run_add_device(struct request_job *j, struct error *err)
{
	if (!j->server->ops.add_device)
		return not_offered("assigned devices", err);
	return j->server->ops.add_device(j->server->vm, &j->args.device, &j->place, err);
}

static int run_add_user_device(struct request_job *j, struct error *err)
{
	if (!j->server->ops.add_user_device)
		return not_offered("vfio-user devices", err);
	return j->server->ops.add_user_device(j->server->vm, &j->args.user_device, &j->place, err);
}

static int run_remove_device(struct request_job *j, struct error *err)
{
	return j->server->ops.remove_device(j->server->vm, j->args.named.id, err);
}

static int run_resize_disk(struct request_job *j, struct error *err)
{
	return j->server->ops.resize_disk(j->server->vm, j->args.named.id, j->args.named.size, err);
}

static int run_resize(struct request_job *j, struct error *err)
{
	if (j->args.resize.balloon == API_UNASKED)
		return 0;
	return j->server->ops.resize_balloon(j->server->vm, j->args.resize.balloon, err);
}

static int run_snapshot(struct request_job *j, struct error *err)
{
	return j->server->ops.snapshot(j->server->vm, &j->args.snapshot, err);
}

static int run_restore(struct request_job *j, struct error *err)
{
	return j->server->ops.restore(j->server->vm, &j->args.restore, err);
}

static int run_send_migration(struct request_job *j, struct error *err)
{
	return j->server->ops.send_migration(j->server->vm, &j->args.send_migration, err);
}

static int run_receive_migration(struct request_job *j, struct error *err)
{
	return j->server->ops.receive_migration(j->server->vm, &j->args.receive_migration, err);
}

static int run_live_update(struct request_job *j, struct error *err)
{
	return j->server->ops.live_update(j->server->vm, &j->args.live_update, &j->updated, err);
}

/* --- the table ------------------------------------------------------------------------------ */

#define QUICK(p, fn, ...) \
	{ \
		.path = p, .method = HTTP_GET, .quick = fn, __VA_ARGS__ \
	}
#define ACTION(p, fn, ...) \
	{ \
		.path = "/api/v1/" p, .method = HTTP_PUT, .run = run_##fn, __VA_ARGS__ \
	}
#define ACTION_BODY(p, fn, reader, releaser, ...) \
	{ \
		.path = "/api/v1/" p, .method = HTTP_PUT, .run = run_##fn, \
		.parse = api_parse_##reader, .release = releaser, __VA_ARGS__ \
	}

#define NEEDS(op) .needs = offsetof(struct vm_ops, op)

static const struct api_route routes[] = {
	QUICK("/api/v1/vmm.ping", vmm_ping),
	QUICK("/api/v1/vm.info", vm_info),
	QUICK("/api/v1/vm.counters", vm_counters),
	QUICK("/metrics", metrics),
	QUICK("/api/v1/vm.migration", migration, NEEDS(migration)),
	{ .path = "/api/v1/vm.cancel-migration",
	  .method = HTTP_PUT,
	  .quick = cancel_migration,
	  NEEDS(cancel_migration) },
	ACTION("vmm.shutdown", vmm_shutdown, .ends_exclusive = true),
	ACTION("vm.delete", delete),
	ACTION("vm.boot", boot),
	ACTION("vm.shutdown", shutdown),
	ACTION("vm.reboot", reboot),
	ACTION("vm.pause", pause),
	ACTION("vm.resume", resume),
	ACTION("vm.power-button", power_button),
	ACTION("vm.nmi", nmi),
	ACTION_BODY("vm.create", create, vm, api_release_vm),
	ACTION_BODY("vm.add-disk", add_disk, disk, api_release_disk, .places = true),
	ACTION_BODY("vm.add-net", add_net, net, api_release_net, .places = true),
	ACTION_BODY("vm.add-vsock", add_vsock, vsock, api_release_vsock, .places = true),
	ACTION_BODY("vm.add-device", add_device, device, api_release_device, .places = true),
	ACTION_BODY("vm.add-user-device", add_user_device, user_device, api_release_user_device,
		    .places = true),
	ACTION_BODY("vm.remove-device", remove_device, id, api_release_named),
	ACTION_BODY("vm.resize", resize, resize, NULL),
	ACTION_BODY("vm.resize-disk", resize_disk, resize_disk, api_release_named),
	ACTION_BODY("vm.snapshot", snapshot, snapshot, api_release_snapshot, NEEDS(snapshot),
		    .exclusive = "a snapshot is being taken"),
	ACTION_BODY("vm.restore", restore, restore, api_release_restore, NEEDS(restore)),
	ACTION_BODY("vm.send-migration", send_migration, send_migration, api_release_send_migration,
		    NEEDS(send_migration), .exclusive = "the VM is being migrated away"),
	ACTION_BODY("vm.receive-migration", receive_migration, receive_migration,
		    api_release_receive_migration, NEEDS(receive_migration),
		    .exclusive = "a VM is being received"),
	ACTION_BODY("vm.live-update", live_update, live_update, api_release_live_update,
		    NEEDS(live_update), .updates = true,
		    .exclusive = "the VM is being handed to another process"),
};

const char *api_route_name(unsigned int index, const char **method)
{
	if (index >= ARRAY_SIZE(routes))
		return NULL;
	*method = http_method_str((enum http_method)routes[index].method);
	return routes[index].path;
}

/* --- from request to job and back --------------------------------------------------------------
 */

static int run_request(struct api_job *job, struct error *err)
{
	struct request_job *j = container_of(job, struct request_job, job);
	int queued = JOB_QUEUED;

	if (!atomic_compare_exchange_strong(&j->stage, &queued, JOB_BEGUN))
		return error_set(err, ECANCELED, "cancelled before it began");
	return j->route->run(j, err);
}

static void finish_request(struct api_job *job)
{
	struct request_job *j = container_of(job, struct request_job, job);
	struct api_reply reply = { .status = 204 };

	if (j->server->exclusive == j)
		j->server->exclusive = NULL;
	if (j->route->release)
		j->route->release(&j->args);
	if (job->result) {
		api_reply_error(&reply, &job->err);
		log_warn(j->server->log, "API: %s: %s", j->route->path, job->err.message);
	} else {
		log_info(j->server->log, "API: %s: done", j->route->path);
	}
	if (!job->result && j->route->places && !j->place.cold) {
		reply.status = 200;
		reply.json = json_pack("{s:o,s:o}", "id", json_text(j->place.id), "bdf",
				       json_text(j->place.bdf));
	}
	if (!job->result && j->route->updates) {
		reply.status = 200;
		reply.json = live_update_result_to_json(&j->updated);
	}
	if (reply.status == 405)
		reply.allow = http_method_str((enum http_method)j->route->method);
	if (j->connection)
		api_connection_answer(j->connection, &reply);
	else
		api_reply_destroy(&reply);
	free(j);
}

static int parse_body(const struct api_route *route, struct api_request *request,
		      union api_arguments *args, struct error *err)
{
	if (!route->parse) {
		if (request->body_len)
			return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL, "%s takes no body",
					      route->path);
		return 0;
	}
	return api_arguments_parse(request, route->parse, args, err);
}

/*
 * What may take minutes would keep all that comes behind it waiting: that is refused.
 * What ends the process does not wait either.
 */
static int check_exclusive(const struct api_route *route, struct api_server *server,
			   struct error *err)
{
	const struct api_route *running;

	if (!server->exclusive)
		return 0;
	running = server->exclusive->route;
	if (!route->ends_exclusive)
		return error_set_kind(err, ERROR_WRONG_STATE, EBUSY,
				      "%s: %s (%s); vm.migration says how far that is, "
				      "vm.cancel-migration ends it",
				      route->path, running->exclusive, running->path);
	if (server->ops.cancel_migration)
		cancel_exclusive(server, NULL);
	return 0;
}

static int queue_job(const struct api_route *route, struct api_request *request, struct error *err)
{
	struct request_job *j;
	int r = check_exclusive(route, request->server, err);

	if (r)
		return r;
	j = calloc(1, sizeof(*j));
	if (!j)
		return error_set_errno(err, ENOMEM, "queue request");
	j->job.run = run_request;
	j->job.finish = finish_request;
	j->server = request->server;
	j->route = route;
	j->connection = request->connection;
	r = parse_body(route, request, &j->args, err);
	if (r) {
		free(j);
		return r;
	}
	request->connection->holder = &j->connection;
	if (route->exclusive)
		request->server->exclusive = j;
	r = api_worker_submit(&request->server->worker, request->server->threads, &j->job, err);
	if (r) {
		if (route->exclusive)
			request->server->exclusive = NULL;
		request->connection->holder = NULL;
		if (route->release)
			route->release(&j->args);
		free(j);
	}
	return r;
}

/* A path whose operation the VM does not have is not there. */
static bool offered(const struct api_route *route, const struct vm_ops *ops)
{
	void (*op)(void);

	memcpy(&op, (const char *)ops + route->needs, sizeof(op));
	return !route->needs || op;
}

static const struct api_route *find_route(const struct api_request *request)
{
	for (size_t i = 0; i < ARRAY_SIZE(routes); i++)
		if (strlen(routes[i].path) == request->path_len &&
		    !memcmp(routes[i].path, request->path, request->path_len))
			return &routes[i];
	return NULL;
}

bool api_route_request(struct api_request *request, struct api_reply *reply)
{
	const struct api_route *route = find_route(request);
	struct error err = ERROR_INIT;
	const char *method;
	int r;

	if (!route) {
		error_set_kind(&err, ERROR_NOT_FOUND, ENOENT, "%.*s: there is no such path",
			       (int)MIN(request->path_len, (size_t)100), request->path);
		api_reply_error(reply, &err);
		return true;
	}
	if (!offered(route, &request->server->ops)) {
		error_set_kind(&err, ERROR_NOT_FOUND, EOPNOTSUPP, "%s: not offered by this ferry",
			       route->path);
		api_reply_error(reply, &err);
		return true;
	}
	method = http_method_str((enum http_method)route->method);
	if (route->method != request->method) {
		error_set_kind(&err, ERROR_WRONG_STATE, EINVAL, "%s: the method is %s, not %s",
			       route->path, method,
			       http_method_str((enum http_method)request->method));
		api_reply_error(reply, &err);
		reply->allow = method;
		return true;
	}
	if (route->quick && request->body_len)
		r = parse_body(route, request, NULL, &err);
	else
		r = route->quick ? route->quick(request, reply, &err)
				 : queue_job(route, request, &err);
	if (!r)
		return route->quick != NULL;
	log_warn(request->server->log, "API: %s: %s", route->path, err.message);
	api_reply_error(reply, &err);
	if (reply->status == 405)
		reply->allow = method;
	return true;
}
