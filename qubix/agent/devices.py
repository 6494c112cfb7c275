"""The GPUs of a node: found through NVML, or declared by its owner; and what they and the machine are doing.

Declared devices are for machines whose driver cannot be asked (and for trying Qubix without a GPU). They are shown as
declared everywhere and never count as verified; no GPU figure is ever made up for them.
"""

from __future__ import annotations

import contextlib
import hashlib
import platform
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, TypeVar

import psutil

from qubix import __version__
from qubix.agent.protocol import Device, DeviceSample, NodeFacts, NodeSample
from qubix.kernel.errors import Invalid

T = TypeVar("T")
D = TypeVar("D")

DEVICES_MAX = 64
FOREIGN_VRAM_MAX_BYTES = 1 << 30
"""VRAM in use before an attempt starts: above this somebody else uses the device (a desktop needs a few hundred MB)."""
_DECLARATION = re.compile(r"(?P<model>[A-Za-z0-9_\-]{1,60}):(?P<vram>[1-9][0-9]{0,3})GB(:(?P<count>[1-9][0-9]?))?")
_SHARED_NODES = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")


class BadDeclaration(Invalid):
    """A `--declare-gpu` that does not read."""

    code = "bad_gpu_declaration"


class DeviceSource(Protocol):
    """Where a node's devices come from."""

    def devices(self) -> tuple[Device, ...]:
        """All devices, in a stable order."""
        ...

    def samples(self) -> tuple[DeviceSample, ...]:
        """One measurement per device; None where it cannot be told."""
        ...

    def foreign_bytes(self, uuid: str) -> int | None:
        """VRAM in use on an idle device; None where it cannot be told."""
        ...

    def lost(self, uuid: str) -> bool:
        """Whether a device that was there at the start answers its driver no more: it fell off the bus (Xid 79), or was taken out."""
        ...

    def device_nodes(self, uuids: Sequence[str]) -> tuple[str, ...]:
        """The files under /dev that a sandbox needs for these devices."""
        ...

    def visible(self, uuids: Sequence[str]) -> str:
        """CUDA_VISIBLE_DEVICES for these devices."""
        ...


# -- declared ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Declaration:
    """`count` devices of a model with `vram_bytes` each."""

    model: str
    vram_bytes: int
    count: int


def parse_declaration(text: str) -> Declaration:
    """Read `RTX_4090:24GB` or `RTX_4090:24GB:2`. Raises: BadDeclaration."""
    match = _DECLARATION.fullmatch(text)
    if match is None or int(match["count"] or 1) > DEVICES_MAX:
        raise BadDeclaration(f"{text!r} declares no GPU.", next_step="Write MODEL:<whole GB>GB, and :COUNT for several: RTX_4090:24GB:2")
    return Declaration(match["model"], int(match["vram"]) << 30, int(match["count"] or 1))


class DeclaredDevices:
    """Devices that exist by their owner's word."""

    def __init__(self, declarations: Sequence[str], worker_id: str) -> None:
        """Args: declarations, see parse_declaration; worker_id, which makes the uuids stable and unique. Raises: BadDeclaration."""
        models = [d for d in map(parse_declaration, declarations) for _ in range(d.count)]
        if len(models) > DEVICES_MAX:
            raise BadDeclaration(f"{len(models)} GPUs declared, at most {DEVICES_MAX}.", next_step="Declare fewer.")
        stem = hashlib.sha256(worker_id.encode()).hexdigest()[:16]
        self._devices = tuple(
            Device(uuid=f"declared-{stem}-{n}", model=d.model, vram_bytes=d.vram_bytes, detected_by="declared")
            for n, d in enumerate(models)
        )

    def devices(self) -> tuple[Device, ...]:
        return self._devices

    def samples(self) -> tuple[DeviceSample, ...]:
        return tuple(DeviceSample(uuid=d.uuid) for d in self._devices)

    def foreign_bytes(self, uuid: str) -> int | None:
        return None

    def lost(self, uuid: str) -> bool:
        return False

    def device_nodes(self, uuids: Sequence[str]) -> tuple[str, ...]:
        return ()

    def visible(self, uuids: Sequence[str]) -> str:
        return ""


# -- NVML -------------------------------------------------------------------------------------------------------------


class Nvml(Protocol):
    """The part of the pynvml module that is used, under its own names; tests play back recorded answers."""

    NVMLError: type[Exception]
    NVML_TEMPERATURE_GPU: int

    def nvmlInit(self) -> None: ...
    def nvmlDeviceGetCount(self) -> int: ...
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...
    def nvmlDeviceGetUUID(self, handle: Any) -> str | bytes: ...
    def nvmlDeviceGetName(self, handle: Any) -> str | bytes: ...
    def nvmlDeviceGetMinorNumber(self, handle: Any) -> int: ...
    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any: ...
    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any: ...
    def nvmlDeviceGetTemperature(self, handle: Any, sensor: int) -> int: ...
    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int: ...


class NvmlDevices:
    """Devices as NVIDIA's driver reports them."""

    def __init__(self, nvml: Nvml) -> None:
        """Raises: the library's NVMLError where no driver answers."""
        self._nvml = nvml
        nvml.nvmlInit()
        self._handles: dict[str, Any] = {}
        self._minors: dict[str, int] = {}
        found = []
        for index in range(min(nvml.nvmlDeviceGetCount(), DEVICES_MAX)):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            uuid = _text(nvml.nvmlDeviceGetUUID(handle))
            self._handles[uuid] = handle
            self._minors[uuid] = self._ask(partial(nvml.nvmlDeviceGetMinorNumber, handle), index)
            memory = int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
            found.append(Device(uuid=uuid, model=model_name(_text(nvml.nvmlDeviceGetName(handle))), vram_bytes=memory, detected_by="nvml"))
        self._devices = tuple(found)

    def devices(self) -> tuple[Device, ...]:
        return self._devices

    def samples(self) -> tuple[DeviceSample, ...]:
        return tuple(self._sample(d.uuid, self._handles[d.uuid]) for d in self._devices)

    def foreign_bytes(self, uuid: str) -> int | None:
        handle = self._handles.get(uuid)
        return None if handle is None else self._ask(lambda: int(self._nvml.nvmlDeviceGetMemoryInfo(handle).used), None)

    def lost(self, uuid: str) -> bool:
        handle = self._handles.get(uuid)
        return handle is not None and self._ask(lambda: self._nvml.nvmlDeviceGetMemoryInfo(handle), None) is None

    def device_nodes(self, uuids: Sequence[str]) -> tuple[str, ...]:
        wanted = tuple(f"/dev/nvidia{self._minors[uuid]}" for uuid in uuids if uuid in self._minors)
        return (*wanted, *(node for node in _SHARED_NODES if Path(node).exists())) if wanted else ()

    def visible(self, uuids: Sequence[str]) -> str:
        return ",".join(uuid for uuid in uuids if uuid in self._handles)

    def _sample(self, uuid: str, handle: Any) -> DeviceSample:
        nvml = self._nvml
        milliwatts = self._ask(lambda: nvml.nvmlDeviceGetPowerUsage(handle), None)
        return DeviceSample(
            uuid=uuid,
            utilisation_pct=self._ask(lambda: float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu), None),
            memory_used_bytes=self._ask(lambda: int(nvml.nvmlDeviceGetMemoryInfo(handle).used), None),
            temperature_c=self._ask(lambda: float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)), None),
            power_w=None if milliwatts is None else milliwatts / 1000,
        )

    def _ask(self, question: Callable[[], T], otherwise: D) -> T | D:
        """A card may not know one figure (a fanless card its power) and still know the others."""
        try:
            return question()
        except self._nvml.NVMLError:
            return otherwise


def model_name(name: str) -> str:
    """The marketplace's name of a model: `NVIDIA GeForce RTX 4090` is `RTX_4090`."""
    short = re.sub(r"\b(NVIDIA|GeForce|Tesla|Quadro)\b", " ", name)
    return re.sub(r"[^A-Za-z0-9\-]+", "_", short).strip("_-")[:60] or "unknown"


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def find_devices(declared: Sequence[str], worker_id: str) -> DeviceSource:
    """The source to use: the declarations if there are any, else NVML; a machine without a driver has no devices.

    Raises: BadDeclaration.
    """
    if declared:
        return DeclaredDevices(declared, worker_id)
    try:
        import pynvml

        return NvmlDevices(pynvml)
    except Exception:
        # The driver's absence shows as an NVMLError, a missing library or a broken installation: all mean no devices.
        return DeclaredDevices((), worker_id)


# -- the machine ------------------------------------------------------------------------------------------------------


class NodeMeter:
    """Measures the whole node."""

    def __init__(self, source: DeviceSource) -> None:
        self._source = source
        psutil.cpu_percent(interval=None)

    def sample(self, node_at: float) -> NodeSample:
        """One measurement. Args: node_at, the node's clock in Unix seconds."""
        memory = psutil.virtual_memory()
        return NodeSample(
            node_at=node_at,
            cpu_pct=psutil.cpu_percent(interval=None),
            ram_used_bytes=memory.total - memory.available,
            devices=self._source.samples(),
        )


def read_facts(devices: Sequence[Device], sandbox: dict[str, str], disk: Path) -> NodeFacts:
    """What this node says of itself. Args: sandbox, the probe's answer; disk, a folder on the disk that jobs use."""
    return NodeFacts(
        qubix_version=__version__,
        ray_version=version("ray"),
        python_version=platform.python_version(),
        hostname=platform.node()[:255] or "unknown",
        cpu_model=_cpu_model()[:200],
        cpu_cores=psutil.cpu_count() or 1,
        ram_bytes=psutil.virtual_memory().total,
        disk_bytes=psutil.disk_usage(str(disk)).free,
        sandbox=sandbox,
        devices=tuple(devices),
    )


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "unknown"
