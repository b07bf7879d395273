from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Choice(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CHOICE_UNSPECIFIED: _ClassVar[Choice]
    DENY: _ClassVar[Choice]
    ONCE: _ClassVar[Choice]
    FOR_RUN: _ClassVar[Choice]
    ALWAYS: _ClassVar[Choice]
CHOICE_UNSPECIFIED: Choice
DENY: Choice
ONCE: Choice
FOR_RUN: Choice
ALWAYS: Choice

class ListRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListReply(_message.Message):
    __slots__ = ("runs",)
    RUNS_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[Run]
    def __init__(self, runs: _Optional[_Iterable[_Union[Run, _Mapping]]] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: str
    def __init__(self, run: _Optional[str] = ...) -> None: ...

class Run(_message.Message):
    __slots__ = ("id", "parent", "epoch", "frozen", "grants", "policy_name", "policy", "supervisor", "agent", "waiting", "decisions", "role", "variables")
    class DecisionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class VariablesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    FROZEN_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    POLICY_NAME_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    SUPERVISOR_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    VARIABLES_FIELD_NUMBER: _ClassVar[int]
    id: str
    parent: str
    epoch: int
    frozen: bool
    grants: _containers.RepeatedScalarFieldContainer[str]
    policy_name: str
    policy: str
    supervisor: int
    agent: int
    waiting: int
    decisions: _containers.ScalarMap[str, int]
    role: str
    variables: _containers.ScalarMap[str, str]
    def __init__(self, id: _Optional[str] = ..., parent: _Optional[str] = ..., epoch: _Optional[int] = ..., frozen: bool = ..., grants: _Optional[_Iterable[str]] = ..., policy_name: _Optional[str] = ..., policy: _Optional[str] = ..., supervisor: _Optional[int] = ..., agent: _Optional[int] = ..., waiting: _Optional[int] = ..., decisions: _Optional[_Mapping[str, int]] = ..., role: _Optional[str] = ..., variables: _Optional[_Mapping[str, str]] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("run", "from_start", "verdicts", "types")
    RUN_FIELD_NUMBER: _ClassVar[int]
    FROM_START_FIELD_NUMBER: _ClassVar[int]
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    run: str
    from_start: bool
    verdicts: _containers.RepeatedScalarFieldContainer[str]
    types: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, run: _Optional[str] = ..., from_start: bool = ..., verdicts: _Optional[_Iterable[str]] = ..., types: _Optional[_Iterable[str]] = ...) -> None: ...

class Record(_message.Message):
    __slots__ = ("seq", "time", "type", "verdict", "rule", "syscall", "operations", "target", "policy_epoch", "json")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    SYSCALL_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    POLICY_EPOCH_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    seq: int
    time: int
    type: str
    verdict: str
    rule: str
    syscall: str
    operations: _containers.RepeatedScalarFieldContainer[str]
    target: str
    policy_epoch: int
    json: str
    def __init__(self, seq: _Optional[int] = ..., time: _Optional[int] = ..., type: _Optional[str] = ..., verdict: _Optional[str] = ..., rule: _Optional[str] = ..., syscall: _Optional[str] = ..., operations: _Optional[_Iterable[str]] = ..., target: _Optional[str] = ..., policy_epoch: _Optional[int] = ..., json: _Optional[str] = ...) -> None: ...

class ApplyRequest(_message.Message):
    __slots__ = ("run", "bundle", "dry_run")
    RUN_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    run: str
    bundle: bytes
    dry_run: bool
    def __init__(self, run: _Optional[str] = ..., bundle: _Optional[bytes] = ..., dry_run: bool = ...) -> None: ...

class GrantRequest(_message.Message):
    __slots__ = ("run", "rules", "seconds")
    RUN_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    run: str
    rules: str
    seconds: int
    def __init__(self, run: _Optional[str] = ..., rules: _Optional[str] = ..., seconds: _Optional[int] = ...) -> None: ...

class RevokeRequest(_message.Message):
    __slots__ = ("run", "grant")
    RUN_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    run: str
    grant: str
    def __init__(self, run: _Optional[str] = ..., grant: _Optional[str] = ...) -> None: ...

class FreezeRequest(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: str
    def __init__(self, run: _Optional[str] = ...) -> None: ...

class Change(_message.Message):
    __slots__ = ("epoch", "digest", "microseconds", "notes", "grant", "dry_run")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    MICROSECONDS_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    digest: str
    microseconds: int
    notes: _containers.RepeatedScalarFieldContainer[str]
    grant: str
    dry_run: bool
    def __init__(self, epoch: _Optional[int] = ..., digest: _Optional[str] = ..., microseconds: _Optional[int] = ..., notes: _Optional[_Iterable[str]] = ..., grant: _Optional[str] = ..., dry_run: bool = ...) -> None: ...

class KillRequest(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: str
    def __init__(self, run: _Optional[str] = ...) -> None: ...

class KillReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListApprovalsRequest(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: str
    def __init__(self, run: _Optional[str] = ...) -> None: ...

class ListApprovalsReply(_message.Message):
    __slots__ = ("questions",)
    QUESTIONS_FIELD_NUMBER: _ClassVar[int]
    questions: _containers.RepeatedCompositeFieldContainer[Question]
    def __init__(self, questions: _Optional[_Iterable[_Union[Question, _Mapping]]] = ...) -> None: ...

class Question(_message.Message):
    __slots__ = ("run", "number", "tid", "program", "syscall", "rule", "operations", "digest", "seconds_left", "lines")
    RUN_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TID_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    SYSCALL_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SECONDS_LEFT_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    run: str
    number: int
    tid: int
    program: str
    syscall: str
    rule: str
    operations: _containers.RepeatedScalarFieldContainer[str]
    digest: str
    seconds_left: int
    lines: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, run: _Optional[str] = ..., number: _Optional[int] = ..., tid: _Optional[int] = ..., program: _Optional[str] = ..., syscall: _Optional[str] = ..., rule: _Optional[str] = ..., operations: _Optional[_Iterable[str]] = ..., digest: _Optional[str] = ..., seconds_left: _Optional[int] = ..., lines: _Optional[_Iterable[str]] = ...) -> None: ...

class AnswerApprovalRequest(_message.Message):
    __slots__ = ("run", "number", "choice", "digest")
    RUN_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    CHOICE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    run: str
    number: int
    choice: Choice
    digest: str
    def __init__(self, run: _Optional[str] = ..., number: _Optional[int] = ..., choice: _Optional[_Union[Choice, str]] = ..., digest: _Optional[str] = ...) -> None: ...
