/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What the programs at security hooks and the supervisor share; helm_sentry/sensor/lsm_records.py reads it, and a test
 * compares the layouts. */
#ifndef HELM_SENTRY_LSM_H
#define HELM_SENTRY_LSM_H

#include <linux/types.h>

#define NO_RULE 0xffff
#define NAME_BYTES 256
#define PATH_BYTES 4096
#define ENDPOINTS 32

/* The kinds of operation, as the tables count them. Those that end in _TREE take along what a directory holds. */
enum kind {
	FILE_READ,
	FILE_LIST,
	FILE_WRITE,
	FILE_CREATE,
	FILE_CREATE_TREE,
	FILE_DELETE_TREE,
	FILE_RENAME,
	FILE_RENAME_TREE,
	FILE_LINK,
	FILE_TRUNCATE,
	FILE_CHMOD,
	FILE_CHOWN,
	FILE_MKNOD,
	EXEC,
	LOAD, /* the kernel or the program's loader maps the file as code */
	UNIX_CONNECT,
	UNIX_BIND,
	PATH_KINDS, /* those above are decided by paths */
	NET_CONNECT = PATH_KINDS,
	NET_SEND,
	NET_BIND,
	NET_SOCKET,
	FILE_UTIME,
	FILE_XATTR,
	PROCESS_SIGNAL,
	PROCESS_TRACE,
	KERNEL_BPF,
	KERNEL_CLOCK,
	KERNEL_IO_URING,
	KERNEL_IPC,
	KERNEL_MODULE,
	KERNEL_MOUNT,
	KERNEL_NAMESPACE,
	KERNEL_PERF,
	KERNEL_QUOTA,
	KERNEL_USERFAULTFD,
	KERNEL_WATCH,
	KINDS,
	NOTHING = KINDS,
};

/* What becomes of a kind. Zero, which is what an unwritten table says, denies. */
enum treatment {
	TREAT_DENY = 0,  /* the supervisor does it for the agent, or nobody does */
	TREAT_RULES = 1, /* by the rules for paths, addresses or names */
	TREAT_ALLOW = 2,
};

/* Set once, before the programs are attached. */
struct control {
	__u64 rename_lock; /* address of the kernel's lock of that name: changes when something was renamed */
	__u64 cgroup;      /* id of the agent's control group */
	__u32 mount_namespace; /* the number of the one whose paths are meant */
	__u32 lossy;       /* go on when the ring buffer is full, and count */
};

/* A name in a directory: how a path leads from one node of the tree of rules to the next. */
struct edge {
	__u32 generation;
	__u32 node;
	char name[NAME_BYTES]; /* zeros to the end */
};

/* Smallest rule that denies, and smallest that allows; NO_RULE when there is none. */
struct found {
	__u16 block;
	__u16 allow;
};

struct node {
	__u32 id;
	__u32 reserved;
	struct found here[PATH_KINDS];
	struct found beneath[PATH_KINDS]; /* for the path itself too */
};

/* The most specific network leads to all rules whose networks hold it. */
struct network {
	__u32 length; /* bits of what follows that count */
	__u16 generation;
	__u8 kind;
	__u8 version; /* 4 or 6 */
	__u8 address[16]; /* IPv4 in the first four */
};

enum protocol {
	PROTOCOL_OTHER = 0,
	PROTOCOL_TCP = 1,
	PROTOCOL_UDP = 2,
};

struct endpoint {
	__u16 low;
	__u16 high;
	__u16 protocols;
	__u16 blocks;
	__u16 rule;
};

struct endpoints {
	__u32 count;
	struct endpoint rules[ENDPOINTS];
};

struct opinion {
	__u16 kind;
	__u16 rule;
};

/* One decision. In the ring buffer it comes after the bytes of its path. */
struct event {
	__u64 time; /* nanoseconds since boot */
	__u64 inode; /* 0: there is none yet */
	__u32 device; /* as the kernel encodes it: major << 20 | minor */
	__u32 pid;
	__u32 tid;
	__u32 number; /* port, signal, or flags of the open */
	__u32 generation;
	__u32 target; /* process */
	__u8 address[16];
	__u8 version;
	__u8 protocol;
	__u16 denied; /* errno, 0 when it was allowed */
	struct opinion opinions[2];
	__u32 path; /* how many bytes before this are the path */
};

struct counts {
	__u64 decided;
	__u64 denied;
	__u64 lost;    /* decisions that the ring buffer had no room for */
	__u64 crowded; /* denied because too many were being decided on one processor */
};

#endif
