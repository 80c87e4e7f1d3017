# SPDX-License-Identifier: Apache-2.0
# make bench: the figures, beside those of the VMMs that are installed.
# BENCH= takes options of tests/bench/run.
$(O)/bench/first.elf: tests/bench/first.S tests/bench/first.ld
	@mkdir -p $(@D)
	gcc -m32 -nostdlib -static -no-pie -Wl,--build-id=none,-z,noexecstack,-z,max-page-size=4096 \
		-Wl,-T,tests/bench/first.ld $< -o $@

# What collecting dirty bits costs.
$(O)/bench/dirty-collect: $(O)/tests/bench/dirty_collect.o $(foreach l,vfio $(vfio_DEPS),$(call lib_a,$(l)))
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) $^ $(LDLIBS) -o $@

.PHONY: bench
bench: all $(O)/bench/first.elf $(O)/bench/dirty-collect $(O)/probe.elf $(O)/ferry-testdev
	@tests/bench/run --build $(abspath $(O)) --json $(O)/bench.json $(BENCH)
