"""Use up inodes wherever something can be written: empty files, up to 200 000 in each place, for two seconds.

Their names are none that a result may have, so that nobody has to carry the first thousand of them home.
"""

import os
import time

for folder in ("/out", "/tmp", "/dev/shm"):
    made, end = 0, time.monotonic() + 2
    try:
        while made < 200_000 and time.monotonic() < end:
            os.close(os.open(f"{folder}/\x01{made}", os.O_CREAT | os.O_WRONLY))
            made += 1
    except OSError as error:
        print("stopped", folder, made, error)
    print("made", folder, made, flush=True)
time.sleep(0.6)
print("done", flush=True)
