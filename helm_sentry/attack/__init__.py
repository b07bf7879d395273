"""The attack suite as a command: tiny programs that try to get past a policy, run against it on this kernel."""
