# SPDX-License-Identifier: Apache-2.0
# Shared objects as plugins are: without sanitizers, with the public header and nothing else.
plugin_so := $(O)/plugins/example.so $(O)/plugins/bad.so \
	$(foreach v,version symbol function null constructor,$(O)/plugins/bad-$(v).so)
plugin_cc = $(CC) $(CPPFLAGS) $(filter-out $(SANFLAGS),$(CFLAGS)) -fPIC -shared

$(O)/plugins/example.so: tests/plugin-example/plugin.c tests/plugin-example/agent_protocol.h \
		vfio/plugin/vfio_lm_plugin.h
	@mkdir -p $(@D)
	$(plugin_cc) $< -o $@

plugin_bad := tests/plugin-example/bad_plugin.c
$(O)/plugins/bad.so: $(plugin_bad) vfio/plugin/vfio_lm_plugin.h vfio/plugin/protocol.h
	@mkdir -p $(@D)
	$(plugin_cc) $< -o $@
$(O)/plugins/bad-%.so: $(plugin_bad) vfio/plugin/vfio_lm_plugin.h vfio/plugin/protocol.h
	@mkdir -p $(@D)
	$(plugin_cc) -DVARIANT_$(shell echo $* | tr a-z A-Z) $< -o $@

.PHONY: plugins
plugins: $(plugin_so)

# Run by it, found beside it.
$(O)/tests/unit/vfio/test_migration_plugin: | $(O)/ferry-plugin $(plugin_so) $(O)/ferry-testdev

# Assigned devices that move by it.
system: $(O)/plugins/example.so
