# SPDX-License-Identifier: Apache-2.0
include tests/guests/probe/build.mk
