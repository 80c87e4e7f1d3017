/* SPDX-License-Identifier: Apache-2.0 */
/* ferry-testdev's command line. */
#include <getopt.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "base/bytes.h"
#include "base/parse.h"
#include "tests/testdev/testdev.h"

static void help(void)
{
	printf("ferry-testdev: a small PCI device behind a vfio-user socket\n"
	       "\n"
	       "  --socket=PATH       listen here\n"
	       "  --fd=N              or serve this connected socket, then end\n"
	       "  --once              end when the first client leaves\n"
	       "  --vectors=N         MSI-X vectors, 1 to %d (default 8)\n"
	       "  --dma=direct        map guest memory (default)\n"
	       "  --dma=messages      reach it by DMA_READ and DMA_WRITE\n"
	       "  --dirty=none        do not log pages written by DMA (default)\n"
	       "  --dirty=log         log them by the device features DMA_LOGGING_*\n"
	       "  --dirty=pages       log them the older way, DIRTY_PAGES\n"
	       "  --dma-rate=N        DMA of N bytes a second (default: as fast as it can)\n"
	       "  --dma-stop=keep     a DMA under way when it stops is part of its state "
	       "(default)\n"
	       "  --dma-stop=finish   it is finished before\n"
	       "  --migration=none    it does not migrate (default)\n"
	       "  --migration=v2      by device features: STOP_COPY, P2P and PRE_COPY; or some:\n"
	       "                      stop-copy, stop-copy+p2p, stop-copy+pre-copy\n"
	       "  --migration=region  by the first protocol, with its data section trapped; or\n"
	       "                      region-mapped, region-sparse\n"
	       "  --migration=agent   out of band, by an agent at --agent=\n"
	       "  --agent=ADDR:PORT   where the agent listens, for the example plugin\n"
	       "  --region-data=N     bytes of the data section (default 64K)\n"
	       "  --state-size=N      bytes of state besides its own (default 0)\n"
	       "  --state-initial=N   of these, what PRE_COPY sends first (default 0)\n"
	       "  --state-dirty=N     of these, what changes in a second (default 0)\n"
	       "  --max-fds=N         descriptors it takes in a message (default 8)\n"
	       "  --max-data=N        bytes of data in a message (default 1M)\n"
	       "  --no-caps           answer the version without capabilities\n"
	       "  --misbehave=HOW[@N] do something wrong, from the Nth command on (default 1)\n"
	       "  --verbose           a line per command\n"
	       "\n"
	       "HOW:\n",
	       TESTDEV_VECTORS_MAX);
	testdev_print_faults();
	printf("\n"
	       "A device for a VM, and the VM:\n"
	       "  ferry-testdev --socket=/run/testdev.sock &\n"
	       "  ferry ... --user-device socket=/run/testdev.sock\n"
	       "One that reaches guest memory by messages, with many vectors:\n"
	       "  ferry-testdev --socket=/run/testdev.sock --dma=messages --vectors=257\n"
	       "One whose state is 100 MiB, of which 8 MiB change in a second:\n"
	       "  ferry-testdev --socket=/run/testdev.sock --migration=v2 --dirty=log \\\n"
	       "	--state-size=100M --state-dirty=8M\n"
	       "One that dies at the 30th command:\n"
	       "  ferry-testdev --socket=/run/testdev.sock --misbehave=die@30\n");
}

static bool number(const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
	return !parse_size(text, out) && *out >= min && *out <= max;
}

static const struct {
	const char *name;
	uint64_t flags;
	enum testdev_way way;
	enum testdev_region_map map;
} migrations[] = {
	{ "none", 0, WAY_FEATURES, REGION_TRAPPED },
	{ "v2", VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P | VFIO_MIGRATION_PRE_COPY,
	  WAY_FEATURES, REGION_TRAPPED },
	{ "stop-copy", VFIO_MIGRATION_STOP_COPY, WAY_FEATURES, REGION_TRAPPED },
	{ "stop-copy+p2p", VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P, WAY_FEATURES,
	  REGION_TRAPPED },
	{ "stop-copy+pre-copy", VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_PRE_COPY, WAY_FEATURES,
	  REGION_TRAPPED },
	{ "agent", VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_PRE_COPY, WAY_AGENT, REGION_TRAPPED },
	{ "region", VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_PRE_COPY, WAY_REGION,
	  REGION_TRAPPED },
	{ "region-mapped", VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_PRE_COPY, WAY_REGION,
	  REGION_MAPPED },
	{ "region-sparse", VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_PRE_COPY, WAY_REGION,
	  REGION_SPARSE },
};

static bool parse_migration(const char *value, struct testdev_options *o)
{
	for (size_t i = 0; i < ARRAY_SIZE(migrations); i++) {
		if (strcmp(value, migrations[i].name) != 0)
			continue;
		o->mig_flags = migrations[i].flags;
		o->mig_way = migrations[i].way;
		o->region_map = migrations[i].map;
		return true;
	}
	return false;
}

static bool parse_choice(const char *name, const char *value, struct testdev_options *o)
{
	if (!strcmp(name, "dma")) {
		o->dma_messages = !strcmp(value, "messages");
		return o->dma_messages || !strcmp(value, "direct");
	}
	if (!strcmp(name, "dma-stop")) {
		o->dma_finish = !strcmp(value, "finish");
		return o->dma_finish || !strcmp(value, "keep");
	}
	if (!strcmp(name, "dirty")) {
		o->dirty = !strcmp(value, "log")     ? DIRTY_LOG
			   : !strcmp(value, "pages") ? DIRTY_PAGES
						     : DIRTY_NONE;
		return o->dirty != DIRTY_NONE || !strcmp(value, "none");
	}
	if (!strcmp(name, "migration"))
		return parse_migration(value, o);
	return testdev_parse_fault(value, o);
}

static const struct {
	const char *name;
	size_t offset; /* of a uint64_t in the options */
	uint64_t min, max, multiple;
} numbers[] = {
	{ "max-data", offsetof(struct testdev_options, max_data), 8, TESTDEV_DATA_MAX, 1 },
	{ "dma-rate", offsetof(struct testdev_options, dma_rate), 1, 1ULL << 40, 1 },
	{ "region-data", offsetof(struct testdev_options, region_data), 4 * TESTDEV_PAGE, 1 << 30,
	  TESTDEV_PAGE },
	{ "state-size", offsetof(struct testdev_options, state_size), 0, 1ULL << 34, TESTDEV_PAGE },
	{ "state-initial", offsetof(struct testdev_options, state_initial), 0, 1ULL << 34,
	  TESTDEV_PAGE },
	{ "state-dirty", offsetof(struct testdev_options, state_dirty), 0, 1ULL << 40, 1 },
};

static bool parse_number(const char *name, const char *value, struct testdev_options *o, bool *good)
{
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		uint64_t *n = (uint64_t *)((char *)o + numbers[i].offset);

		if (strcmp(name, numbers[i].name) != 0)
			continue;
		*good = number(value, numbers[i].min, numbers[i].max, n) &&
			*n % numbers[i].multiple == 0;
		return true;
	}
	return false;
}

static bool parse_option(const char *name, const char *value, struct testdev_options *o)
{
	uint64_t n = 0;
	bool good = false;

	if (!strcmp(name, "socket"))
		return *(o->socket = value) &&
		       strlen(value) < sizeof((struct sockaddr_un *)0)->sun_path;
	if (!strcmp(name, "agent"))
		return *(o->agent = value);
	if (!strcmp(name, "fd")) {
		good = number(value, 0, 1 << 20, &n);
		o->fd = (int)n;
		return good;
	}
	if (!strcmp(name, "vectors")) {
		good = number(value, 1, TESTDEV_VECTORS_MAX, &n);
		o->vectors = (unsigned int)n;
		return good;
	}
	if (!strcmp(name, "max-fds")) {
		good = number(value, 0, TESTDEV_FDS_MAX, &n);
		o->max_fds = (unsigned int)n;
		return good;
	}
	if (parse_number(name, value, o, &good))
		return good;
	return parse_choice(name, value, o);
}

static void usage(const char *text)
{
	fprintf(stderr, "ferry-testdev: %s; see ferry-testdev --help\n", text);
	exit(2);
}

void testdev_parse_options(int argc, char **argv, struct testdev_options *o)
{
	static const struct option options[] = {
		{ "socket", required_argument, NULL, 'v' },
		{ "fd", required_argument, NULL, 'v' },
		{ "vectors", required_argument, NULL, 'v' },
		{ "dma", required_argument, NULL, 'v' },
		{ "dirty", required_argument, NULL, 'v' },
		{ "max-fds", required_argument, NULL, 'v' },
		{ "max-data", required_argument, NULL, 'v' },
		{ "dma-rate", required_argument, NULL, 'v' },
		{ "dma-stop", required_argument, NULL, 'v' },
		{ "migration", required_argument, NULL, 'v' },
		{ "agent", required_argument, NULL, 'v' },
		{ "region-data", required_argument, NULL, 'v' },
		{ "state-size", required_argument, NULL, 'v' },
		{ "state-initial", required_argument, NULL, 'v' },
		{ "state-dirty", required_argument, NULL, 'v' },
		{ "misbehave", required_argument, NULL, 'v' },
		{ "once", no_argument, NULL, 'o' },
		{ "no-caps", no_argument, NULL, 'c' },
		{ "verbose", no_argument, NULL, 'b' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int c, which = 0;
	char text[128];

	while ((c = getopt_long(argc, argv, "", options, &which)) != -1) {
		switch (c) {
		case 'v':
			if (parse_option(options[which].name, optarg, o))
				break;
			snprintf(text, sizeof(text), "--%s=%.40s is none of its values",
				 options[which].name, optarg);
			usage(text);
			break;
		case 'o': o->once = true; break;
		case 'c': o->no_caps = true; break;
		case 'b': o->verbose = true; break;
		case 'h': help(); exit(0);
		default: exit(2); /* getopt has said why */
		}
	}
	if (optind < argc || (o->socket == NULL) == (o->fd < 0))
		usage("one of --socket and --fd is needed");
	if ((o->agent != NULL) != (o->mig_way == WAY_AGENT))
		usage("--migration=agent and --agent=ADDR:PORT need each other");
}
