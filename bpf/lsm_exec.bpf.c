// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* Programs, and what is mapped as code. A script is looked at, and then its interpreter. */
#include "lsm_judge.h"

#define PROT_EXEC 4 /* <asm-generic/mman-common.h> */

int hook_bprm_check_security(unsigned long long *ctx)
{
	if (!is_agent())
		return 0;
	void *path = AT(pointer((void *)ctx[0], LINUX_BINPRM_FILE), FILE_F_PATH);
	return judge(pointer(path, PATH_DENTRY), mount_of(path), EXEC, NOTHING, 0);
}

/* Whoever may read a file can run what is in it; so it may be mapped if it may be read, or loaded with a program. */
INLINE int maps(void *file, __u64 protection)
{
	if (!file || !(protection & PROT_EXEC) || !is_agent())
		return 0;
	void *path = AT(file, FILE_F_PATH), *mount = mount_of(path);
	return is_layer(mount) ? 0 : judge(pointer(path, PATH_DENTRY), mount, LOAD, FILE_READ, 0);
}

int hook_mmap_file(unsigned long long *ctx)
{
	return maps((void *)ctx[0], ctx[2]); /* what the kernel makes of the request, not the request */
}

int hook_file_mprotect(unsigned long long *ctx)
{
	return maps(pointer((void *)ctx[0], VM_AREA_STRUCT_VM_FILE), ctx[2]);
}
