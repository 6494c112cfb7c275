"""Ignore every signal and stay."""

import signal
import time

for number in range(1, 32):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
print("staying", flush=True)
while True:
    time.sleep(60)
