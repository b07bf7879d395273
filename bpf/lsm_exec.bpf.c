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
INLINE int maps(void *path)
{
	return judge(pointer(path, PATH_DENTRY), mount_of(path), LOAD, FILE_READ, 0);
}

int hook_mmap_file(unsigned long long *ctx)
{
	void *file = (void *)ctx[0];
	if (!file || !(ctx[2] & PROT_EXEC) || !is_agent()) /* what the kernel makes of the request, not the request */
		return 0;
	return maps(AT(file, FILE_F_PATH));
}

/* What is mapped of an overlay is the file of a layer; since Linux 6.8 that knows by which path it was opened. */
int hook_file_mprotect(unsigned long long *ctx)
{
	void *file = pointer((void *)ctx[0], VM_AREA_STRUCT_VM_FILE);
	if (!file || !(ctx[2] & PROT_EXEC) || !is_agent())
		return 0;
	void *path = AT(file, FILE_F_PATH);
	return maps(BACKING_FILE_USER_PATH && is_layer(mount_of(path)) ? AT(file, BACKING_FILE_USER_PATH) : path);
}
