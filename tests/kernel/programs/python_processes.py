"""Subprocess pipelines, terminals, signals, limits, and what a process can learn about itself."""

import ctypes.util
import getpass
import grp
import locale
import logging
import os
import platform
import pty
import pwd
import resource
import select
import signal
import subprocess
import sys
import termios
import time
import tty
import zoneinfo


def pipelines():
    first = subprocess.Popen(["printf", "b\\na\\nc\\n"], stdout=subprocess.PIPE)
    second = subprocess.Popen(["sort", "-r"], stdin=first.stdout, stdout=subprocess.PIPE)
    first.stdout.close()
    print("pipeline", second.communicate()[0].split(), first.wait(), second.returncode)
    print(
        "output",
        subprocess.check_output("ls /nonexistent 2>/dev/null || echo status $?", shell=True, text=True).strip(),
    )
    print("environment", subprocess.run(["env"], env={"ONLY": "this"}, capture_output=True, text=True).stdout.strip())
    print("directory", subprocess.run(["pwd"], cwd="/usr", capture_output=True, text=True).stdout.strip())
    try:
        subprocess.run(["sleep", "100"], timeout=0.2)
    except subprocess.TimeoutExpired:
        print("timeout")
    try:
        subprocess.run(["/nonexistent/program"])
    except FileNotFoundError as error:
        print("missing", error.errno)
    with open("plain-file", "w") as file:
        file.write("echo no\n")
    try:
        subprocess.run(["./plain-file"])
    except PermissionError as error:
        print("not executable", error.errno)
    inherited, passed = os.pipe()
    child = f"import os; os.write({passed}, b'inherited')"
    subprocess.run([sys.executable, "-c", child], pass_fds=[passed], check=True)
    print("pass_fds", os.read(inherited, 20).decode())
    print("system", os.waitstatus_to_exitcode(os.system("exit 9")), os.popen("echo popen").read().strip())
    spawned = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 4"], os.environ)
    print("posix_spawn", os.waitstatus_to_exitcode(os.waitpid(spawned, 0)[1]))


def terminals():
    master, slave = os.openpty()
    print("openpty", os.isatty(slave), os.ttyname(slave).startswith("/dev/pts/"))
    tty.setraw(slave)
    os.write(master, b"typed")
    print("raw", os.read(slave, 10).decode(), termios.tcgetattr(slave)[3] & termios.ECHO)
    child, master = pty.fork()
    if child == 0:
        os.execlp("sh", "sh", "-c", "test -t 1 && echo on a terminal; tty | cut -c1-9; echo written > /dev/tty; exit 7")
    output = bytearray()
    try:
        while data := os.read(master, 1024):
            output.extend(data)
    except OSError as error:  # EIO: the last holder of the other side has closed it
        print("hung up", error.errno)
    print("forkpty", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), output.decode().split("\r\n"))


def signals():
    seen = []
    signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(signal.Signals(number).name))
    os.kill(os.getpid(), signal.SIGUSR1)
    signal.raise_signal(signal.SIGUSR1)
    signal.pthread_kill(__import__("threading").get_ident(), signal.SIGUSR1)
    print("signals", seen)
    signal.signal(signal.SIGALRM, lambda number, frame: seen.append("alarm"))
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    signal.pause()
    print("timer", seen[-1])
    child = os.fork()
    if child == 0:
        signal.pause()
    os.kill(child, signal.SIGTERM)
    print("terminated", os.WTERMSIG(os.waitpid(child, 0)[1]))
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os.kill(0, signal.SIGKILL)
    print("group", os.WTERMSIG(os.waitpid(child, 0)[1]))
    pidfd = os.pidfd_open(os.getpid())
    signal.pidfd_send_signal(pidfd, signal.SIGUSR1)
    print("pidfd", seen[-1])
    child = subprocess.Popen(["sleep", "100"])
    child.send_signal(signal.SIGSTOP)
    os.waitpid(child.pid, os.WUNTRACED)
    child.send_signal(signal.SIGCONT)
    child.terminate()
    print("stopped", child.wait())


def about_itself():
    print("proc", os.readlink("/proc/self") == str(os.getpid()), os.path.basename(os.readlink("/proc/self/exe"))[:6])
    print("descriptors", len(os.listdir("/proc/self/fd")) < 20, open("/proc/self/comm").read().strip()[:6])
    print("status", "Threads:\t1" in open("/proc/self/status").read(), len(open("/proc/self/maps").readlines()) > 10)
    print("who", getpass.getuser(), pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name)
    print(
        "machine",
        platform.system(),
        platform.machine(),
        platform.libc_ver()[0],
        platform.freedesktop_os_release()["ID"],
    )
    print("memory", "MemTotal" in open("/proc/meminfo").read(), os.sysconf("SC_PAGE_SIZE"), os.getloadavg()[0] >= 0)
    print("library", ctypes.util.find_library("c"))
    print("locale", locale.setlocale(locale.LC_ALL, ""), time.strftime("%Y", time.gmtime(0)), time.tzname)
    print("zone", zoneinfo.ZoneInfo("Europe/Paris").key)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, soft - 1))
    print("limit", resource.getrlimit(resource.RLIMIT_NOFILE)[0] == soft - 1)
    os.nice(1)
    print("priority", os.getpriority(os.PRIO_PROCESS, 0))
    os.umask(0o027)
    os.mkdir("masked")
    print("umask", oct(os.stat("masked").st_mode))


def daemons():
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(write, b"from a grandchild in its own session")
        os._exit(0)
    os.wait()
    print("session", os.read(read, 100).decode())
    with select.epoll() as poller:
        poller.register(read, select.EPOLLIN)
        os.write(write, b"!")
        print("epoll", len(poller.poll(5)))


pipelines()
terminals()
signals()
about_itself()
daemons()
logging.warning("a warning on standard error")
sys.exit(5)
