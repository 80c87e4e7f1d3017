# SPDX-License-Identifier: Apache-2.0
# Programs that tests run in L1: tests/lab/*/test_*.c, linked as vfio's unit tests are.
lab_src := $(sort $(wildcard tests/lab/*/test_*.c))
lab_bin := $(patsubst %.c,$(O)/%,$(lab_src))
$(lab_bin): $(O)/%: $(O)/%.o $(foreach l,vfio $(vfio_DEPS),$(call lib_a,$(l)))
	$(CC) $(LDFLAGS) $^ $(LDLIBS) $(shell pkg-config --libs check) -o $@

.PHONY: lab-build
lab-build: $(lab_bin)
