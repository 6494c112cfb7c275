"""Leave dead children unreaped, and orphans for the first process, at most 5000 of them."""

import os

count = orphans = 0
try:
    for _ in range(5000):
        if os.fork() == 0:
            os._exit(0)
        count += 1
except OSError as error:
    print("stopped by", error)
print("BREACH" if count > 300 else "held", "zombies", count)
while count:
    os.wait()
    count -= 1
for _ in range(50):
    child = os.fork()
    if child == 0:
        for _ in range(5):
            try:
                if os.fork() == 0:
                    os._exit(0)
            except OSError:
                break
        os._exit(0)
    os.waitpid(child, 0)
    orphans += 1
print("orphans", orphans)
print("done", flush=True)
