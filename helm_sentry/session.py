"""One run, from a command line to an exit status. The only module that knows all the parts."""

import contextlib
import os
import select
import shutil
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from helm_sentry import __version__, state
from helm_sentry.abi import flags, libc, syscalls
from helm_sentry.abi.arch import native
from helm_sentry.audit import record
from helm_sentry.audit.canonical import Fields, Json
from helm_sentry.audit.log import AuditLog
from helm_sentry.broker.broker import Broker
from helm_sentry.broker.name_server import LOOKED_UP
from helm_sentry.broker.names import Names
from helm_sentry.broker.paths import Resolver
from helm_sentry.broker.workers import INTERRUPT
from helm_sentry.confine import credentials, landlock, limits
from helm_sentry.confine.credentials import Identity
from helm_sentry.control.door import DOOR, Above
from helm_sentry.control.live import LivePolicy
from helm_sentry.control.live import Run as LiveRun
from helm_sentry.control.plane import ControlPlane
from helm_sentry.control.reload import Reload
from helm_sentry.control.standing import Standing, lasting_digest
from helm_sentry.decision import Decision
from helm_sentry.errors import AuditError, PolicyError, SentryError
from helm_sentry.intercept.injection import hidden_key
from helm_sentry.intercept.notify import Listener
from helm_sentry.launch import filter as seccomp_filter
from helm_sentry.launch.caller import Caller
from helm_sentry.launch.child import FAILED, NOT_STARTED, REPORT, Launch
from helm_sentry.launch.guardian import CONTINUED, EXITED, LEFT, STOPPED, end_descendants
from helm_sentry.launch.probe import attempt
from helm_sentry.launch.relay import Relay, stop_with_agent
from helm_sentry.launch.signals import end_as
from helm_sentry.launch.start import Started, not_confined, start
from helm_sentry.native import library as native_library
from helm_sentry.native.library import Receiver
from helm_sentry.operation import Kind, Operation
from helm_sentry.options import Options
from helm_sentry.policy.engine import CompiledPolicy, compile_policy, decide
from helm_sentry.policy.plan import PTRACE
from helm_sentry.prepare import Prepared, limited_group, own_rules, prepare, read_again
from helm_sentry.receipt import store
from helm_sentry.receipt.keyring import known, require_in_place, signing_key
from helm_sentry.receipt.signer import Signer
from helm_sentry.refusal import record_refusal
from helm_sentry.reporter import Reporter
from helm_sentry.sensor.wall_clock import WallClock
from helm_sentry.sensors import Sensors

if TYPE_CHECKING:  # loaded by the runs that are traced
    from helm_sentry.intercept.tracer import Tracer

_LAST_WORK = 2.0  # seconds for what was begun for processes that have ended
_FIRST_KINDS = (Kind.EXEC, Kind.FILE_READ, Kind.FILE_STAT)  # what every program does before all else
_LOCK = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_SYNC_EVERY = 1.0  # seconds a crashed kernel may lose of the log


def run(options: Options) -> int:
    """Run an agent and return the exit status to end with; an agent's death by signal is repeated.

    Raises:
        SentryError: the run could not start, or the supervisor failed; the agent is ended then.
    """
    try:
        status, _ = supervise(options)
    except KeyboardInterrupt:  # until the relay takes over, an interrupt is for this process
        return end_as(signal.SIGINT)
    return end_as(status)


def supervise(options: Options) -> tuple[int, str]:
    """Run an agent to its end and return its wait status and the run directory.

    Raises:
        SentryError: as `run`.
        KeyboardInterrupt: before the agent was started.
    """
    try:
        prepared = prepare(options)
    except PolicyError as error:
        record_refusal(options.command, error, options.key)
        raise
    try:
        supervisor = _Run(prepared)
        return supervisor.supervise(), supervisor.directory
    finally:
        shutil.rmtree(prepared.scratch, ignore_errors=True)


def _outer_environment(options: Options, identity: Identity) -> dict[str, str]:
    """Return what the policy selects from: the caller's environment, with the agent's user in it."""
    outer = options.outer_environment
    if identity.switch:
        user = credentials.user_name(identity.uid)
        outer |= {"HOME": os.path.expanduser(f"~{user}"), "USER": user, "LOGNAME": user}
    return outer


def _kill(agent: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended by itself, and the guardian is about to say so
        os.kill(agent, signal.SIGKILL)


class _Run:
    """The supervisor's side of a run."""

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared
        hosted = prepared.options.hosted
        self._id, self._parent = (hosted.run, hosted.parent) if hosted else (state.new_run_id(), "")
        self._caller = Caller(hosted.connection if hosted else -1)
        self.directory = ""  # once there is one
        self._relay = Relay()
        signal.signal(INTERRUPT, lambda number, frame: None)  # interrupts workers; nothing else
        self._failure: Exception | None = None
        self._failed, self._wake = os.pipe()
        self._group, self._group_note = limited_group(prepared)

    def supervise(self) -> int:
        """Return the agent's wait status."""
        started = start(self._launch())
        try:
            # From here on this process holds the key and the log: nobody of the same user may look inside.
            libc.prctl(flags.PR_SET_DUMPABLE, 0)
            try:
                self._open_records()
            except OSError as error:
                raise AuditError(f"the files of the run cannot be written: {error}") from error
            self._serve(started)
            status = self._watch(started)
            self._sensors.require_no_gap()
            return status
        finally:
            started.end()
            end_descendants()
            self._control.close() if hasattr(self, "_control") else None
            self._reporter.close() if hasattr(self, "_reporter") else None

    def _launch(self) -> Launch:
        prepared = self._prepared
        arch, wanted = native(), prepared.policy.limits
        hidden = hidden_key() if prepared.plan.tier == PTRACE else None
        killable = flags.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV if prepared.host.wait_killable else 0
        environment = prepared.policy.environment.select(_outer_environment(prepared.options, prepared.identity))
        if above := self._above():
            environment[DOOR] = above.door
        return Launch(
            program=prepared.program,
            arguments=prepared.options.command,
            directory=prepared.options.workspace,
            environment=environment,
            identity=prepared.identity,
            limits=limits.resource_limits(
                wanted.memory,
                # The kernel would count every process of the user, the supervisors' threads, too.
                None if self._group >= 0 else wanted.processes,
                wanted.open_files,
                wanted.file_size,
                wanted.cpu_time,
            ),
            floor=partial(landlock.ruleset, prepared.host.landlock, prepared.plan.programs, prepared.plan.grants)
            if prepared.host.landlock
            else None,
            filter=seccomp_filter.build(arch, syscalls.table_beside(arch, prepared.plan.kernel), hidden),
            hidden=hidden,
            trials=() if prepared.host.listener else syscalls.mediated_numbers(arch),
            filter_flags=killable,
            signal_mask=self._relay.callers_mask,
            act=partial(attempt, prepared.options.probe) if prepared.options.probe else None,
            group=self._group,
            caller=hosted.connection if (hosted := prepared.options.hosted) else -1,
        )

    def _open_records(self) -> None:
        prepared = self._prepared
        place = state.key_directory(), dict(os.environ), prepared.options.key
        self._key = key = signing_key(*place)
        self.directory = state.new_run(self._id)
        facts = record.start(
            run=self._id,
            version=__version__,
            argv=prepared.options.command,
            user=credentials.describe(prepared.identity),
            host=os.uname().nodename,
            features=prepared.host.words(),
            degraded=prepared.plan.missing_layers,
            digests={},
            enforcing=not prepared.options.dry_run,
            durable=prepared.options.durable,
            variables=prepared.variables,
            parent=self._parent,
        )
        digests = store.create_run(
            self.directory, facts, prepared.policy.canonical(), prepared.plan.canonical(), key.public
        )
        self._native = native_library.load()
        self._log_state = self._native.log_state() if self._native else None
        self._log = AuditLog(self.directory, self._id, degraded=prepared.plan.missing_layers, state=self._log_state)
        self._entries = os.open(state.entries_lock(), _LOCK, 0o600)
        self._log.append({**facts, **digests})
        if self._group_note:
            self._log.append(record.notice("limits", self._group_note))
        self._signer = Signer(self.directory, key, self._fail, partial(require_in_place, *place))
        self._wall_clock = WallClock()
        self._reporter = Reporter(prepared.options.quiet, enforcing=not prepared.options.dry_run)
        if prepared.plan.tier == PTRACE != prepared.options.tier:
            self._reporter.say("no seccomp listener can be had here: the agent is traced with ptrace instead")
        self._control = ControlPlane(
            self._id,
            Standing(state.approvals_directory(), lasting_digest(prepared.policy, prepared.scratch), prepared.scratch),
            prepared.options.approve_within,
            self._log.append,
            self._signer.notify,
            self._reporter.say,
            self._fail,
        )
        threading.Thread(target=self._keep_synced, name="sync", daemon=True).start()

    def _serve(self, started: Started) -> None:
        prepared = self._prepared
        policy = compile_policy(prepared.policy)
        for kind in _FIRST_KINDS:  # builds what finds the rules for them
            decide(policy, Operation(kind, path=prepared.program))
        names = Names(policy, self._asked_for, self._fail, enforcing=not prepared.options.dry_run)
        live = LivePolicy(self._live_run(), prepared.policy, self._fail)
        self._sensors = Sensors(
            prepared, self._id, self._log, on_gap=self._gap, on_denial=self._denied, on_failure=self._fail
        )
        if prepared.plan.tier != PTRACE:
            started.confined()  # until here the floor was laid meanwhile, on another processor if there is one
        self._relay.pass_on_early(started.agent)
        self._broker = Broker(
            arch=native(),
            policy=policy,
            listener=started.listener,
            resolver=Resolver(started.guardian),
            names=names,
            log=self._log,
            identity=prepared.identity,
            signal_scope=prepared.host.signal_scope,
            enforcing=not prepared.options.dry_run,
            durable=prepared.options.durable,
            on_denial=self._denied,
            on_failure=self._fail,
            receiver=self._receiver(started.listener),
            approvals=None if prepared.options.dry_run else self._control.approvals,
        )
        self._broker.entries.share(self._entries)
        kill = partial(_kill, started.agent)
        self._control.open(started.guardian, live, kill, partial(self._about, started), self._above())
        if prepared.options.watch:
            reload = Reload(live, partial(read_again, prepared), prepared.policy, self._reporter.say)
            self._relay.instead[signal.SIGHUP] = reload.now
        self._broker.start()
        self._sensors.begin(self._broker, started.agent, kill)
        with contextlib.suppress(BrokenPipeError):  # interrupted before it began: the guardian says how it ended
            started.proceed()

    def _about(self, started: Started) -> Fields:
        counts = dict[str, Json](self._log.counts)
        variables = dict[str, Json](self._prepared.variables)
        return {"agent": started.agent, "decisions": counts, "parent": self._parent, "variables": variables}

    def _above(self) -> Above | None:
        """Return what runs below this one have of it; a dry run has none."""
        options, identity, hosted = self._prepared.options, self._prepared.identity, self._prepared.options.hosted
        if options.dry_run or options.probe:
            return None
        owner = identity.uid, identity.gid
        depth = hosted.depth if hosted else 0
        return Above(self._id, self._prepared.scratch, owner, options.user, options.key, depth)

    def _live_run(self) -> LiveRun:
        """Return what a live policy has to know of this run."""
        prepared = self._prepared
        directory = state.key_directory()
        trusted = [entry.key for entry in known(directory) if entry.role == "trusted"]
        return LiveRun(
            id=self._id,
            complete=own_rules(prepared.policy, prepared.options),
            swap=self._swap,
            append=self._log.append,
            keys=(self._key.public, *trusted),
            programs=frozenset(prepared.plan.programs),
            changed=self._control.policy_changed,
        )

    def _swap(self, policy: CompiledPolicy, announce: Callable[[int], object]) -> int:
        """Put the run under another policy, if what the kernel holds by itself stays as it is."""
        self._sensors.enforce(policy)
        return self._broker.swap(policy, announce)

    def _receiver(self, listener: "Listener | Tracer") -> Receiver | None:
        """Return the compiled receiver, where there is one and it can hash."""
        if self._native is None or self._log_state is None:
            return None
        return self._native.receiver(listener, self._log_state, native())

    def _gap(self, detail: str) -> None:
        """Report what the witness found; it is in the log already."""
        self._signer.notify()
        self._reporter.say(f"the kernel's count of the agent's calls and the log's differ: {detail}")

    def _asked_for(self, code: str, detail: str) -> None:
        """Record what became of a name that the agent asked for."""
        self._log.append(record.notice(code, detail))
        if code != LOOKED_UP:
            self._reporter.say(f"denied: look up {detail}")

    def _denied(self, operation: Operation, decision: Decision, exists: bool) -> None:
        self._signer.notify()
        self._reporter.denied(operation, decision, exists)

    def _fail(self, error: Exception) -> None:
        """End the run because the supervisor cannot do its work; may be called on any thread."""
        self._failure = self._failure or error
        os.write(self._wake, b"!")

    def _keep_synced(self) -> None:
        pause = threading.Event()
        try:
            # The agent does not wait for this: what it does meanwhile is no more durable either.
            store.sync_run(self.directory)
            while not pause.wait(_SYNC_EVERY):
                self._look_at_the_clock()
                self._log.sync()
                self._log.rotate()
        except (AuditError, OSError) as error:
            self._fail(error)

    def _look_at_the_clock(self) -> None:
        if jump := self._wall_clock.jump():
            self._log.append(record.clock_set(jump))

    def _watch(self, started: Started) -> int:
        """Pass signals on, follow the guardian's reports, and return the agent's wait status."""
        wall_time = self._prepared.policy.limits.wall_time
        deadline = time.monotonic() + wall_time if wall_time else None
        poller = select.poll()
        for descriptor in (started.report, self._relay.descriptor, self._failed, *self._caller.descriptors):
            poller.register(descriptor, select.POLLIN)
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            ready = {descriptor for descriptor, _ in poller.poll(left)}
            if not ready:
                self._log.append(record.notice("wall-time", f"the run was ended after {wall_time} s"))
                self._reporter.say(f"the run was ended: its wall time of {wall_time} s is over")
                deadline = None
                _kill(started.agent)
            if self._failed in ready:
                raise self._failure_error()
            if self._relay.descriptor in ready:
                self._relay.pass_on(started.agent)
            if ready & self._caller.descriptors and not self._caller.pass_on(started.agent, self._relay.instead):
                self._log.append(record.notice("caller-gone", "the run was ended with the process that asked for it"))
                poller.unregister(self._caller.forget())
                _kill(started.agent)
            if started.report in ready and (status := self._hear(started)) is not None:
                return self._seal(status)

    def _hear(self, started: Started) -> int | None:
        message = os.read(started.report, REPORT.size)
        if len(message) < REPORT.size:
            raise SentryError("the guardian was killed; the agent was ended")
        letter, first, second = REPORT.unpack(message)
        if letter == STOPPED and self._control.asking:
            pass  # it wanted the terminal, which a prompt has, and goes on after the answer
        elif letter == STOPPED:
            stop_with_agent(started.agent, started.guardian, first, started.listener.is_stopped)
        elif letter == CONTINUED:
            pass
        elif letter == FAILED:
            raise not_confined(first, second)
        elif letter == NOT_STARTED:
            self._reporter.say(f"cannot run `{self._prepared.program}`: {os.strerror(first)}")
        elif letter == LEFT:
            self._log.append(record.outlived(first))
            self._signer.notify()
        elif letter == EXITED:
            return int(first)
        return None

    def _seal(self, status: int) -> int:
        """Write the end of the log and sign it."""
        signal_name = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else ""
        code = None if signal_name else os.waitstatus_to_exitcode(status)
        self._control.end_below()
        self._broker.settle(_LAST_WORK)
        self._look_at_the_clock()
        self._sensors.finish()
        self._log.end(lambda counts: record.end(counts, exit_status=code, signal=signal_name))
        self._log.sync()
        store.sync_run(self.directory)
        self._signer.seal(self._log.totals)
        counts, dry_run = self._log.counts, self._prepared.options.dry_run
        total = sum(counts.values())
        decisions = "1 decision" if total == 1 else f"{total:,} decisions"
        denied = f"{counts['DENY']:,} {'would be denied, nothing was enforced' if dry_run else 'denied'}"
        self._reporter.say(f"{decisions}, {denied}; log: {self.directory}")
        return status

    def _failure_error(self) -> SentryError:
        if isinstance(self._failure, SentryError):
            return self._failure
        return SentryError(f"the supervisor failed and the agent was ended: {self._failure}")
