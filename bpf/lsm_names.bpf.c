// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* Making, removing and moving names.
 *
 * Set by the loader: NR_MKNOD, NR_MKNODAT, and where the registers of a call have its number.
 */
#include "lsm_judge.h"

#define CHARACTER_DEVICE 0020000
#define BLOCK_DEVICE 0060000
#define SOCKET 0140000
#define RENAME_NOREPLACE 1 /* <linux/fs.h> */
#define RENAME_EXCHANGE 2

static void *(*current_task)(void) = (void *)BPF_FUNC_get_current_task_btf;
static void *(*registers_of)(void *) = (void *)BPF_FUNC_task_pt_regs;

/* A socket file is made by bind(2) or another call that binds; made by mknod(2) it is a file and nothing more. */
INLINE int is_mknod(void)
{
	__u32 number = half(registers_of(current_task()), PT_REGS_NUMBER);
	return number == NR_MKNOD || number == NR_MKNODAT;
}

int hook_path_mkdir(unsigned long long *ctx)
{
	if (!is_agent())
		return 0;
	return judge((void *)ctx[1], mount_of((void *)ctx[0]), FILE_CREATE, NOTHING, 0);
}

int hook_path_mknod(unsigned long long *ctx)
{
	if (!is_agent())
		return 0;
	__u32 type = ctx[2] & FILE_TYPE, kind = FILE_CREATE;
	if (type == CHARACTER_DEVICE || type == BLOCK_DEVICE)
		kind = FILE_MKNOD;
	else if (type == SOCKET && !is_mknod())
		kind = UNIX_BIND;
	return judge((void *)ctx[1], mount_of((void *)ctx[0]), kind, NOTHING, ctx[2]);
}

int hook_path_symlink(unsigned long long *ctx)
{
	if (!is_agent())
		return 0;
	return judge((void *)ctx[1], mount_of((void *)ctx[0]), FILE_CREATE, NOTHING, 0);
}

int hook_path_unlink(unsigned long long *ctx)
{
	if (!is_agent())
		return 0;
	return judge((void *)ctx[1], mount_of((void *)ctx[0]), FILE_DELETE_TREE, NOTHING, 0);
}

int hook_path_rmdir(unsigned long long *ctx)
{
	if (!is_agent())
		return 0;
	return judge((void *)ctx[1], mount_of((void *)ctx[0]), FILE_DELETE_TREE, NOTHING, 0);
}

int hook_path_link(unsigned long long *ctx)
{
	if (!is_agent())
		return 0;
	void *mount = mount_of((void *)ctx[1]);
	int refused = judge((void *)ctx[0], mount, FILE_LINK, NOTHING, 0);
	return refused ? refused : judge((void *)ctx[2], mount, FILE_CREATE, NOTHING, 0);
}

int hook_path_rename(unsigned long long *ctx)
{
	if (!is_agent())
		return 0;
	void *mount = mount_of((void *)ctx[0]), *from = (void *)ctx[1], *to = (void *)ctx[3];
	__u32 goes = is_directory(from), comes = is_directory(to), flags = ctx[4];
	__u32 lost = flags & RENAME_EXCHANGE ? comes ? FILE_RENAME_TREE : FILE_RENAME
					     : flags & RENAME_NOREPLACE ? NOTHING : FILE_DELETE_TREE;
	__u32 gained = flags & RENAME_EXCHANGE ? comes ? FILE_CREATE_TREE : FILE_CREATE : NOTHING;
	int refused = judge(from, mount, goes ? FILE_RENAME_TREE : FILE_RENAME, gained, flags);
	return refused ? refused : judge(to, mount, goes ? FILE_CREATE_TREE : FILE_CREATE, lost, flags);
}
