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
#define SHORT_NAME 32 /* bytes, at least, that an entry has for its name before that is kept elsewhere */
#define HEAD __builtin_offsetof(struct opened, text)
#define READ(to, from) bpf_probe_read_kernel(&(to), sizeof(to), (char *)(from))

/* <linux/dcache.h> struct qstr on a little-endian machine: hash, length, address of the text. */
_Static_assert(DENTRY_NAME > DENTRY_PARENT && DENTRY_SHORT > DENTRY_NAME && MOUNT_POINT > MOUNT_PARENT && MOUNT_SELF > MOUNT_POINT &&
		       INODE_SB > INODE_MODE && INODE_NUMBER > INODE_MODE,
	       "the order of what is read at once");

BPF_PERCPU_ARRAY(scratch, struct opened, 1);
BPF_RINGBUF_OUTPUT(opens, OPEN_PAGES);
BPF_TABLE("lru_hash", __u64, struct removals, removals, 4096);

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
	__u64 files = MEMBER(this_task(), TASK_FILES, "u64");
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

/* What is wanted of a structure is read at once, from its first member that is wanted to its last. */
#define SPAN(first, last, size) ((last) - (first) + (size))
#define FROM(span, first, member, type) (*(type *)((span) + (member) - (first)))

#define FILE_FIRST (FILE_PATH < FILE_INODE ? FILE_PATH : FILE_INODE)
#define FILE_LAST (FILE_PATH < FILE_INODE ? FILE_INODE : FILE_PATH + 8)
#define INODE_FIRST INODE_MODE
#define INODE_LAST (INODE_SB < INODE_NUMBER ? INODE_NUMBER : INODE_SB)
#define ENTRY_FIRST DENTRY_PARENT
#define ENTRY_LAST (DENTRY_SHORT + SHORT_NAME - 8)
#define MOUNT_FIRST MOUNT_PARENT
#define MOUNT_LAST (MOUNT_SELF + ROOT_OF_MOUNT)

struct mount_span {
	char bytes[SPAN(MOUNT_FIRST, MOUNT_LAST, 8)] __attribute__((aligned(8)));
};
struct entry_span {
	char bytes[SPAN(ENTRY_FIRST, ENTRY_LAST, 8)] __attribute__((aligned(8)));
};

static inline char *file_of(__u32 descriptor)
{
	__u64 table = MEMBER(MEMBER(this_task(), TASK_FILES, "u64"), FILES_TABLE, "u64");
	char *file = 0;
	return READ(file, MEMBER(table, TABLE_FILES, "u64") + 8ul * descriptor) ? 0 : file;
}

/* Quicker than to read each by a call. What is behind the name is written over, or not sent. */
static inline void copy_short(char *to, const char *from)
{
	for (int i = 0; i < SHORT_NAME / 8; i++)
		((__u64 *)to)[i] = ((const __u64 *)from)[i];
}

/* Write the names from a directory entry up. `mount` is what the path holds, a part of struct mount. */
static inline void name(struct opened *opened, char *mount, char *entry)
{
	/* Kept in memory: in a register the verifier would follow each of its values through the loop. */
	volatile __u32 *written = &opened->size;
	__u32 missing = OPENED_DEEP;
	struct mount_span in;
	mount -= MOUNT_SELF;
	if (READ(in, mount + MOUNT_FIRST))
		goto out;
	for (int i = 0; i < MOST_NAMES; i++) {
		struct entry_span at;
		if (entry == FROM(in.bytes, MOUNT_FIRST, MOUNT_LAST, char *)) {
			char *above = FROM(in.bytes, MOUNT_FIRST, MOUNT_PARENT, char *);
			if (above == mount) {
				missing = 0;
				break;
			}
			entry = FROM(in.bytes, MOUNT_FIRST, MOUNT_POINT, char *);
			mount = above;
			if (READ(in, mount + MOUNT_FIRST))
				break;
			continue;
		}
		if (READ(at, entry + ENTRY_FIRST))
			break;
		if (FROM(at.bytes, ENTRY_FIRST, DENTRY_PARENT, char *) == entry) {
			missing = OPENED_UNNAMED;
			break;
		}
		__u32 size = *written, length = FROM(at.bytes, ENTRY_FIRST, DENTRY_NAME + 4, __u32) & 255;
		if (size >= LONGEST_TEXT)
			break;
		__u64 end = size;
		asm volatile("" : "+r"(end)); /* the verifier of Linux 6.1 does not keep what was just compared */
		end &= LONGEST_TEXT - 1;
		char *text = FROM(at.bytes, ENTRY_FIRST, DENTRY_NAME + 8, char *);
		if (text == entry + DENTRY_SHORT && length <= SHORT_NAME)
			copy_short(&opened->text[end], &FROM(at.bytes, ENTRY_FIRST, DENTRY_SHORT, char));
		else if (bpf_probe_read_kernel(&opened->text[end], length, text))
			break;
		opened->text[end + length] = '/';
		*written = size + length + 1;
		entry = FROM(at.bytes, ENTRY_FIRST, DENTRY_PARENT, char *);
	}
out:
	opened->flags |= missing;
}

static inline void look(struct opened *opened, __u32 descriptor)
{
	char file[SPAN(FILE_FIRST, FILE_LAST, 8)] __attribute__((aligned(8)));
	char inode[SPAN(INODE_FIRST, INODE_LAST, 8)] __attribute__((aligned(8)));
	char *found = file_of(descriptor);
	opened->flags |= OPENED_LOST;
	if (!found || READ(file, found + FILE_FIRST) ||
	    READ(inode, FROM(file, FILE_FIRST, FILE_INODE, char *) + INODE_FIRST))
		return;
	char *super = FROM(inode, INODE_FIRST, INODE_SB, char *);
	if (READ(opened->device, super + SB_DEVICE))
		return;
	opened->flags &= ~OPENED_LOST;
	opened->mode = FROM(inode, INODE_FIRST, INODE_MODE, __u16);
	opened->inode = FROM(inode, INODE_FIRST, INODE_NUMBER, __u64);
	/* struct path: mount, directory entry */
	name(opened, FROM(file, FILE_FIRST, FILE_PATH, char *), FROM(file, FILE_FIRST, FILE_PATH + 8, char *));
	if (opened->flags & OPENED_UNNAMED)
		READ(opened->magic, super + SB_MAGIC);
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
