# SPDX-License-Identifier: Apache-2.0
# A vfio-user device to assign, misbehave and demonstrate with: README.md here.
testdev_obj := $(patsubst %.c,$(O)/%.o,$(sort $(wildcard tests/testdev/*.c)))

$(O)/ferry-testdev: $(testdev_obj) $(call lib_a,base)
	$(CC) $(LDFLAGS) $^ -o $@

.PHONY: testdev
testdev: $(O)/ferry-testdev

# Run by them, found beside them.
$(O)/tests/unit/vfio/test_user_testdev $(O)/tests/unit/vfio/test_user_testdev_migration \
		$(O)/tests/unit/vfio/test_user_migration: | $(O)/ferry-testdev

# Assigned to the probe by the system suite.
system: $(O)/ferry-testdev
