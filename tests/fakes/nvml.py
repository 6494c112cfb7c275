"""NVML played back: answers as an RTX 4090 and a fanless T4 gave them, the latter without a power meter."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any


class RecordedError(Exception):
    """NVMLError."""


@dataclass
class Card:
    """One card's answers; None: the card does not know."""

    uuid: str
    name: str
    total: int
    used: int = 400 << 20
    gpu: int | None = 87
    temperature: int | None = 61
    milliwatts: int | None = 311_500
    minor: int = 0
    on_the_bus: bool = True


class RecordedNvml:
    """The functions of pynvml that are used."""

    NVMLError: type[Exception] = RecordedError
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, *cards: Card, driver: bool = True) -> None:
        self.cards, self.driver = cards, driver

    def nvmlInit(self) -> None:
        if not self.driver:
            raise RecordedError("NVML Shared Library Not Found")

    def nvmlDeviceGetCount(self) -> int:
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Card:
        return self.cards[index]

    def nvmlDeviceGetUUID(self, handle: Card) -> bytes:
        return handle.uuid.encode()

    def nvmlDeviceGetName(self, handle: Card) -> str:
        return handle.name

    def nvmlDeviceGetMinorNumber(self, handle: Card) -> int:
        return handle.minor

    def nvmlDeviceGetMemoryInfo(self, handle: Card) -> Any:
        if not handle.on_the_bus:
            raise RecordedError("GPU is lost")
        return SimpleNamespace(total=handle.total, used=handle.used, free=handle.total - handle.used)

    def nvmlDeviceGetUtilizationRates(self, handle: Card) -> Any:
        return SimpleNamespace(gpu=_known(handle.gpu), memory=3)

    def nvmlDeviceGetTemperature(self, handle: Card, sensor: int) -> int:
        return _known(handle.temperature)

    def nvmlDeviceGetPowerUsage(self, handle: Card) -> int:
        return _known(handle.milliwatts)


def _known(value: int | None) -> int:
    if value is None:
        raise RecordedError("Not Supported")
    return value
