/* The least a supervisor can do: read the path, open it, hand the descriptor over. No policy, no pin, no log.
 *
 * The floor that helm-sentry is measured against. It is no sandbox: it opens whatever it is asked to.
 *
 *     bare_supervisor PROGRAM [ARGUMENT...]
 *     bare_supervisor --go-on PROGRAM [ARGUMENT...]   only hears of files, programs and connections, and lets all go on
 *     bare_supervisor --look PROGRAM [ARGUMENT...]    and tells itself what an absolute path is, after a line in a log
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdio.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define WAIT_KILLABLE_RECV (1U << 5)
#define SET_FLAGS _IOW('!', 4, uint64_t)
#define SYNC_WAKE_UP 1UL
#define LINE 400 /* bytes of a record, about */

enum floor { OPENS, GO_ON, LOOK };

/* What programs call that a supervisor must hear of; the first is all that OPENS is about. */
static const int heard[] = {
	SYS_openat,	SYS_newfstatat, SYS_statx,    SYS_faccessat,  SYS_faccessat2, SYS_readlinkat, SYS_mkdirat,
	SYS_renameat2, SYS_unlinkat,	SYS_linkat,   SYS_symlinkat,  SYS_fchmodat,   SYS_execve,     SYS_socket,
	SYS_bind,	SYS_connect,
#ifdef SYS_open /* the older half, which newer architectures do without */
	SYS_open,	SYS_stat,	SYS_lstat,    SYS_access,     SYS_readlink,   SYS_mkdir,      SYS_rmdir,
	SYS_rename,	SYS_unlink,	SYS_link,     SYS_symlink,    SYS_chmod,
#endif
};
#define HEARD (sizeof heard / sizeof *heard)

static int pass_listener(int channel, int listener)
{
	char byte = 0, room[CMSG_SPACE(sizeof listener)] = {0};
	struct iovec data = {&byte, 1};
	struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
	if (listener < 0) {
		if (recvmsg(channel, &message, 0) < 1)
			return -1;
		memcpy(&listener, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof listener);
		return listener;
	}
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof listener);
	memcpy(CMSG_DATA(header), &listener, sizeof listener);
	return (int)sendmsg(channel, &message, 0);
}

static unsigned short write_filter(struct sock_filter *program, enum floor floor)
{
	unsigned short calls = floor == OPENS ? 1 : HEARD, at = 0;
	program[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (unsigned short i = 0; i < calls; i++)
		program[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned int)heard[i],
							     (unsigned char)(calls - i), 0);
	program[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	program[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
	return at;
}

static void become_agent(int channel, enum floor floor, char **command)
{
	struct sock_filter program[HEARD + 3];
	struct sock_fprog filter = {write_filter(program, floor), program};
	char go;
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	int listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
				    SECCOMP_FILTER_FLAG_NEW_LISTENER | WAIT_KILLABLE_RECV, &filter);
	pass_listener(channel, listener);
	close(listener);
	if (read(channel, &go, 1) == 1)
		execvp(command[0], command);
	_exit(127);
}

/* The caller is held to our processor while the descriptor is installed, as helm-sentry does (docs/adr/0003). */
static void hand_over(int listener, const struct seccomp_notif *asked, int descriptor)
{
	cpu_set_t elsewhere, here;
	struct seccomp_notif_addfd add = {.id = asked->id, .srcfd = (uint32_t)descriptor, .newfd_flags = O_CLOEXEC};
	struct seccomp_notif_resp answer = {.id = asked->id};
	CPU_ZERO(&here);
	CPU_SET(sched_getcpu(), &here);
	sched_getaffinity((pid_t)asked->pid, sizeof elsewhere, &elsewhere);
	sched_setaffinity((pid_t)asked->pid, sizeof here, &here);
	answer.val = ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, &add);
	sched_setaffinity((pid_t)asked->pid, sizeof elsewhere, &elsewhere);
	ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
}

#define ROOM 256

/* In two pieces: the page after the one the path ends in may be unmapped. */
static int read_path(const struct seccomp_notif *asked, char *path)
{
	uint64_t address = asked->data.args[1];
	size_t in_page = 4096 - address % 4096, first = in_page < ROOM ? in_page : ROOM;
	struct iovec ours = {path, ROOM}, theirs[] = {{(void *)(uintptr_t)address, first},
						      {(void *)(uintptr_t)(address + first), ROOM - first}};
	ssize_t got = process_vm_readv((pid_t)asked->pid, &ours, 1, theirs, 2, 0);
	return got > 0 && memchr(path, 0, (size_t)got);
}

static void serve_open(int listener, const struct seccomp_notif *asked)
{
	char path[ROOM];
	struct seccomp_notif_resp refusal = {.id = asked->id, .error = -EFAULT};
	int descriptor = -1;
	if (read_path(asked, path)) {
		descriptor = open(path, (int)asked->data.args[2]);
		refusal.error = -errno;
	}
	if (descriptor < 0) {
		ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &refusal);
		return;
	}
	hand_over(listener, asked, descriptor);
	close(descriptor);
}

/* Returns whether it answered. */
static int tell(int listener, const struct seccomp_notif *asked, int log)
{
	char path[ROOM], line[LINE] = {0};
	struct stat found;
	struct iovec ours = {&found, sizeof found}, theirs = {(void *)(uintptr_t)asked->data.args[2], sizeof found};
	struct seccomp_notif_resp answer = {.id = asked->id};
	if (asked->data.nr != SYS_newfstatat || !read_path(asked, path) || *path != '/')
		return 0;
	answer.error = fstatat(AT_FDCWD, path, &found, (int)asked->data.args[3]) ? -errno : 0;
	if (write(log, line, sizeof line) != sizeof line || ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &asked->id))
		return 0;
	if (!answer.error && process_vm_writev((pid_t)asked->pid, &ours, 1, &theirs, 1, 0) < 0)
		answer.error = -EFAULT;
	ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
	return 1;
}

static void serve(int listener, const struct seccomp_notif *asked, enum floor floor, int log)
{
	struct seccomp_notif_resp going = {.id = asked->id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
	if (floor == OPENS)
		serve_open(listener, asked);
	else if (floor == GO_ON || !tell(listener, asked, log))
		ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &going);
}

static enum floor floor_of(const char *word)
{
	return !strcmp(word, "--go-on") ? GO_ON : !strcmp(word, "--look") ? LOOK : OPENS;
}

int main(int argc, char **argv)
{
	int channel[2], status;
	enum floor floor = argc < 2 ? OPENS : floor_of(argv[1]);
	char **command = argv + 1 + (floor != OPENS);
	FILE *log = tmpfile();
	if (!log || argc < 2 || !*command || socketpair(AF_UNIX, SOCK_STREAM, 0, channel))
		return 2;
	pid_t agent = fork();
	if (agent == 0)
		become_agent(channel[1], floor, command);
	int listener = pass_listener(channel[0], -1);
	ioctl(listener, SET_FLAGS, SYNC_WAKE_UP);
	if (write(channel[0], "!", 1) != 1)
		return 2;
	for (;;) {
		struct seccomp_notif asked = {0};
		if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &asked) == 0)
			serve(listener, &asked, floor, fileno(log));
		else if (waitpid(agent, &status, WNOHANG) == agent)
			return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
	}
}
