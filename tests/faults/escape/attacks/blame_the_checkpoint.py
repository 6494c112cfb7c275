"""Work, then claim that a checkpoint could not be restored, though none was given: the platform's fault, if it were believed."""

import sys
import time

import qubix_job

qubix_job.restore_failed("torn")
print("done", flush=True)
time.sleep(0.3)
sys.exit(1)
