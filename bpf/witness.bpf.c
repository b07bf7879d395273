// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/* The second witness: counts what an agent's threads do, without asking the supervisor.
 *
 * The kernel passes the sys_enter tracepoint after seccomp, and only when it goes on to carry the call out. A return
 * (sys_exit) without such an entry is a call that the supervisor answered. An entry of a call that the filter notifies
 * is one that the supervisor let continue. Both must be in its books.
 *
 * With OPEN_PAGES, for a run in which the kernel holds reading by itself, it also reports what was opened: the file that
 * the descriptor stands for when the call returns, named from its directory entries, never the text that was passed.
 *
 * Set by the loader from the running kernel's types: TASK_PID, TASK_TGID, TASK_EXIT_CODE, TASK_SIGNAL, SIGNAL_LIVE and,
 * on x86_64, TASK_STATUS, in bytes; THREADS, ROWS, TESTS and EVENT_PAGES,
 * sizes of maps; TESTS_OF_ROW, how many tests a row may have; NR_SECCOMP,
 * NR_PRCTL and FIRST_ARGUMENT of the architecture.
 */
#include "witness.h"

#define PR_SET_SECCOMP 22 /* <linux/prctl.h> */
#define THIS_THREAD ((__u32)bpf_get_current_pid_tgid())
#define THIS_PROCESS ((__u32)(bpf_get_current_pid_tgid() >> 32))
#define COUNT(name) count(__builtin_offsetof(struct counts, name) / sizeof(__u64))

BPF_HASH(tasks, __u32, struct task, THREADS);
BPF_ARRAY(rows, struct row, ROWS);
BPF_ARRAY(tests, struct test, TESTS);
BPF_PERCPU_ARRAY(counts, struct counts, 1);
BPF_RINGBUF_OUTPUT(events, EVENT_PAGES);

static inline void count(__u32 place)
{
	int first = 0;
	__u64 *all = (__u64 *)counts.lookup(&first);
	if (all)
		__sync_fetch_and_add(&all[place], 1);
}

/* ERESTARTSYS to ERESTART_RESTARTBLOCK, which no caller ever sees. */
static inline int is_restart(long ret)
{
	return ret <= -512 && ret >= -516;
}

/* A member of a structure that the verifier knows the type of: a plain load, where bpf_probe_read_kernel() is a call. */
#define MEMBER(structure, offset, width)                                                                               \
	({                                                                                                             \
		__u64 _value;                                                                                          \
		asm volatile("%0 = *(" width " *)(%1 + %2)" : "=r"(_value) : "r"(structure), "i"(offset));              \
		_value;                                                                                                \
	})

static inline __u64 this_task(void)
{
	return (__u64)bpf_get_current_task_btf();
}

static inline int in_foreign_abi(void)
{
#ifdef __x86_64__
	return MEMBER(this_task(), TASK_STATUS, "u32") & 2; /* TS_COMPAT */
#else
	return 0; /* compat tasks of arm64 cannot be an agent: they would have to execute a 32-bit program */
#endif
}

static inline int holds(struct test *test, void *regs)
{
	__u64 value = 0;
	if (bpf_probe_read_kernel(&value, sizeof(value), (char *)regs + test->offset))
		return 1;
	value &= test->mask;
	if (test->operator == OP_EQUAL)
		return value == test->value;
	if (test->operator == OP_DIFFERENT)
		return value != test->value;
	if (test->operator == OP_ANY_BIT)
		return (value & test->value) != 0;
	return (value & test->value) != 0 && (value & test->value) != test->value;
}

static inline struct row *row_of(long number)
{
	int key = number;
	return in_foreign_abi() || number < 0 || number >= ROWS ? 0 : rows.lookup(&key);
}

/* Whether the filter sends this call to the supervisor. */
static inline int is_notified(void *regs, struct row *row)
{
	if (!row || row->treatment == TREAT_NOTIFY)
		return 1;
	if (row->treatment == TREAT_ALLOW)
		return 0;
	for (int i = 0; i < TESTS_OF_ROW; i++) {
		if (i >= row->count)
			return 0; /* none holds */
		int place = row->first + i;
		struct test *test = tests.lookup(&place);
		if (!test || holds(test, regs))
			return 1;
	}
	return 1;
}

#ifdef OPEN_PAGES
#include "opens.h"
#endif

/* Whether an agent restricts itself. What its own filter refuses returns without an entry, as if we had answered it. */
static inline int installs_filter(void *regs, long number)
{
	__u32 option = 0;
	if (number == NR_SECCOMP)
		return 1;
	return number == NR_PRCTL &&
	       !bpf_probe_read_kernel(&option, sizeof(option), (char *)regs + FIRST_ARGUMENT) && option == PR_SET_SECCOMP;
}

int on_sys_enter(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 tid = THIS_THREAD;
	struct task *task = tasks.lookup(&tid);
	if (!task)
		return 0;
	if (task->role == ROLE_PROBE) {
		COUNT(entries_seen);
		return 0;
	}
	if (task->state & STATE_NEW_IMAGE)
		COUNT(execs);
	task->state = STATE_ENTERED | (task->state & STATE_SHARING);
	struct row *row = row_of((long)ctx->args[1]);
	if (is_notified((void *)ctx->args[0], row))
		COUNT(carried);
#ifdef OPEN_PAGES
	else if (row && row->flags)
		begin(task, row, (__u32)ctx->args[1]);
#endif
	if (installs_filter((void *)ctx->args[0], (long)ctx->args[1]))
		COUNT(own_filters);
	return 0;
}

int on_sys_exit(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 tid = THIS_THREAD;
	struct task *task = tasks.lookup(&tid);
	if (!task)
		return 0;
	if (task->role == ROLE_PROBE) {
		COUNT(exits_seen);
		return 0;
	}
	if (task->state & STATE_ENTERED) {
#ifdef OPEN_PAGES
		if (task->state & (STATE_OPENING | STATE_REMOVING))
			finish(task, (void *)ctx->args[0], (long)ctx->args[1]);
#endif
		task->state &= ~STATE_ENTERED;
		return 0;
	}
	if (task->state & STATE_NEW_IMAGE) {
		COUNT(execs);
		task->state &= STATE_SHARING;
	}
	if (is_restart((long)ctx->args[1]))
		COUNT(interrupted);
	else
		COUNT(finished);
	return 0;
}

static inline void tell(__u32 type, __u32 pid, __u32 parent, int status)
{
	struct event *event = events.ringbuf_reserve(sizeof(struct event));
	if (!event) {
		COUNT(lost_events);
		return;
	}
	event->type = type;
	event->pid = pid;
	event->parent = parent;
	event->status = status;
	event->time = bpf_ktime_get_boot_ns();
	events.ringbuf_submit(event, BPF_RB_NO_WAKEUP);
}

int on_sched_process_fork(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 tid = THIS_THREAD, pid = 0, process = 0;
	struct task *parent = tasks.lookup(&tid);
	if (!parent || parent->role != ROLE_AGENT)
		return 0;
#ifdef __x86_64__
	struct task child = {.role = ROLE_AGENT, .state = STATE_ENTERED}; /* it returns from the call that made it */
#else
	struct task child = {.role = ROLE_AGENT, .state = 0}; /* arm64 passes no tracepoint there */
#endif
#ifdef OPEN_PAGES
	if (share_descriptors((char *)ctx->args[0], (char *)ctx->args[1])) {
		parent->state |= STATE_SHARING;
		child.state |= STATE_SHARING;
	}
#endif
	if (bpf_probe_read_kernel(&pid, sizeof(pid), (char *)ctx->args[1] + TASK_PID) ||
	    bpf_probe_read_kernel(&process, sizeof(process), (char *)ctx->args[1] + TASK_TGID) ||
	    tasks.update(&pid, &child)) {
		COUNT(lost_tasks);
		return 0;
	}
	if (pid != process) {
		COUNT(threads);
		return 0;
	}
	COUNT(forks);
	tell(EVENT_FORK, process, THIS_PROCESS, 0);
	return 0;
}

/* A thread that is not the leader takes the leader's id when it executes a program. */
int on_sched_process_exec(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 old = (__u32)ctx->args[1], tid = THIS_THREAD;
	struct task *task = tasks.lookup(&old);
	if (!task || task->role != ROLE_AGENT)
		return 0;
	struct task now = {.role = ROLE_AGENT, .state = task->state | STATE_NEW_IMAGE};
	if (tasks.update(&tid, &now))
		COUNT(lost_tasks);
	if (old != tid)
		tasks.delete(&old);
	return 0;
}

int on_sched_process_exit(struct bpf_raw_tracepoint_args *ctx)
{
	__u32 tid = THIS_THREAD;
	struct task *task = tasks.lookup(&tid);
	if (!task || task->role != ROLE_AGENT)
		return 0;
	tasks.delete(&tid);
	char *self = (char *)bpf_get_current_task();
	char *signal = 0;
	int live = 0, status = 0;
	if (bpf_probe_read_kernel(&signal, sizeof(signal), self + TASK_SIGNAL) ||
	    bpf_probe_read_kernel(&live, sizeof(live), signal + SIGNAL_LIVE) ||
	    bpf_probe_read_kernel(&status, sizeof(status), self + TASK_EXIT_CODE)) {
		COUNT(lost_tasks);
		return 0;
	}
	if (live)
		return 0; /* other threads of the process go on */
	COUNT(exits);
	tell(EVENT_EXIT, THIS_PROCESS, 0, status);
	return 0;
}
