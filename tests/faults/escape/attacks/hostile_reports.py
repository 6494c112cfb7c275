"""Abuse the pipe of the sdk: garbage, huge lines, deep nesting, false names, floods."""

import json
import os

pipe = int(os.environ["QUBIX_CONTROL_FD"])


def send(content):
    view = memoryview(content)
    while view:
        view = view[os.write(pipe, view) :]


send(b"\xff\xfe garbage \x00\n")
send(b"x" * 1_000_000 + b"\n")
send(b"[" * 4000 + b"\n")
send(b'{"pct": 1e999}\n{"pct": NaN}\n{"pct": -5}\n{"pct": "5"}\n{"pct": true}\n[]\n"text"\n')
send(json.dumps({"pct": 5, "operation": "\ud800\u0000" + "o" * 3000}).encode() + b"\n")
for name in ("../../etc/passwd", "/etc/passwd", "", ".", "a" * 500, "link", "fifo", "missing"):
    send(json.dumps({"checkpoint": name, "pct": 5}).encode() + b"\n")
os.symlink("/etc/passwd", "/checkpoints/link")
os.mkfifo("/checkpoints/fifo")
send(b'{"checkpoint": "link", "pct": 5}\n{"checkpoint": "fifo", "pct": 5}\n')
for number in range(30_000):
    send(b'{"pct": %d, "operation": "flood"}\n' % (number % 100))
print("done")
