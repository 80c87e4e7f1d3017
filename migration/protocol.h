/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The migration protocol, version 1.
 *
 * The source connects, the destination listens. There is one control connection (stream
 * 0), unless RAM is handed over whole (local) `connections` page connections (streams
 * 1...), and behind these one for each device whose state is a stream of its own (assigned
 * devices, base/migratable.h). Everything on them is frames: a header of 48 bytes, up to
 * 16 KiB of metadata, and a payload. Integers are little-endian.
 *
 *   source                                      destination
 *     |  control: HELLO versions, capabilities ---> |
 *     |  <------ HELLO_REPLY version, capabilities  |  (or FAILED, here and everywhere)
 *     |  (witness connected, see below)             |
 *     |  CPU --------------------------------------> compares it with its own
 *     |  MEMORY regions [local: their memfds] ----->|
 *     |  CONFIG -----------------------------------> makes the machine, RAM empty
 *     |  pages 1...N: ATTACH ---------------------->|
 *     |  devices 1...M: DEVICE id, kind ----------->|  finds them; they take a stream
 *     |  <------------------------------- CREATED   |  from here on: pages
 *     |                                             |
 *     |  pages: PAGES, PAGES, ... ROUND_END 1 ----->|  every page connection ends the
 *     |  pages: PAGES, ...        ROUND_END 2 ----->|  round; no page of round k + 1 is
 *     |  control: PING while it takes ------------->|  written before all have ended k
 *     |  control: ROUND_SENT 1 -------------------->|  after each of them
 *     |  <-- control: (PING), ROUND_LOADED 1        |  all of it is in RAM
 *     |  devices: DEVICE_DATA, ... INITIAL -------->|
 *     |  <-------- devices: DEVICE_LOADED INITIAL   |  all of them, before the pause
 *     |  ...                                        |
 *  pause|  (vCPUs, then devices, stand)             |
 *     |  pages: PAGES, ...  ROUND_END n, LAST ----->|
 *     |  devices: DEVICE_DATA, ... LAST ----------->|
 *     |  <----------- devices: DEVICE_LOADED LAST   |
 *     |  control: STATE --------------------------->|  loads it
 *     |  <--------------------------------- READY   |  RAM complete, state loaded
 *     |  (gives up its disk locks)                  |
 *     |  COMMIT ----------------------------------->|  takes the disk locks
 *     |                                             |  (tells the witness), runs
 *     |  <------------------------------- RUNNING   |
 *     |  DONE ------------------------------------->|  (announces itself to the network)
 *
 * Rounds (the capability ROUNDS): a round that was sent may still lie in sockets, and would
 * be read while the VM stands. So the source asks after each but the last, in order, and
 * neither begins another nor pauses the VM before it is told that all page connections have
 * ended this one. The destination pings while that takes, as long as anything comes. Not
 * with LOCAL, which has no rounds, nor POSTCOPY, where DROPPED says it.
 *
 * Local: no page connections and no rounds; after CREATED the source pauses and sends
 * STATE. The capability LOCAL stands for that, and needs a unix socket. With UPDATE
 * besides, the VM stays on its host with all that is open: update.h.
 *
 * Devices: a stream is opaque to all but the backend that made it (kind). INITIAL is what
 * is worth loading before the VM is stopped; the source does not stop it before all
 * devices have loaded theirs. A device connection carries one stream, in order; a frame's
 * offset is the number of bytes before it. The capability DEVICES stands for that.
 * Postcopy (the capability POSTCOPY): there is no last round. What is dirty when the VM is
 * paused is listed, as a whole, and most of it before the pause, too. It follows while the
 * VM runs at the destination, what it touches first. One connection more, of requests, is attached
 * with offset 1.
 *
 *   source                                      destination
 *     |  ... as above, CREATED has the unit that pages come in; at least one round
 *     |  control: MISSING INITIAL, ... LAST ------->|  drops these pages, which takes time
 *     |  <------------------------------- DROPPED   |
 *  pause|                                           |
 *     |  control: MISSING, MISSING, ... LAST ------>|  drops what is new, registers all
 *     |  control: STATE --------------------------->|  loads it, what it touches is asked for
 *     |  <--------------------------------- READY   |
 *     |  COMMIT ----------------------------------->|  runs
 *     |  <------------------------------- RUNNING   |
 *     |  requests: <---------------- PAGE_REQUEST   |  a page fault
 *     |  requests: PAGES -------------------------->|
 *     |  pages: PAGES, PAGES, ... ----------------->|  all the rest meanwhile
 *     |  control: PING <--------------------> PING  |
 *     |  <------------------------------ COMPLETE   |  every page is there
 *     |  DONE ------------------------------------->|
 *
 * A page may come twice, for it was asked for while it was on its way: who is first
 * counts, the other is dropped. So is one that was never listed as missing.
 *
 * When any of these connections is lost after RUNNING, both sides close all of them. What
 * the VM touches at the destination waits, the rest of it runs on. The source connects
 * anew and sends RECOVER with the session's secret; the answer is COMPLETE, or MISSING,
 * ... LAST with what is missing at the destination. Then it attaches its connections, the
 * destination says CREATED, and it goes on. Each side tries this for a limited time (send.h,
 * receive.h).
 *
 * --- Exactly one side runs the VM ---
 *
 * Until it sends COMMIT the VM is the source's: whatever goes wrong, it sends FAILED
 * where it can, takes its locks back and goes on. The destination starts on COMMIT alone:
 * without it, whatever goes wrong, it destroys what it made. COMMIT is the one message
 * after which the source cannot know. It never acts on silence then, only on evidence:
 *
 *   RUNNING                          the VM is over there: the source is done with it
 *   FAILED                           it did not start, and will not: the source goes on
 *   the witness says one of them     so
 *   the witness ends, and has not    the destination's process ended before it started
 *   said "starting"                  the VM: the source goes on
 *
 * The witness is how processes on one host see each other end, and hear each other
 * whatever the migration's connections go through: a unix socket with an abstract,
 * random name, on which the destination listens and to which the source connects after
 * HELLO_REPLY. Where it cannot (another host, another network namespace), there is none.
 * Its only bytes are the session's secret, from the source, and from the destination
 * "starting" right before the VM runs, then "running" or "failed". The kernel closes it
 * when a process is gone with all of its threads. Of its own the destination closes it
 * only when it has failed, or the source has been heard to know (DONE, or its end).
 *
 * Without a witness, when the control connection is lost or silent for too long, the
 * source connects anew and sends QUERY with the session's secret. The destination first
 * reads what is left on the old control connection, and then answers RUNNING or FAILED. A
 * destination that has sent READY and not read COMMIT when QUERY arrives fails for good:
 * it does not start any more. Connection refused is no evidence (a packet filter says it,
 * too). The destination stays there to be asked until DONE, or until it has seen the
 * source's process end, or for a limited time (receive.h).
 *
 * What dies, when, and who runs the VM then (S source, D destination):
 *
 *   step                          S ends   D ends        connection cut or stalled
 *   up to READY                   none(1)  S             S
 *   READY sent, COMMIT not read   none(1)  S (2)         S (3)
 *   COMMIT read, not started      D        S (2)         D (3)
 *   started, RUNNING not read     D        held (4)      D (3)
 *   RUNNING read                  D        none(5)       D
 *
 *   (1) the VM was the source's: it ends with its process, as without migration.
 *   (2) by the witness. Between hosts: held, for nobody can tell.
 *   (3) by the witness, or QUERY. Between hosts, and where no new connection comes
 *       through either: the source holds the VM, whatever the destination does.
 *   (4) it ran there, perhaps for some microseconds, and may have written to its disks.
 *   (5) as any VM whose process ends.
 *
 * Held: paused on the source with all its memory, without its locks, the reason
 * given. That is the corner two generals cannot get out of, and the safe side of it:
 * perhaps none runs, never two. Who knows that the destination is gone resumes the VM.
 *
 * Disk locks guard all this once more: both sides take them before they run the VM.
 *
 * In postcopy the table is the same up to COMMIT: until the source has sent it, nothing is
 * lost whatever dies. Then the VM runs on one side and its memory is on the other, and for
 * as long as that takes it needs both processes. If one of them ends, the VM is lost:
 *
 *   step                          S ends   D ends        connection cut or stalled
 *   COMMIT read, not started      lost     S (2)         S (7), or D (3) (6)
 *   started, RUNNING not read     lost     held (4)      D (3) (6)
 *   RUNNING read, pages missing   lost     lost          D (6)
 *   COMPLETE sent                 D        none(5)       D
 *
 *   (6) the VM runs on as far as it can and its memory follows by a new connection. If
 *       none comes through within the time limit, the VM is lost.
 *   (7) a destination that has seen it by then does not start.
 *
 * Lost: the source keeps what it has, paused, and does not run it any more, since the VM
 * has gone on elsewhere and written to its disks. The destination ends the VM: none of
 * its threads sees a page that is not the VM's. A destination whose connections break
 * while it resumes the VM answers QUERY with RUNNING: the VM is its own from there on.
 *
 * --- TLS ---
 *
 * With TLS (tls.h) every connection begins with a handshake of version 1.3, the source as
 * its client, and carries the same frames. Both sides were told of it, or neither: nothing
 * of it is negotiated here. A frame begins with a record, so that no byte of the next one
 * is read with it. A side that meets the other kind says so in a plain FAILED before it
 * hangs up; nothing else is ever sent in clear.
 *
 * The witness is a socket of one host and has no TLS. Its name and the session's secret
 * come to the source inside of TLS, so that nobody on the way learns them. Who looks at
 * /proc/net/unix on that host sees the name, connects, and is not listened to without the
 * secret; what the two processes say to each other there passes through their kernel alone.
 *
 * --- Versions, capabilities, unknown frames ---
 *
 * HELLO has the range of versions the source speaks; the destination chooses the highest
 * that it speaks, too, or fails naming both. Capabilities are bits: those the source would
 * use and, among them, those without which it will not migrate; the reply has those that
 * will be used. A body may be longer than its reader knows: the rest is ignored. A
 * frame of unknown type is skipped where it has FRAME_OPTIONAL, and ends the migration
 * where it has not.
 *
 * A peer is hostile: every length has a limit below, every address is checked against RAM.
 */
#ifndef MIGRATION_PROTOCOL_H
#define MIGRATION_PROTOCOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/state_tree.h"

#define PROTOCOL_VERSION_MIN 1
#define PROTOCOL_VERSION_MAX 1
#define PROTOCOL_CONNECTIONS_MAX 128

/*
 * The header:
 *    0  u32 magic
 *    4  u16 type
 *    6  u16 flags
 *    8  u32 stream       0 control, 1... pages, then devices
 *   12  u32 meta_len     bytes of metadata behind the header
 *   16  u64 length       bytes of payload behind the metadata
 *   24  u64 offset       by type: a round; bytes before; what a connection is for
 *   32  u32 meta_crc     CRC32C of the metadata
 *   36  u32 payload_crc  CRC32C of the payload, with FRAME_PAYLOAD_CRC; else 0
 *   40  u32 0
 *   44  u32 crc32c       of bytes 0 to 43
 */
#define FRAME_MAGIC 0x59525246u /* "FRRY" */
#define FRAME_HEADER_SIZE 48u
#define FRAME_META_MAX (16u << 10)

enum frame_flags {
	FRAME_OPTIONAL = 1,    /* who does not know the type skips it */
	FRAME_PAYLOAD_CRC = 2, /* always, but for PAGES, where it is a capability */
	/* ROUND_END: the last round; DEVICE_*: the whole stream; MISSING, KEPT: the last of
	 * them */
	FRAME_LAST = 4,
	FRAME_INITIAL = 8, /* DEVICE_*: up to here, MISSING: this, before the VM is stopped */
};

enum frame_type {
	FRAME_HELLO = 1,     /* S: struct hello */
	FRAME_HELLO_REPLY,   /* D: struct hello_reply */
	FRAME_CPU,	     /* S: payload, a state tree with the node "cpu" */
	FRAME_MEMORY,	     /* S: struct memory_entry each */
	FRAME_CONFIG,	     /* S: payload, JSON text */
	FRAME_ATTACH,	     /* S, first on a page connection: the session; offset, its role */
	FRAME_CREATED,	     /* D; postcopy: u32 unit, bytes */
	FRAME_PAGES,	     /* S: struct page_run each; payload, the runs' data in order */
	FRAME_ROUND_END,     /* S: offset, the round */
	FRAME_PING,	     /* S, optional: it is still there; D too where pages follow */
	FRAME_STATE,	     /* S: payload, a state tree with the node "machine" */
	FRAME_READY,	     /* D: u64 us that the load took; u32 enum ready_flags */
	FRAME_COMMIT,	     /* S */
	FRAME_RUNNING,	     /* D: u64 us from COMMIT until it ran */
	FRAME_DONE,	     /* S: RUNNING, or FAILED after COMMIT, was read; COMPLETE was */
	FRAME_FAILED,	     /* both: u32 errno, text. The sender has given up */
	FRAME_QUERY,	     /* S, first on a connection: the session */
	FRAME_DEVICE,	     /* S, first on a device connection: struct device_head */
	FRAME_DEVICE_DATA,   /* S: payload, a part of the stream; may be empty */
	FRAME_DEVICE_LOADED, /* D, on a device connection: by flags, what is loaded */
	FRAME_MISSING,	     /* both: what is to come (missing.h); S: offset, the rounds */
	FRAME_DROPPED,	     /* D: what is missing is gone here, too */
	FRAME_PAGE_REQUEST,  /* D: u64 gpa each, of units */
	FRAME_COMPLETE,	     /* D: u64 faults; u64 mean, u64 longest us that one waited */
	FRAME_RECOVER,	     /* S, first on a connection: the session */
	FRAME_ASK,	     /* S, update.h: payload, JSON text: can you take it? */
	FRAME_AGREED,	     /* D: to ASK, and to each KEPT */
	FRAME_KEPT,	     /* S: descriptors and their names */
	FRAME_ROUND_SENT,    /* S: offset, the round: has it come? */
	FRAME_ROUND_LOADED,  /* D: offset, that round has */
	FRAME_TYPES,
};

enum attach_role {
	ATTACH_PAGES = 0,
	ATTACH_REQUESTS = 1, /* postcopy: PAGE_REQUEST and the answers */
};

/* Payload limits by type; of unknown types FRAME_SKIP_MAX. 0: has none. */
#define FRAME_CPU_MAX (1u << 20)
#define FRAME_CONFIG_MAX (1u << 20)
#define FRAME_ASK_MAX (64u << 10)
#define FRAME_PAGES_MAX (4u << 20)
#define FRAME_MISSING_MAX (256u << 10)
#define FRAME_STATE_MAX STATE_TREE_SIZE_MAX
#define FRAME_DEVICE_DATA_MAX (1u << 20)
#define FRAME_SKIP_MAX (64u << 20)

struct frame {
	uint16_t type, flags;
	uint32_t stream, meta_len;
	uint64_t length, offset;
	uint32_t meta_crc, payload_crc;
};

/* buf: FRAME_HEADER_SIZE bytes. */
void frame_encode(const struct frame *frame, uint8_t *buf);
/* -EBADMSG no header, or damaged; -EPROTO a type that has to be known is not, -EMSGSIZE
 * more than the type's limits. */
int frame_decode(struct frame *frame, const uint8_t *buf, struct error *err);
/* "PAGES"; "frame 77" for one that is not known. Static, or in buf. */
const char *frame_name(uint16_t type, char *buf, size_t size);

enum capability {
	CAPABILITY_CHECKSUM = 1, /* CRC32C over pages, too */
	CAPABILITY_LOCAL = 2,	 /* RAM as memfds with MEMORY */
	CAPABILITY_WITNESS = 4,	 /* the destination listens on the witness */
	CAPABILITY_POSTCOPY = 8,
	CAPABILITY_DEVICES = 16, /* streams of devices */
	CAPABILITY_UPDATE = 32,	 /* with LOCAL: open descriptors, too (update.h) */
	CAPABILITY_ROUNDS = 64,	 /* the source is told when a round has come */
};

#define CREATED_SIZE 4u
/* A unit is the largest page that the destination's RAM consists of. In postcopy data
 * comes in whole units of its region. */
#define POSTCOPY_UNIT_MAX (2u << 20)
#define PAGE_REQUESTS_MAX 64u /* in a frame */
#define COMPLETE_SIZE 24u

enum ready_flags {
	READY_WITNESS = 1, /* the source's connection is there: "starting" will be said */
};
#define READY_SIZE 12u

#define SESSION_SIZE 16u /* bytes, random */

/* u16 min, max; u32 connections; u64 offered, required, ram_bytes; u32 flags; u32 devices,
 * which an older source does not send: it has none */
#define HELLO_SIZE 40u
#define HELLO_SIZE_MIN 36u
#define HELLO_PAUSED 1u /* the VM is to be left paused: it was, or the request says so */
struct hello {
	uint16_t version_min, version_max;
	uint32_t connections;
	uint64_t offered, required;
	uint64_t ram_bytes;
	uint32_t flags;
	uint32_t devices;
};

/* u16 version; u16, u32 0; u64 capabilities; session; the witness's name */
#define HELLO_REPLY_SIZE (16u + 2 * SESSION_SIZE)
struct hello_reply {
	uint16_t version;
	uint64_t capabilities;
	uint8_t session[SESSION_SIZE];
	uint8_t witness[SESSION_SIZE];
};

/* u64 gpa, size, offset in the memfd; u32 page_size; u32 0 */
#define MEMORY_ENTRY_SIZE 32u
#define MEMORY_ENTRIES_MAX 64u /* as many as descriptors fit a message */
struct memory_entry {
	uint64_t gpa, size, offset;
	uint32_t page_size;
};

/* u64 gpa | PAGE_RUN_ZERO; u64 bytes. Multiples of 4096, not empty. */
#define PAGE_RUN_SIZE 16u
#define PAGE_RUN_ZERO 1u /* no data: zero, or a hole */
#define PAGE_RUNS_MAX 512u
struct page_run {
	uint64_t gpa, len;
	bool zero;
};

/* session; u16 length of id, of kind; u32 0; id, kind: printable ASCII, not empty */
#define DEVICE_HEAD_SIZE (SESSION_SIZE + 8u)
#define DEVICE_ID_MAX 63u
#define DEVICE_KIND_MAX 15u
#define DEVICE_HEAD_SIZE_MAX (DEVICE_HEAD_SIZE + DEVICE_ID_MAX + DEVICE_KIND_MAX)
struct device_head {
	uint8_t session[SESSION_SIZE];
	char id[DEVICE_ID_MAX + 1];	/* in the configuration: the same on both sides */
	char kind[DEVICE_KIND_MAX + 1]; /* the backend: what the stream is of */
};

/* Bodies. Decoding checks lengths and what needs no context: -EBADMSG. */
void hello_encode(const struct hello *hello, uint8_t buf[HELLO_SIZE]);
int hello_decode(struct hello *hello, const uint8_t *buf, size_t len, struct error *err);
void hello_reply_encode(const struct hello_reply *reply, uint8_t buf[HELLO_REPLY_SIZE]);
int hello_reply_decode(struct hello_reply *reply, const uint8_t *buf, size_t len,
		       struct error *err);
void memory_entry_encode(const struct memory_entry *entry, uint8_t buf[MEMORY_ENTRY_SIZE]);
/* *count: room in, entries out. */
int memory_entries_decode(struct memory_entry *entries, unsigned int *count, const uint8_t *buf,
			  size_t len, struct error *err);
void page_run_encode(const struct page_run *run, uint8_t buf[PAGE_RUN_SIZE]);
/* Returns how much of buf (DEVICE_HEAD_SIZE_MAX) it took. */
size_t device_head_encode(const struct device_head *head, uint8_t *buf);
int device_head_decode(struct device_head *head, const uint8_t *buf, size_t len, struct error *err);
/* Also checks that the data runs add up to `length`. runs: PAGE_RUNS_MAX. */
int page_runs_decode(struct page_run *runs, unsigned int *count, const uint8_t *buf, size_t len,
		     uint64_t length, struct error *err);
/* Returns how much of buf (FAILED_SIZE_MAX) it took. */
#define FAILED_SIZE_MAX (4u + ERROR_MESSAGE_MAX)
size_t failed_encode(const struct error *error, uint8_t *buf);
/* Fills err with what the peer says, made printable; returns its code, never 0. */
int failed_decode(const char *peer, const uint8_t *buf, size_t len, struct error *err);

#endif
