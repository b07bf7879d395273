// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* Other processes: the agent's own are those in its control group and beneath. */
#include "lsm_judge.h"

#define LEVELS 32 /* of control groups */

INLINE int is_own(const void *task)
{
	int key = 0;
	struct control *set = control.lookup(&key);
	void *group = pointer(pointer(task, TASK_STRUCT_CGROUPS), CSS_SET_DFL_CGRP);
	if (!set)
		return 0;
	LOOP for (int i = 0; i < LEVELS; i++) {
		if (word(pointer(group, CGROUP_KN), KERNFS_NODE_ID) == set->cgroup)
			return 1;
		void *above = pointer(group, CGROUP_SELF + CGROUP_SUBSYS_STATE_PARENT);
		if (!above)
			return 0;
		group = AT(above, -CGROUP_SELF);
	}
	return 0;
}

int hook_task_kill(unsigned long long *ctx)
{
	void *task = (void *)ctx[0];
	return is_agent() ? judge_kind(PROCESS_SIGNAL, !is_own(task), half(task, TASK_STRUCT_PID), ctx[2]) : 0;
}

int hook_ptrace_access_check(unsigned long long *ctx)
{
	void *task = (void *)ctx[0];
	return is_agent() ? judge_kind(PROCESS_TRACE, !is_own(task), half(task, TASK_STRUCT_PID), ctx[1]) : 0;
}

/* Since Linux 6.12 Landlock's scope holds what follows: there FILE_F_OWNER is 0. */
#if FILE_F_OWNER
#define OWNERS 65536

/* Files of which an agent has said whom the kernel shall signal; in `overfull`, that there were more, so it may be any.
 * Nobody takes away what was closed: the next file at that place is found here only if it is given an owner.
 */
BPF_HASH(owners, __u64, __u32, OWNERS);
BPF_ARRAY(overfull, __u32, 1);

int hook_file_set_fowner(unsigned long long *ctx)
{
	__u64 file = ctx[0];
	__u32 one = 1;
	int first = 0;
	if (!is_agent())
		owners.delete(&file);
	else if (owners.update(&file, &one))
		overfull.update(&first, &one);
	return 0;
}

/* Whoever runs when there is something to read: the signal is from whoever asked for it. */
int hook_file_send_sigiotask(unsigned long long *ctx)
{
	void *task = (void *)ctx[0];
	__u64 file = ctx[1] - FILE_F_OWNER;
	int first = 0;
	__u32 *more = overfull.lookup(&first);
	if (is_own(task) || (!owners.lookup(&file) && more && !*more))
		return 0;
	return judge_kind(PROCESS_SIGNAL, 1, half(task, TASK_STRUCT_PID), ctx[2]);
}
#endif
