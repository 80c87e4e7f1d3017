/* SPDX-License-Identifier: Apache-2.0 */
#include "api/migration_config.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "api/migration_config_check.h"
#include "api/vm_config_check.h"
#include "base/bytes.h"
#include "base/parse.h"

#define HOST_MAX 253 /* a DNS name */
#define URL_SHOWN 100

/* --- URLs ------------------------------------------------------------------------- */

static const char *allowed_urls(unsigned int kinds)
{
	return kinds & CONFIG_URL_FILE	? "file:///absolute/path"
	       : kinds & CONFIG_URL_TCP ? "unix:<path> or tcp:<host>:<port>"
					: "unix:<path>";
}

static int parse_port(struct config_url *url, const char *port, const char *field,
		      struct error *err)
{
	uint64_t number;

	if (!*port || port[strspn(port, "0123456789")] || parse_u64(port, &number) || !number ||
	    number > 65535)
		return bad(err, "%s: \"%.40s\" is no port from 1 to 65535", field, port);
	url->port = port;
	return 0;
}

/* Letters, digits and what names and addresses have besides. */
static bool host_is_sound(const char *host, size_t len, bool v6)
{
	for (size_t i = 0; i < len; i++)
		if (!isascii((unsigned char)host[i]) ||
		    (!isalnum((unsigned char)host[i]) && !strchr(v6 ? ":.%-_" : ".-_", host[i])))
			return false;
	return len && len <= HOST_MAX;
}

static int parse_tcp(struct config_url *url, const char *rest, const char *field, struct error *err)
{
	bool v6 = *rest == '[';
	const char *end = v6 ? strchr(rest, ']') : strrchr(rest, ':');

	if (v6 && end && end[1] != ':')
		end = NULL;
	if (!end)
		return bad(err, "%s: \"tcp:%.*s\": must be tcp:<host>:<port>", field, URL_SHOWN,
			   rest);
	url->host = rest + v6;
	url->host_len = (size_t)(end - url->host);
	if (!host_is_sound(url->host, url->host_len, v6))
		return bad(err, "%s: \"tcp:%.*s\": \"%.*s\" is no host%s", field, URL_SHOWN, rest,
			   (int)MIN(url->host_len, (size_t)URL_SHOWN), url->host,
			   memchr(url->host, ':', url->host_len) ? "; an IPv6 address is written "
								   "[address]"
								 : "");
	return parse_port(url, end + 1 + v6, field, err);
}

static int parse_path(struct config_url *url, const char *path, const char *field,
		      struct error *err)
{
	size_t max = url->kind == CONFIG_URL_UNIX ? sizeof(((struct sockaddr_un *)0)->sun_path) - 1
						  : 4095;

	if (url->kind == CONFIG_URL_FILE && *path != '/')
		return bad(err, "%s: \"file://%.*s\": the path must be absolute: file:///<path>",
			   field, URL_SHOWN, path);
	if (!*path)
		return bad(err, "%s: a path is needed behind the colon", field);
	if (strlen(path) > max)
		return bad(err, "%s: the path is longer than %zu bytes", field, max);
	url->path = path;
	return 0;
}

int config_url_parse(struct config_url *url, const char *text, unsigned int kinds,
		     const char *field, struct error *err)
{
	static const struct {
		const char *scheme;
		enum config_url_kind kind;
	} schemes[] = {
		{ "file://", CONFIG_URL_FILE },
		{ "unix:", CONFIG_URL_UNIX },
		{ "tcp:", CONFIG_URL_TCP },
	};

	*url = (struct config_url){ 0 };
	if (!text)
		return bad(err, "%s: is missing: %s", field, allowed_urls(kinds));
	for (size_t i = 0; i < ARRAY_SIZE(schemes); i++) {
		size_t len = strlen(schemes[i].scheme);

		if (!(kinds & schemes[i].kind) || strncmp(text, schemes[i].scheme, len))
			continue;
		url->kind = schemes[i].kind;
		return url->kind == CONFIG_URL_TCP ? parse_tcp(url, text + len, field, err)
						   : parse_path(url, text + len, field, err);
	}
	return bad(err, "%s: \"%.*s\": must be %s", field, URL_SHOWN, text, allowed_urls(kinds));
}

static int check_url(const char *text, unsigned int kinds, const char *field, struct error *err)
{
	struct config_url url;

	return config_url_parse(&url, text, kinds, field, err);
}

/* --- snapshot --------------------------------------------------------------------- */

void snapshot_config_init(struct snapshot_config *config)
{
	*config = (struct snapshot_config){ .live = true };
}

void snapshot_config_destroy(struct snapshot_config *config)
{
	free(config->destination_url);
	free(config->base_url);
	*config = (struct snapshot_config){ 0 };
}

int snapshot_config_validate(const struct snapshot_config *config, struct error *err)
{
	int r = check_url(config->destination_url, CONFIG_URL_FILE, "destination_url", err);

	if (!r && config->base_url)
		r = check_url(config->base_url, CONFIG_URL_FILE, "base_url", err);
	if (!r && config->base_url && !strcmp(config->base_url, config->destination_url))
		r = bad(err, "base_url: is the destination_url; a differential snapshot has a "
			     "folder of its own");
	return r;
}

/* --- restore ------------------------------------------------------------------------ */

void restore_config_init(struct restore_config *config)
{
	*config = (struct restore_config){ 0 };
}

void restore_config_destroy(struct restore_config *config)
{
	free(config->source_url);
	config_overrides_destroy(&config->overrides);
	*config = (struct restore_config){ 0 };
}

int restore_config_validate(const struct restore_config *config, struct error *err)
{
	int r = check_url(config->source_url, CONFIG_URL_FILE, "source_url", err);

	if (!r && config->prefault && config->memory_restore_mode == MEMORY_RESTORE_LAZY)
		r = bad(err, "prefault: a lazy restore (OnDemand) reads pages when they are "
			     "needed; the two exclude each other");
	return r ? r : config_overrides_validate(&config->overrides, err);
}

/* --- migration ----------------------------------------------------------------------- */

void send_migration_config_init(struct send_migration_config *config)
{
	*config = (struct send_migration_config){
		.downtime_ms = 300,
		.timeout_s = 3600,
		.connections = 1,
		.max_throttle = SEND_THROTTLE_MAX,
	};
}

void send_migration_config_destroy(struct send_migration_config *config)
{
	free(config->destination_url);
	free(config->tls_dir);
	*config = (struct send_migration_config){ 0 };
}

static int check_send_numbers(const struct send_migration_config *config, struct error *err)
{
	if (config->downtime_ms < 1 || config->downtime_ms > SEND_DOWNTIME_MS_MAX)
		return bad(err, "downtime_ms: %llu is not in 1 to %d",
			   (unsigned long long)config->downtime_ms, SEND_DOWNTIME_MS_MAX);
	if (config->timeout_s < 1 || config->timeout_s > SEND_TIMEOUT_S_MAX)
		return bad(err, "timeout_s: %llu is not in 1 to %d",
			   (unsigned long long)config->timeout_s, SEND_TIMEOUT_S_MAX);
	if (config->connections < 1 || config->connections > SEND_CONNECTIONS_MAX)
		return bad(err, "connections: %u is not in 1 to %d", config->connections,
			   SEND_CONNECTIONS_MAX);
	if (config->bandwidth && config->bandwidth < SEND_BANDWIDTH_MIN)
		return bad(err, "bandwidth: %llu is less than %d bytes/s; 0 means no limit",
			   (unsigned long long)config->bandwidth, SEND_BANDWIDTH_MIN);
	if (config->max_throttle > SEND_THROTTLE_MAX)
		return bad(err, "max_throttle: %u is not in 0 to %d (%%)", config->max_throttle,
			   SEND_THROTTLE_MAX);
	return 0;
}

static int check_tls_dir(const char *dir, enum config_url_kind kind, struct error *err)
{
	if (!dir)
		return 0;
	if (kind != CONFIG_URL_TCP)
		return bad(err,
			   "tls_dir: needs tcp:<host>:<port>; what goes over a unix socket does "
			   "not leave the host");
	if (*dir != '/')
		return bad(err, "tls_dir: \"%.*s\": the path must be absolute", URL_SHOWN, dir);
	return 0;
}

int send_migration_config_validate(struct send_migration_config *config, struct error *err)
{
	struct config_url url;
	int r = config_url_parse(&url, config->destination_url, CONFIG_URL_UNIX | CONFIG_URL_TCP,
				 "destination_url", err);

	if (!r)
		r = check_send_numbers(config, err);
	if (r)
		return r;
	if (config->local && config->memory_mode == SEND_POSTCOPY)
		return bad(err, "memory_mode: Postcopy and local exclude each other: RAM is handed "
				"over, or follows");
	if (config->local)
		config->memory_mode = SEND_MEMFDS;
	config->local = config->memory_mode == SEND_MEMFDS;
	if (config->local && url.kind != CONFIG_URL_UNIX)
		return bad(err,
			   "destination_url: \"%.*s\": a local migration hands descriptors "
			   "over and needs unix:<path>",
			   URL_SHOWN, config->destination_url);
	if (config->connections > 1 && url.kind != CONFIG_URL_TCP)
		return bad(err, "connections: %u: more than one needs tcp:<host>:<port>",
			   config->connections);
	return check_tls_dir(config->tls_dir, url.kind, err);
}

void receive_migration_config_init(struct receive_migration_config *config)
{
	*config = (struct receive_migration_config){ .resume = true };
}

void receive_migration_config_destroy(struct receive_migration_config *config)
{
	free(config->receiver_url);
	free(config->tls_dir);
	config_overrides_destroy(&config->overrides);
	*config = (struct receive_migration_config){ 0 };
}

int receive_migration_config_validate(const struct receive_migration_config *config,
				      struct error *err)
{
	struct config_url url;
	int r = config_url_parse(&url, config->receiver_url, CONFIG_URL_UNIX | CONFIG_URL_TCP,
				 "receiver_url", err);

	if (!r)
		r = check_tls_dir(config->tls_dir, url.kind, err);
	return r ? r : config_overrides_validate(&config->overrides, err);
}
