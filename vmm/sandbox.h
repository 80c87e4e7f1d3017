/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sandbox: seccomp per thread kind, Landlock on the paths in use, and a jail
 * (docs/threat-model.md says what each is for).
 *
 * Order in main(): sandbox_jail, then what needs the host's files and privileges,
 * then sandbox_landlock, then sandbox_policy and its enter() for the main thread;
 * threads enter theirs as they start. Filters of threads add to that of the thread
 * that started them, so the main filter allows what any other kind does.
 */
#ifndef VMM_SANDBOX_H
#define VMM_SANDBOX_H

#include "api/options.h"
#include "base/error.h"
#include "base/thread.h"

/*
 * seccomp: the filters were compiled at build time (libseccomp), so that starting
 * costs one system call a thread. KILL ends the process on a call outside the list
 * (SIGSYS; the audit log names it), LOG lets it pass and logs, OFF installs none.
 * The policy is constant: keep it for the process's life.
 */
const struct thread_policy *sandbox_policy(enum seccomp_mode mode);

/*
 * Landlock: from here on the process reaches only what options name: kernel,
 * initramfs, disks, assigned devices (their nodes and folders of sysfs), the snapshot to be
 * restored, sockets, /dev/kvm, /dev/net/tun, ..., and landlock_rules. Every thread started later
 * inherits it. -EOPNOTSUPP where the kernel has none, with the version it needs. `paths` may be
 * extended only before the call.
 */
int sandbox_landlock(const struct ferry_options *options, struct error *err);

/*
 * The jail: new mount, pid (through a fork: the parent waits and hands on signals and
 * the exit code) and, unless net=off, network namespaces; dir becomes the root, with
 * /dev/kvm, /dev/net/tun, /dev/vhost-*, /dev/iommu, /dev/userfaultfd (live snapshots and lazy
 * restores), /dev/urandom, /dev/null made in it and /proc mounted; all capabilities dropped,
 * uid and gid taken on, no_new_privs. Paths in the options are then those inside the jail, but
 * for assigned devices: what the host's sysfs has under a path of theirs is there, too, with
 * their nodes in /dev/vfio, and the process may lock as much memory as the VM has. Needs root:
 * the error says so.
 */
int sandbox_jail(const struct ferry_options *options, struct error *err);

#endif
