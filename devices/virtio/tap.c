/* SPDX-License-Identifier: Apache-2.0 */
#include "devices/virtio/tap.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/if_tun.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"

#define TUN_PATH "/dev/net/tun"

static int kernel_open(void *opaque, const char *path)
{
	int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static int kernel_socket(void *opaque, int domain)
{
	int fd = socket(domain, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	return fd < 0 ? -errno : fd;
}

static int kernel_ioctl(void *opaque, int fd, unsigned long request, void *arg)
{
	return ioctl(fd, request, arg) < 0 ? -errno : 0;
}

const struct tap_ops tap_kernel_ops = {
	.open = kernel_open,
	.socket = kernel_socket,
	.ioctl = kernel_ioctl,
};

static int control(const struct tap *tap, int fd, unsigned long request, void *arg)
{
	return tap->ops->ioctl(tap->ops->opaque, fd, request, arg);
}

static int check_name(const char *name, struct error *err)
{
	size_t len = strlen(name);
	bool ok = len && len < IFNAMSIZ && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;

	for (size_t i = 0; ok && i < len; i++)
		ok = isgraph((unsigned char)name[i]) && !strchr("/:%", name[i]);
	if (ok)
		return 0;
	return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
			      "tap %.32s: no name of an interface: 1 to %d characters without "
			      "spaces, '/', ':' and '%%'",
			      name, IFNAMSIZ - 1);
}

static bool interface_exists(const struct tap *tap, int sock, const char *name)
{
	struct ifreq ifr = { 0 };

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	return !control(tap, sock, SIOCGIFINDEX, &ifr);
}

static int explain_attach(const struct tap *tap, const char *name, bool exists, int code,
			  struct error *err)
{
	const char *multi = tap->queues > 1 ? " multi_queue" : "";

	switch (-code) {
	case EBUSY:
		return error_set_kind(err, ERROR_CONFLICT, EBUSY,
				      "open tap %s: it is in use by another program", name);
	case EPERM:
	case EACCES:
		if (exists)
			return error_set(
				err, EPERM,
				"open tap %s: it belongs to another user; run as its owner, "
				"give it to this one (ip tuntap add dev %s mode tap user "
				"$USER%s) or grant CAP_NET_ADMIN",
				name, name, multi);
		return error_set(err, EPERM,
				 "open tap %s: there is none and making it needs CAP_NET_ADMIN; "
				 "make it beforehand: ip tuntap add dev %s mode tap user $USER%s",
				 name, name, multi);
	case EINVAL:
		if (exists)
			return error_set(
				err, EINVAL,
				"open tap %s: it is no tap, or was made %s multi_queue and "
				"%u queue pair%s asked for",
				name, tap->queues > 1 ? "without" : "with", tap->queues,
				tap->queues > 1 ? "s are" : " is");
		/* fall through */
	default: return error_set_errno(err, code, "open tap %s", name);
	}
}

static int set_interface(const struct tap *tap, int fd, const char *name, bool multi_queue,
			 char actual[IFNAMSIZ])
{
	struct ifreq ifr = {
		.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR |
				     (multi_queue ? IFF_MULTI_QUEUE : 0)),
	};
	int r;

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	r = control(tap, fd, TUNSETIFF, &ifr);
	if (!r)
		memcpy(actual, ifr.ifr_name, IFNAMSIZ);
	actual[IFNAMSIZ - 1] = '\0';
	return r;
}

static int set_up_queue(const struct tap *tap, int fd, struct error *err)
{
	int header = TAP_HEADER_SIZE, sndbuf = INT_MAX, r;

	r = control(tap, fd, TUNSETVNETHDRSZ, &header);
	if (r)
		return error_set_errno(err, r, "tap %s: set the header size to %d", tap->name,
				       TAP_HEADER_SIZE);
	/* A full queue drops, as a NIC does; it must not hold up the thread. Not
	 * every kernel lets us say so, and the default is the same. */
	control(tap, fd, TUNSETSNDBUF, &sndbuf);
	return 0;
}

static int open_queue(struct tap *tap, unsigned int queue, const char *name, bool exists,
		      struct error *err)
{
	_cleanup_close_ int fd = tap->ops->open(tap->ops->opaque, TUN_PATH);
	char actual[IFNAMSIZ] = "";
	int r;

	if (fd < 0)
		return error_set_errno(err, fd, "open tap %s: open " TUN_PATH "%s", name,
				       fd == -ENOENT ? " (modprobe tun)" : "");
	r = set_interface(tap, fd, name, tap->multi_queue, actual);
	if (r == -EINVAL && exists && !tap->multi_queue) {
		/* Made for several queues; one of them will do. */
		tap->multi_queue = true;
		r = set_interface(tap, fd, name, true, actual);
	}
	if (r)
		return explain_attach(tap, name, exists, r, err);
	memcpy(tap->name, actual, sizeof(tap->name));
	r = set_up_queue(tap, fd, err);
	if (!r)
		tap->fds[queue] = take_fd(&fd);
	return r;
}

static int set_address(const struct tap *tap, int sock, unsigned long request, const char *text,
		       struct error *err)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	struct ifreq ifr = { 0 };
	int r;

	if (inet_pton(AF_INET, text, &address.sin_addr) != 1)
		return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
				      "tap %s: %.64s is no IPv4 address", tap->name, text);
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", tap->name);
	memcpy(&ifr.ifr_addr, &address, sizeof(address));
	r = control(tap, sock, request, &ifr);
	return r ? error_set_errno(err, r, "tap %s: set %s %s", tap->name,
				   request == SIOCSIFADDR ? "address" : "mask", text)
		 : 0;
}

static int set_mtu(const struct tap *tap, int sock, uint16_t mtu, struct error *err)
{
	struct ifreq ifr = { .ifr_mtu = mtu };
	int r;

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", tap->name);
	r = control(tap, sock, SIOCSIFMTU, &ifr);
	return r ? error_set_errno(err, r, "tap %s: set MTU %u", tap->name, mtu) : 0;
}

static int bring_up(const struct tap *tap, int sock, struct error *err)
{
	struct ifreq ifr = { 0 };
	int r;

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", tap->name);
	r = control(tap, sock, SIOCGIFFLAGS, &ifr);
	if (!r && !(ifr.ifr_flags & IFF_UP)) {
		ifr.ifr_flags |= IFF_UP;
		r = control(tap, sock, SIOCSIFFLAGS, &ifr);
	}
	return r ? error_set_errno(err, r, "tap %s: bring it up", tap->name) : 0;
}

static int configure(const struct tap *tap, int sock, const struct tap_options *options,
		     struct error *err)
{
	int r = 0;

	if (options->ip)
		r = set_address(tap, sock, SIOCSIFADDR, options->ip, err);
	if (!r && options->mask)
		r = set_address(tap, sock, SIOCSIFNETMASK, options->mask, err);
	if (!r && options->mtu)
		r = set_mtu(tap, sock, options->mtu, err);
	if (!r && (tap->created || options->ip))
		r = bring_up(tap, sock, err);
	return r;
}

static void init(struct tap *tap, const struct tap_ops *ops, unsigned int queues)
{
	*tap = (struct tap){ .ops = ops, .queues = queues, .multi_queue = queues > 1 };
	for (unsigned int i = 0; i < TAP_QUEUES_MAX; i++)
		tap->fds[i] = -1;
}

int tap_open(struct tap *tap, const struct tap_ops *ops, const struct tap_options *options,
	     struct error *err)
{
	/* The pattern Cloud Hypervisor's users know. */
	const char *name = options->name ? options->name : "vmtap%d";
	_cleanup_close_ int sock = -1;
	bool exists;
	int r = 0;

	init(tap, ops, options->queues);
	if (options->name && (r = check_name(name, err)))
		return r;
	if (!options->queues || options->queues > TAP_QUEUES_MAX)
		return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL, "tap %s: %u queues, not 1-%u",
				      name, options->queues, TAP_QUEUES_MAX);
	sock = ops->socket(ops->opaque, AF_INET);
	if (sock < 0)
		return error_set_errno(err, sock, "open tap %s: open a control socket", name);
	exists = options->name && interface_exists(tap, sock, name);
	tap->created = !exists;
	for (unsigned int i = 0; !r && i < tap->queues; i++)
		r = open_queue(tap, i, i ? tap->name : name, exists || i, err);
	if (!r)
		r = configure(tap, sock, options, err);
	if (r)
		tap_close(tap);
	return r;
}

/* Is fds[i] a tap's, in the form we need, and of the same tap as the first? */
static int check_adopted(struct tap *tap, int fd, unsigned int i, struct error *err)
{
	struct ifreq ifr = { 0 };
	int r = control(tap, fd, TUNGETIFF, &ifr);

	if (r)
		return error_set_kind(err, ERROR_BAD_REQUEST, r,
				      "tap fd %d: not of a tap device: %s", fd, strerror(-r));
	ifr.ifr_name[IFNAMSIZ - 1] = '\0';
	if (!(ifr.ifr_flags & IFF_TAP) || !(ifr.ifr_flags & IFF_NO_PI) ||
	    !(ifr.ifr_flags & IFF_VNET_HDR))
		return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
				      "tap fd %d (%s): must be opened with IFF_TAP, IFF_NO_PI and "
				      "IFF_VNET_HDR",
				      fd, ifr.ifr_name);
	if (!i)
		memcpy(tap->name, ifr.ifr_name, sizeof(tap->name));
	else if (strcmp(tap->name, ifr.ifr_name) != 0)
		return error_set_kind(
			err, ERROR_BAD_REQUEST, EINVAL,
			"tap fd %d is of %s, the first one of %s: they must be queues "
			"of one tap",
			fd, ifr.ifr_name, tap->name);
	return 0;
}

int tap_adopt(struct tap *tap, const struct tap_ops *ops, const int *fds, unsigned int count,
	      struct error *err)
{
	int r = 0;

	init(tap, ops, count);
	if (!count || count > TAP_QUEUES_MAX)
		return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL, "%u tap fds, not 1-%u", count,
				      TAP_QUEUES_MAX);
	for (unsigned int i = 0; i < count; i++) {
		r = check_adopted(tap, fds[i], i, err);
		if (!r)
			r = set_up_queue(tap, fds[i], err);
		if (r)
			return r;
		r = fd_set_nonblocking(fds[i], true);
		if (r)
			return error_set_errno(err, r, "tap fd %d", fds[i]);
	}
	for (unsigned int i = 0; i < count; i++)
		tap->fds[i] = fds[i];
	return 0;
}

void tap_close(struct tap *tap)
{
	for (unsigned int i = 0; i < TAP_QUEUES_MAX; i++) {
		if (tap->fds[i] >= 0)
			close(tap->fds[i]);
		tap->fds[i] = -1;
	}
}

int tap_set_offload(const struct tap *tap, unsigned int offloads)
{
	/* Of the interface, not of the queue; the value itself is the argument. */
	return control(tap, tap->fds[0], TUNSETOFFLOAD, (void *)(uintptr_t)offloads);
}

int tap_attach_queue(const struct tap *tap, unsigned int queue, bool attach)
{
	struct ifreq ifr = {
		.ifr_flags = (short)(attach ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE),
	};

	/* A single queue is always attached. */
	if (!tap->multi_queue || tap->queues < 2)
		return 0;
	return control(tap, tap->fds[queue], TUNSETQUEUE, &ifr);
}
