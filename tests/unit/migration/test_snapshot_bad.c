/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots that are not what they should be. */
#include "snapshot_fake_vm.h"
#include "tests/unit/helpers/run_suite.h"

#define SIZE (8 * MIB)
#define OTHER "ffffffffffffffffffffffffffffffff" /* an id */

static char top[256], dir[512], second[600];

static void setup(void)
{
	fake_dir(top, sizeof(top), "bad");
	snprintf(dir, sizeof(dir), "%s/one", top);
	snprintf(second, sizeof(second), "%s/two", top);
}

static void teardown(void)
{
	fake_remove(top);
}

static void path_of(char *path, size_t size, const char *in, const char *name)
{
	snprintf(path, size, "%s/%s", in, name);
}

static void make(bool compress, bool differential)
{
	struct snapshot_tracking *tracking = snapshot_tracking_new(NULL);
	struct fake_vm *f = fake_vm_new(SIZE);
	struct snapshot_options options = fake_options(dir);

	options.compress = compress;
	options.tracking = tracking;
	fake_vm_fill(f);
	fake_snapshot(f, &options);
	options.dir = second;
	options.base = dir;
	fake_write(f, 4096, 1);
	if (differential)
		fake_snapshot(f, &options);
	snapshot_tracking_free(tracking);
	fake_vm_free(f);
}

static void refused(const char *which, int code, const char *text)
{
	struct error err = ERROR_INIT;

	ck_assert_ptr_null(snapshot_open(which, NULL, &err));
	ck_assert_msg(strstr(err.message, text) != NULL, "'%s' lacks '%s'", err.message, text);
	ck_assert_msg(err.code == code, "%d: %s", err.code, err.message);
	ck_assert_msg(strstr(err.message, which) != NULL, "'%s' lacks its path", err.message);
}

static const char *const files[] = { "config.json", "state", "ram" };

START_TEST(missing_file_is_named)
{
	char path[700];

	make(false, false);
	path_of(path, sizeof(path), dir, files[_i]);
	ck_assert_int_eq(unlink(path), 0);
	refused(dir, -ENOENT, files[_i]);
}
END_TEST

START_TEST(empty_file_is_named)
{
	char path[700];

	make(_i & 1, false);
	path_of(path, sizeof(path), dir, files[_i]);
	ck_assert_int_eq(truncate(path, 0), 0);
	refused(dir, -EINVAL, files[_i]);
}
END_TEST

START_TEST(file_that_is_none_is_named)
{
	char path[700];

	make(false, false);
	path_of(path, sizeof(path), dir, files[_i]);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	refused(dir, -EINVAL, files[_i]);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	refused(dir, -EINVAL, files[_i]);
	ck_assert_int_eq(rmdir(path), 0);
	ck_assert_int_eq(symlink("/etc/passwd", path), 0);
	refused(dir, -ELOOP, files[_i]);
}
END_TEST

START_TEST(truncated_ram_is_found_at_once)
{
	char path[700];
	struct stat st;

	make(_i, false);
	path_of(path, sizeof(path), dir, "ram");
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_eq(truncate(path, st.st_size - 4096), 0);
	refused(dir, -EINVAL, "ram: it has");
	ck_assert_int_eq(truncate(path, st.st_size + 4096), 0);
	refused(dir, -EINVAL, "ram: it has");
}
END_TEST

START_TEST(state_truncated_anywhere_is_refused)
{
	char path[700];
	struct stat st;

	make(_i & 1, _i & 2);
	path_of(path, sizeof(path), _i & 2 ? second : dir, "state");
	ck_assert_int_eq(stat(path, &st), 0);
	for (off_t len = st.st_size - 1; len >= 0; len -= 1 + len / 100) {
		struct error err = ERROR_INIT;

		ck_assert_int_eq(truncate(path, len), 0);
		ck_assert_ptr_null(snapshot_open(_i & 2 ? second : dir, NULL, &err));
		ck_assert_ptr_nonnull(strstr(err.message, "state"));
	}
}
END_TEST

/* Each byte of the state changed: refused or opened, and what is opened is read within
 * bounds. */
START_TEST(state_with_any_byte_changed_does_no_harm)
{
	struct snapshot_read_options options = { .userfaultfd_device = -1, .plain_io = true };
	const char *in = _i & 2 ? second : dir;
	char path[700];
	struct stat st;
	int fd;

	make(_i & 1, _i & 2);
	path_of(path, sizeof(path), in, "state");
	fd = open(path, O_RDWR);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(fstat(fd, &st), 0);
	for (off_t at = 0; at < st.st_size; at++) {
		struct guest_memory *memory;
		struct snapshot *s;
		uint8_t old, changed;

		ck_assert_int_eq(pread(fd, &old, 1, at), 1);
		changed = old ^ (uint8_t)(1 << at % 8);
		ck_assert_int_eq(pwrite(fd, &changed, 1, at), 1);
		s = snapshot_open(in, NULL, NULL);
		if (s && at % 16 == 0) {
			memory = fake_ram(SIZE);
			snapshot_fill(s, memory, &options, NULL, NULL);
			guest_memory_free(memory);
		}
		snapshot_close(s);
		ck_assert_int_eq(pwrite(fd, &old, 1, at), 1);
	}
	close(fd);
	snapshot_close(fake_open(in));
}
END_TEST

START_TEST(directory_that_is_missing_is_named)
{
	refused("/nonexistent/snapshot", -ENOENT, "open it");
}
END_TEST

START_TEST(config_with_a_nul_is_refused)
{
	char path[700];
	int fd;

	make(false, false);
	path_of(path, sizeof(path), dir, "config.json");
	fd = open(path, O_WRONLY);
	ck_assert_int_eq(pwrite(fd, "", 1, 3), 1);
	close(fd);
	refused(dir, -EINVAL, "NUL");
}
END_TEST

START_TEST(base_that_is_gone_is_named)
{
	make(false, true);
	fake_remove(dir);
	refused(second, -ENOENT, dir);
}
END_TEST

START_TEST(base_that_was_replaced_is_refused)
{
	make(false, true);
	fake_remove(dir);
	make(false, false);
	refused(second, -EINVAL, "made on");
}
END_TEST

/* A state of our own making. */
struct forged {
	const char *id, *compression, *base, *base_id;
	uint32_t version, unit;
	uint64_t ram_bytes, gpa[3], size[3], offset[3];
	unsigned int regions;
	size_t frames, pages; /* bytes, of the first region */
	uint8_t frame_fill, page_fill;
	bool no_cpu, no_machine, unknown;
};

static const struct forged good = {
	.id = "0123456789abcdef0123456789abcdef",
	.compression = "none",
	.version = 1,
	.unit = 256 * 1024,
	.ram_bytes = MIB,
	.gpa = { 0, 4 * GIB, 8 * GIB },
	.size = { MIB, MIB, MIB },
	.regions = 1,
};

static void put(const char *in, const char *name, const void *data, size_t len)
{
	char path[700];
	int fd;

	path_of(path, sizeof(path), in, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, data, len), (ssize_t)len);
	close(fd);
}

static void forge(const struct forged *f)
{
	struct state_writer *w = state_writer_new(NULL);
	char path[700], name[32];
	void *blob, *bytes;
	size_t len;

	if (!f->no_cpu) {
		state_begin(w, "cpu", "cpu", 1);
		state_end(w);
	}
	if (!f->no_machine) {
		state_begin(w, "machine", "machine", 1);
		state_end(w);
	}
	state_begin(w, "snapshot", "snapshot", f->version);
	state_put_string(w, "id", f->id);
	state_put_u32(w, "unit-size", f->unit);
	state_put_string(w, "compression", f->compression);
	state_put_u64(w, "ram-bytes", f->ram_bytes);
	if (f->base_id)
		state_put_string(w, "base-id", f->base_id);
	if (f->base)
		state_put_string(w, "base", f->base);
	if (f->unknown) {
		state_put_u32(w, "encryption", 1);
		state_require(w, "encryption");
	}
	for (unsigned int i = 0; i < f->regions; i++) {
		snprintf(name, sizeof(name), "region@%u", i);
		state_begin(w, name, "ram-region", 1);
		state_put_u64(w, "gpa", f->gpa[MIN(i, 2U)]);
		state_put_u64(w, "size", f->size[MIN(i, 2U)]);
		state_put_u64(w, "offset", f->offset[MIN(i, 2U)]);
		if (f->frames) {
			bytes = malloc(f->frames);
			memset(bytes, f->frame_fill, f->frames);
			state_put_bytes(w, "frames", bytes, f->frames);
			free(bytes);
		}
		if (f->pages) {
			bytes = malloc(f->pages);
			memset(bytes, f->page_fill, f->pages);
			state_put_bytes(w, "pages", bytes, f->pages);
			free(bytes);
		}
		state_end(w);
	}
	state_end(w);
	ck_assert_int_eq(state_writer_finish(w, &blob, &len, NULL), 0);
	state_writer_free(w);
	mkdir(dir, 0700);
	put(dir, "state", blob, len);
	free(blob);
	put(dir, "config.json", "{}", 2);
	put(dir, "ram", "", 0);
	path_of(path, sizeof(path), dir, "ram");
	ck_assert_int_eq(truncate(path, (off_t)MIB), 0);
}

START_TEST(forged_state_is_refused_by_what_is_wrong)
{
	struct forged f = good;

	forge(&f);
	snapshot_close(fake_open(dir));

#define WRONG(change, code, text) \
	do { \
		f = good; \
		change; \
		forge(&f); \
		refused(dir, code, text); \
	} while (0)
	WRONG(f.version = 2, -EPROTONOSUPPORT, "/snapshot");
	WRONG(f.unknown = true, -EPROTONOSUPPORT, "encryption");
	WRONG(f.compression = "lz4", -EPROTONOSUPPORT, "lz4");
	WRONG(f.id = "0123", -EINVAL, "id");
	WRONG(f.id = "0123456789ABCDEF0123456789ABCDEF", -EINVAL, "id");
	WRONG(f.unit = 4096, -ERANGE, "unit-size");
	WRONG(f.unit = 4 << 20, -ERANGE, "unit-size");
	WRONG(f.unit = 300 * 1024, -EINVAL, "unit-size");
	WRONG(f.no_cpu = true, -ENOENT, "cpu");
	WRONG(f.no_machine = true, -ENOENT, "machine");
	WRONG(f.regions = 0, -EINVAL, "no RAM");
	WRONG(f.size[0] = 0, -EINVAL, "whole pages");
	WRONG(f.size[0] = 4097, -EINVAL, "whole pages");
	WRONG(f.gpa[0] = 1, -EINVAL, "whole pages");
	WRONG(f.gpa[0] = UINT64_MAX - 4095, -EINVAL, "whole pages");
	WRONG(f.size[0] = UINT64_MAX - 4095, -EINVAL, "whole pages");
	WRONG(f.size[0] = 2 * MIB, -EINVAL, "inside ram");
	WRONG(f.offset[0] = 4096, -EINVAL, "inside ram");
	WRONG(f.offset[0] = UINT64_MAX - 4095, -EINVAL, "inside ram");
	WRONG(f.offset[0] = 1, -EINVAL, "inside ram");
	WRONG((f.regions = 2, f.gpa[1] = 4096), -EINVAL, "overlaps");
	WRONG((f.regions = 2, f.gpa[0] = 8 * GIB), -EINVAL, "out of order");
	WRONG(f.ram_bytes = 2 * MIB, -EINVAL, "ram: it has");
	WRONG(f.ram_bytes = UINT64_MAX, -ERANGE, "ram-bytes");
	WRONG(f.compression = "zstd", -ENOENT, "frames");
	WRONG((f.compression = "zstd", f.frames = 24), -EINVAL, "each unit");
	WRONG((f.compression = "zstd", f.frames = 31), -EINVAL, "each unit");
	WRONG((f.compression = "zstd", f.frames = 32, f.frame_fill = 0xff), -EINVAL, "inside ram");
	WRONG((f.compression = "zstd", f.frames = 32, f.frame_fill = 1), -EINVAL, "inside ram");
	WRONG(f.base_id = good.id, -ENOENT, "base");
	WRONG((f.base_id = good.id, f.base = "x"), -EINVAL, "its own base");
	WRONG((f.base_id = "z", f.base = "x"), -EINVAL, "id");
	WRONG((f.base_id = OTHER, f.base = "../../etc"), -EINVAL, "name beside");
	WRONG((f.base_id = OTHER, f.base = ".."), -EINVAL, "name beside");
	WRONG((f.base_id = OTHER, f.base = ""), -EINVAL, "name beside");
	WRONG((f.base_id = OTHER, f.base = "x"), -ENOENT, "pages");
	WRONG((f.base_id = OTHER, f.base = "x", f.pages = 8), -EINVAL, "each page");
	WRONG((f.base_id = OTHER, f.base = "x", f.pages = 33), -EINVAL, "each page");
	WRONG((f.base_id = OTHER, f.base = "x", f.pages = 32), -ENOENT, "base");
	/* based on itself under another name: not the snapshot that it was made on */
	WRONG((f.base_id = OTHER, f.base = "one", f.pages = 32), -EINVAL, "made on");
	WRONG((f.base_id = OTHER, f.base = "x", f.pages = 8, f.size[0] = 4096, f.page_fill = 0xff),
	      -EINVAL, "past the end");
	WRONG(f.regions = 70, -EINVAL, "out of order");
}
END_TEST

START_TEST(chain_that_is_a_ring_ends)
{
	struct forged f = good;

	/* "one" is based on "two", and "two" on "one". */
	f.id = OTHER;
	f.base_id = good.id;
	f.base = "one";
	f.pages = 32;
	forge(&f);
	ck_assert_int_eq(rename(dir, second), 0);
	f.id = good.id;
	f.base_id = OTHER;
	f.base = "two";
	forge(&f);
	refused(dir, -EINVAL, "more than 63 others");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("snapshot_bad");
	TCase *tc = tcase_create("bad");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 300);
	tcase_add_loop_test(tc, missing_file_is_named, 0, 3);
	tcase_add_loop_test(tc, empty_file_is_named, 0, 3);
	tcase_add_loop_test(tc, file_that_is_none_is_named, 0, 3);
	tcase_add_loop_test(tc, truncated_ram_is_found_at_once, 0, 2);
	tcase_add_loop_test(tc, state_truncated_anywhere_is_refused, 0, 4);
	tcase_add_loop_test(tc, state_with_any_byte_changed_does_no_harm, 0, 4);
	tcase_add_test(tc, directory_that_is_missing_is_named);
	tcase_add_test(tc, config_with_a_nul_is_refused);
	tcase_add_test(tc, base_that_is_gone_is_named);
	tcase_add_test(tc, base_that_was_replaced_is_refused);
	tcase_add_test(tc, forged_state_is_refused_by_what_is_wrong);
	tcase_add_test(tc, chain_that_is_a_ring_ends);
	suite_add_tcase(suite, tc);
	return run_suite(suite);
}
