/* SPDX-License-Identifier: Apache-2.0 */
/* The commands, and what each makes of its arguments. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/config_json.h"
#include "api/ctl/ctl.h"
#include "api/options.h"
#include "api/options_keys.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/parse.h"
#include "base/strbuf.h"

void ctl_call_free(struct ctl_call *call)
{
	free(call->body);
	for (unsigned int i = 0; i < call->fd_count; i++)
		close(call->fds[i]);
	*call = (struct ctl_call){ 0 };
}

static int one_argument(const char *what, const char **value, int argc, char *const argv[],
			struct error *err)
{
	int r;

	*value = NULL;
	r = ctl_take_arguments(NULL, 0, value, argc, argv, err);
	if (!r && (!*value || !**value))
		r = option_error(err, "%s is missing", what);
	return r;
}

static int size_argument(const char *name, const char *text, uint64_t *size, struct error *err)
{
	*size = 0;
	if (!text)
		return option_error(err, "%s SIZE is missing", name);
	/* A JSON integer is signed. */
	if (parse_size(text, size) || *size > INT64_MAX)
		return option_error(err, "%s %.60s: must be bytes, or a number with K, M, G or T",
				    name, text);
	return 0;
}

/* --- create ------------------------------------------------------------------- */

static int read_all(int fd, const char *name, struct strbuf *text, struct error *err)
{
	char buf[16384];

	for (;;) {
		ssize_t n = read(fd, buf, sizeof(buf));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_set_errno(err, errno, "read %s", name);
		if (!n)
			return 0;
		strbuf_append(text, buf, (size_t)n);
		if (text->failed)
			return error_set(err, EFBIG, "%s: larger than the %d KiB ferry takes", name,
					 CTL_BODY_MAX / 1024);
	}
}

/* Looked at here, where line and column are known; what it says is ferry's to judge. */
static int check_json(const struct strbuf *text, const char *name, struct error *err)
{
	json_error_t where;
	json_t *json =
		json_loadb(text->data ? text->data : "", text->len, JSON_REJECT_DUPLICATES, &where);
	bool object = json_is_object(json);

	if (!json)
		return error_set(err, EINVAL, "%s, line %d, column %d: not JSON: %.200s", name,
				 where.line, where.column, where.text);
	json_decref(json);
	return object ? 0
		      : error_set(err, EINVAL, "%s: must be a JSON object, a VM's configuration",
				  name);
}

static int create_from_file(struct ctl_call *call, const char *path, struct error *err)
{
	_cleanup_strbuf_ struct strbuf text = { .max = CTL_BODY_MAX };
	_cleanup_close_ int opened = -1;
	bool standard = !strcmp(path, "-");
	const char *name = standard ? "standard input" : path;
	int r;

	if (!standard) {
		opened = open(path, O_RDONLY | O_CLOEXEC);
		if (opened < 0)
			return error_set_errno(err, errno, "open %s", path);
	}
	r = read_all(standard ? STDIN_FILENO : opened, name, &text, err);
	if (!r)
		r = check_json(&text, name, err);
	if (!r)
		call->body = take_ptr(text.data);
	return r;
}

static int take_fds(struct ctl_call *call, struct net_config *net, struct error *err)
{
	if (call->fd_count + net->fd_count > FD_PASS_MAX)
		return option_error(err, "more than %d descriptors", FD_PASS_MAX);
	for (unsigned int i = 0; i < net->fd_count; i++)
		call->fds[call->fd_count++] = take_fd(&net->fds[i]);
	return 0;
}

/* The device keeps "descriptor" as its way to be reached: it has no path. */
static int take_device_fd(struct ctl_call *call, struct device_config *device, struct error *err)
{
	if (device->fd < 0)
		return 0;
	if (call->fd_count == FD_PASS_MAX)
		return option_error(err, "more than %d descriptors", FD_PASS_MAX);
	call->fds[call->fd_count++] = take_fd(&device->fd);
	return 0;
}

static int create_from_options(struct ctl_call *call, int argc, char *const argv[],
			       struct error *err)
{
	struct vm_config config;
	int r = vm_config_parse_options(&config, argc, argv, err);

	if (r)
		return r;
	for (unsigned int i = 0; i < config.net_count && !r; i++)
		r = take_fds(call, &config.nets[i], err);
	for (unsigned int i = 0; i < config.device_count && !r; i++)
		r = take_device_fd(call, &config.devices[i], err);
	if (!r)
		r = ctl_set_body(call, vm_config_to_json(&config), err);
	vm_config_destroy(&config);
	return r;
}

static int build_create(struct ctl_call *call, int argc, char *const argv[], struct error *err)
{
	if (argc < 2)
		return option_error(err, "give a JSON file, - or the options of a VM");
	if (argv[1][0] == '-' && argv[1][1])
		return create_from_options(call, argc, argv, err);
	if (argc > 2)
		return option_error(err, "unexpected argument \"%.60s\"", argv[2]);
	return create_from_file(call, argv[1], err);
}

/* --- devices ------------------------------------------------------------------ */

static int build_add_disk(struct ctl_call *call, int argc, char *const argv[], struct error *err)
{
	struct disk_config disk;
	const char *text;
	int r = one_argument("path=FILE", &text, argc, argv, err);

	if (!r)
		r = ctl_drop_option(disk_config_parse(&disk, text, err), "--disk: ", err);
	if (r)
		return r;
	r = ctl_set_body(call, disk_config_to_json(&disk), err);
	disk_config_destroy(&disk);
	return r;
}

static int net_text(struct strbuf *text, const char *keys, const char *fds, struct error *err)
{
	if (fds && (!*fds || fds[strspn(fds, "0123456789,")]))
		return option_error(err, "--fd %.60s: must be numbers of open descriptors, as 3,4",
				    fds);
	if (!keys && !fds)
		return option_error(err, "tap=NAME or --fd N is missing");
	strbuf_puts(text, keys ? keys : "");
	if (fds)
		strbuf_printf(text, "%sfd=[%s]", keys && *keys ? "," : "", fds);
	return text->failed ? error_set_errno(err, ENOMEM, "make the request") : 0;
}

static int build_add_net(struct ctl_call *call, int argc, char *const argv[], struct error *err)
{
	_cleanup_strbuf_ struct strbuf text = STRBUF_INIT;
	const char *keys = NULL, *fds = NULL;
	const struct ctl_argument arguments[] = { { "--fd", &fds, false } };
	struct net_config net;
	int r = ctl_take_arguments(arguments, ARRAY_SIZE(arguments), &keys, argc, argv, err);

	if (!r)
		r = net_text(&text, keys, fds, err);
	if (!r)
		r = ctl_drop_option(net_config_parse(&net, text.data, err), "--net: ", err);
	if (r)
		return r;
	r = take_fds(call, &net, err);
	if (!r)
		r = ctl_set_body(call, net_config_to_json(&net), err);
	net_config_destroy(&net);
	return r;
}

static int build_add_vsock(struct ctl_call *call, int argc, char *const argv[], struct error *err)
{
	struct vsock_config vsock;
	const char *text;
	int r = one_argument("cid=N", &text, argc, argv, err);

	if (!r)
		r = ctl_drop_option(vsock_config_parse(&vsock, text, err), "--vsock: ", err);
	if (r)
		return r;
	r = ctl_set_body(call, vsock_config_to_json(&vsock), err);
	vsock_config_destroy(&vsock);
	return r;
}

static int device_text(struct strbuf *text, const char *keys, const char *fd, struct error *err)
{
	if (fd && (!*fd || fd[strspn(fd, "0123456789")]))
		return option_error(err, "--fd %.60s: must be the number of an open descriptor",
				    fd);
	if (!keys && !fd)
		return option_error(err, "path=DIR or --fd N is missing");
	strbuf_puts(text, keys ? keys : "");
	if (fd)
		strbuf_printf(text, "%sfd=%s", keys && *keys ? "," : "", fd);
	return text->failed ? error_set_errno(err, ENOMEM, "make the request") : 0;
}

static int build_add_device(struct ctl_call *call, int argc, char *const argv[], struct error *err)
{
	_cleanup_strbuf_ struct strbuf text = STRBUF_INIT;
	const char *keys = NULL, *fd = NULL;
	const struct ctl_argument arguments[] = { { "--fd", &fd, false } };
	struct device_config device;
	int r = ctl_take_arguments(arguments, ARRAY_SIZE(arguments), &keys, argc, argv, err);

	if (!r)
		r = device_text(&text, keys, fd, err);
	if (!r)
		r = ctl_drop_option(device_config_parse(&device, text.data, err),
				    "--device: ", err);
	if (r)
		return r;
	r = take_device_fd(call, &device, err);
	if (!r)
		r = ctl_set_body(call, device_config_to_json(&device), err);
	device_config_destroy(&device);
	return r;
}

static int build_add_user_device(struct ctl_call *call, int argc, char *const argv[],
				 struct error *err)
{
	struct user_device_config device;
	const char *text;
	int r = one_argument("socket=PATH", &text, argc, argv, err);

	if (!r)
		r = ctl_drop_option(user_device_config_parse(&device, text, err),
				    "--user-device: ", err);
	if (r)
		return r;
	r = ctl_set_body(call, user_device_config_to_json(&device), err);
	user_device_config_destroy(&device);
	return r;
}

static int id_body(struct ctl_call *call, json_t *json, struct error *err)
{
	if (!json)
		return option_error(err, "the device's id is not UTF-8");
	return ctl_set_body(call, json, err);
}

static int build_remove_device(struct ctl_call *call, int argc, char *const argv[],
			       struct error *err)
{
	const char *id;
	int r = one_argument("the device's id", &id, argc, argv, err);

	return r ? r : id_body(call, json_pack("{s:s}", "id", id), err);
}

static int build_resize(struct ctl_call *call, int argc, char *const argv[], struct error *err)
{
	const char *balloon = NULL;
	const struct ctl_argument arguments[] = { { "--balloon", &balloon, false } };
	uint64_t size;
	int r = ctl_take_arguments(arguments, ARRAY_SIZE(arguments), NULL, argc, argv, err);

	if (!r)
		r = size_argument("--balloon", balloon, &size, err);
	if (r)
		return r;
	return ctl_set_body(call, json_pack("{s:I}", "desired_balloon", (json_int_t)size), err);
}

static int build_resize_disk(struct ctl_call *call, int argc, char *const argv[], struct error *err)
{
	const char *disk = NULL, *text = NULL;
	const struct ctl_argument arguments[] = { { "--disk", &disk, false },
						  { "--size", &text, false } };
	uint64_t size;
	int r = ctl_take_arguments(arguments, ARRAY_SIZE(arguments), NULL, argc, argv, err);

	if (!r && (!disk || !*disk))
		r = option_error(err, "--disk ID is missing");
	if (!r)
		r = size_argument("--size", text, &size, err);
	if (r)
		return r;
	return id_body(call, json_pack("{s:s, s:I}", "id", disk, "desired_size", (json_int_t)size),
		       err);
}

/* --- the table ---------------------------------------------------------------- */

#define V1 "/api/v1/"

/* clang-format off */
const struct ctl_command ctl_commands[] = {
	{ .name = "ping", .summary = "say which ferry answers",
	  .help = "Example:\n  ferryctl --api-socket /run/ferry.sock ping\n",
	  .method = "GET", .path = V1 "vmm.ping", .quick = true, .render = ctl_render_ping },
	{ .name = "shutdown-vmm", .summary = "stop the VM, if there is one, and end ferry",
	  .help = "The guest is not asked: use power-button before, to let it finish.\n",
	  .method = "PUT", .path = V1 "vmm.shutdown" },
	{ .name = "create", .arguments = "FILE | - | --kernel FILE [OPTION]...",
	  .summary = "make a VM, not yet booted",
	  .help = "FILE (- is standard input) holds the VM's configuration as JSON. Instead, the\n"
		  "options of ferry that describe a VM may be given: --kernel, --cpus, --disk and so\n"
		  "on, see ferry --help. Paths are ferry's, seen from its directory and its jail.\n"
		  "\n"
		  "Examples:\n"
		  "  ferryctl create vm.json\n"
		  "  ferryctl create --kernel /boot/vmlinuz --memory size=1G --disk path=/vm/root.img\n"
		  "  ferryctl --json info | jq .config | ferryctl --api-socket other.sock create -\n",
	  .method = "PUT", .path = V1 "vm.create", .build = build_create },
	{ .name = "boot", .summary = "boot the VM that was made",
	  .help = "Example:\n  ferryctl create vm.json && ferryctl boot\n",
	  .method = "PUT", .path = V1 "vm.boot" },
	{ .name = "delete", .summary = "stop the VM and forget its configuration",
	  .help = "ferry itself goes on and takes another create.\n",
	  .method = "PUT", .path = V1 "vm.delete" },
	{ .name = "shutdown", .summary = "stop the VM at once; its configuration stays",
	  .help = "The guest is not asked: use power-button for that.\n",
	  .method = "PUT", .path = V1 "vm.shutdown" },
	{ .name = "reboot", .summary = "reset the VM and boot it again",
	  .help = "The guest is not asked.\n",
	  .method = "PUT", .path = V1 "vm.reboot" },
	{ .name = "pause", .summary = "stop the VM's CPUs",
	  .help = "Example:\n  ferryctl pause; ferryctl resume\n",
	  .method = "PUT", .path = V1 "vm.pause" },
	{ .name = "resume", .summary = "let a paused VM go on",
	  .help = "Example:\n  ferryctl pause; ferryctl resume\n",
	  .method = "PUT", .path = V1 "vm.resume" },
	{ .name = "power-button", .summary = "press the power button: ask the guest to shut down",
	  .help = "Returns at once; the guest ends, or not, in its own time.\n",
	  .method = "PUT", .path = V1 "vm.power-button" },
	{ .name = "nmi", .summary = "send a non-maskable interrupt to the guest's CPUs",
	  .help = "A Linux guest with sysctl kernel.unknown_nmi_panic=1 panics on it, and with\n"
		  "kdump leaves a dump.\n",
	  .method = "PUT", .path = V1 "vm.nmi" },
	{ .name = "info", .summary = "show the VM's state, configuration and devices",
	  .help = "Examples:\n"
		  "  ferryctl info\n"
		  "  ferryctl --json info | jq -r .state\n",
	  .method = "GET", .path = V1 "vm.info", .quick = true, .render = ctl_render_info },
	{ .name = "counters", .summary = "show what the devices have counted",
	  .help = "Examples:\n"
		  "  ferryctl counters\n"
		  "  ferryctl --json counters | jq ._disk0.read_bytes\n",
	  .method = "GET", .path = V1 "vm.counters", .quick = true,
	  .render = ctl_render_counters },
	{ .name = "metrics", .summary = "print the metrics as Prometheus reads them",
	  .help = "Example:\n  ferryctl metrics > /var/lib/node_exporter/ferry.prom\n",
	  .method = "GET", .path = "/metrics", .quick = true, .text = true },
	{ .name = "snapshot", .arguments = "URL[,KEY=VALUE]... [--no-wait]",
	  .summary = "save the VM in a folder",
	  .help = "URL is file:///DIR, where there is no DIR yet; it appears when the snapshot is\n"
		  "complete. The VM is paused for an instant, and its RAM saved while it runs again.\n"
		  "  live=on|off          off: paused until all RAM is saved [on]\n"
		  "  compress=none|zstd   [none]\n"
		  "  base_url=URL         save only what changed since that snapshot\n"
		  "--no-wait returns when the snapshot has begun; migration says how far it is, and\n"
		  "cancel-migration ends it.\n"
		  "\n"
		  "Examples:\n"
		  "  ferryctl snapshot file:///srv/snap1\n"
		  "  ferryctl snapshot file:///srv/snap2,base_url=file:///srv/snap1,compress=zstd\n",
	  .method = "PUT", .path = V1 "vm.snapshot", .build = ctl_build_snapshot,
	  .perform = ctl_perform_move },
	{ .name = "restore",
	  .arguments = "URL[,KEY=VALUE]... [--serial MODE] [--console MODE]",
	  .summary = "bring a saved VM up, in a ferry without one",
	  .help = "URL is the snapshot's, file:///DIR. The keys are those of ferry's --restore: see\n"
		  "ferry --help. Without resume=on the VM is paused. net_fds=[ID@[N,...]] sends open\n"
		  "descriptors of a tap, which ferryctl got from whoever started it.\n"
		  "\n"
		  "Examples:\n"
		  "  ferryctl restore file:///srv/snap1,resume=on\n"
		  "  ferryctl restore file:///srv/snap1,memory_restore_mode=shared,resume=on,\\\n"
		  "tap=[_net0@tap7],mac=[_net0@2e:89:a8:e4:bf:07],vsock_socket=/run/clone7.vsock\n",
	  .method = "PUT", .path = V1 "vm.restore", .build = ctl_build_restore },
	{ .name = "send-migration", .arguments = "URL[,KEY=VALUE]... [--no-wait]",
	  .summary = "move the running VM to another ferry",
	  .help = "URL is where the other ferry waits with receive-migration: tcp:HOST:PORT or\n"
		  "unix:PATH. Prints how far it is where a person looks on, and what it came to.\n"
		  "  local=on|off             hand RAM over on the same host, by unix:PATH [off]\n"
		  "  memory_mode=precopy|memfds|postcopy\n"
		  "                           memfds is the same as local=on; with postcopy the VM\n"
		  "                           runs there at once, its memory follows, and it is lost\n"
		  "                           if one of the hosts is until then [precopy]\n"
		  "  downtime_ms=MS           how long the VM may stand still [300]\n"
		  "  timeout_s=S              when it has not got there by then [3600] ...\n"
		  "  timeout_strategy=cancel|ignore\n"
		  "                           ... the VM stays, or goes whatever the downtime [cancel]\n"
		  "  connections=N            at once, 1 to 128, by tcp: only [1]\n"
		  "  bandwidth=SIZE           bytes per second at most; 0 is no limit [0]\n"
		  "  max_throttle=PERCENT     of their time that CPUs may lose where the guest writes\n"
		  "                           faster than is sent; 0: never [99]\n"
		  "  checksum=on|off          over pages, too [off]\n"
		  "  tls_dir=DIR              TLS by the certificates there, on the other side as well;\n"
		  "                           by tcp: only\n"
		  "  preserve_source=on|off   keep the VM here as well, paused [off]\n"
		  "--no-wait returns when the migration has begun. Leaving with Ctrl-C does not end it:\n"
		  "cancel-migration does. With --json, what it came to is printed as JSON.\n"
		  "\n"
		  "Examples:\n"
		  "  ferryctl send-migration tcp:host2:4444,connections=4,downtime_ms=50\n"
		  "  ferryctl send-migration tcp:10.0.0.2:4444,tls_dir=/etc/ferry/tls\n"
		  "  ferryctl send-migration unix:/run/new.sock,local=on\n",
	  .method = "PUT", .path = V1 "vm.send-migration", .build = ctl_build_send,
	  .perform = ctl_perform_move },
	{ .name = "receive-migration",
	  .arguments = "URL[,KEY=VALUE]... [--serial MODE] [--console MODE] [--no-wait]",
	  .summary = "wait for a VM from another ferry",
	  .help = "URL is where to listen: tcp:HOST:PORT or unix:PATH. The VM runs here when it ran\n"
		  "there, but with resume=off. tls_dir=DIR lets only a source in that shows a\n"
		  "certificate of DIR's CA. net_fds, tap, mac, disk, vsock_socket and vsock_cid say\n"
		  "what is different here, as for restore.\n"
		  "\n"
		  "Examples:\n"
		  "  ferryctl receive-migration tcp:0.0.0.0:4444\n"
		  "  ferryctl receive-migration unix:/run/new.sock,tap=[_net0@tap1]\n",
	  .method = "PUT", .path = V1 "vm.receive-migration", .build = ctl_build_receive,
	  .perform = ctl_perform_move },
	{ .name = "live-update", .arguments = "[--binary FILE] [--socket PATH] [-- ARGUMENT...]",
	  .summary = "hand the running VM to a new ferry process, devices and all",
	  .help = "The VM goes on in a new process of this host, started by the one that has it; the old\n"
		  "one then ends. Nothing is copied, no device is reset, nobody is disconnected but\n"
		  "clients of the API, who connect again. Where it fails the VM stays where it is.\n"
		  "  --binary FILE            the new program [the file that ferry was started from,\n"
		  "                           in the version that is there now]\n"
		  "  --socket PATH            instead: where a ferry --adopt PATH waits, started by\n"
		  "                           somebody else\n"
		  "  -- ARGUMENT...           for the new program\n"
		  "Under seccomp, which is the default, FILE has to be the one that ferry was started\n"
		  "from, or the one named with its --live-update, and takes no arguments.\n"
		  "\n"
		  "Examples:\n"
		  "  ferryctl live-update\n"
		  "  ferryctl live-update --socket /run/ferry/new.sock\n",
	  .method = "PUT", .path = V1 "vm.live-update", .build = ctl_build_live_update,
	  .render = ctl_render_live_update },
	{ .name = "migration", .arguments = "[--watch]",
	  .summary = "show how far a migration or snapshot is",
	  .help = "Of what goes on, or of the last that did. --watch goes on until it is over; the\n"
		  "exit status is then 0 when it succeeded.\n"
		  "\n"
		  "Examples:\n"
		  "  ferryctl migration --watch\n"
		  "  ferryctl --json migration | jq .remaining_bytes\n",
	  .method = "GET", .path = V1 "vm.migration", .quick = true, .build = ctl_build_migration,
	  .perform = ctl_perform_migration, .render = ctl_render_migration },
	{ .name = "cancel-migration", .summary = "end a migration or snapshot that goes on",
	  .help = "The VM runs on where it was. Too late once the other side has taken over.\n",
	  .method = "PUT", .path = V1 "vm.cancel-migration", .quick = true },
	{ .name = "resize", .arguments = "--balloon SIZE", .summary = "resize the memory balloon",
	  .help = "SIZE is what the balloon shall hold: bytes, or a number with K, M, G or T. 0 gives\n"
		  "all memory back to the guest. The guest follows in its own time. The VM must\n"
		  "have been made with --balloon.\n"
		  "\n"
		  "Example:\n  ferryctl resize --balloon 256M\n",
	  .method = "PUT", .path = V1 "vm.resize", .build = build_resize },
	{ .name = "resize-disk", .arguments = "--disk ID --size SIZE",
	  .summary = "give a disk a new size",
	  .help = "ID is the disk's, as info shows it.\n"
		  "\n"
		  "Example:\n  ferryctl resize-disk --disk _disk0 --size 20G\n",
	  .method = "PUT", .path = V1 "vm.resize-disk", .build = build_resize_disk },
	{ .name = "add-disk", .arguments = "path=FILE[,KEY=VALUE]...", .summary = "plug a disk in",
	  .help = "The keys are those of ferry's --disk: see ferry --help. Prints the id and the PCI\n"
		  "address the disk got.\n"
		  "\n"
		  "Example:\n  ferryctl add-disk path=/vm/data.img,readonly=on,id=data\n",
	  .method = "PUT", .path = V1 "vm.add-disk", .build = build_add_disk,
	  .render = ctl_render_place },
	{ .name = "add-net", .arguments = "[KEY=VALUE[,KEY=VALUE]...] [--fd N[,N]...]",
	  .summary = "plug a network interface in",
	  .help = "The keys are those of ferry's --net: see ferry --help. --fd sends open\n"
		  "descriptors of a tap, which ferryctl got from whoever started it, one per queue\n"
		  "pair.\n"
		  "\n"
		  "Examples:\n"
		  "  ferryctl add-net tap=tap1,mac=2e:89:a8:e4:bf:02\n"
		  "  ferryctl add-net id=up --fd 3 3<>/dev/tap5\n",
	  .method = "PUT", .path = V1 "vm.add-net", .build = build_add_net,
	  .render = ctl_render_place },
	{ .name = "add-vsock", .arguments = "cid=N[,socket=PATH][,id=ID]",
	  .summary = "plug a vsock device in",
	  .help = "The keys are those of ferry's --vsock: see ferry --help.\n"
		  "\n"
		  "Example:\n  ferryctl add-vsock cid=3,socket=/run/vm.vsock\n",
	  .method = "PUT", .path = V1 "vm.add-vsock", .build = build_add_vsock,
	  .render = ctl_render_place },
	{ .name = "add-device", .arguments = "[path=DIR[,KEY=VALUE]...] [--fd N]",
	  .summary = "assign a device of the host",
	  .help = "The keys are those of ferry's --device: see ferry --help. DIR is the folder in\n"
		  "/sys of a PCI function, such as a VF, or of a mediated device; it must be bound\n"
		  "to a VFIO driver. --fd sends the open descriptor of a VFIO device\n"
		  "(/dev/vfio/devices/vfioN) instead, which ferryctl got from whoever started it:\n"
		  "ferry need not be able to open it. Prints the id and the PCI address the device\n"
		  "got.\n"
		  "\n"
		  "Examples:\n"
		  "  ferryctl add-device path=/sys/bus/pci/devices/0000:01:10.0,id=vf0\n"
		  "  ferryctl add-device id=vf0 --fd 3 3<>/dev/vfio/devices/vfio0\n",
	  .method = "PUT", .path = V1 "vm.add-device", .build = build_add_device,
	  .render = ctl_render_place },
	{ .name = "add-user-device", .arguments = "socket=PATH[,id=ID]",
	  .summary = "plug in a device served by another process",
	  .help = "PATH is the unix socket of a vfio-user server, as ferry sees it.\n"
		  "\n"
		  "Example:\n  ferryctl add-user-device socket=/run/nic.sock,id=nic\n",
	  .method = "PUT", .path = V1 "vm.add-user-device", .build = build_add_user_device,
	  .render = ctl_render_place },
	{ .name = "remove-device", .arguments = "ID", .summary = "unplug a device",
	  .help = "ID is the device's, as info shows it. The guest has to let it go.\n"
		  "\n"
		  "Example:\n  ferryctl remove-device data\n",
	  .method = "PUT", .path = V1 "vm.remove-device", .build = build_remove_device },
	{ .name = "state", .arguments = "show FILE", .summary = "show a saved state of a VM",
	  .help = "FILE is a snapshot's folder, or a state tree on its own (the file state in it).\n"
		  "Prints each node with its kind, version and properties, as\n"
		  "\n"
		  "  disk0: \"ferry,virtio-blk\" version 1\n"
		  "    queue-size = 256 (0x100)\n"
		  "\n"
		  "The file is read here: no ferry is asked, and no API socket needed.\n"
		  "\n"
		  "Examples:\n"
		  "  ferryctl state show /vm/snapshots/monday\n"
		  "  ferryctl state show /vm/snapshots/monday/state | grep version\n",
	  .local = ctl_state },
	{ .name = NULL },
};
/* clang-format on */
