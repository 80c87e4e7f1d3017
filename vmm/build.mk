# SPDX-License-Identifier: Apache-2.0
# The seccomp filters are compiled at build time: see vmm/gen_seccomp.c.
$(O)/gen_seccomp: vmm/gen_seccomp.c base/bytes.h
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -std=gnu17 -O1 $(WARN) $< -lseccomp -o $@

$(O)/vmm/seccomp_filters.h: $(O)/gen_seccomp
	@mkdir -p $(@D)
	$< > $@

$(O)/vmm/sandbox.o: $(O)/vmm/seccomp_filters.h
