/* SPDX-License-Identifier: Apache-2.0 */
/* seccomp: installing the filters that gen_seccomp.c wrote at build time. */
#include "vmm/sandbox.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bytes.h"
#include "vmm/seccomp_filters.h"

struct filter {
	const struct sock_filter *ops;
	unsigned short len;
};

#define FILTER(kind, mode) \
	{ \
		seccomp_##kind##_##mode, ARRAY_SIZE(seccomp_##kind##_##mode) \
	}
#define FILTERS(mode) \
	{ \
		[THREAD_MAIN] = FILTER(main, mode), [THREAD_VCPU] = FILTER(vcpu, mode), \
		[THREAD_IO] = FILTER(io, mode), [THREAD_MIGRATION] = FILTER(migration, mode) \
	}

static const struct filter kill_filters[THREAD_KINDS] = FILTERS(kill);
static const struct filter log_filters[THREAD_KINDS] = FILTERS(log);

static int enter(const struct thread_policy *policy, enum thread_kind kind, struct error *err)
{
	const struct filter *filter = (const struct filter *)policy->opaque + kind;
	struct sock_fprog program = {
		.len = filter->len,
		.filter = (struct sock_filter *)filter->ops,
	};

	/* Inherited by every thread started later; prctl is filtered from then on. */
	if (kind == THREAD_MAIN && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return error_set_errno(err, errno, "seccomp: no_new_privs");
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program))
		return error_set_errno(err, errno,
				       "seccomp: install filter (--seccomp false runs without)");
	return 0;
}

const struct thread_policy *sandbox_policy(enum seccomp_mode mode)
{
	static const struct thread_policy kill_policy = { .enter = enter,
							  .opaque = (void *)kill_filters };
	static const struct thread_policy log_policy = { .enter = enter,
							 .opaque = (void *)log_filters };

	switch (mode) {
	case SECCOMP_KILL: return &kill_policy;
	case SECCOMP_LOG: return &log_policy;
	case SECCOMP_OFF: break;
	}
	return NULL;
}
