"""What can go wrong before a sandbox runs."""

from __future__ import annotations

from qubix.kernel.errors import Unavailable


class SandboxUnavailable(Unavailable):
    """No sandbox works on this machine; nothing untrusted is run. The message says why, next_step what to do."""

    code = "sandbox_unavailable"


class SandboxFailed(Unavailable):
    """This one sandbox could not be started."""

    code = "sandbox_failed"
