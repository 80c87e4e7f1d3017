# SPDX-License-Identifier: Apache-2.0
# OpenSSL's relocations wait until they are needed: see migration/tls_late.h.
$(O)/gen_late: migration/gen_late.c migration/tls_late.h
	@mkdir -p $(@D)
	$(CC) -I. -D_GNU_SOURCE -std=gnu17 -O1 $(WARN) $< -o $@

$(O)/migration/late_%.o: migration/late_marker.S
	@mkdir -p $(@D)
	$(CC) -DMARK=$* -c $< -o $@
