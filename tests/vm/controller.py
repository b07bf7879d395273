"""Hold a control group to a policy that allows one directory, then wait to be killed: `controller.py CGROUP PINS LOSSY`."""

import os
import signal
import sys

from helm_sentry.policy.lower import BPF_LSM, lower
from helm_sentry.policy.model import FILE_KINDS, Effect, FileMatch, Policy, Rule
from helm_sentry.sensor import lsm

cgroup, pins, lossy, cache = sys.argv[1:]
rule = Rule("one", Effect.ALLOW, FileMatch(frozenset(FILE_KINDS.values()), ("/var/lsm/allowed/**",)))
enforcer = lsm.Enforcer(lsm.load(cache), pins, lossy=lossy == "lossy")
enforcer.enforce(lower(Policy("test", allow=(rule,)), BPF_LSM))
os.makedirs(cgroup, exist_ok=True)
enforcer.watch(cgroup)
print("ready", flush=True)
signal.pause()
