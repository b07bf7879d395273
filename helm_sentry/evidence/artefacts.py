"""A run in HELM AI Kernel's formats. Pure: an account of the run and a key go in; same run and key, same bytes out."""

import os
from collections.abc import Mapping
from typing import Any

from helm_sentry.audit.canonical import Fields, Json
from helm_sentry.evidence import boundary, host_chain, receipt_v5
from helm_sentry.evidence.acts import Account, Act, Flow
from helm_sentry.evidence.serial import digest, instant
from helm_sentry.receipt.keys import SigningKey

_NANOSECONDS = 1_000_000_000


def sandbox_grant(account: Account) -> Fields:
    """Return the SandboxGrant that the run's policy and plan came to: what was really enforced, not declared."""
    start, policy = account.start, account.policy
    limits, environment = _map(policy.get("limits")), _map(policy.get("environment"))
    names: list[Json] = sorted({*_list(environment.get("pass")), *_map(environment.get("set"))})
    destinations = _destinations(policy)
    return boundary.grant(
        {
            "grant_id": f"grant-{account.run}",
            "runtime": "helm-sentry",
            "runtime_version": start["version"],
            "profile": policy["name"],
            "template_digest": f"sha256:{start['plan_digest']}",
            "filesystem_preopens": _preopens(policy),
            "env": {"mode": "allowlist", "names": names, "names_hash": digest(names)}
            if names
            else {"mode": "deny-all"},
            "network": {"mode": "allowlist", "destinations": destinations} if destinations else {"mode": "deny-all"},
            "limits": {
                **_limit("memory_bytes", limits.get("memory"), "B", 1),
                **_limit("cpu_time", limits.get("cpu_time"), "s", _NANOSECONDS),
                **_limit("open_files", limits.get("open_files"), "", 1),
            },
            "declared_at": instant(_time(start)),
            "policy_epoch": policy_epoch(account),
        }
    )


def policy_epoch(account: Account) -> str:
    """Return what names the policy of a run where HELM wants an epoch: its digest."""
    return f"sha256:{account.start['policy_digest']}"


def receipts(account: Account, key: SigningKey) -> list[Fields]:
    """Return the receipt.v5 chain of a run's acts."""
    return receipt_v5.build([_receipt(account, act) for act in account.acts], account.run, policy_epoch(account), key)


def boundary_records(account: Account, grant: Fields) -> list[Fields]:
    """Return the ExecutionBoundaryRecord of every act."""
    return [
        boundary.record(
            {
                "record_id": f"{account.run}-{act.seq}",
                "verdict": act.verdict,
                "reason_code": act.code,
                "tool_name": act.tool,
                "args_hash": _arguments(act),
                "policy_epoch": policy_epoch(account),
                "sandbox_grant_hash": grant["grant_hash"],
                "receipt_id": _receipt_id(account, act),
                "created_at": instant(act.time),
                # A dry run let it happen, so HELM's word for that is needed; its published schema lacks it.
                **({} if act.happened == (act.verdict == "ALLOW") else _shadow(account)),
            }
        )
        for act in account.acts
    ]


def proof_graph(account: Account, chain: list[Fields], key: SigningKey) -> list[Fields]:
    """Return the nodes of a run: its intent, one node for each receipt, and a checkpoint of the whole log."""
    principal = f"helm-sentry:{account.run}"
    nodes = [boundary.node("INTENT", [], 1, principal, 0, {"run": account.run, "argv": account.start["argv"]}, key)]
    for receipt in chain:
        payload: Fields = {"receipt_id": receipt["receipt_id"], "receipt_hash": receipt_v5.chain_hash(receipt)}
        _append(nodes, "EFFECT" if receipt["verdict"] == "ALLOW" else "ATTESTATION", principal, payload, key)
    end = account.end
    _append(nodes, "CHECKPOINT", principal, {"records": _int(end, "seq") + 1, "head": str(end["hash"])}, key)
    return nodes


def network_chain(account: Account, key: SigningKey) -> Fields | None:
    """Return the host chain of what really left, or nothing when nothing did.

    Left out are refusals, connections that sent and received nothing, and traffic to the run's own ports. A count that
    is not exact says so in `metadata`. The last receipt says how many there are, so that a cut tail is seen.
    """
    left = [flow for flow in account.flows if _left(flow.traffic)]
    if not left:
        return None
    events = [_network_receipt(account, flow) for flow in left]
    _map(events[-1]["metadata"])[host_chain.END] = str(len(events))
    return host_chain.build(f"{account.run}-network", instant(_time(account.end)), events, key)


def action_chain(account: Account, key: SigningKey) -> Fields | None:
    """Return the host chain of all acts, refused ones too; HELM takes any for traffic, so its folder gets none."""
    if not account.acts:
        return None
    events = [_action_receipt(account, act) for act in account.acts]
    _map(events[-1]["metadata"])[host_chain.END] = str(len(events))
    return host_chain.build(f"{account.run}-actions", instant(_time(account.end)), events, key)


def _receipt(account: Account, act: Act) -> Fields:
    return {
        "receipt_id": _receipt_id(account, act),
        "decision_id": f"{account.run}:{act.seq}",
        "effect_id": f"{act.tool}:{act.seq}",
        "verdict": act.verdict,
        "reason_code": act.code,
        "args_hash": _arguments(act),
        # Our own record, which says everything the members around it say and is not signed there.
        "output_hash": f"sha256:{act.hash}",
        "decision_hash": f"sha256:{act.hash}",
        "timestamp": instant(act.time),
        "executor_id": "helm-sentry",
        "tool_name": act.tool,
        "metadata": {
            "operations": " ".join(act.kinds),
            "target": act.target,
            "rule": str(act.record["rule"]),
            "reason": str(act.record["reason"]),
            "times": str(act.count),
        },
    }


def _receipt_id(account: Account, act: Act) -> str:
    return f"rcpt-{account.run}-{act.seq}"


def _arguments(act: Act) -> str:
    fields: Fields = {
        name: act.record[name] for name in ("syscall", "ops", "target", "to", "argv") if name in act.record
    }
    return digest(fields)


def _shadow(account: Account) -> Fields:
    return {"enforcement_mode": "shadow", "observe_grant_id": f"dry-run-{account.run}"}


def _append(nodes: list[Fields], kind: str, principal: str, payload: Fields, key: SigningKey) -> None:
    parent = str(nodes[-1]["node_hash"])
    nodes.append(boundary.node(kind, [parent], len(nodes) + 1, principal, len(nodes), payload, key))


def _left(traffic: Fields) -> bool:
    return not traffic["own"] and bool(traffic["sent"] or traffic["received"])


def _host(account: Account, number: object, recorded_at: int) -> Fields:
    argv = [str(argument) for argument in _list(account.start["argv"])]
    return {
        "receipt_id": f"{account.run}-{number}",
        "host_id": account.start["host"],
        "process_identity": f"run:{account.run}",
        "process_ancestry": ["helm-sentry", os.path.basename(argv[0]) if argv else ""],
        "recorded_at": instant(recorded_at),
    }


def _network_receipt(account: Account, flow: Flow) -> Fields:
    traffic = flow.traffic
    host, _, port = str(traffic["target"]).rpartition(":")
    counts = {"bytes_sent": traffic["sent"], "bytes_received": traffic["received"]}
    return {
        **_host(account, traffic["seq"], _time(traffic)),
        "event": {
            "event_id": f"{account.run}:{traffic['of']}",
            "direction": "egress",
            "destination_ip": host.strip("[]"),
            **_names(flow.hosts),
            "destination_port": int(port),
            "protocol": traffic["protocol"],
            **{name: count for name, count in counts.items() if count},
            "verdict": "ALLOWED",
            "observed_by": "sock_diag" if traffic["protocol"] == "tcp" else "seccomp-notify",
            "timestamp": instant(flow.decided),
        },
        "metadata": {
            "run": account.run,
            "record": str(traffic["seq"]),
            "record_hash": str(traffic["hash"]),
            "exact": "true" if traffic["exact"] else "false",
        },
    }


def _names(hosts: tuple[str, ...]) -> Fields:
    # HELM compares one name. Of several, none is the one that was meant.
    if len(hosts) == 1:
        return {"destination_host": hosts[0]}
    return {"correlation_hints": {host_chain.HOSTS: " ".join(hosts)}} if hosts else {}


def _action_receipt(account: Account, act: Act) -> Fields:
    return {
        **_host(account, act.seq, act.time),
        "event_kind": "action_effect",
        "action_event": {
            "action_id": f"{account.run}:{act.seq}",
            "tool_name": act.tool,
            "target_ref": target_ref(act),
            "params_hash": _arguments(act),
            "result_count": act.count,
            "side_effect_class": act.effect,
            "decision": act.verdict if act.happened == (act.verdict == "ALLOW") else "OBSERVED",
            "timestamp": instant(act.time),
        },
        "metadata": {
            "run": account.run,
            "operations": " ".join(act.kinds),
            "record": str(act.seq),
            "record_hash": act.hash,
            **({"to": _reference(act, str(act.record["to"]))} if "to" in act.record else {}),
            **({"last": instant(act.last)} if act.last else {}),
            **({"reason_code": act.code} if act.code else {}),
        },
    }


def target_ref(act: Act) -> str:
    """Return the object of an act as a reference: `file:///path`, `net:address:port`, or the bare name."""
    return _reference(act, act.target)


def _reference(act: Act, target: str) -> str:
    if target.startswith("/"):
        return f"file://{target}"
    return f"net:{target}" if act.kinds[0].startswith("net.") and ":" in target else target


def _preopens(policy: Fields) -> list[Json]:
    modes: dict[str, str] = {}
    for rule in _list(policy.get("allow")):
        file = _map(rule.get("file"))
        writes = bool(set(_list(file.get("do"))) - {"read", "list", "stat"})
        for path in _list(file.get("paths")):
            modes[path] = "rw" if writes or modes.get(path) == "rw" else "ro"
    return [{"path": path, "mode": mode} for path, mode in sorted(modes.items())]


def _destinations(policy: Fields) -> list[Json]:
    found: set[str] = set()
    for rule in _list(policy.get("allow")):
        if connect := _map(rule.get("connect")):
            places = [*_list(connect.get("hosts")), *_list(connect.get("addresses"))]
            places += ["own"] if connect.get("own") else []
            found |= {f"{place}:{','.join(_list(connect.get('ports')))}" for place in places}
    return [*sorted(found)]


def _limit(name: str, text: object, unit: str, scale: int) -> Fields:
    return {name: int(str(text).removesuffix(unit)) * scale} if text else {}


def _time(record: Fields) -> int:
    return _int(record, "time")


def _int(fields: Mapping[str, Any], name: str) -> int:
    return int(fields[name])


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
