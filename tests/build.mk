# SPDX-License-Identifier: Apache-2.0
.PHONY: test system lint lint-includes lint-shell lint-cppcheck lint-tidy format
test: unit-build
	@tests/unit/run $(unit_bin)

system: all $(O)/probe.elf
	@FERRY_BUILD=$(abspath $(O)) tests/system/run

# Lint leaves a stamp per source under $(O)/lint, so that only what changed, itself or
# by a header, is looked at again. The probe guest has a world of its own: no host
# headers, no C library, and so other flags.
sources = $(shell git ls-files -co --exclude-standard '*.c' '*.h')
lint_host = $(filter %.c,$(filter-out tests/guests/% tests/lab/%,$(sources)))
lint_guest = $(filter tests/guests/probe/%.c,$(sources))
lint_stamps = $(patsubst %,$(O)/lint/%.tidy,$(lint_host) $(lint_guest))
lint_jobs := $(shell nproc)

lint: lint-includes lint-shell lint-cppcheck
	@$(MAKE) --no-print-directory -k -j$(lint_jobs) lint-tidy

lint-includes:
	@tests/lint/includes

lint-shell:
	@tests/lint/scripts

lint-cppcheck:
	@mkdir -p $(O)/lint/cppcheck
	@cppcheck --quiet --error-exitcode=1 --std=c11 --inline-suppr --suppressions-list=tests/lint/cppcheck.txt \
		--cppcheck-build-dir=$(O)/lint/cppcheck -j $(lint_jobs) -I. -D_GNU_SOURCE \
		$(filter-out tests/%,$(lint_host)) && echo "cppcheck: clean"

lint-tidy: $(lint_stamps)
	@echo "clang-tidy: $(words $(lint_stamps)) files clean"

$(O)/lint/%.tidy: % .clang-tidy
	@mkdir -p $(@D)
	@echo "  TIDY $<"
	@clang-tidy --quiet --warnings-as-errors='*' $< -- $(CPPFLAGS) -std=gnu17 -Wno-unused-parameter 2>$@.err || \
		{ cat $@.err; rm -f $@.err; exit 1; }
	@$(CC) $(CPPFLAGS) -std=gnu17 -MM -MP -MT $@ -MF $@.d $<
	@rm -f $@.err && touch $@
$(O)/lint/vmm/sandbox.c.tidy: $(O)/vmm/seccomp_filters.h

-include $(shell find $(O)/lint -name '*.tidy.d' 2>/dev/null)

format:
	clang-format -i $(sources)
