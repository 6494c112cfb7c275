"""Jobs that every node has installed: one folder each, job.toml says what it needs, main.py runs inside the sandbox.

A job imports the sdk as `qubix_job`, the standard library and the installed packages; nothing of Qubix itself.
"""
