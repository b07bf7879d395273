// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* What is not about one object: each of these is denied as a whole unless the policy names it. */
#include "lsm_judge.h"

#define WHOLE(hook, kind)                                                                  \
	int hook_##hook(unsigned long long *ctx)                                           \
	{                                                                                  \
		return is_agent() && !is_kernels_own() ? judge_kind(kind, 1, 0, 0) : 0;    \
	}

WHOLE(sb_mount, KERNEL_MOUNT)
WHOLE(sb_umount, KERNEL_MOUNT)
WHOLE(sb_pivotroot, KERNEL_MOUNT)
WHOLE(move_mount, KERNEL_MOUNT)
WHOLE(path_chroot, KERNEL_MOUNT)
WHOLE(bpf, KERNEL_BPF)
WHOLE(userns_create, KERNEL_NAMESPACE)
WHOLE(perf_event_open, KERNEL_PERF)
WHOLE(settime, KERNEL_CLOCK)
WHOLE(quotactl, KERNEL_QUOTA)
WHOLE(kernel_read_file, KERNEL_MODULE)
WHOLE(kernel_load_data, KERNEL_MODULE)
WHOLE(uring_override_creds, KERNEL_IO_URING)
WHOLE(uring_sqpoll, KERNEL_IO_URING)
WHOLE(uring_cmd, KERNEL_IO_URING)
WHOLE(path_notify, KERNEL_WATCH)
WHOLE(ipc_permission, KERNEL_IPC)
WHOLE(shm_alloc_security, KERNEL_IPC)
WHOLE(sem_alloc_security, KERNEL_IPC)
WHOLE(msg_queue_alloc_security, KERNEL_IPC)

/* The only hook that a ring of calls, or the handling of page faults by a program, passes when it is made. */
int hook_inode_init_security_anon(unsigned long long *ctx)
{
	char name[8] = {};
	if (!is_agent() || bpf_probe_read_kernel(name, sizeof(name), pointer((void *)ctx[1], QSTR_NAME)))
		return 0;
	if (name[1] == 'i' && name[2] == 'o' && name[3] == '_')
		return judge_kind(KERNEL_IO_URING, 1, 0, 0);
	if (name[1] == 'u' && name[2] == 's' && name[3] == 'e')
		return judge_kind(KERNEL_USERFAULTFD, 1, 0, 0);
	return 0;
}
