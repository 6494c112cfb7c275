"""Work, then close and disfigure the folders of results, so that collecting them fails on the provider's side."""

import os
import sys
import time

os.makedirs("/out/a/b")
os.chmod("/out/a/b", 0o300)
os.chmod("/out/a", 0o111)
for name in (b"\xff\xfe\x80", b"\xed\xa0\x80", "\u202e\u2066".encode(), b"x" * 255):
    with open(b"/out/" + name, "wb") as file:
        file.write(b"x")
os.symlink("/out", "/out/loop")
os.chmod("/checkpoints", 0)
os.chmod("/out", 0)
print("done", flush=True)
time.sleep(0.6)
sys.exit(4)
