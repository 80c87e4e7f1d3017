/* SPDX-License-Identifier: Apache-2.0 */
/* The sysfs of the fake VFIO kernel: a folder with devices/, drivers/ and groups/. */
#include <check.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/helpers/fake_vfio_private.h"

static void make_dir(const char *path)
{
	mkdir(path, 0755);
}

static void make_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	ck_assert_ptr_nonnull(f);
	fputs(text, f);
	fclose(f);
}

void fake_vfio_make_sysfs(struct fake_vfio_kernel *fake)
{
	char path[PATH_MAX];

	strcpy(fake->root, "/tmp/ferry-sysfs-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(fake->root));
	snprintf(path, sizeof(path), "%s/devices", fake->root);
	make_dir(path);
	snprintf(path, sizeof(path), "%s/groups", fake->root);
	make_dir(path);
}

const char *fake_vfio_path(const struct fake_vfio_kernel *fake, const char *name, char *path)
{
	snprintf(path, PATH_MAX, "%s/devices/%s", fake->root, name);
	return path;
}

void fake_vfio_link(const struct fake_vfio_kernel *fake, const char *device, const char *link,
		    const char *target)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/devices/%s/%s", fake->root, device, link);
	if (unlink(path))
		rmdir(path);
	if (target)
		ck_assert_int_eq(symlink(target, path), 0);
}

void fake_vfio_reserve(const struct fake_vfio_kernel *fake, unsigned int group, const char *text)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/groups/%u/reserved_regions", fake->root, group);
	make_file(path, text);
}

void fake_vfio_stranger(const struct fake_vfio_kernel *fake, const char *name, unsigned int group,
			const char *driver)
{
	char path[PATH_MAX], target[PATH_MAX];

	fake_vfio_path(fake, name, path);
	make_dir(path);
	fake_vfio_link(fake, name, "subsystem", "../../bus/pci");
	if (driver) {
		snprintf(target, sizeof(target), "../../drivers/%s", driver);
		fake_vfio_link(fake, name, "driver", target);
	}
	snprintf(path, sizeof(path), "%s/groups/%u", fake->root, group);
	make_dir(path);
	snprintf(path, sizeof(path), "%s/groups/%u/devices", fake->root, group);
	make_dir(path);
	snprintf(path, sizeof(path), "%s/groups/%u/devices/%s", fake->root, group, name);
	snprintf(target, sizeof(target), "../../../devices/%s", name);
	ck_assert_int_eq(symlink(target, path), 0);
	snprintf(target, sizeof(target), "../../groups/%u", group);
	fake_vfio_link(fake, name, "iommu_group", target);
}

void fake_vfio_add_sysfs(const struct fake_vfio_kernel *fake, const struct fake_device *dev)
{
	char path[PATH_MAX];

	fake_vfio_stranger(fake, dev->name, dev->group, "vfio-pci");
	snprintf(path, sizeof(path), "%s/devices/%s/vfio-dev", fake->root, dev->name);
	make_dir(path);
	snprintf(path, sizeof(path), "%s/devices/%s/vfio-dev/vfio%u", fake->root, dev->name,
		 dev->number);
	make_dir(path);
	snprintf(path, sizeof(path), "%s/devices/%s/vfio-dev/vfio%u/dev", fake->root, dev->name,
		 dev->number);
	make_file(path, "511:0\n");
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

void fake_vfio_destroy(struct fake_vfio_kernel *fake)
{
	nftw(fake->root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}
