"""The two ends of a run that somebody waits for."""

import os
import socket
import subprocess
import sys

TELLS = """
import os, sys
from helm_sentry.launch.caller import tell
print("the last line")
print("and of errors", file=sys.stderr)
tell(int(sys.argv[1]), status=256)
os.read(int(sys.argv[2]), 1)
"""


def test_who_reads_the_output_sees_its_end_with_the_status_and_not_with_the_process():
    ours, theirs = socket.socketpair()
    held, hold = os.pipe()
    command = [sys.executable, "-c", TELLS, str(theirs.fileno()), str(held)]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, pass_fds=[theirs.fileno(), held], text=True, **pipes) as process:
        assert process.stdout and process.stderr
        assert (process.stdout.read(), process.stderr.read()) == ("the last line\n", "and of errors\n")
        assert ours.recv(100) == b"status 256\n"
        assert process.poll() is None  # the control: nothing of that came of its end
        os.write(hold, b"!")
    assert process.returncode == 0
    for each in (held, hold):
        os.close(each)
    ours.close()
    theirs.close()
