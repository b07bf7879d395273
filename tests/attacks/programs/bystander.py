"""A process of the same user that has nothing to do with the agent: the one that attacks are aimed at.

It holds a decoy in memory and in an open file, and lets signals wait so that they can be seen. Without a supervisor
it stands in for that as well. Ends with its standard input.
"""

import ctypes
import json
import os
import signal
import sys

SECRET = ctypes.create_string_buffer(b"decoy in memory")
signal.pthread_sigmask(signal.SIG_BLOCK, range(signal.SIGRTMIN, signal.SIGRTMAX + 1))
opened = os.open(sys.argv[1], os.O_RDONLY)
print(json.dumps({"address": ctypes.addressof(SECRET), "descriptor": opened}), flush=True)
sys.stdin.read()
