/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fakes of the unit tests assert through check, which insists on a running test.
 * In a fuzz target, included once, an assertion that fails is a crash.
 */
#ifndef TESTS_FUZZ_WITHOUT_CHECK_H
#define TESTS_FUZZ_WITHOUT_CHECK_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>

void _mark_point(const char *file, int line)
{
}

void _ck_assert_failed(const char *file, int line, const char *expr, const char *msg, ...)
{
	fprintf(stderr, "%s:%d: %s\n", file, line, expr);
	abort();
}

#endif
