# SPDX-License-Identifier: Apache-2.0
# The test guest: freestanding, the same for every compiler and sanitizer setting.
probe_dir := tests/guests/probe
probe_src := $(sort $(wildcard $(probe_dir)/*.c $(probe_dir)/*.S))
probe_obj := $(patsubst %,$(O)/%.o,$(probe_src))
PROBE_FLAGS := -m64 -ffreestanding -fno-pic -fno-pie -mgeneral-regs-only -mno-red-zone -mcmodel=small \
	-fno-stack-protector -fcf-protection=none -fno-asynchronous-unwind-tables -O2 -std=gnu17 $(WARN) \
	-I$(probe_dir) -I.

$(O)/$(probe_dir)/%.o: $(probe_dir)/% $(probe_dir)/build.mk
	@mkdir -p $(@D)
	gcc $(PROBE_FLAGS) -MMD -MP -c $< -o $@

$(O)/probe.elf: $(probe_obj) $(probe_dir)/probe.ld
	gcc -m64 -nostdlib -static -no-pie -Wl,--build-id=none,-z,noexecstack,--no-warn-rwx-segments,-z,max-page-size=4096 \
		-Wl,-T,$(probe_dir)/probe.ld $(probe_obj) -o $@

.PHONY: probe
probe: $(O)/probe.elf

-include $(probe_obj:.o=.d)
