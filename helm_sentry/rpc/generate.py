"""Generate the client and the service's skeleton from `sentry.proto`; needs grpcio-tools, which tests have.

python -m helm_sentry.rpc.generate [DIR]     DIR: where `helm_sentry/rpc/sentry_pb2.py` and others go
"""

import os
import sys

from grpc_tools import protoc

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_PROTO = "helm_sentry/rpc/sentry.proto"


def generate(directory: str) -> int:
    """Write the generated modules below a directory and return protoc's exit status."""
    options = [f"--{kind}_out={directory}" for kind in ("python", "pyi", "grpc_python")]
    return int(protoc.main(["protoc", f"-I{_ROOT}", *options, os.path.join(_ROOT, _PROTO)]))


if __name__ == "__main__":
    sys.exit(generate(sys.argv[1] if len(sys.argv) > 1 else _ROOT))
