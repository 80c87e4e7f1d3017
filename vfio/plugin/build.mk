# SPDX-License-Identifier: Apache-2.0
# ferry-plugin: a program of its own, linked dynamically, since it loads shared objects.
# Never with sanitizers: plugins have none, and theirs is the process.
plugin_obj := $(patsubst %.c,$(O)/%.o,$(sort $(filter-out %/gen_filter.c,$(wildcard vfio/plugin/*.c))))

$(O)/gen_plugin_filter: vfio/plugin/gen_filter.c base/bytes.h
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -std=gnu17 -O1 $(WARN) $< -lseccomp -o $@

$(O)/vfio/plugin/plugin_filter.h: $(O)/gen_plugin_filter
	@mkdir -p $(@D)
	$< > $@

$(O)/vfio/plugin/confine.o: $(O)/vfio/plugin/plugin_filter.h
$(plugin_obj): $(O)/vfio/plugin/%.o: vfio/plugin/%.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(filter-out $(SANFLAGS),$(CFLAGS)) -MMD -MP -c $< -o $@

$(O)/ferry-plugin: $(plugin_obj)
	$(CC) $(filter-out $(SANFLAGS),$(LDFLAGS)) -pie $^ -ldl -o $@

all: $(O)/ferry-plugin
