# SPDX-License-Identifier: Apache-2.0
# libFuzzer targets: tests/fuzz/fuzz_<subject>.c with its corpus beside it. Everything
# is built again with clang's coverage and sanitizers, in a folder of its own.
FUZZ_SECONDS ?= 60
FUZZ_O := $(O)-fuzz
fuzz_src := $(sort $(wildcard tests/fuzz/fuzz_*.c))
fuzz_bin := $(patsubst tests/fuzz/%.c,$(FUZZ_O)/%,$(fuzz_src))
fuzz_lib_src := $(foreach l,$(LIBS),$(call lib_src,$(l))) $(sort $(wildcard tests/unit/helpers/*.c))
fuzz_lib_obj := $(patsubst %.c,$(FUZZ_O)/obj/%.o,$(filter-out vmm/sandbox.c,$(fuzz_lib_src)))
FUZZ_FLAGS := -std=gnu17 -O1 -g $(WARN) -fsanitize=address,undefined -fno-sanitize-recover=undefined \
	-fno-omit-frame-pointer -DFERRY_FUZZ

$(FUZZ_O)/obj/%.o: %.c
	@mkdir -p $(@D)
	clang -I. -I$(O) -D_GNU_SOURCE $(FUZZ_FLAGS) -fsanitize=fuzzer-no-link -MMD -MP -c $< -o $@

$(FUZZ_O)/lib.a: $(fuzz_lib_obj)
	@rm -f $@
	ar rcs $@ $^

$(FUZZ_O)/%: tests/fuzz/%.c $(FUZZ_O)/lib.a
	clang -I. -D_GNU_SOURCE $(FUZZ_FLAGS) -fsanitize=fuzzer $< $(FUZZ_O)/lib.a -pthread $(LDLIBS) \
		$(shell pkg-config --libs check) -o $@

.PHONY: fuzz fuzz-build
fuzz-build: $(fuzz_bin)
fuzz: fuzz-build
	@tests/fuzz/run $(FUZZ_SECONDS) $(fuzz_bin)

-include $(shell find $(FUZZ_O) -name '*.d' 2>/dev/null)
