/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What libcrypto would call to load modules and resolve names, which nothing here asks it
 * for: in a static program that would need the host's libraries. The linker's --wrap puts
 * these in the place of the C library's (Makefile); elsewhere nobody calls them.
 */
#include <netdb.h>
#include <stddef.h>

void *no_dlopen(const char *path, int flags) __asm__("__wrap_dlopen");
int no_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
		   struct addrinfo **found) __asm__("__wrap_getaddrinfo");
struct hostent *no_gethostbyname(const char *name) __asm__("__wrap_gethostbyname");

void *no_dlopen(const char *path, int flags)
{
	return NULL;
}

int no_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
		   struct addrinfo **found)
{
	return EAI_FAIL;
}

struct hostent *no_gethostbyname(const char *name)
{
	return NULL;
}
