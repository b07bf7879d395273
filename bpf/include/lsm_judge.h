/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* How an operation of an agent is decided, for every family of hooks.
 *
 * A path is spelled from the object up, as d_path() does it, so it is that of the object which will be used and not of
 * the text that was passed; then it is followed from the root down through the tree of rules. A rule that denies beats
 * all that allow, what none allows is denied, and whatever cannot be read is denied.
 *
 * Set by the loader from the running kernel's types: offsets in bytes, named STRUCTURE_MEMBER; SLOTS, how many
 * decisions may be under way on one processor; PROCESSORS; EVENT_PAGES, EDGES, NETWORKS, sizes of maps; RULE_DEPTH, how
 * many names the path of a rule has at most.
 */
#ifndef HELM_SENTRY_LSM_JUDGE_H
#define HELM_SENTRY_LSM_JUDGE_H

#include "lsm.h"

#define FILE_TYPE 0170000 /* <linux/stat.h> */
#define DIRECTORY 0040000
#define MNT_INTERNAL 0x4000 /* <linux/mount.h> */
#define EPERM 1
#define EACCES 13
#define DEPTH 64 /* names of a path and mounts on its way, in all attempts to spell it */
#define WANTED 2
#define DELETED " (deleted)"
#define DELETED_BYTES 10
#define INLINE static inline __attribute__((always_inline))
#define LOOP _Pragma("clang loop unroll(disable)")
#define AT(pointer, offset) ((void *)((char *)(pointer) + (offset)))
/* The compiler leaves out a bound that it can prove; the verifier cannot. */
#define BOUND(value, mask) ({ __u64 _bound = (value); asm volatile("" : "+r"(_bound)); _bound & (mask); })
#define COUNT(name) count(__builtin_offsetof(struct counts, name) / sizeof(__u64))

/* Room for one decision. The record that goes out is the end of `text` and the event behind it. */
struct slot {
	char text[PATH_BYTES];
	struct event event;
	char never_used[PATH_BYTES]; /* the verifier adds the bounds of place and length, as if both could be large */
	char zeros[NAME_BYTES]; /* never written */
	struct edge edge;
	/* The verifier knows nothing of what is in memory, so it sees each round of a loop as like the one before. */
	__u32 starts[DEPTH]; /* of the names of the path, the last first */
	volatile __u32 steps;
	volatile __u32 start; /* of the path in `text` */
	volatile __u32 wanted[WANTED];
	struct found found[WANTED];
};

BPF_CGROUP_ARRAY(agents, 1);
BPF_ARRAY(control, struct control, 1);
BPF_ARRAY(active, __u32, 1); /* the generation that decides */
BPF_ARRAY(treatments, __u32, 2 * KINDS);
BPF_ARRAY(families, struct found, 2 * 64);
BPF_F_TABLE("hash", struct edge, struct node, edges, EDGES, 1);
BPF_F_TABLE("lpm_trie", struct network, struct endpoints, networks, NETWORKS, 1);
BPF_ARRAY(slots, struct slot, SLOTS * PROCESSORS);
BPF_HASH(claims, __u32, __u32, 2 * SLOTS * PROCESSORS);
BPF_PERCPU_ARRAY(counts, struct counts, 1);
BPF_RINGBUF_OUTPUT(events, EVENT_PAGES);

INLINE void count(__u32 place)
{
	int first = 0;
	__u64 *all = (__u64 *)counts.lookup(&first);
	if (all)
		__sync_fetch_and_add(&all[place], 1);
}

INLINE __u64 word(const void *base, __u32 offset)
{
	__u64 value = 0;
	bpf_probe_read_kernel(&value, sizeof(value), AT(base, offset));
	return value;
}

INLINE void *pointer(const void *base, __u32 offset)
{
	return (void *)word(base, offset);
}

INLINE __u32 half(const void *base, __u32 offset)
{
	__u32 value = 0;
	bpf_probe_read_kernel(&value, sizeof(value), AT(base, offset));
	return value;
}

INLINE __u16 quarter(const void *base, __u32 offset)
{
	__u16 value = 0;
	bpf_probe_read_kernel(&value, sizeof(value), AT(base, offset));
	return value;
}

INLINE __u8 byte(const void *base, __u32 offset)
{
	__u8 value = 0;
	bpf_probe_read_kernel(&value, sizeof(value), AT(base, offset));
	return value;
}

INLINE int is_agent(void)
{
	return agents.check_current_task(0) > 0;
}

/* The kernel acts for itself, such as a file system that is made of others, when it has put on other credentials. */
INLINE int is_kernels_own(void)
{
	void *self = (void *)bpf_get_current_task();
	return pointer(self, TASK_STRUCT_CRED) != pointer(self, TASK_STRUCT_REAL_CRED);
}

INLINE __u32 generation(void)
{
	int first = 0;
	__u32 *now = active.lookup(&first);
	return now ? *now & 1 : 2; /* which has no rules */
}

INLINE __u32 treatment(__u32 generation, __u32 kind)
{
	int key = generation * KINDS + kind;
	__u32 *found = treatments.lookup(&key);
	return found && generation < 2 ? *found : TREAT_DENY;
}

/* Return room that nobody else uses until `leave`: another task may be scheduled in the middle of a program. */
INLINE struct slot *enter(__u32 *number)
{
	__u32 one = 1, first = bpf_get_smp_processor_id() * SLOTS;
	LOOP for (int i = 0; i < SLOTS; i++) {
		__u32 key = first + i;
		if (claims.insert(&key, &one))
			continue;
		*number = key;
		int place = key;
		struct slot *slot = slots.lookup(&place);
		if (!slot) {
			claims.delete(&key);
			break;
		}
		struct event *event = &slot->event;
		event->time = bpf_ktime_get_boot_ns();
		event->inode = 0;
		event->device = 0;
		event->pid = bpf_get_current_pid_tgid() >> 32;
		event->tid = bpf_get_current_pid_tgid();
		event->number = 0;
		event->generation = generation();
		event->target = 0;
		__builtin_memset(event->address, 0, sizeof(event->address));
		event->version = 0;
		event->protocol = 0;
		event->denied = 0;
		event->path = 0;
		slot->start = PATH_BYTES;
		slot->steps = 0;
		LOOP for (int k = 0; k < WANTED; k++) {
			event->opinions[k].kind = NOTHING;
			event->opinions[k].rule = NO_RULE;
		}
		return slot;
	}
	COUNT(crowded);
	return 0;
}

/* Write the decision down and make it. */
INLINE int leave(struct slot *slot, __u32 number, int refusal)
{
	int first = 0;
	__u32 start = slot->start;
	if (start >= PATH_BYTES) { /* there is none */
		start = PATH_BYTES - 1;
		slot->text[PATH_BYTES - 1] = 0;
	}
	__u32 length = PATH_BYTES - start;
	slot->event.path = length;
	slot->event.denied = refusal;
	COUNT(decided);
	if (refusal)
		COUNT(denied);
	__u64 size = BOUND(length + sizeof(struct event), 2 * PATH_BYTES - 1);
	if (size > PATH_BYTES + sizeof(struct event))
		size = PATH_BYTES + sizeof(struct event);
	if (events.ringbuf_output(slot->text + BOUND(start, PATH_BYTES - 1), size, BPF_RB_NO_WAKEUP)) {
		COUNT(lost);
		struct control *set = control.lookup(&first);
		if (!set || !set->lossy)
			refusal = refusal ? refusal : EPERM;
	}
	claims.delete(&number);
	if (!refusal)
		return 0;
	return refusal == EACCES ? -EACCES : -EPERM; /* the verifier wants to see the numbers */
}

INLINE struct found none(void)
{
	struct found nothing = {NO_RULE, NO_RULE};
	return nothing;
}

INLINE void smaller(struct found *one, const struct found *other)
{
	if (other->block < one->block)
		one->block = other->block;
	if (other->allow < one->allow)
		one->allow = other->allow;
}

INLINE int settle(struct slot *slot, __u32 place, __u32 kind, struct found found)
{
	struct opinion *opinion = &slot->event.opinions[place & (WANTED - 1)];
	opinion->kind = kind;
	opinion->rule = found.block != NO_RULE ? found.block : found.allow;
	return found.block != NO_RULE || found.allow == NO_RULE;
}


INLINE void *mount_of(const void *path)
{
	return AT(pointer(path, PATH_MNT), -MOUNT_MNT);
}

/* Nobody can name what is on a mount of the kernel's own. */
INLINE int is_internal(void *mount)
{
	return (long)pointer(mount, MOUNT_MNT_NS) == -22; /* MNT_NS_INTERNAL */
}

/* A file system that is made of others works on its layers through private copies of mounts. */
INLINE int is_layer(void *mount)
{
	return is_internal(mount) && !(half(mount, MOUNT_MNT + VFSMOUNT_MNT_FLAGS) & MNT_INTERNAL);
}

/* Pipes, memory files: no path leads there, only a descriptor that the agent has. */
INLINE int is_nameless(void *mount)
{
	return is_internal(mount) && half(mount, MOUNT_MNT + VFSMOUNT_MNT_FLAGS) & MNT_INTERNAL;
}

INLINE void begin_spelling(struct slot *slot, int deleted)
{
	slot->start = PATH_BYTES - deleted * DELETED_BYTES;
	slot->steps = 0;
}

/* Put one name before what is there. Return whether there was one, and room. */
INLINE int spell_name(struct slot *slot, void *dentry)
{
	__u64 name[2] = {}; /* struct qstr: hash, length, characters */
	bpf_probe_read_kernel(name, sizeof(name), AT(dentry, DENTRY_D_NAME));
	__u32 length = name[0] >> 32, start = slot->start;
	if (!length || length >= NAME_BYTES || start <= length || start > PATH_BYTES)
		return 0;
	start -= length;
	if (bpf_probe_read_kernel(slot->text + BOUND(start, PATH_BYTES - 1), BOUND(length, NAME_BYTES - 1),
				  (void *)name[1]))
		return 0;
	start -= 1;
	slot->text[BOUND(start, PATH_BYTES - 1)] = '/';
	slot->start = start;
	return 1;
}

/* Spell the path of `dentry`. Return whether there is one. */
INLINE int spell(struct slot *slot, void *dentry, void *mount)
{
	int key = 0;
	struct control *set = control.lookup(&key);
	void *inode = pointer(dentry, DENTRY_D_INODE);
	slot->event.inode = inode ? word(inode, INODE_I_INO) : 0;
	slot->event.device = half(pointer(dentry, DENTRY_D_SB), SUPER_BLOCK_S_DEV);
	if (!set)
		return 0;
	int deleted = !pointer(dentry, DENTRY_D_HASH + HLIST_BL_NODE_PPREV) &&
		      pointer(dentry, DENTRY_D_PARENT) != dentry;
	if (deleted)
		__builtin_memcpy(slot->text + PATH_BYTES - DELETED_BYTES, DELETED, DELETED_BYTES);
	begin_spelling(slot, deleted);
	void *entry = dentry, *tree = mount, *lock = (void *)set->rename_lock;
	__u32 before = half(lock, 0);
	LOOP for (int i = 0; i < DEPTH; i++) {
		if (entry == pointer(tree, MOUNT_MNT + VFSMOUNT_MNT_ROOT)) {
			void *above = pointer(tree, MOUNT_MNT_PARENT);
			if (above != tree) {
				entry = pointer(tree, MOUNT_MNT_MOUNTPOINT);
				tree = above;
				continue;
			}
			if (!(before & 1) && half(lock, 0) == before)
				return half(pointer(tree, MOUNT_MNT_NS), MNT_NAMESPACE_NS + NS_COMMON_INUM) ==
				       set->mount_namespace;
			/* Something was renamed meanwhile: once more, as d_path() does. */
			before = half(lock, 0);
			entry = dentry;
			tree = mount;
			begin_spelling(slot, deleted);
			continue;
		}
		void *parent = pointer(entry, DENTRY_D_PARENT);
		if (parent == entry || !spell_name(slot, entry))
			return 0; /* not beneath what is mounted there */
		slot->starts[BOUND(slot->steps, DEPTH - 1)] = slot->start;
		slot->steps++;
		entry = parent;
	}
	return 0;
}

INLINE void consider(struct slot *slot, struct node *node, int last)
{
	LOOP for (int k = 0; k < WANTED; k++) {
		__u32 kind = slot->wanted[k];
		if (kind >= PATH_KINDS)
			continue;
		smaller(&slot->found[k], &node->beneath[kind]);
		if (last)
			smaller(&slot->found[k], &node->here[kind]);
	}
}

/* Collect what the rules say about the path in the slot, from the root down. Return whether that was possible. */
INLINE int follow_path(struct slot *slot)
{
	struct edge *edge = &slot->edge;
	edge->generation = slot->event.generation;
	edge->node = 0;
	bpf_probe_read_kernel(edge->name, NAME_BYTES, slot->zeros);
	struct node *node = edges.lookup(edge);
	LOOP for (int i = 0; i <= RULE_DEPTH; i++) {
		if (!node)
			return 1;
		__u32 left = slot->steps, start = 0, end = 0;
		consider(slot, node, !left);
		if (!left)
			return 1;
		slot->steps = --left;
		start = slot->starts[BOUND(left, DEPTH - 1)];
		end = left ? slot->starts[BOUND(left - 1, DEPTH - 1)] : PATH_BYTES;
		edge->node = node->id;
		bpf_probe_read_kernel(edge->name, NAME_BYTES, slot->zeros);
		if (bpf_probe_read_kernel(edge->name, BOUND(end - start - 1, NAME_BYTES - 1),
					  slot->text + BOUND(start + 1, PATH_BYTES - 1)))
			return 0;
		node = edges.lookup(edge);
	}
	return 0;
}

/* Whether one of the wanted kinds is refused, after the path was followed. What may be read may also be loaded. */
INLINE int settle_all(struct slot *slot)
{
	int refused = 0, loads = slot->wanted[0] == LOAD;
	LOOP for (int k = 0; k < WANTED; k++) {
		__u32 kind = slot->wanted[k];
		if (kind >= PATH_KINDS)
			continue;
		__u32 treated = treatment(slot->event.generation, kind);
		slot->event.opinions[k].kind = kind;
		if (treated == TREAT_RULES ? settle(slot, k, kind, slot->found[k]) : treated != TREAT_ALLOW)
			refused++;
	}
	return loads ? refused == WANTED : refused;
}

INLINE int refuses(struct slot *slot, void *dentry, void *mount, __u32 first, __u32 second)
{
	slot->wanted[0] = first;
	slot->wanted[1] = second;
	LOOP for (int k = 0; k < WANTED; k++)
		slot->found[k] = none();
	if (!spell(slot, dentry, mount)) {
		slot->start = PATH_BYTES;
		LOOP for (int k = 0; k < WANTED; k++)
			slot->event.opinions[k].kind = slot->wanted[k];
		return 1;
	}
	if (slot->start == PATH_BYTES) {
		slot->start = PATH_BYTES - 1;
		slot->text[PATH_BYTES - 1] = '/';
	}
	return !follow_path(slot) | settle_all(slot);
}

/* Decide and record one operation on one object. */
INLINE int judge(void *dentry, void *mount, __u32 first, __u32 second, __u32 number)
{
	__u32 claimed = 0;
	struct slot *slot = enter(&claimed);
	if (!slot)
		return -EACCES;
	slot->event.number = number;
	return leave(slot, claimed, refuses(slot, dentry, mount, first, second) ? EACCES : 0);
}


/* Decide and record what needs no object to be decided. */
INLINE int judge_kind(__u32 kind, int refused, __u32 target, __u32 number)
{
	__u32 claimed = 0;
	struct slot *slot = enter(&claimed);
	if (!slot)
		return -EPERM;
	slot->event.opinions[0].kind = kind;
	slot->event.number = number;
	slot->event.target = target;
	__u32 treated = treatment(slot->event.generation, kind);
	if (treated == TREAT_ALLOW)
		refused = 0;
	else if (treated == TREAT_DENY)
		refused = 1;
	return leave(slot, claimed, refused ? EPERM : 0);
}

INLINE int is_directory(void *dentry)
{
	void *inode = pointer(dentry, DENTRY_D_INODE);
	return inode && (quarter(inode, INODE_I_MODE) & FILE_TYPE) == DIRECTORY;
}

#endif
