"""Run untrusted code on a provider's machine, contained, or refuse.

    probe.probe(base) -> Probe                    does a sandbox work here, and which limits hold; asked by running one
    run.run(spec, inherit_fds=…) -> events        a synchronous generator for the main thread of a Ray worker
    stop.stop(base, attempt, grace_s=…)           from any process of the same user, given the attempt's id
    stop.alive(base) -> attempts                  attempts that still have a process
    stop.clean(base) -> Cleaned                   the janitor: kills and removes what an earlier agent left
    runtime.locate(kind) -> Program               a job of the installed jobs library
    spec, events                                  the values that go in and come out

`run` starts the sandbox when the first event is asked for; closing the generator kills it. It must be iterated on the
thread that lives as long as the attempt: a sandbox dies with the thread that forked it.
"""
