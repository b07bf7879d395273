/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What the witness and the supervisor share; helm_sentry/sensor/records.py reads it, and a test compares the layouts. */
#ifndef HELM_SENTRY_WITNESS_H
#define HELM_SENTRY_WITNESS_H

#include <linux/types.h>

/* Whose thread it is. Threads that are in no map are nobody's. */
enum role {
	ROLE_AGENT = 1,
	ROLE_PROBE = 2, /* the supervisor's own, by whose calls it sees that the programs run */
};

/* Bits of task.state. */
enum state {
	STATE_ENTERED = 1,   /* inside a syscall that the kernel carries out */
	STATE_NEW_IMAGE = 2, /* has executed a program that made no syscall yet */
	STATE_SHARING = 4,   /* other threads may have the same descriptors */
	STATE_OPENING = 8,   /* inside an open that the kernel's own rules judge */
	STATE_REMOVING = 16, /* inside a call that may close descriptors */
	STATE_UNSURE = 32,   /* another thread was inside such a call when the open began */
};

struct task {
	__u32 role;
	__u32 state;
	__u32 syscall;   /* STATE_OPENING: its number */
	__u32 unused;
	__u64 removals; /* STATE_OPENING: how many had begun then */
};

/* What threads that share descriptors did to them. */
struct removals {
	__u64 begun;
	__u64 ended;
};

/* How the filter treats a syscall. Zero, which is what a number beyond the table gives, is notified always. */
enum treatment {
	TREAT_NOTIFY = 0,
	TREAT_ALLOW = 1,
	TREAT_TEST = 2, /* notified when one of `count` tests from `first` on holds */
};

struct row {
	__u16 treatment;
	__u16 flags;
	__u16 first;
	__u16 count;
	__u32 path; /* ROW_OPENS: offset of the path's register in struct pt_regs */
};

enum row_flags {
	ROW_OPENS = 1,   /* gives a descriptor; where the kernel's own rules judge it, it is reported */
	ROW_REMOVES = 2, /* may take descriptors away from other threads */
};

enum operator {
	OP_EQUAL = 0,
	OP_DIFFERENT = 1,
	OP_ANY_BIT = 2,
	OP_SOME_BITS = 3, /* some of the bits, not all */
};

struct test {
	__u64 value;
	__u64 mask; /* the bits of the register that the kernel reads */
	__u32 offset; /* of the argument's register in struct pt_regs */
	__u32 operator;
};

/* Counts of one processor; the sum over all is the truth. */
struct counts {
	__u64 finished;     /* calls that returned without the kernel carrying them out: answered by the supervisor */
	__u64 interrupted;  /* the same, but to be made again, or of a thread that was killed */
	__u64 carried;      /* calls that the filter notifies and the kernel carried out all the same: continued */
	__u64 forks;        /* new processes */
	__u64 threads;      /* new threads */
	__u64 execs;        /* programs that made their first syscall */
	__u64 exits;        /* processes that ended */
	__u64 own_filters; /* seccomp filters that the agent put on itself */
	__u64 held;         /* opens that the kernel's own rules judged */
	__u64 lost_opens;   /* those of them that found no room in their ring buffer */
	__u64 lost_events;  /* the ring buffer was full */
	__u64 lost_tasks;   /* the map of threads was full, or a type was unreadable: somebody is not watched */
	__u64 entries_seen; /* calls of the probe */
	__u64 exits_seen;   /* returns of the probe */
};

enum event_type {
	EVENT_FORK = 1,
	EVENT_EXIT = 2,
};

struct event {
	__u32 type;
	__u32 pid;
	__u32 parent; /* EVENT_FORK: the process that made it */
	__s32 status; /* EVENT_EXIT: wait status */
	__u64 time;   /* nanoseconds since boot */
};

#define LONGEST_TEXT 4096

enum opened_flags {
	OPENED_UNSURE = 1,  /* another thread closed descriptors meanwhile: the file may be another one */
	OPENED_DEEP = 2,    /* there are more names above those in `text` */
	OPENED_UNNAMED = 4, /* a pipe or the like, which no directory holds */
	OPENED_LOST = 8,    /* what the descriptor stands for could not be read */
};

/* An open that the kernel's own rules judged. */
struct opened {
	__u32 tid;
	__s32 result;    /* descriptor, or negative errno */
	__u32 syscall;   /* its number */
	__u32 flags;
	__u32 mode;      /* the file's type and permissions */
	__u32 device;    /* of the file's file system, as the kernel writes it: major << 20 | minor */
	__u64 inode;
	__u64 magic;     /* which kind of file system */
	__s32 directory; /* failed: of a relative path, AT_FDCWD for the working directory */
	__u32 size;      /* bytes in text */
	char text[2 * LONGEST_TEXT]; /* names from the file up, each with a slash behind; failed: the path as passed */
};

#endif
