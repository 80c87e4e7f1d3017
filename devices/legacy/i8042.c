/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keyboard controller, without a keyboard: enough for a driver's self test, and
 * for resetting the machine. (IBM PS/2 Technical Reference, keyboard controller.)
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "devices/legacy/legacy.h"

#define PORT_DATA 0x60
#define PORT_COMMAND 0x64
#define STATE_VERSION 1

#define STATUS_OUTPUT_FULL 0x01
#define STATUS_SYSTEM 0x04
#define STATUS_COMMAND 0x08
#define STATUS_UNLOCKED 0x10
#define STATUS_TIMEOUT 0x40
#define STATUS_ALL \
	(STATUS_OUTPUT_FULL | STATUS_SYSTEM | STATUS_COMMAND | STATUS_UNLOCKED | STATUS_TIMEOUT)

#define CONFIG_DEFAULT 0x74 /* both ports disabled, passed its test, translating */

enum {
	COMMAND_READ_CONFIG = 0x20,
	COMMAND_WRITE_CONFIG = 0x60,
	COMMAND_TEST_AUX = 0xa9,
	COMMAND_SELF_TEST = 0xaa,
	COMMAND_TEST_KEYBOARD = 0xab,
	COMMAND_READ_OUTPUT_PORT = 0xd0,
	COMMAND_WRITE_OUTPUT_PORT = 0xd1,
	COMMAND_WRITE_AUX = 0xd4,
	COMMAND_PULSE = 0xf0, /* up to 0xff */
};

#define SELF_TEST_PASSED 0x55
#define KEYBOARD_TEST_PASSED 0x00
#define AUX_TEST_FAILED 0xff
#define KEYBOARD_RESEND 0xfe
#define OUTPUT_PORT_NOT_RESET 0x01
#define OUTPUT_PORT_A20 0x02

struct i8042 {
	struct device_host *host;
	struct machine_requests requests;
	pthread_mutex_t lock;
	uint8_t status, output, config;
	uint8_t wants_data; /* the command whose parameter comes next; 0: none */
};

static void answer_locked(struct i8042 *k, uint8_t byte)
{
	k->output = byte;
	k->status |= STATUS_OUTPUT_FULL;
}

static void command_locked(struct i8042 *k, uint8_t command)
{
	k->status |= STATUS_COMMAND;
	k->wants_data = 0;
	switch (command) {
	case COMMAND_READ_CONFIG: answer_locked(k, k->config); break;
	case COMMAND_WRITE_CONFIG:
	case COMMAND_WRITE_OUTPUT_PORT:
	case COMMAND_WRITE_AUX: k->wants_data = command; break;
	case COMMAND_TEST_AUX: answer_locked(k, AUX_TEST_FAILED); break;
	case COMMAND_SELF_TEST:
		k->config = CONFIG_DEFAULT;
		answer_locked(k, SELF_TEST_PASSED);
		break;
	case COMMAND_TEST_KEYBOARD: answer_locked(k, KEYBOARD_TEST_PASSED); break;
	case COMMAND_READ_OUTPUT_PORT:
		answer_locked(k, OUTPUT_PORT_NOT_RESET | OUTPUT_PORT_A20);
		break;
	default: break;
	}
}

/* True where it asks for a reset. */
static bool data_locked(struct i8042 *k, uint8_t value)
{
	uint8_t command = k->wants_data;

	k->status &= (uint8_t) ~(STATUS_COMMAND | STATUS_TIMEOUT);
	k->wants_data = 0;
	if (command == COMMAND_WRITE_OUTPUT_PORT)
		return !(value & OUTPUT_PORT_NOT_RESET);
	if (command == COMMAND_WRITE_CONFIG) {
		k->config = value;
	} else {
		/* For a device that is not there: the driver need not wait for it. */
		answer_locked(k, KEYBOARD_RESEND);
		k->status |= STATUS_TIMEOUT;
	}
	return false;
}

static void reset_machine(const struct i8042 *k)
{
	if (k->requests.reset)
		k->requests.reset(k->requests.opaque);
}

static void data_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	struct i8042 *k = opaque;

	pthread_mutex_lock(&k->lock);
	*(uint8_t *)data = k->output;
	k->status &= (uint8_t) ~(STATUS_OUTPUT_FULL | STATUS_TIMEOUT);
	pthread_mutex_unlock(&k->lock);
}

static void data_write(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
	struct i8042 *k = opaque;
	bool reset;

	pthread_mutex_lock(&k->lock);
	reset = data_locked(k, *(const uint8_t *)data);
	pthread_mutex_unlock(&k->lock);
	if (reset)
		reset_machine(k);
}

static void command_read(void *opaque, uint64_t offset, void *data, unsigned int len)
{
	struct i8042 *k = opaque;

	pthread_mutex_lock(&k->lock);
	*(uint8_t *)data = k->status;
	pthread_mutex_unlock(&k->lock);
}

static void command_write(void *opaque, uint64_t offset, const void *data, unsigned int len)
{
	struct i8042 *k = opaque;
	uint8_t command = *(const uint8_t *)data;

	pthread_mutex_lock(&k->lock);
	command_locked(k, command);
	pthread_mutex_unlock(&k->lock);
	/* Output lines whose bit is 0 are pulsed; line 0 is the reset. */
	if (command >= COMMAND_PULSE && !(command & 1))
		reset_machine(k);
}

static const struct bus_ops data_ops = { .read = data_read, .write = data_write };
static const struct bus_ops command_ops = { .read = command_read, .write = command_write };

struct i8042 *i8042_new(struct device_host *host, const struct machine_requests *requests,
			struct error *err)
{
	struct i8042 *k = calloc(1, sizeof(*k));

	if (!k) {
		error_set_errno(err, ENOMEM, "create i8042");
		return NULL;
	}
	k->host = host;
	k->requests = *requests;
	k->status = STATUS_SYSTEM | STATUS_UNLOCKED;
	k->config = CONFIG_DEFAULT;
	pthread_mutex_init(&k->lock, NULL);
	if (bus_add(host->pio, PORT_DATA, 1, "i8042 data", &data_ops, k, err))
		goto fail;
	if (bus_add(host->pio, PORT_COMMAND, 1, "i8042 command", &command_ops, k, err)) {
		bus_remove(host->pio, PORT_DATA);
		goto fail;
	}
	return k;
fail:
	pthread_mutex_destroy(&k->lock);
	free(k);
	return NULL;
}

static const struct state_field fields[] = {
	STATE_FIELD(struct i8042, status, "status", STATUS_ALL),
	STATE_FIELD(struct i8042, output, "output", UINT8_MAX),
	STATE_FIELD(struct i8042, config, "config", UINT8_MAX),
	STATE_FIELD(struct i8042, wants_data, "wants-data", UINT8_MAX),
};

void i8042_save(struct i8042 *k, struct state_writer *writer, const char *name)
{
	state_begin(writer, name, "i8042", STATE_VERSION);
	pthread_mutex_lock(&k->lock);
	state_fields_save(writer, fields, ARRAY_SIZE(fields), k);
	pthread_mutex_unlock(&k->lock);
	state_end(writer);
}

/* An unknown command's parameter would be taken for the keyboard's. */
static bool takes_data(uint8_t command)
{
	return !command || command == COMMAND_WRITE_CONFIG ||
	       command == COMMAND_WRITE_OUTPUT_PORT || command == COMMAND_WRITE_AUX;
}

int i8042_load(struct i8042 *k, const struct state_node *node, struct error *err)
{
	int r = state_expect(node, "i8042", STATE_VERSION, NULL, NULL, err);

	if (r)
		return r;
	pthread_mutex_lock(&k->lock);
	r = state_fields_load(node, fields, ARRAY_SIZE(fields), k, err);
	if (!r && (k->status & ~STATUS_ALL))
		r = state_refuse(node, "status", err, "has bits 0x%02x, which it has not",
				 k->status & ~STATUS_ALL);
	if (!r && !takes_data(k->wants_data))
		r = state_refuse(node, "wants-data", err, "is 0x%02x: no command with a parameter",
				 k->wants_data);
	pthread_mutex_unlock(&k->lock);
	return r;
}

void i8042_free(struct i8042 *k)
{
	if (!k)
		return;
	bus_remove(k->host->pio, PORT_COMMAND);
	bus_remove(k->host->pio, PORT_DATA);
	pthread_mutex_destroy(&k->lock);
	free(k);
}
