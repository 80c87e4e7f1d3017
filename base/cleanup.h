/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scope-bound release of resources: declare a variable with one of these and
 * it is released when it goes out of scope. `take_fd`/`take_ptr` hand the value
 * on and disarm the release.
 */
#ifndef BASE_CLEANUP_H
#define BASE_CLEANUP_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_close(const int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void cleanup_free(void *p)
{
	free(*(void **)p);
}

static inline void cleanup_fclose(FILE **f)
{
	if (*f)
		fclose(*f);
}

#define _cleanup_close_ __attribute__((cleanup(cleanup_close)))
#define _cleanup_free_ __attribute__((cleanup(cleanup_free)))
#define _cleanup_fclose_ __attribute__((cleanup(cleanup_fclose)))

static inline int take_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

#define take_ptr(p) \
	({ \
		__typeof__(p) *pp_ = &(p); \
		__typeof__(p) taken_ = *pp_; \
		*pp_ = NULL; \
		taken_; \
	})

#endif
