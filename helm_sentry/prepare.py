"""What is found out and decided before a run's first process starts: program, policy, host, plan."""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

from helm_sentry import features, state
from helm_sentry.abi.arch import native
from helm_sentry.confine import credentials, group, landlock
from helm_sentry.confine.credentials import Identity
from helm_sentry.errors import FeatureError, LaunchError, StalePolicyError
from helm_sentry.features import Features
from helm_sentry.options import Options
from helm_sentry.policy.builtin import with_builtin_rules
from helm_sentry.policy.ceiling import within
from helm_sentry.policy.effective import load_effective
from helm_sentry.policy.loader import load, load_file, shipped_packs
from helm_sentry.policy.lower import Lowered
from helm_sentry.policy.model import Policy
from helm_sentry.policy.plan import KERNEL_TIER, SECCOMP, Plan, make_plan
from helm_sentry.policy.rights import HOOKS, Grant, everything, grants, lower_to_hooks, lower_to_rights, named_paths
from helm_sentry.receipt.keyring import key_descriptor, key_file
from helm_sentry.sensor import cgroup

_EVERY_PROGRAM = ("/**",)  # the floor of a dry run: what may be executed is only written down

_GIVEN = "given-policy"  # as a pack it can extend packs and no file


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that is known before the first process starts."""

    options: Options
    host: Features
    identity: Identity
    policy: Policy
    plan: Plan
    program: str
    scratch: str
    variables: dict[str, str]


def prepare(options: Options) -> Prepared:
    """Return all that a run needs before its first process.

    Raises:
        SentryError: the program, the policy or the host does not allow a run.
    """
    key_descriptor(os.environ)  # before anything is opened that could come to have the number of one that is not there
    identity = credentials.of_user(options.user) if options.user else credentials.current()
    program = sys.executable if options.probe else _find_program(options)
    probing = features.begin()  # goes on while the policy is read
    scratch = os.path.realpath(tempfile.mkdtemp(prefix="helm-sentry-"))
    try:
        os.chown(scratch, identity.uid, identity.gid)
        variables = _variables(options, program, scratch)
        policy = _load_policy(options, variables)
        host = probing()
        plan = plan_for(policy, host, _EVERY_PROGRAM if options.dry_run else native().loaders, options.tier)
        _require(plan, options.accept_degraded)
    except BaseException:
        os.rmdir(scratch)
        raise
    return Prepared(options, host, identity, policy, plan, program, scratch, variables)


def plan_for(policy: Policy, host: Features, loaders: tuple[str, ...], tier: str) -> Plan:
    """Return how a policy is held on this host in a tier; `auto` is never the kernel tier (docs/adr/0013)."""
    plan = make_plan(policy, host, loaders, SECCOMP if tier == KERNEL_TIER else tier)
    if tier != KERNEL_TIER:
        return plan
    # Imported here: other runs start 3 ms sooner without it.
    from helm_sentry.sensor import lsm

    lowered, rights = _lowered(policy, plan.programs, hooks=host.root and host.btf and not lsm.refused())
    return make_plan(policy, host, loaders, tier, lowered, rights)


def require_held(plan: Plan, policy: Policy) -> Lowered | None:
    """Return what the kernel holds of another policy than that of the run's start; None in the seccomp tier.

    Raises:
        ValueError: it would be something else than since the run began, and cannot be changed.
    """
    if plan.tier != KERNEL_TIER:
        return None
    lowered, rights = _lowered(policy, plan.programs, hooks=plan.mechanism == HOOKS.name)
    if (lowered.kinds, rights) != (plan.kernel, plan.grants):
        names = " and ".join(f"`{kind}`" for kind in sorted(plan.kernel))
        raise ValueError(
            f"in this run the kernel holds {names}, and its rules cannot change; a policy with other rules for it "
            "needs a new run, and `helm-sentry kill` ends this one"
        )
    return lowered


def _lowered(policy: Policy, programs: tuple[str, ...], *, hooks: bool) -> tuple[Lowered, tuple[Grant, ...]]:
    if hooks:  # they hold the agent even where no rule can be theirs: to what the broker does for it
        lowered = lower_to_hooks(policy)
        return lowered, everything() if lowered.kinds else ()
    places = {path: place for path in named_paths(policy) if (place := landlock.look(path)) is not None}
    lowered = lower_to_rights(policy, places, landlock.floor(programs))
    return lowered, grants(policy, lowered, places)


def _find_program(options: Options) -> str:
    """Return the absolute path of a program as a shell in the workspace would find it."""
    name, search = options.command[0], options.outer_environment.get("PATH")
    found = shutil.which(os.path.join(options.workspace, name) if "/" in name else name, path=search)
    if found is None:
        there = os.path.exists(name) and "/" in name
        raise LaunchError(
            f"cannot run `{name}`: {'it is not executable' if there else 'there is no such program'}",
            126 if there else 127,
        )
    return os.path.abspath(found)


def _variables(options: Options, program: str, scratch: str) -> dict[str, str]:
    return {
        "workspace": os.path.realpath(options.workspace),
        "home": os.path.realpath(os.path.expanduser(f"~{options.user}" if options.user else "~")),
        "tmp": scratch,
        "user": options.user or credentials.user_name(os.getuid()),
        "program": os.path.realpath(program),
    }


def _load_policy(options: Options, variables: dict[str, str]) -> Policy:
    hosted = options.hosted
    if hosted and hosted.policy:
        packs = shipped_packs()
        policy = load(hosted.policy, _GIVEN, variables, {**packs, _GIVEN: hosted.policy})
    else:
        policy = load_file(options.policy, variables)
        _require_fresh(policy, options.max_policy_age)
    above = hosted.ceilings(variables["tmp"]) if hosted else ()
    policy = within(policy, tuple(load_effective(text, "within.json") for text in above))
    return own_rules(policy, options)(policy)


def read_again(prepared: Prepared) -> Policy:
    """Return what the run's policy file says now, without the supervisor's own rules.

    Raises:
        PolicyError: it says no policy.
    """
    return load_file(prepared.options.policy, prepared.variables)


def own_rules(first: Policy, options: Options) -> Callable[[Policy], Policy]:
    """Return what adds the supervisor's rules to a policy; what decides are the files of the run's first policy."""
    protected = (os.path.realpath(state.state_directory()), f"/proc/{os.getpid()}")
    # Who leaves its control group leaves the programs, or the limits, that hold it.
    held = options.tier == KERNEL_TIER or (options.hosted and options.hosted.cgroup)
    groups = (cgroup.mounted(),) if held and cgroup.mounted() else ()
    sources, key = (*_what_decides(first), *groups), key_file(os.environ, options.key)
    return lambda policy: with_builtin_rules(policy, protected, sources, key)


def limited_group(prepared: Prepared) -> tuple[int, str]:
    """Return a descriptor of a control group that holds the policy's limits, -1 where there is none, and a word on it.

    In the kernel tier the agent's group is that of the programs that hold it.
    """
    hosted, limits = prepared.options.hosted, prepared.policy.limits
    if not hosted or not hosted.cgroup or prepared.plan.tier == KERNEL_TIER or not (limits.memory or limits.processes):
        return -1, ""
    try:
        descriptor = group.limit(hosted.cgroup, limits.memory, limits.processes)
        return descriptor, f"memory and processes are limited for all of the agent together in {hosted.cgroup}"
    except OSError as error:
        return -1, f"memory and processes are limited for each process alone: {error.strerror}"


def _require_fresh(policy: Policy, most: int | None) -> None:
    for path in policy.files if most is not None else ():
        age = int(time.time() - os.stat(path).st_mtime)
        if age > (most or 0):
            raise StalePolicyError(
                f"policy `{path}` was last written {age} s ago; `--max-policy-age {most}s` refuses it"
            )


def _what_decides(policy: Policy) -> tuple[str, ...]:
    """Return the files and directories that decide what the next run does: policies and our own program."""
    package = os.path.dirname(os.path.abspath(__file__))
    libraries = [path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages")]
    paths = [*policy.files, shipped_packs().directory, package, sys.argv[0], sys.prefix, *libraries]
    return tuple(sorted({os.path.realpath(path) for path in paths if os.path.exists(path)}))


def _require(plan: Plan, accept_degraded: bool) -> None:
    if plan.fatal:
        raise FeatureError("; ".join(plan.fatal))
    if plan.missing and not accept_degraded:
        raise FeatureError("; ".join(plan.missing) + "; `--accept-degraded` runs without and marks every record")
