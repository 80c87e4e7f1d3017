/* SPDX-License-Identifier: Apache-2.0 */
/* The options of the machine itself: CPUs, memory, consoles and the like. */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "api/options_keys.h"
#include "api/options_vm.h"
#include "base/bytes.h"
#include "base/parse.h"

#define SYNTAX(name, table) \
	{ \
		.option = (name), .keys = (table), .key_count = ARRAY_SIZE(table) \
	}

static int parse_topology(void *target, const char *text)
{
	struct cpus_config *cpus = target;
	unsigned int *const fields[4] = { &cpus->threads_per_core, &cpus->cores_per_die,
					  &cpus->dies_per_package, &cpus->packages };
	char copy[64], *save, *part;
	unsigned int n = 0;
	uint64_t v[4];

	if (strlen(text) >= sizeof(copy) || strstr(text, "::") || text[0] == ':' ||
	    text[strlen(text) - 1] == ':')
		return -EINVAL;
	strcpy(copy, text);
	for (part = strtok_r(copy, ":", &save); part; part = strtok_r(NULL, ":", &save)) {
		if (n == 4 || parse_u64(part, &v[n]) || !v[n] || v[n] > VM_CPUS_MAX)
			return -EINVAL;
		n++;
	}
	if (n != 4)
		return -EINVAL;
	for (n = 0; n < 4; n++)
		*fields[n] = (unsigned int)v[n];
	return 0;
}

static const struct option_key cpus_keys[] = {
	{ "boot", KEY_UINT, offsetof(struct cpus_config, boot_vcpus), 1, VM_CPUS_MAX, NULL, NULL },
	{ "max", KEY_UINT, offsetof(struct cpus_config, max_vcpus), 1, VM_CPUS_MAX, NULL, NULL },
	{ "topology", KEY_PARSE, 0, 0, 0,
	  "threads:cores:dies:packages, four numbers whose product is boot", parse_topology },
};
static const struct option_syntax cpus_syntax = SYNTAX("--cpus", cpus_keys);

int option_cpus(struct cpus_config *cpus, const char *text, struct error *err)
{
	uint64_t seen, product;
	int r = option_parse_keys(&cpus_syntax, text, cpus, &seen, err);

	if (r)
		return r;
	if (!option_key_seen(&cpus_syntax, seen, "max"))
		cpus->max_vcpus = cpus->boot_vcpus;
	if (cpus->max_vcpus != cpus->boot_vcpus)
		return option_error(err,
				    "--cpus: max=%u: must equal boot=%u: ferry does not add "
				    "CPUs to a running VM",
				    cpus->max_vcpus, cpus->boot_vcpus);
	product = (uint64_t)cpus->threads_per_core * cpus->cores_per_die * cpus->dies_per_package *
		  cpus->packages;
	if (product && product != cpus->boot_vcpus)
		return option_error(err, "--cpus: topology=%u:%u:%u:%u makes %llu CPUs; boot=%u",
				    cpus->threads_per_core, cpus->cores_per_die,
				    cpus->dies_per_package, cpus->packages,
				    (unsigned long long)product, cpus->boot_vcpus);
	return 0;
}

static const struct option_key memory_keys[] = {
	{ "size", KEY_SIZE, offsetof(struct memory_config, size), 1, UINT64_MAX, NULL, NULL },
	{ "mergeable", KEY_BOOL, offsetof(struct memory_config, mergeable), 0, 0, NULL, NULL },
	{ "shared", KEY_BOOL, offsetof(struct memory_config, shared), 0, 0, NULL, NULL },
	{ "hugepages", KEY_BOOL, offsetof(struct memory_config, hugepages), 0, 0, NULL, NULL },
	{ "hugepage_size", KEY_SIZE, offsetof(struct memory_config, hugepage_size), 64 * KIB,
	  1ULL << 40, "a page size of the host, such as 2M or 1G", NULL },
	{ "prefault", KEY_BOOL, offsetof(struct memory_config, prefault), 0, 0, NULL, NULL },
	{ "thp", KEY_BOOL, offsetof(struct memory_config, thp), 0, 0, NULL, NULL },
};
static const struct option_syntax memory_syntax = SYNTAX("--memory", memory_keys);

int option_memory(struct memory_config *memory, const char *text, struct error *err)
{
	int r = option_parse_keys(&memory_syntax, text, memory, NULL, err);

	if (r)
		return r;
	if (memory->hugepage_size && !memory->hugepages)
		return option_error(err, "--memory: hugepage_size needs hugepages=on");
	if (memory->hugepage_size && !is_power_of_2(memory->hugepage_size))
		return option_error(err,
				    "--memory: hugepage_size=%llu: must be a page size of the "
				    "host, such as 2M or 1G",
				    (unsigned long long)memory->hugepage_size);
	return 0;
}

static const struct option_key rng_keys[] = {
	{ "src", KEY_STRING, offsetof(struct rng_config, src), 0, OPTION_PATH_MAX, NULL, NULL },
};
static const struct option_syntax rng_syntax = SYNTAX("--rng", rng_keys);

int option_rng(struct rng_config *rng, const char *text, struct error *err)
{
	return option_parse_keys(&rng_syntax, text, rng, NULL, err);
}

static const struct option_key balloon_keys[] = {
	{ "size", KEY_SIZE, offsetof(struct balloon_config, size), 0, UINT64_MAX, NULL, NULL },
	{ "deflate_on_oom", KEY_BOOL, offsetof(struct balloon_config, deflate_on_oom), 0, 0, NULL,
	  NULL },
	{ "free_page_reporting", KEY_BOOL, offsetof(struct balloon_config, free_page_reporting), 0,
	  0, NULL, NULL },
};
static const struct option_syntax balloon_syntax = SYNTAX("--balloon", balloon_keys);

int option_balloon(struct balloon_config *balloon, const char *text, struct error *err)
{
	return option_parse_keys(&balloon_syntax, text, balloon, NULL, err);
}

/* What was written; which of them there was is checked afterwards. */
struct console_words {
	bool off, null, pty, tty;
	char *file, *socket;
	unsigned int iobase;
};

static const struct option_key console_keys[] = {
	{ "off", KEY_WORD, offsetof(struct console_words, off), 0, 0, NULL, NULL },
	{ "null", KEY_WORD, offsetof(struct console_words, null), 0, 0, NULL, NULL },
	{ "pty", KEY_WORD, offsetof(struct console_words, pty), 0, 0, NULL, NULL },
	{ "tty", KEY_WORD, offsetof(struct console_words, tty), 0, 0, NULL, NULL },
	{ "file", KEY_STRING, offsetof(struct console_words, file), 0, OPTION_PATH_MAX, NULL,
	  NULL },
	{ "socket", KEY_STRING, offsetof(struct console_words, socket), 0, OPTION_SOCKET_MAX, NULL,
	  NULL },
};

static const struct option_key debug_console_keys[] = {
	{ "off", KEY_WORD, offsetof(struct console_words, off), 0, 0, NULL, NULL },
	{ "file", KEY_STRING, offsetof(struct console_words, file), 0, OPTION_PATH_MAX, NULL,
	  NULL },
	{ "iobase", KEY_UINT, offsetof(struct console_words, iobase), 1, 0xffff,
	  "an I/O port from 0x1 to 0xffff", NULL },
};
static const struct option_syntax debug_console_syntax =
	SYNTAX("--debug-console", debug_console_keys);

static int console_from_words(struct console_config *console, const struct option_syntax *syntax,
			      struct console_words *words, const char *allowed, struct error *err)
{
	const struct {
		bool given;
		enum console_mode mode;
	} modes[] = {
		{ words->off, CONSOLE_OFF },	       { words->null, CONSOLE_NULL },
		{ words->pty, CONSOLE_PTY },	       { words->tty, CONSOLE_TTY },
		{ words->file != NULL, CONSOLE_FILE }, { words->socket != NULL, CONSOLE_SOCKET },
	};
	unsigned int given = 0;

	for (size_t i = 0; i < ARRAY_SIZE(modes); i++)
		given += modes[i].given;
	if (given != 1)
		return option_error(err, "%s: must be one of %s", syntax->option, allowed);
	for (size_t i = 0; i < ARRAY_SIZE(modes); i++)
		if (modes[i].given)
			console->mode = modes[i].mode;
	free(console->file);
	free(console->socket);
	console->file = words->file;
	console->socket = words->socket;
	words->file = words->socket = NULL;
	return 0;
}

static void console_words_free(struct console_words *words)
{
	free(words->file);
	free(words->socket);
}

int option_console(struct console_config *console, const char *option, const char *text,
		   struct error *err)
{
	const struct option_syntax syntax = SYNTAX(option, console_keys);
	struct console_words words = { 0 };
	int r = option_parse_keys(&syntax, text, &words, NULL, err);

	if (!r)
		r = console_from_words(console, &syntax, &words,
				       "off, null, pty, tty, file=<path> and socket=<path>", err);
	console_words_free(&words);
	return r;
}

int option_debug_console(struct console_config *console, const char *text, struct error *err)
{
	struct console_words words = { .iobase = console->iobase };
	int r = option_parse_keys(&debug_console_syntax, text, &words, NULL, err);

	if (!r)
		r = console_from_words(console, &debug_console_syntax, &words,
				       "off and file=<path>", err);
	if (!r)
		console->iobase = (uint16_t)words.iobase;
	console_words_free(&words);
	return r;
}

/* 8-4-4-4-12 hexadecimal digits. */
static int parse_uuid(void *target, const char *text)
{
	struct platform_config *platform = target;
	char *copy;

	if (strlen(text) != 36)
		return -EINVAL;
	for (unsigned int i = 0; i < 36; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash ? text[i] != '-' : !isxdigit((unsigned char)text[i]))
			return -EINVAL;
	}
	copy = strdup(text);
	if (!copy)
		return -ENOMEM;
	free(platform->uuid);
	platform->uuid = copy;
	return 0;
}

static int parse_oem_strings(void *target, const char *text)
{
	struct platform_config *platform = target;
	char *elements[OPTION_LIST_MAX];
	unsigned int count;
	int r = option_list(text, elements, OPTION_LIST_MAX, &count);

	if (r || !count)
		return r;
	platform->oem_strings = calloc(count, sizeof(char *));
	if (!platform->oem_strings) {
		option_elements_free(elements, count);
		return -ENOMEM;
	}
	memcpy(platform->oem_strings, elements, count * sizeof(char *));
	platform->oem_string_count = count;
	return 0;
}

static const struct option_key platform_keys[] = {
	{ "serial_number", KEY_STRING, offsetof(struct platform_config, serial_number), 0, 255,
	  NULL, NULL },
	{ "uuid", KEY_PARSE, 0, 0, 0, "a UUID such as 4f4d2fcc-2a5c-4fb1-9d3c-0f0a7ea6b2a1",
	  parse_uuid },
	{ "oem_strings", KEY_LIST, 0, 0, 0, "a list of at most 64 texts, as [one,two]",
	  parse_oem_strings },
};
static const struct option_syntax platform_syntax = SYNTAX("--platform", platform_keys);

int option_platform(struct platform_config *platform, const char *text, struct error *err)
{
	return option_parse_keys(&platform_syntax, text, platform, NULL, err);
}

static int parse_access(void *target, const char *text)
{
	struct landlock_rule *rule = target;

	if (strcmp(text, "r") != 0 && strcmp(text, "w") != 0 && strcmp(text, "rw") != 0)
		return -EINVAL;
	rule->read = strchr(text, 'r') != NULL;
	rule->write = strchr(text, 'w') != NULL;
	return 0;
}

static const struct option_key landlock_keys[] = {
	{ "path", KEY_STRING, offsetof(struct landlock_rule, path), 0, OPTION_PATH_MAX, NULL,
	  NULL },
	{ "access", KEY_PARSE, 0, 0, 0, "r, w or rw", parse_access },
};
static const struct option_syntax landlock_syntax = SYNTAX("--landlock-rules", landlock_keys);

int option_landlock_rule(struct landlock_rule *rule, const char *text, struct error *err)
{
	int r = option_parse_keys(&landlock_syntax, text, rule, NULL, err);

	if (r)
		return r;
	if (!rule->path)
		return option_error(err, "--landlock-rules: path=<file or directory> is missing");
	if (!rule->read && !rule->write)
		return option_error(err, "--landlock-rules: access=<r, w or rw> is missing");
	return 0;
}
