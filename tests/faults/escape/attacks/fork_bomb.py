"""Fork as often as possible, at most 5000 times."""

import os
import time

count = 0
for _ in range(5000):
    try:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
    except OSError as error:
        print("stopped by", error)
        break
    count += 1
print("forks", count)
print("BREACH" if count > 300 else "held", "processes")
print("done", flush=True)
