# SPDX-License-Identifier: Apache-2.0
# Ferry's build. `make help` lists the targets.
#
# One static library per folder; a folder may include only itself and those
# before it in LIBS. O= chooses the build folder, SAN=1 (ASan, UBSan) or
# SAN=thread builds into a folder of its own, CC=clang works as gcc does.

LIBS := base api memory devices vfio migration vmm
# what a folder may include and link: itself and these
base_DEPS :=
api_DEPS := base
memory_DEPS := base
devices_DEPS := memory base
vfio_DEPS := devices memory base
migration_DEPS := memory base
vmm_DEPS := migration vfio devices memory api base

CC := gcc
PKGS := liburing jansson
SAN ?=
ifeq ($(SAN),1)
O ?= build-san
SANFLAGS := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
else ifeq ($(SAN),thread)
O ?= build-tsan
SANFLAGS := -fsanitize=thread -fno-omit-frame-pointer
else
O ?= build
SANFLAGS :=
endif

WARN := -Wall -Wextra -Werror -Wno-unused-parameter -Wstrict-prototypes -Wmissing-prototypes \
	-Wpointer-arith -Wwrite-strings -Wvla
OPT := -O2 -g
VERSION := 0.1.0
CPPFLAGS := -I. -I$(O) -DFERRY_VERSION_STRING='"$(VERSION)"' -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 $(shell pkg-config --cflags-only-I $(PKGS))
CFLAGS := -std=gnu17 $(OPT) $(WARN) $(SANFLAGS) -fstack-protector-strong -fPIE
LDFLAGS := $(SANFLAGS) -pthread -Wl,-z,relro,-z,now
ifeq ($(SAN),)
CPPFLAGS += -D_FORTIFY_SOURCE=2
# Static: no run-time linker before the first instruction, and nothing of the
# host's libraries to find inside a jail.
STATIC := -static-pie
endif
LDLIBS := -Wl,--as-needed -lfdt -luring -ljansson -lhttp_parser -lzstd -lssl -lcrypto

lib_src = $(shell find $(1) -name '*.c' -not -path 'api/ctl/*' -not -path 'vfio/plugin/*' -not -name 'main.c' -not -name 'gen_*.c' 2>/dev/null | sort)
lib_obj = $(patsubst %.c,$(O)/%.o,$(call lib_src,$(1)))
lib_a = $(O)/lib$(1).a
have = $(foreach l,$(1),$(if $(call lib_src,$(l)),$(l)))

.DELETE_ON_ERROR:
.PHONY: all help
all: $(O)/ferry $(O)/ferryctl

help:
	@echo 'make            build/ferry, build/ferryctl and build/ferry-plugin'
	@echo 'make test       unit tests (SAN=1, SAN=thread for sanitizers)'
	@echo 'make system     system tests on /dev/kvm with the probe guest'
	@echo 'make fuzz       fuzz targets, FUZZ_SECONDS= each (default 60)'
	@echo 'make bench      the figures, beside the competitors found'
	@echo 'make lint       clang-tidy and cppcheck;  make format: clang-format'
	@echo 'make install    into DESTDIR/PREFIX'

$(O)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c $< -o $@

define library
$(call lib_a,$(1)): $(call lib_obj,$(1))
	@rm -f $$@
	ar rcs $$@ $$^
endef
$(foreach l,$(LIBS),$(eval $(call library,$(l))))

ferry_obj := $(O)/vmm/main.o $(foreach l,$(call have,vmm $(vmm_DEPS)),$(call lib_a,$(l)))
ifeq ($(SAN),)
# OpenSSL between two marks, for gen_late (migration/tls_late.h), and without what would
# need the host's libraries (migration/tls_static.c).
OPENSSL_LIBS := -lssl -lcrypto
wrapped := OPENSSL_cpuid_setup dlopen getaddrinfo gethostbyname
late_mark := $(O)/migration/late_begin.o $(O)/migration/late_end.o
ferry_obj += $(O)/migration/tls_static.o
$(O)/ferry: $(ferry_obj) $(late_mark) $(O)/gen_late
	$(CC) $(LDFLAGS) $(STATIC) $(ferry_obj) $(filter-out $(OPENSSL_LIBS),$(LDLIBS)) \
		$(firstword $(late_mark)) $(OPENSSL_LIBS) $(lastword $(late_mark)) \
		$(wrapped:%=-Wl,--wrap=%) -o $@
	$(O)/gen_late $@
else
$(O)/ferry: $(ferry_obj)
	$(CC) $(LDFLAGS) $^ $(LDLIBS) -o $@
endif

ctl_obj := $(patsubst %.c,$(O)/%.o,$(sort $(wildcard api/ctl/*.c)))
$(O)/ferryctl: $(ctl_obj) $(call lib_a,api) $(call lib_a,base)
	$(CC) $(LDFLAGS) $^ $(LDLIBS) -o $@

# Unit tests: tests/unit/<library>/test_*.c, one program each, linked with that
# library and the ones below it only.
unit_src := $(sort $(wildcard tests/unit/*/test_*.c))
unit_bin := $(patsubst tests/unit/%.c,$(O)/tests/unit/%,$(unit_src))
unit_lib = $(word 3,$(subst /, ,$(1)))
unit_help := $(patsubst %.c,$(O)/%.o,$(sort $(wildcard tests/unit/helpers/*.c)))
define unit_rule
$(patsubst tests/unit/%.c,$(O)/tests/unit/%,$(1)): $(O)/$(1:.c=.o) $(unit_help) \
		$(foreach l,$(call have,$(call unit_lib,$(1)) $($(call unit_lib,$(1))_DEPS)),$(call lib_a,$(l)))
	@mkdir -p $$(@D)
	$(CC) $(LDFLAGS) $$^ $(LDLIBS) $(shell pkg-config --libs check) -o $$@
endef
$(foreach t,$(unit_src),$(eval $(call unit_rule,$(t))))

.PHONY: unit-build
unit-build: $(unit_bin)

# Per-folder rules (tests, probe guest, fuzzers, sandbox filters ...).
include $(sort $(wildcard */build.mk */*/build.mk))

-include $(shell find $(O) -name '*.d' 2>/dev/null)
