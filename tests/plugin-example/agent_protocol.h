/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the example plugin and its agent say to each other, over TCP: one request at a time,
 * one reply each. On a real card the agent runs on the card's own processors and the protocol
 * is its vendor's; here ferry-testdev is device and agent in one (--agent=).
 *
 *	plugin                                  agent
 *	  HELLO "0000:01:10.0"             ->          which of its devices
 *	                                   <-   status
 *	  SET_STATE value                  ->          states of vfio_lm_plugin.h
 *	                                   <-   status
 *	  GET_STATE                        ->
 *	                                   <-   status, value
 *	  PENDING                          ->
 *	                                   <-   status, value: bytes
 *	  SAVE value: bytes                ->
 *	                                   <-   status, len bytes of data
 *	  LOAD len bytes of data           ->
 *	                                   <-   status
 *
 * Fields are little endian. status: 0 or an errno.
 */
#ifndef TESTS_PLUGIN_EXAMPLE_AGENT_PROTOCOL_H
#define TESTS_PLUGIN_EXAMPLE_AGENT_PROTOCOL_H

#include <stdint.h>

#define AGENT_MAGIC 0x544e4741 /* "AGNT" */
#define AGENT_DATA_MAX (1024U * 1024)

enum agent_request {
	AGENT_HELLO = 1,
	AGENT_SET_STATE,
	AGENT_GET_STATE,
	AGENT_PENDING,
	AGENT_SAVE,
	AGENT_LOAD,
};

struct agent_message {
	uint32_t magic, what;
	uint64_t value;
	uint32_t len; /* of the data behind this */
	uint32_t status;
};

#endif
