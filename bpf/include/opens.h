/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What was opened by calls that no supervisor saw; included by witness.bpf.c for a run that has such calls.
 *
 * Set by the loader from the running kernel's types, in bytes: TASK_FILES, FILES_TABLE, TABLE_FILES, FILE_PATH,
 * FILE_INODE, DENTRY_PARENT, DENTRY_NAME, ROOT_OF_MOUNT, MOUNT_SELF, MOUNT_PARENT, MOUNT_POINT, INODE_MODE, INODE_SB,
 * INODE_NUMBER, SB_DEVICE and SB_MAGIC; OPEN_PAGES, size of the ring buffer; FIRST_ARGUMENT_AFTER, where struct pt_regs
 * keeps the first argument when the call returns.
 */
#ifndef HELM_SENTRY_OPENS_H
#define HELM_SENTRY_OPENS_H

#define MOST_NAMES 128
#define HEAD __builtin_offsetof(struct opened, text)
#define READ(to, from) bpf_probe_read_kernel(&(to), sizeof(to), (char *)(from))

BPF_PERCPU_ARRAY(scratch, struct opened, 1);
BPF_RINGBUF_OUTPUT(opens, OPEN_PAGES);
BPF_TABLE("lru_hash", __u64, struct removals, removals, 4096);

struct qstr_head { /* <linux/dcache.h> struct qstr on a little-endian machine */
	__u32 hash;
	__u32 length;
	char *name;
};

static inline __u64 descriptors_of(char *task)
{
	__u64 files = 0;
	READ(files, task + TASK_FILES);
	return files;
}

/* In doubt they do. */
static inline int share_descriptors(char *one, char *other)
{
	__u64 files = descriptors_of(one);
	return !files || files == descriptors_of(other);
}

static inline struct removals *removals_here(void)
{
	struct removals none = {};
	__u64 files = descriptors_of((char *)bpf_get_current_task());
	return removals.lookup_or_try_init(&files, &none);
}

static inline void begin(struct task *task, struct row *row, __u32 number)
{
	task->syscall = number;
	if (row->flags & ROW_OPENS)
		task->state |= STATE_OPENING;
	else if (task->state & STATE_SHARING)
		task->state |= STATE_REMOVING;
	if (!(task->state & STATE_SHARING))
		return;
	struct removals *seen = removals_here();
	if (!seen) {
		task->state |= STATE_UNSURE;
	} else if (task->state & STATE_REMOVING) {
		__sync_fetch_and_add(&seen->begun, 1);
	} else {
		task->removals = seen->begun;
		asm volatile("" ::: "memory"); /* what has ended is read after what had begun */
		if (seen->ended != task->removals)
			task->state |= STATE_UNSURE;
	}
}

/* Whether the descriptor may have been given to another file since the open. */
static inline int unsure(struct task *task)
{
	if (!(task->state & STATE_SHARING))
		return 0;
	if (task->state & STATE_UNSURE)
		return 1;
	struct removals *seen = removals_here();
	return !seen || seen->begun != task->removals;
}

static inline char *file_of(__u32 descriptor)
{
	char *table = 0, *files = 0, *file = 0;
	if (READ(table, descriptors_of((char *)bpf_get_current_task()) + FILES_TABLE) ||
	    READ(files, table + TABLE_FILES) || READ(file, files + 8ul * descriptor))
		return 0;
	return file;
}

/* Write the names from a directory entry up. */
static inline void name(struct opened *opened, char *mount, char *entry)
{
	/* Kept in memory: in a register the verifier would follow each of its values through the loop. */
	volatile __u32 *written = &opened->size;
	__u32 missing = OPENED_DEEP;
	char *root = 0;
	READ(root, mount + ROOT_OF_MOUNT);
	for (int i = 0; i < MOST_NAMES; i++) {
		struct qstr_head head = {};
		char *above = 0;
		if (entry == root) {
			if (READ(above, mount - MOUNT_SELF + MOUNT_PARENT))
				break;
			if (above == mount - MOUNT_SELF) {
				missing = 0;
				break;
			}
			if (READ(entry, mount - MOUNT_SELF + MOUNT_POINT) || READ(root, above + MOUNT_SELF + ROOT_OF_MOUNT))
				break;
			mount = above + MOUNT_SELF;
			continue;
		}
		if (READ(above, entry + DENTRY_PARENT) || READ(head, entry + DENTRY_NAME))
			break;
		if (above == entry) {
			missing = OPENED_UNNAMED;
			break;
		}
		__u32 size = *written, length = head.length & 255;
		if (size >= LONGEST_TEXT || bpf_probe_read_kernel(&opened->text[size], length, head.name))
			break;
		opened->text[size + length] = '/';
		*written = size + length + 1;
		entry = above;
	}
	opened->flags |= missing;
}

static inline void look(struct opened *opened, __u32 descriptor)
{
	char *file = file_of(descriptor), *inode = 0, *super = 0;
	struct {
		char *mount, *entry;
	} path;
	__u16 mode = 0;
	opened->flags |= OPENED_LOST;
	if (!file || READ(path, file + FILE_PATH) || READ(inode, file + FILE_INODE) || READ(mode, inode + INODE_MODE) ||
	    READ(opened->inode, inode + INODE_NUMBER) || READ(super, inode + INODE_SB) ||
	    READ(opened->device, super + SB_DEVICE) || READ(opened->magic, super + SB_MAGIC))
		return;
	opened->flags &= ~OPENED_LOST;
	opened->mode = mode;
	name(opened, path.mount, path.entry);
}

static inline void look_at_text(struct opened *opened, void *regs, __u32 path_register)
{
	char *path = 0;
	READ(opened->directory, (char *)regs + FIRST_ARGUMENT_AFTER);
	READ(path, (char *)regs + path_register);
	long size = bpf_probe_read_user_str(opened->text, LONGEST_TEXT, path);
	opened->size = size > 0 ? (size - 1) & (LONGEST_TEXT - 1) : 0;
}

static inline void tell_opened(struct task *task, void *regs, long result)
{
	int first = 0, number = task->syscall;
	struct opened *opened = scratch.lookup(&first);
	struct row *row = rows.lookup(&number);
	if (!opened || !row)
		return;
	COUNT(held);
	opened->tid = THIS_THREAD;
	opened->result = result;
	opened->syscall = number;
	opened->flags = opened->mode = opened->device = opened->directory = opened->size = 0;
	opened->inode = opened->magic = 0;
	if (result >= 0) {
		look(opened, result);
		if (unsure(task)) /* asked after the look */
			opened->flags |= OPENED_UNSURE;
	} else {
		look_at_text(opened, regs, row->path);
	}
	__u32 size = opened->size;
	if (size > LONGEST_TEXT + 255)
		size = LONGEST_TEXT + 255;
	if (opens.ringbuf_output(opened, HEAD + size, BPF_RB_NO_WAKEUP))
		COUNT(lost_opens);
}

static inline void finish(struct task *task, void *regs, long result)
{
	if (task->state & STATE_OPENING)
		tell_opened(task, regs, result);
	if (task->state & STATE_REMOVING) {
		struct removals *seen = removals_here();
		if (seen)
			__sync_fetch_and_add(&seen->ended, 1);
	}
	task->state &= ~(STATE_OPENING | STATE_REMOVING | STATE_UNSURE);
}

#endif
