/* SPDX-License-Identifier: Apache-2.0 */
/* Making RAM: memfds, their sizes and seals, mappings. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/parse.h"
#include "memory/guest_memory_private.h"
#include "memory/prefault.h"

#ifndef MFD_HUGE_SHIFT
#define MFD_HUGE_SHIFT 26
#endif

#define THP_SIZE (2 * MIB)

/* A figure of the hugepage pool, or -1 where sysfs does not say (in a jail). */
static int64_t pool_figure(uint64_t page_size, const char *name)
{
	_cleanup_close_ int fd = -1;
	char path[128], text[32];
	uint64_t value;
	ssize_t n;

	snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%" PRIu64 "kB/%s",
		 (uint64_t)(page_size / KIB), name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	n = read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return -1;
	text[n] = '\0';
	text[strcspn(text, "\n")] = '\0';
	return parse_u64(text, &value) ? -1 : (int64_t)value;
}

static const char *page_name(uint64_t page_size, char *buf, size_t len)
{
	if (page_size % GIB == 0)
		snprintf(buf, len, "%" PRIu64 " GiB", (uint64_t)(page_size / GIB));
	else if (page_size % MIB == 0)
		snprintf(buf, len, "%" PRIu64 " MiB", (uint64_t)(page_size / MIB));
	else
		snprintf(buf, len, "%" PRIu64 " KiB", (uint64_t)(page_size / KIB));
	return buf;
}

static int too_few_hugepages(uint64_t size, uint64_t page_size, struct error *err)
{
	int64_t total = pool_figure(page_size, "nr_hugepages");
	int64_t avail = pool_figure(page_size, "free_hugepages");
	int64_t reserved = pool_figure(page_size, "resv_hugepages");
	uint64_t need = size / page_size, missing;
	char name[32];

	page_name(page_size, name, sizeof(name));
	if (total < 0 || avail < 0 || reserved < 0)
		return error_set(err, ENOMEM,
				 "create guest RAM: needs %" PRIu64 " hugepages of %s, "
				 "the host has too few free: reserve more in "
				 "/sys/kernel/mm/hugepages",
				 need, name);
	avail = avail > reserved ? avail - reserved : 0;
	missing = need > (uint64_t)avail ? need - (uint64_t)avail : need;
	if (page_size == 2 * MIB)
		return error_set(err, ENOMEM,
				 "create guest RAM: needs %" PRIu64 " more %s hugepages "
				 "(%" PRIu64 " wanted, %" PRId64
				 " free): sysctl vm.nr_hugepages=%" PRIu64,
				 missing, name, need, avail, (uint64_t)total + missing);
	return error_set(err, ENOMEM,
			 "create guest RAM: needs %" PRIu64 " more %s hugepages "
			 "(%" PRIu64 " wanted, %" PRId64 " free): echo %" PRIu64 " > "
			 "/sys/kernel/mm/hugepages/hugepages-%" PRIu64 "kB/nr_hugepages",
			 missing, name, need, avail, (uint64_t)total + missing,
			 (uint64_t)(page_size / KIB));
}

static int check_options(const struct guest_memory_options *o, struct error *err)
{
	uint64_t page = o->hugepage_size ? o->hugepage_size : GUEST_PAGE_SIZE;
	struct sysinfo info;
	uint64_t host;

	if (page < GUEST_PAGE_SIZE || !is_power_of_2(page))
		return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
				      "create guest RAM: hugepage size %" PRIu64
				      " is not one of the host's (2 MiB, 1 GiB)",
				      page);
	if (!o->size)
		return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
				      "create guest RAM: size is 0");
	if (o->size % page)
		return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
				      "create guest RAM: size %" PRIu64 " is not a multiple of the "
				      "page size %" PRIu64 ": %" PRIu64 " would do",
				      o->size, page,
				      o->size < page ? page : align_down(o->size, page));
	if (!o->low_end || o->low_end % page || o->high_start % page || o->high_start < o->low_end)
		return error_set(err, EINVAL,
				 "create guest RAM: hole 0x%" PRIx64 "-0x%" PRIx64
				 " does not lie on pages of %" PRIu64,
				 o->low_end, o->high_start, page);
	sysinfo(&info);
	host = (uint64_t)info.totalram * info.mem_unit;
	if (o->size > host)
		return error_set_kind(err, ERROR_BAD_REQUEST, EINVAL,
				      "create guest RAM: %" PRIu64 " MiB is more than the host's "
				      "physical memory: at most %" PRIu64 " MiB",
				      (uint64_t)(o->size / MIB), (uint64_t)(host / MIB));
	return 0;
}

static int create_memfd(const struct guest_memory_options *o, struct error *err)
{
	unsigned int flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
	_cleanup_close_ int fd = -1;

	if (o->hugepage_size)
		flags |= MFD_HUGETLB | (unsigned int)__builtin_ctzll(o->hugepage_size)
					       << MFD_HUGE_SHIFT;
	fd = memfd_create("guest-ram", flags);
	if (fd < 0 && o->hugepage_size && (errno == ENODEV || errno == EINVAL)) {
		char name[32];

		return error_set_kind(err, ERROR_BAD_REQUEST, errno,
				      "create guest RAM: this host has no hugepages of %s",
				      page_name(o->hugepage_size, name, sizeof(name)));
	}
	if (fd < 0)
		return error_set_errno(err, errno, "create guest RAM: memfd_create");
	if (ftruncate(fd, (off_t)o->size))
		return error_set_errno(err, errno, "create guest RAM of %" PRIu64 " MiB",
				       (uint64_t)(o->size / MIB));
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_SEAL))
		return error_set_errno(err, errno, "create guest RAM: seal");
	return take_fd(&fd);
}

/* Maps a region; transparent huge pages need the host address to be as aligned as
 * the guest's. */
static uint8_t *map_region(const struct guest_memory_region *r, const struct region_advice *advice)
{
	/* No NORESERVE on hugetlb: the reservation is what turns a later SIGBUS into
	 * an ENOMEM here. */
	int flags = (advice->private ? MAP_PRIVATE : MAP_SHARED) |
		    (r->page_size > GUEST_PAGE_SIZE ? 0 : MAP_NORESERVE);
	uint8_t *space, *start, *end;

	if (!advice->transparent_hugepages || r->page_size > GUEST_PAGE_SIZE ||
	    r->size < THP_SIZE) {
		space = mmap(NULL, r->size, PROT_READ | PROT_WRITE, flags, r->memfd,
			     (off_t)r->offset);
		return space == MAP_FAILED ? NULL : space;
	}
	space = mmap(NULL, r->size + THP_SIZE, PROT_NONE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (space == MAP_FAILED)
		return NULL;
	end = space + r->size + THP_SIZE;
	start = space + (r->gpa - (uint64_t)(uintptr_t)space) % THP_SIZE;
	if (mmap(start, r->size, PROT_READ | PROT_WRITE, flags | MAP_FIXED, r->memfd,
		 (off_t)r->offset) == MAP_FAILED) {
		munmap(space, r->size + THP_SIZE);
		return NULL;
	}
	if (start > space)
		munmap(space, (size_t)(start - space));
	if (start + r->size < end)
		munmap(start + r->size, (size_t)(end - (start + r->size)));
	return start;
}

static int check_place(const struct guest_memory *memory, const struct guest_memory_region *want,
		       struct error *err)
{
	uint64_t last = want->gpa + want->size - 1;

	if (memory->count == REGIONS_MAX)
		return error_set(err, ENOSPC,
				 "add guest RAM at 0x%" PRIx64 ": all %d regions are taken",
				 want->gpa, REGIONS_MAX);
	for (unsigned int i = 0; i < memory->count; i++) {
		const struct guest_memory_region *r = &memory->regions[i]->r;

		if (want->gpa <= r->gpa + r->size - 1 && r->gpa <= last)
			return error_set(err, EEXIST,
					 "add guest RAM at 0x%" PRIx64 "-0x%" PRIx64
					 ": overlaps RAM at 0x%" PRIx64 "-0x%" PRIx64,
					 want->gpa, last, r->gpa, r->gpa + r->size - 1);
	}
	return 0;
}

/* Fills a region that the caller frees where this fails. */
static int region_map(struct region *region, bool tracking, const struct region_advice *advice,
		      struct error *err)
{
	struct guest_memory_region *r = &region->r;
	int code;

	if (tracking) {
		code = region_track(region, err);
		if (code)
			return code;
		/* What it holds was written before anyone looked. */
		dirty_bitmap_set(&region->writes, 0, region->writes.pages);
	}
	r->hva = map_region(r, advice);
	if (!r->hva) {
		code = errno;
		dirty_bitmap_destroy(&region->writes);
		if (code == ENOMEM && r->page_size > GUEST_PAGE_SIZE)
			return too_few_hugepages(r->size, r->page_size, err);
		return error_set_errno(err, code, "map %" PRIu64 " MiB of guest RAM at 0x%" PRIx64,
				       (uint64_t)(r->size / MIB), r->gpa);
	}
	/* Advice: a host whose kernel lacks it runs the VM all the same. */
	madvise(r->hva, r->size, MADV_DONTDUMP);
	if (advice->private)
		r->memfd = -1;
	region->transparent_hugepages =
		advice->transparent_hugepages && r->page_size == GUEST_PAGE_SIZE;
	if (advice->transparent_hugepages)
		madvise(r->hva, r->size, MADV_HUGEPAGE);
	if (advice->mergeable)
		madvise(r->hva, r->size, MADV_MERGEABLE);
	return 0;
}

int region_insert(struct guest_memory *memory, const struct guest_memory_region *want,
		  const struct region_advice *advice, struct error *err)
{
	unsigned int at = memory->count;
	struct region *region;
	int r = check_place(memory, want, err);

	if (r)
		return r;
	region = calloc(1, sizeof(*region));
	if (!region)
		return error_set_errno(err, ENOMEM, "add guest RAM");
	region->r = *want;
	r = region_map(region, atomic_load(&memory->tracking), advice, err);
	if (r) {
		free(region);
		return r;
	}
	for (; at && memory->regions[at - 1]->r.gpa > want->gpa; at--)
		memory->regions[at] = memory->regions[at - 1];
	memory->regions[at] = region;
	memory->count++;
	return 0;
}

static int insert_all(struct guest_memory *memory, const struct guest_memory_options *o, int *memfd,
		      struct error *err)
{
	uint64_t low = MIN(o->size, o->low_end);
	struct region_advice advice = {
		.transparent_hugepages = o->transparent_hugepages && !o->hugepage_size,
		.mergeable = o->mergeable,
	};
	struct guest_memory_region want = {
		.size = low,
		.memfd = *memfd,
		.page_size = (uint32_t)(o->hugepage_size ? o->hugepage_size : GUEST_PAGE_SIZE),
	};
	int r = region_insert(memory, &want, &advice, err);

	if (r)
		return r;
	take_fd(memfd); /* the first region owns it now */
	if (o->size > low) {
		want.gpa = o->high_start;
		want.offset = low;
		want.size = o->size - low;
		r = region_insert(memory, &want, &advice, err);
	}
	return r || !o->prefault ? r : guest_memory_prefault(memory, false, err);
}

int guest_memory_prefault(struct guest_memory *memory, bool in_use, struct error *err)
{
	int r = 0;

	for (unsigned int i = 0; i < memory->count && !r; i++) {
		const struct region *region = memory->regions[i];

		r = prefault(region->r.hva, region->r.size, region->r.page_size,
			     region->transparent_hugepages && !in_use, err);
	}
	return r;
}

struct guest_memory *guest_memory_new_empty(struct error *err)
{
	struct guest_memory *memory = calloc(1, sizeof(*memory));

	if (memory)
		guest_memory_expect_init(memory);
	else
		error_set_errno(err, ENOMEM, "create guest RAM");
	return memory;
}

struct guest_memory *guest_memory_new(const struct guest_memory_options *options, struct error *err)
{
	_cleanup_close_ int memfd = -1;
	struct guest_memory *memory;

	if (check_options(options, err))
		return NULL;
	memory = guest_memory_new_empty(err);
	if (!memory)
		return NULL;
	memfd = create_memfd(options, err);
	if (memfd < 0 || insert_all(memory, options, &memfd, err)) {
		guest_memory_free(memory);
		return NULL;
	}
	return memory;
}

/* The backing page size of a file, from its file system; 0 with errno where that fails. */
static uint32_t file_page_size(int memfd)
{
	struct statfs fs;

	if (fstatfs(memfd, &fs))
		return 0;
	return (long)fs.f_type == HUGETLBFS_MAGIC ? (uint32_t)fs.f_bsize : GUEST_PAGE_SIZE;
}

int guest_memory_add(struct guest_memory *memory, uint64_t gpa, uint64_t size, int memfd,
		     uint64_t offset, struct error *err)
{
	struct guest_memory_region want = {
		.gpa = gpa,
		.size = size,
		.memfd = memfd,
		.offset = offset,
		.page_size = file_page_size(memfd),
	};
	struct stat st;
	int seals, r;

	if (!want.page_size || fstat(memfd, &st))
		return error_set_errno(err, errno, "add guest RAM: file descriptor %d", memfd);
	if (!size || (size | gpa | offset) % want.page_size || gpa + size <= gpa)
		return error_set(err, EINVAL,
				 "add guest RAM at 0x%" PRIx64 ": size 0x%" PRIx64
				 " and file offset 0x%" PRIx64 " must be multiples of 0x%x",
				 gpa, size, offset, want.page_size);
	if (size > (uint64_t)st.st_size || offset > (uint64_t)st.st_size - size)
		return error_set(err, EINVAL,
				 "add guest RAM at 0x%" PRIx64 ": its memfd has 0x%" PRIx64
				 " bytes, 0x%" PRIx64 " are needed from 0x%" PRIx64,
				 gpa, (uint64_t)st.st_size, size, offset);
	/* A file that can shrink is a SIGBUS at the next access. */
	seals = fcntl(memfd, F_GET_SEALS);
	if (seals < 0 ||
	    (!(seals & F_SEAL_SHRINK) && fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_SEAL)))
		return error_set_errno(err, errno,
				       "add guest RAM at 0x%" PRIx64 ": seal its file "
				       "against shrinking (a memfd with MFD_ALLOW_SEALING?)",
				       gpa);
	r = region_insert(memory, &want, &(struct region_advice){ 0 }, err);
	return r;
}

int guest_memory_add_private(struct guest_memory *memory, uint64_t gpa, uint64_t size, int fd,
			     uint64_t offset, struct error *err)
{
	const struct guest_memory_region want = {
		.gpa = gpa,
		.size = size,
		.memfd = fd,
		.offset = offset,
		.page_size = GUEST_PAGE_SIZE,
	};
	struct stat st;

	if (fstat(fd, &st))
		return error_set_errno(err, errno, "add guest RAM: file descriptor %d", fd);
	if (!size || (size | gpa | offset) % GUEST_PAGE_SIZE || gpa + size <= gpa)
		return error_set(err, EINVAL,
				 "add guest RAM at 0x%" PRIx64 ": size 0x%" PRIx64
				 " and file offset 0x%" PRIx64 " must be multiples of 0x%lx",
				 gpa, size, offset, GUEST_PAGE_SIZE);
	if (size > (uint64_t)st.st_size || offset > (uint64_t)st.st_size - size)
		return error_set(err, EINVAL,
				 "add guest RAM at 0x%" PRIx64 ": its file has 0x%" PRIx64
				 " bytes, 0x%" PRIx64 " are needed from 0x%" PRIx64,
				 gpa, (uint64_t)st.st_size, size, offset);
	return region_insert(memory, &want, &(struct region_advice){ .private = true }, err);
}
