"""The first process inside a sandbox: sets limits, waits for the runner's word, runs the job, reports how it ended.

Run as `python -I -S -X utf8 init.py …` by bubblewrap, as process 1 of the sandbox; the platform never imports it. It has no
more rights than the job. The job runs in a child of it, so that signals and exit codes mean what they mean elsewhere;
when this process ends, the kernel kills everything that the job left behind.

Arguments: entry; the descriptors go, status and control; RLIMIT_NPROC, RLIMIT_FSIZE, RLIMIT_DATA (0: none); seconds after which
all ends even if nobody outside looks; then the folders to import from, that of the sdk first.
"""

import _signal as signal  # type: ignore[import-not-found]  # signal itself costs milliseconds of start: it imports enum
import os
import resource
import sys
import types

OPEN_FILES = 4096
WATCHED = {signal.SIGCHLD, signal.SIGTERM, signal.SIGALRM}


def limit(kind: int, value: int) -> None:
    """Set both limits, never above what this process was given."""
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))


def run(entry: str, folders: list[str]) -> None:
    """Be the job: what runs from here on is not ours."""
    import site

    site.setquit()
    site.setcopyright()
    site.sethelper()
    sys.argv = [entry]
    sys.path[:] = [os.path.dirname(entry), folders[0], *sys.path, *folders[1:]]
    sys.excepthook = show
    if isinstance(sys.stdout, __import__("io").TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    with open(entry, "rb") as file:
        code = compile(file.read(), entry, "exec")
    job = types.ModuleType("__main__")
    job.__file__ = entry
    sys.modules["__main__"] = job
    exec(code, job.__dict__)  # noqa: S102  (this process exists to run the job's code)


def show(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
    """Print an uncaught error without the frames of this file."""
    import traceback

    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    traceback.print_exception(kind, error, trace)


def keep_only(control: int) -> None:
    """Close what is this process's alone: the status pipe, and the locks of devices, which whoever holds them can give up."""
    for number in map(int, os.listdir("/proc/self/fd")):
        if number > 2 and number != control:
            try:
                os.close(number)
            except OSError:  # the listing's own
                continue


def serve(child: int, status: int) -> None:
    """Reap until the job has ended, and say how. Signals are taken one at a time, by no handler: a storm of them cannot interrupt anything."""
    while True:
        number = signal.sigwait(WATCHED)
        if number == signal.SIGALRM:
            over(number, status)
        elif number == signal.SIGTERM:
            os.kill(child, signal.SIGTERM)  # not reaped yet, so the number is still its own
        else:
            reap(child, status)


def reap(child: int, status: int) -> None:
    """Bury whoever has died; after the job itself, say how it ended, and end everything."""
    while True:
        pid, code = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        if pid == child:
            ended = os.waitstatus_to_exitcode(code)
            os.write(status, b"exit %d\n" % ended if ended >= 0 else b"signal %d\n" % -ended)
            os._exit(ended if ended >= 0 else 128 - ended)


def over(number: int, status: int) -> None:
    """End everything because of a signal to this process."""
    os.write(status, b"signal %d\n" % number)
    os._exit(124)


def main() -> None:
    """Entry point, in both processes."""
    entry, folders = sys.argv[1], sys.argv[9:]
    go, status, control, processes, file_bytes, memory_bytes, end_s = map(int, sys.argv[2:9])
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_NOFILE, OPEN_FILES)
    limit(resource.RLIMIT_FSIZE, file_bytes)
    limit(resource.RLIMIT_NPROC, processes)
    if memory_bytes:
        limit(resource.RLIMIT_DATA, memory_bytes)
    os.write(status, b"ready\n")
    if os.read(go, 1) != b"g":
        os._exit(125)
    os.close(go)
    # Blocked from before the job exists: without a handler, process 1 gets a signal only by asking for it.
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    # The job may signal this process too: its end must then read as the job's own doing.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)
        keep_only(control)
        return run(entry, folders)
    os.close(control)
    signal.alarm(end_s)
    return serve(child, status)


if __name__ == "__main__":
    main()
