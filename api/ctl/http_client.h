/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One HTTP/1.1 request over a unix socket, and its reply. Blocking; any thread.
 * Bounds: the head of a reply by http-parser's limit, its body by HTTP_REPLY_MAX.
 */
#ifndef API_CTL_HTTP_CLIENT_H
#define API_CTL_HTTP_CLIENT_H

#include "base/error.h"
#include "base/strbuf.h"

#define HTTP_REPLY_MAX (16 * 1024 * 1024)

struct http_request {
	const char *method, *path;
	const char *body; /* JSON; NULL: none */
	const int *fds;	  /* sent by SCM_RIGHTS; stay the caller's */
	unsigned int fd_count;
	unsigned int timeout; /* seconds without a byte of the reply; 0: wait for ever */
};

struct http_reply {
	int status;
	struct strbuf body; /* data is NULL where there is none */
};

/*
 * In two steps: the request is sent, a descriptor is returned that becomes readable when
 * the reply begins. It stays the caller's; closing it lets the reply be nobody's.
 */
int http_client_send(const char *socket, const struct http_request *request, struct error *err);
int http_client_receive(int fd, const char *socket, const struct http_request *request,
			struct http_reply *reply, struct error *err);
/* The reply, whatever its status, or an error that names the socket and a remedy. The
 * reply is to be freed in both cases. */
int http_client_call(const char *socket, const struct http_request *request,
		     struct http_reply *reply, struct error *err);
void http_reply_free(struct http_reply *reply);

#endif
