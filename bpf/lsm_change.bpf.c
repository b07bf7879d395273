// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* Changing a file without opening it: its length, mode, owner; times and attributes, whose hooks are told no mount. */
#include "lsm_judge.h"

#define SETS_TIMES (1 << 4 | 1 << 5 | 1 << 7 | 1 << 8) /* <linux/fs.h> ATTR_ATIME, MTIME, ATIME_SET, MTIME_SET */
#define SETS_OTHERS (1 << 0 | 1 << 1 | 1 << 2 | 1 << 3) /* ATTR_MODE, UID, GID, SIZE: they set times as well */

INLINE int changes(void *path, __u32 kind, __u32 number)
{
	void *mount = mount_of(path);
	if (kind == FILE_TRUNCATE && is_nameless(mount))
		return 0;
	return judge(pointer(path, PATH_DENTRY), mount, kind, NOTHING, number);
}

int hook_path_truncate(unsigned long long *ctx)
{
	return is_agent() ? changes((void *)ctx[0], FILE_TRUNCATE, 0) : 0;
}

int hook_file_truncate(unsigned long long *ctx)
{
	return is_agent() ? changes(AT((void *)ctx[0], FILE_F_PATH), FILE_TRUNCATE, 0) : 0;
}

int hook_path_chmod(unsigned long long *ctx)
{
	return is_agent() ? changes((void *)ctx[0], FILE_CHMOD, ctx[1]) : 0;
}

int hook_path_chown(unsigned long long *ctx)
{
	return is_agent() ? changes((void *)ctx[0], FILE_CHOWN, 0) : 0;
}

INLINE int sets_times(void *attributes)
{
	__u32 which = half(attributes, IATTR_IA_VALID);
	return is_agent() && which & SETS_TIMES && !(which & SETS_OTHERS) && !is_kernels_own();
}

int hook_inode_setattr(unsigned long long *ctx)
{
	return sets_times((void *)ctx[IATTR_ARGUMENT]) ? judge_kind(FILE_UTIME, 1, 0, 0) : 0;
}

int hook_inode_setxattr(unsigned long long *ctx)
{
	return is_agent() && !is_kernels_own() ? judge_kind(FILE_XATTR, 1, 0, 0) : 0;
}

int hook_inode_removexattr(unsigned long long *ctx)
{
	return is_agent() && !is_kernels_own() ? judge_kind(FILE_XATTR, 1, 0, 0) : 0;
}

int hook_inode_set_acl(unsigned long long *ctx)
{
	return is_agent() && !is_kernels_own() ? judge_kind(FILE_XATTR, 1, 0, 0) : 0;
}
