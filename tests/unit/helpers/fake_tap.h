/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A kernel with taps that are socket pairs: each queue's fd is one end, peers[] the
 * other, a frame is a datagram. Inline: it needs the devices library.
 */
#ifndef TESTS_FAKE_TAP_H
#define TESTS_FAKE_TAP_H

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/virtio/tap.h"

struct fake_tap {
	struct tap_ops ops;
	int peers[TAP_QUEUES_MAX], ends[TAP_QUEUES_MAX];
	unsigned int opened;
	bool exists;		 /* the interface is there before */
	bool made_multi;	 /* and was made multi_queue */
	int set_interface_error; /* what TUNSETIFF returns, where not 0 */
	bool no_ufo;
	atomic_uint offload;
	atomic_bool attached[TAP_QUEUES_MAX];
	bool up;
	int mtu, header_size;
	unsigned int addresses;
};

static inline int fake_tap_open(void *opaque, const char *path)
{
	struct fake_tap *tap = opaque;
	int pair[2];

	if (strcmp(path, "/dev/net/tun") ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair))
		return -EIO;
	tap->attached[tap->opened] = true;
	tap->ends[tap->opened] = pair[0];
	tap->peers[tap->opened++] = pair[1];
	return pair[0];
}

static inline int fake_tap_socket(void *opaque, int domain)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static inline int fake_tap_set_interface(struct fake_tap *tap, struct ifreq *ifr)
{
	bool multi = ifr->ifr_flags & IFF_MULTI_QUEUE;

	if (tap->set_interface_error)
		return tap->set_interface_error;
	if (tap->exists && tap->made_multi != multi)
		return -EINVAL;
	if (strchr(ifr->ifr_name, '%'))
		strcpy(ifr->ifr_name, "vmtap0");
	return 0;
}

static inline int fake_tap_ioctl(void *opaque, int fd, unsigned long request, void *arg)
{
	struct fake_tap *tap = opaque;
	struct ifreq *ifr = arg;

	switch (request) {
	case SIOCGIFINDEX: return tap->exists ? 0 : -ENODEV;
	case TUNSETIFF: return fake_tap_set_interface(tap, ifr);
	case TUNSETVNETHDRSZ: tap->header_size = *(int *)arg; return 0;
	case TUNSETSNDBUF: return 0;
	case TUNSETOFFLOAD:
		if (tap->no_ufo && (uintptr_t)arg & TUN_F_UFO)
			return -EINVAL;
		tap->offload = (unsigned int)(uintptr_t)arg;
		return 0;
	case TUNSETQUEUE:
		for (unsigned int i = 0; i < tap->opened; i++)
			if (tap->ends[i] == fd)
				tap->attached[i] = ifr->ifr_flags & IFF_ATTACH_QUEUE;
		return 0;
	case SIOCSIFADDR:
	case SIOCSIFNETMASK: tap->addresses++; return 0;
	case SIOCSIFMTU: tap->mtu = ifr->ifr_mtu; return 0;
	case SIOCGIFFLAGS: ifr->ifr_flags = tap->up ? IFF_UP : 0; return 0;
	case SIOCSIFFLAGS: tap->up = ifr->ifr_flags & IFF_UP; return 0;
	default: return -ENOTTY;
	}
}

static inline void fake_tap_init(struct fake_tap *tap)
{
	*tap = (struct fake_tap){ 0 };
	tap->ops = (struct tap_ops){
		.open = fake_tap_open,
		.socket = fake_tap_socket,
		.ioctl = fake_tap_ioctl,
		.opaque = tap,
	};
}

static inline void fake_tap_destroy(struct fake_tap *tap)
{
	for (unsigned int i = 0; i < tap->opened; i++)
		close(tap->peers[i]);
}

#endif
