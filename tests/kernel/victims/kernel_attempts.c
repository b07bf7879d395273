/*
 * Tries, one after another and each in a process of its own, what a confined agent has no business doing to the
 * kernel; prints `name result ERRNO` for each. The arguments are harmless where a call should get through: nothing
 * is mounted on, swapped to, loaded, or rebooted. Arguments pick attempts by name.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/fs.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/keyctl.h>
#include <linux/perf_event.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_listns
#define SYS_listns 470
#endif

enum { NO_FILE = 1000, X32 = 0x40000000 };

static struct io_uring_params ring;
static struct perf_event_attr counter = { .type = PERF_TYPE_SOFTWARE, .size = sizeof counter };
static union bpf_attr map = { .map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1 };
static char text[4096];

static long listening_filter(unsigned long flags)
{
	struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog program = { 1, &allow };

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

static long forked(unsigned long flags)
{
	int status;
	long child = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);

	if (child == 0)
		_exit(0);
	if (child > 0)
		waitpid(child, &status, 0);
	return child > 0 ? 0 : child;
}

static long forked3(unsigned long flags)
{
	struct clone_args arguments = { .flags = flags, .exit_signal = SIGCHLD };
	int status;
	long child = syscall(SYS_clone3, &arguments, sizeof arguments);

	if (child == 0)
		_exit(0);
	if (child > 0)
		waitpid(child, &status, 0);
	return child > 0 ? 0 : child;
}

static long lease(int command)
{
	int file = open("leased", O_RDONLY | O_CREAT | O_CLOEXEC, 0600);

	return fcntl(file, command, command == F_NOTIFY ? DN_MODIFY : F_RDLCK);
}

static long notify(void)
{
	return fcntl(open(".", O_RDONLY | O_DIRECTORY), F_NOTIFY, DN_MODIFY);
}

static long attributes(void)
{
	int flags = 0, file = open("leased", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (syscall(SYS_ioctl, file, FS_IOC_GETFLAGS, &flags) < 0)
		return 0; /* no such attributes here */
	return syscall(SYS_ioctl, file, FS_IOC_SETFLAGS, &flags);
}

static long terminal(unsigned long command)
{
	/* A terminal of our own, never the tester's. */
	return syscall(SYS_ioctl, posix_openpt(O_RDWR | O_NOCTTY), command, "x");
}

static long namespaces(void)
{
	int own = open("/proc/self/ns/uts", O_RDONLY | O_CLOEXEC);

	return syscall(SYS_setns, own < 0 ? NO_FILE : own, CLONE_NEWUTS);
}

static long handle(void)
{
	struct { struct file_handle head; char bytes[128]; } found = { { .handle_bytes = 128 } };
	int mount;

	return syscall(SYS_name_to_handle_at, AT_FDCWD, ".", &found, &mount, 0);
}

static long shared(void)
{
	int made = syscall(SYS_shmget, IPC_PRIVATE, 4096, 0600);

	if (made >= 0)
		shmctl(made, IPC_RMID, NULL);
	return made < 0 ? made : 0;
}

static long semaphores(void)
{
	int made = syscall(SYS_semget, IPC_PRIVATE, 1, 0600);

	if (made >= 0)
		syscall(SYS_semctl, made, 0, IPC_RMID, 0);
	return made < 0 ? made : 0;
}

static long messages(void)
{
	int made = syscall(SYS_msgget, IPC_PRIVATE, 0600);

	if (made >= 0)
		syscall(SYS_msgctl, made, IPC_RMID, NULL);
	return made < 0 ? made : 0;
}

static long queue(void)
{
	snprintf(text, sizeof text, "sentry-%d", getpid());
	long made = syscall(SYS_mq_open, text, O_RDWR | O_CREAT | O_EXCL, 0600, NULL);

	if (made >= 0)
		syscall(SYS_mq_unlink, text);
	return made < 0 ? made : 0;
}

#define ATTEMPT(name, expression) static long try_##name(void) { return expression; }
#define EACH(X) \
	X(mount, syscall(SYS_mount, "none", "/nowhere", "tmpfs", 0, NULL)) \
	X(mount_remount, syscall(SYS_mount, NULL, ".", NULL, MS_REMOUNT | MS_BIND, NULL)) \
	X(umount2, syscall(SYS_umount2, "/nowhere", 0)) \
	X(pivot_root, syscall(SYS_pivot_root, ".", ".")) \
	X(chroot, syscall(SYS_chroot, ".")) \
	X(open_tree, syscall(SYS_open_tree, AT_FDCWD, ".", 0)) \
	X(move_mount, syscall(SYS_move_mount, NO_FILE, "", NO_FILE, "", 0)) \
	X(fsopen, syscall(SYS_fsopen, "tmpfs", 0)) \
	X(fsconfig, syscall(SYS_fsconfig, NO_FILE, 0, NULL, NULL, 0)) \
	X(fsmount, syscall(SYS_fsmount, NO_FILE, 0, 0)) \
	X(fspick, syscall(SYS_fspick, AT_FDCWD, ".", 0)) \
	X(mount_setattr, syscall(SYS_mount_setattr, AT_FDCWD, ".", 0, text, 32)) \
	X(statmount, syscall(457, NULL, NULL, 0, 0)) \
	X(listmount, syscall(458, NULL, NULL, 0, 0)) \
	X(open_tree_attr, syscall(467, AT_FDCWD, ".", 0, text, 32)) \
	X(io_uring_setup, syscall(SYS_io_uring_setup, 2, &ring)) \
	X(io_uring_enter, syscall(SYS_io_uring_enter, NO_FILE, 0, 0, 0, NULL, 0)) \
	X(io_uring_register, syscall(SYS_io_uring_register, NO_FILE, 0, NULL, 0)) \
	X(bpf, syscall(SYS_bpf, BPF_MAP_CREATE, &map, sizeof map)) \
	X(perf_event_open, syscall(SYS_perf_event_open, &counter, 0, -1, -1, 0)) \
	X(userfaultfd, syscall(SYS_userfaultfd, O_CLOEXEC | 1)) \
	X(add_key, syscall(SYS_add_key, "user", "sentry-test", "x", 1, KEY_SPEC_PROCESS_KEYRING)) \
	X(request_key, syscall(SYS_request_key, "user", "sentry-test", NULL, 0)) \
	X(keyctl, syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_PROCESS_KEYRING, 1)) \
	X(init_module, syscall(SYS_init_module, text, 0, "")) \
	X(finit_module, syscall(SYS_finit_module, NO_FILE, "", 0)) \
	X(delete_module, syscall(SYS_delete_module, "sentry_none", O_NONBLOCK)) \
	X(kexec_load, syscall(SYS_kexec_load, 0, 17, NULL, 0x10000000)) \
	X(kexec_file_load, syscall(SYS_kexec_file_load, NO_FILE, NO_FILE, 0, "", 0x10000000)) \
	X(reboot, syscall(SYS_reboot, 1, 2, 3, NULL)) \
	X(swapon, syscall(SYS_swapon, "/nowhere", 0)) \
	X(swapoff, syscall(SYS_swapoff, "/nowhere")) \
	X(acct, syscall(SYS_acct, "/nowhere")) \
	X(quotactl, syscall(SYS_quotactl, 0x80000300, NULL, 0, NULL)) \
	X(quotactl_fd, syscall(SYS_quotactl_fd, NO_FILE, 0, 0, NULL)) \
	X(sethostname, syscall(SYS_sethostname, NULL, -1)) \
	X(setdomainname, syscall(SYS_setdomainname, NULL, -1)) \
	X(settimeofday, syscall(SYS_settimeofday, NULL, text + 4096 * 64)) \
	X(clock_settime, syscall(SYS_clock_settime, 0, NULL)) \
	X(adjtimex, syscall(SYS_adjtimex, text)) \
	X(clock_adjtime, syscall(SYS_clock_adjtime, 0, text)) \
	X(syslog, syscall(SYS_syslog, 10, NULL, 0)) \
	X(vhangup, syscall(SYS_vhangup)) \
	X(unshare_user, syscall(SYS_unshare, CLONE_NEWUSER)) \
	X(unshare_mount, syscall(SYS_unshare, CLONE_NEWNS)) \
	X(unshare_net, syscall(SYS_unshare, CLONE_NEWNET)) \
	X(unshare_pid, syscall(SYS_unshare, CLONE_NEWPID)) \
	X(unshare_ipc, syscall(SYS_unshare, CLONE_NEWIPC)) \
	X(unshare_uts, syscall(SYS_unshare, CLONE_NEWUTS)) \
	X(unshare_cgroup, syscall(SYS_unshare, 0x02000000)) \
	X(unshare_time, syscall(SYS_unshare, 0x80)) \
	X(unshare_both, syscall(SYS_unshare, CLONE_FS | CLONE_NEWUSER)) \
	X(unshare_wide, syscall(SYS_unshare, 0x100000000ul | CLONE_FS)) \
	X(clone_user, forked(CLONE_NEWUSER)) \
	X(clone_mount, forked(CLONE_NEWNS)) \
	X(clone_wide, forked(0x100000000ul | CLONE_NEWUSER)) \
	X(clone3_user, forked3(CLONE_NEWUSER)) \
	X(clone3_time, forked3(0x80)) \
	X(setns, namespaces()) \
	X(listns, syscall(SYS_listns, NULL, NULL, 0, 0)) \
	X(personality, syscall(SYS_personality, 0x0040000)) \
	X(personality_wide, syscall(SYS_personality, 0x100040000)) \
	X(set_mm, prctl(PR_SET_MM, PR_SET_MM_BRK, 0, 0, 0)) \
	X(listener, listening_filter(SECCOMP_FILTER_FLAG_NEW_LISTENER)) \
	X(listener_wide, listening_filter(0x100000000ul | SECCOMP_FILTER_FLAG_NEW_LISTENER)) \
	X(name_to_handle_at, handle()) \
	X(open_by_handle_at, syscall(SYS_open_by_handle_at, AT_FDCWD, text, O_RDONLY)) \
	X(fanotify_init, syscall(SYS_fanotify_init, 0x200, O_RDONLY)) \
	X(fanotify_mark, syscall(SYS_fanotify_mark, NO_FILE, 1, 2, AT_FDCWD, ".")) \
	X(lease, lease(F_SETLEASE)) \
	X(notify, notify()) \
	X(attributes, attributes()) \
	X(terminal_input, terminal(0x5412)) \
	X(terminal_input_wide, terminal(0x100005412)) \
	X(terminal_console, terminal(0x541c)) \
	X(terminal_discipline, terminal(0x5423)) \
	X(shmget, shared()) \
	X(shmat, syscall(SYS_shmat, -1, NULL, 0)) \
	X(semget, semaphores()) \
	X(msgget, messages()) \
	X(mq_open, queue()) \
	X(process_madvise, syscall(SYS_process_madvise, NO_FILE, NULL, 0, 0, 0)) \
	X(process_mrelease, syscall(SYS_process_mrelease, NO_FILE, 0)) \
	X(migrate_pages, syscall(SYS_migrate_pages, getppid(), 0, NULL, NULL)) \
	X(move_pages, syscall(SYS_move_pages, getppid(), 0, NULL, NULL, NULL, 0)) \
	X(free_personality, syscall(SYS_personality, 0xffffffff)) \
	X(free_filter, listening_filter(0)) \
	X(free_unshare, syscall(SYS_unshare, CLONE_FS | CLONE_FILES)) \
	X(free_fork, forked(0)) \
	X(free_dup, fcntl(1, F_DUPFD, 50) < 0 ? -1 : 0) \
	X(free_ioctl, ioctl(open(".", O_RDONLY | O_DIRECTORY), FIOCLEX)) \
	X(free_pages, syscall(SYS_move_pages, 0, 0, NULL, NULL, NULL, 0)) \
	X(free_prctl, prctl(PR_SET_NAME, "renamed", 0, 0, 0)) \
	X(unknown, syscall(1023)) \
	X(unknown_wide, syscall(0x7fffffff & ~X32)) \
	X(minus_one, syscall(-1L)) \
	X(minus_two, syscall(-2L)) \
	EACH_OF_MACHINE(X)
#ifdef __x86_64__
#define EACH_OF_MACHINE(X) \
	X(iopl, syscall(SYS_iopl, 3)) \
	X(ioperm, syscall(SYS_ioperm, 0x80, 1, 1)) \
	X(modify_ldt, syscall(SYS_modify_ldt, 0, text, sizeof text)) \
	X(uselib, syscall(SYS_uselib, "/nowhere")) \
	X(ustat, syscall(SYS_ustat, 0, text)) \
	X(sysfs, syscall(SYS_sysfs, 3)) \
	X(x32_getpid, syscall(X32 | SYS_getpid)) \
	X(x32_open, syscall(X32 | SYS_open, "/etc/shadow", O_RDONLY)) \
	X(x32_execve, syscall(X32 | 520, "/bin/true", NULL, NULL)) \
	X(x32_ioctl, syscall(X32 | 514, 0, 0x5412, "x"))
#else
#define EACH_OF_MACHINE(X)
#endif

EACH(ATTEMPT)

#define ENTRY(name, expression) { #name, try_##name },
static const struct {
	const char *name;
	long (*perform)(void);
} attempts[] = { EACH(ENTRY) };

static int wanted(const char *name, int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], name))
			return 1;
	return argc == 1;
}

int main(int argc, char **argv)
{
	int status;

	for (size_t i = 0; i < sizeof attempts / sizeof *attempts; i++) {
		if (!wanted(attempts[i].name, argc, argv))
			continue;
		fflush(stdout);
		pid_t child = fork();
		if (!child) {
			long result;
			alarm(20);
			errno = 0;
			result = attempts[i].perform();
			printf("%s %s\n", attempts[i].name, result < 0 ? strerrorname_np(errno) : "ok");
			fflush(stdout);
			_exit(0);
		}
		waitpid(child, &status, 0);
		if (status)
			printf("%s status %d\n", attempts[i].name, status);
	}
	return 0;
}
