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
