# SPDX-License-Identifier: Apache-2.0
# ferryctl is a program, not a library: its tests run it.
$(filter $(O)/tests/unit/api/test_ctl%,$(unit_bin)): | $(O)/ferryctl
