// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* Opening files. What is created, truncated or executed on the way has hooks of its own. Before Linux 6.8 the file of an
 * overlay's layer is judged as well, by the path it was opened by, which gives the same decision twice.
 */
#include "lsm_judge.h"

#define ACCESS_MODE 3
#define WRITE_ONLY 1
#define OPEN_FOR_EXEC 0x20 /* <linux/fs.h> __FMODE_EXEC */

int hook_file_open(unsigned long long *ctx)
{
	if (!is_agent())
		return 0;
	void *file = (void *)ctx[0];
	void *path = AT(file, FILE_F_PATH), *mount = mount_of(path), *dentry = pointer(path, PATH_DENTRY);
	__u32 flags = half(file, FILE_F_FLAGS);
	if (is_layer(mount) || (is_nameless(mount) && !(flags & OPEN_FOR_EXEC)))
		return 0;
	__u32 reads = (flags & ACCESS_MODE) == WRITE_ONLY ? NOTHING : is_directory(dentry) ? FILE_LIST : FILE_READ;
	__u32 writes = flags & ACCESS_MODE ? FILE_WRITE : NOTHING;
	if (flags & OPEN_FOR_EXEC) {
		reads = LOAD;
		writes = FILE_READ;
	}
	return judge(dentry, mount, reads, writes, flags);
}
