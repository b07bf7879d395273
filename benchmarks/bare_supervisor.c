/* The least a supervisor can do: read the path, open it, hand the descriptor over. No policy, no pin, no log.
 *
 * The floor that helm-sentry is measured against. It is no sandbox: it opens whatever it is asked to.
 *
 *     bare_supervisor PROGRAM [ARGUMENT...]
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define WAIT_KILLABLE_RECV (1U << 5)
#define SET_FLAGS _IOW('!', 4, uint64_t)
#define SYNC_WAKE_UP 1UL

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

static void become_agent(int channel, char **command)
{
	struct sock_filter program[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog filter = {sizeof program / sizeof *program, program};
	char go;
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	int listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
				    SECCOMP_FILTER_FLAG_NEW_LISTENER | WAIT_KILLABLE_RECV, &filter);
	pass_listener(channel, listener);
	close(listener);
	if (read(channel, &go, 1) == 1)
		execv(command[0], command);
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

static void serve(int listener, const struct seccomp_notif *asked)
{
	char path[4096];
	struct iovec ours = {path, 4096 - asked->data.args[1] % 4096};
	struct iovec theirs = {(void *)(uintptr_t)asked->data.args[1], ours.iov_len};
	struct seccomp_notif_resp refusal = {.id = asked->id, .error = -EFAULT};
	int descriptor = -1;
	if (process_vm_readv((pid_t)asked->pid, &ours, 1, &theirs, 1, 0) > 0) {
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

int main(int argc, char **argv)
{
	int channel[2], status;
	if (argc < 2 || socketpair(AF_UNIX, SOCK_STREAM, 0, channel))
		return 2;
	pid_t agent = fork();
	if (agent == 0)
		become_agent(channel[1], argv + 1);
	int listener = pass_listener(channel[0], -1);
	ioctl(listener, SET_FLAGS, SYNC_WAKE_UP);
	if (write(channel[0], "!", 1) != 1)
		return 2;
	for (;;) {
		struct seccomp_notif asked = {0};
		if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &asked) == 0)
			serve(listener, &asked);
		else if (waitpid(agent, &status, WNOHANG) == agent)
			return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
	}
}
