"""Run untrusted code on a provider's machine, contained, or refuse.

    probe(base) -> Probe                        does a sandbox work here, and which limits hold; asked by running one
    run(spec, inherit_fds=…) -> events          a synchronous generator for the main thread of a Ray worker
    stop(base, attempt, grace_s=…) -> Stopped   from any process of the same user, given the attempt's id
    alive(base) -> attempts                     attempts that still have a process
    clean(base) -> Cleaned                      the janitor: kills and removes what an earlier agent left
    locate(kind) -> Program                     a job of the installed jobs library

`run` starts the sandbox when the first event is asked for. Closing the generator kills it. It must be iterated on the
thread that lives as long as the attempt: a sandbox dies with the thread that forked it.
"""
