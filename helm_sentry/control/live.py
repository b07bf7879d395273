"""The live policy of a run: replaced by a signed bundle, widened for a while by a grant, or frozen.

Each change is a new epoch. It is recorded before it holds, and what cannot be recorded does not hold.
"""

import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import NoReturn

from helm_sentry.audit import record
from helm_sentry.audit.canonical import Fields, Json
from helm_sentry.control.bundle import BundleError, open_bundle
from helm_sentry.errors import PolicyError, UsageError
from helm_sentry.policy.ceiling import ceilings, within
from helm_sentry.policy.effective import load_effective
from helm_sentry.policy.engine import CompiledPolicy, compile_policy
from helm_sentry.policy.model import Effect, ExecMatch, Policy
from helm_sentry.receipt.keys import PublicKey

LONGEST_GRANT = 24 * 3600
"""Seconds."""

MOST_GRANTS = 64
"""At once; each has a clock of its own and makes the policy longer."""

MOST_DROPPED = 16
"""Times that an agent may give up rights; each makes every decision a little slower."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a live policy has to know of its run.

    Attributes:
        id: the run's id.
        complete: adds the supervisor's own rules to a policy.
        swap: puts the run under a policy, after announcing its epoch, and returns that; raises ValueError if that
            cannot be.
        append: writes a record.
        keys: those who may sign a policy.
        programs: what the floor lets be executed.
        changed: told what holds now, before a change is reported.
    """

    id: str
    complete: Callable[[Policy], Policy]
    swap: Callable[[CompiledPolicy, Callable[[int], object]], int]
    append: Callable[[Fields], int]
    keys: Collection[PublicKey]
    programs: Collection[str]
    changed: Callable[[Policy], None]


@dataclass(frozen=True, slots=True)
class _Parts:
    """What the effective policy is made of.

    Attributes:
        base: what the run began with or was pushed.
        above: ceilings from the run whose agent started this one.
        dropped: ceilings that the agent itself asked for.
        grants: rules added for a while, by the grant's name.
        frozen: nothing is allowed.
    """

    base: Policy
    above: tuple[Policy, ...] = ()
    dropped: tuple[Policy, ...] = ()
    grants: Mapping[str, Policy] = field(default_factory=dict)
    frozen: bool = False

    def without(self, grant: str) -> "_Parts":
        return replace(self, grants={name: granted for name, granted in self.grants.items() if name != grant})

    def whole(self, complete: Callable[[Policy], Policy]) -> Policy:
        granted = tuple(rule for each in self.grants.values() for rule in each.allow)
        wide = complete(replace(self.base, allow=self.base.allow + granted))
        policy = within(wide, (*self.above, *self.dropped))
        return replace(policy, allow=(), contextual=()) if self.frozen else policy


class LivePolicy:
    """The policy of one run.

    Args:
        run: the run.
        policy: what it begins with.
        on_failure: called when a grant that is over cannot be taken back; the run must end.

    Attributes:
        epoch: how many policies the run had before this one.
        effective: the policy that holds.
    """

    def __init__(self, run: Run, policy: Policy, on_failure: Callable[[Exception], None]) -> None:
        self._run, self._on_failure = run, on_failure
        self._parts = _Parts(replace(policy, within=()), above=policy.within)
        self._granted, self._clocks = 0, dict[str, threading.Timer]()
        self._lock = threading.Lock()
        self.epoch, self.effective = 0, policy

    def describe(self) -> Fields:
        """Return the epoch and the effective policy."""
        with self._lock:
            return self._summary() | {"policy": self.effective.canonical()}

    def summary(self) -> Fields:
        """Return the epoch, the name of the policy and the role it gives the agent."""
        with self._lock:
            return self._summary()

    def _summary(self) -> Fields:
        return {
            "epoch": self.epoch,
            "frozen": self._parts.frozen,
            "grants": list[Json](sorted(self._parts.grants)),
            "name": self.effective.name,
            "role": self.effective.agent.get("role", ""),
        }

    def apply(self, data: bytes, by: str, *, dry_run: bool = False) -> Fields:
        """Put the run under the policy in a bundle. Grants end, a freeze ends.

        Raises:
            PolicyError: it is not signed by a trusted key, for another run, for an epoch that is over, or no policy;
                nothing has changed, and that is recorded.
        """
        with self._lock, _Recorded(self, by):
            bundle = open_bundle(data, self._run.keys, self._parts.base.rules)
            if bundle.run != self._run.id:
                raise BundleError(f"the policy bundle is for run `{bundle.run}`")
            if bundle.epoch != self.epoch:
                raise BundleError(f"the policy bundle replaces epoch {bundle.epoch}, and the run is at {self.epoch}")
            return self._change(self._pushed(bundle.policy), "a policy was pushed", by, dry_run=dry_run)

    def refuse(self, why: str, by: str) -> NoReturn:
        """Refuse a bundle that is none at first sight.

        Raises:
            BundleError: always; nothing has changed, and that is recorded.
        """
        with self._lock, _Recorded(self, by):
            raise BundleError(why)

    def reload(self, read: Callable[[], Policy], by: str) -> Fields:
        """Put the run under what its policy file says now. Grants end, a freeze ends.

        Raises:
            PolicyError: it says no policy; nothing has changed, and that is recorded.
        """
        with self._lock, _Recorded(self, by):
            return self._change(self._pushed(read()), "the policy file was read again", by)

    def drop(self, text: str, by: str) -> Fields:
        """Deny whatever another policy denies, too, until the run ends: the one thing an agent may ask for.

        Raises:
            PolicyError: it is no policy, or asks for what is not known any more; that is recorded.
        """
        with self._lock, _Recorded(self, by):
            dropped = self._parts.dropped
            if len(dropped) >= MOST_DROPPED:
                raise PolicyError(f"rights were dropped {MOST_DROPPED} times already")
            dropped += ceilings(load_effective(text, "drop.json"), f"dropped-{len(dropped) + 1}")
            return self._change(replace(self._parts, dropped=dropped), "the agent gave up rights", by)

    def put_under(self, texts: Collection[str], by: str) -> Fields:
        """Replace the ceilings from the run above.

        Raises:
            PolicyError: one is no policy.
        """
        with self._lock:
            above = tuple(load_effective(text, "within.json") for text in texts)
            return self._change(replace(self._parts, above=above), "the policy of the run above changed", by)

    def _pushed(self, policy: Policy) -> _Parts:
        return replace(self._parts, base=policy, grants={}, frozen=False)

    def grant(self, text: str, seconds: float, by: str) -> Fields:
        """Add allow rules for a while.

        Args:
            text: a policy whose `allow` rules are added; it may hold nothing else.
            seconds: until they are taken back.
            by: who grants.

        Raises:
            PolicyError: it cannot be granted; that is recorded.
        """
        with self._lock, _Recorded(self, by):
            granted = load_effective(text, "grant.json")
            if granted.block or granted.contextual or not granted.allow:
                raise PolicyError("a grant holds allow rules and nothing else: no `extends`, `block` or `contextual`")
            if not 0 < seconds <= LONGEST_GRANT:
                raise PolicyError(f"a grant lasts more than 0 and at most {LONGEST_GRANT} seconds")
            if self._parts.frozen:
                raise PolicyError("the run is frozen; push a policy first")
            if len(self._parts.grants) >= MOST_GRANTS:
                raise PolicyError(f"{MOST_GRANTS} grants hold already; revoke one first")
            self._granted += 1
            name = f"grant-{self._granted}"
            rules = tuple(replace(rule, id=f"{name}/{rule.id}") for rule in granted.allow)
            grants = {**self._parts.grants, name: replace(granted, allow=rules)}
            clock = self._clock(seconds, name)  # before the grant, which must not be without one
            try:
                answer = self._change(replace(self._parts, grants=grants), f"`{name}` for {seconds:g} s", by)
            except BaseException:
                clock.cancel()
                raise
            self._clocks[name] = clock
            return answer | {"grant": name}

    def revoke(self, name: str, by: str) -> Fields:
        """Take a grant back.

        Raises:
            UsageError: there is no such grant.
        """
        with self._lock:
            if name not in self._parts.grants:
                raise UsageError(f"there is no grant `{name}`: it was never given, or is over")
            return self._change(self._parts.without(name), f"`{name}` was taken back", by)

    def freeze(self, by: str) -> Fields:
        """Allow nothing more, until a policy is pushed."""
        with self._lock:
            return self._change(replace(self._parts, grants={}, frozen=True), "the run was frozen", by)

    def _clock(self, seconds: float, name: str) -> threading.Timer:
        clock = threading.Timer(seconds, self._expire, (name,))
        clock.daemon = True
        try:
            clock.start()
        except RuntimeError as error:
            raise PolicyError(f"the grant can have no clock: {error}") from error
        return clock

    def _expire(self, name: str) -> None:
        with self._lock:
            if name in self._parts.grants:
                try:
                    self._change(self._parts.without(name), f"`{name}` is over", "the clock")
                except Exception as error:
                    self._on_failure(error)
                    raise

    def _change(self, parts: _Parts, what: str, by: str, *, dry_run: bool = False) -> Fields:
        policy = parts.whole(self._run.complete)
        try:
            compiled = compile_policy(policy)
        except ValueError as error:
            raise PolicyError(str(error)) from error
        notes: Fields = {"notes": _notes(policy, self._run.programs)}
        if dry_run:
            return {"epoch": self.epoch, "digest": policy.digest, "dry_run": True, **notes}

        def announced(epoch: int) -> Fields:
            return record.policy_change("applied", epoch, what, by, policy.canonical())

        began = time.monotonic()
        try:
            self.epoch = self._run.swap(compiled, lambda epoch: self._run.append(announced(epoch)))
        except ValueError as error:
            raise PolicyError(str(error)) from error
        self._parts, self.effective = parts, policy
        for name in self._clocks.keys() - parts.grants.keys():
            self._clocks.pop(name).cancel()
        self._run.changed(policy)
        taken = int((time.monotonic() - began) * 1e6)
        return {"epoch": self.epoch, "digest": policy.digest, "microseconds": taken, **notes}

    def _refused(self, error: PolicyError, by: str) -> None:
        self._run.append(record.policy_change("refused", self.epoch, str(error), by))


class _Recorded:
    """Records a policy that is refused."""

    def __init__(self, live: LivePolicy, by: str) -> None:
        self._live, self._by = live, by

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, PolicyError):
            self._live._refused(error, self._by)


def _notes(policy: Policy, programs: Collection[str]) -> list[Json]:
    beyond = {
        path
        for rule in policy.allow
        if isinstance(rule.match, ExecMatch) and rule.effect is Effect.ALLOW
        for path in rule.match.paths
        if path not in programs
    }
    return [f"`{path}` can be executed by a new run only" for path in sorted(beyond)]
