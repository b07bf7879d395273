"""The table everyone asks for first: reading, writing, HTTP here and 15 ms away, and a policy with conditions."""

from harness import Lab, Row, main
from servers import http_server

FAR = 0.015  # seconds
CONDITIONS = """schema: helm-sentry/policy/v1
name: conditions
extends: [shell]
allow:
  - id: programs
    exec: {paths: ["${workspace}/**"]}
contextual:
""" + "".join(
    f"""  - id: only-{number}
    file: {{do: [read], paths: ["${{workspace}}/**"]}}
    when: op.path != "/nowhere/{number}" && run.elapsed < duration("24h")
"""
    for number in range(5)
)


def measure(lab: Lab) -> list[Row]:
    sentry = lab.supervised()
    written = lab.workspace / "written"
    guarded = lab.policy_file("conditions", CONDITIONS)
    with http_server(0) as near, http_server(FAR) as far:
        return [
            *lab.alternate("read a file of 1 KiB", "us", lambda s: lab.looped(s, "read", 5000, lab.data), sentry),
            *lab.alternate("write a file of 1 KiB", "us", lambda s: lab.looped(s, "write", 2000, written), sentry),
            *lab.alternate("HTTP GET on this machine", "us", lambda s: lab.looped(s, "get", 300, near), sentry),
            *lab.alternate("HTTP POST, 15 ms away", "us", lambda s: lab.looped(s, "post", 40, far), sentry),
            *lab.alternate(
                "read a file, five rules with conditions",
                "us",
                lambda s: lab.looped(s, "read", 2000, lab.data),
                lab.supervised(guarded),
            ),
        ]


if __name__ == "__main__":
    main(measure, __doc__)
