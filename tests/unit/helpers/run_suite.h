/* SPDX-License-Identifier: Apache-2.0 */
/* What every test program's main() ends in. */
#ifndef TESTS_UNIT_HELPERS_RUN_SUITE_H
#define TESTS_UNIT_HELPERS_RUN_SUITE_H

#include <check.h>
#include <stdlib.h>

static inline int run_suite(Suite *suite)
{
	SRunner *runner = srunner_create(suite);
	int failed;

	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
