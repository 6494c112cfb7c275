"""Who holds which device, and until when: leases and quarantine, as values."""

from __future__ import annotations

import dataclasses
import enum
from uuid import UUID


class Purpose(enum.StrEnum):
    """What a device is leased for; the holder is the quote, the attempt, the job that waits, or the cluster."""

    QUOTE = "quote"
    JOB = "job"
    RESERVATION = "reservation"
    CLUSTER = "cluster"


@dataclasses.dataclass(frozen=True, slots=True)
class DeviceUse:
    """One device of a node as placement sees it now.

    Args: device_id, the row; device_uuid, what the node calls it; model and vram_bytes as detected;
        purpose and holder_id of the lease that covers this moment, None when there is none;
        quarantined, an attempt was taken from it and the node has not shown yet that its processes are gone.
    """

    device_id: int
    node_id: UUID
    device_uuid: str
    model: str
    vram_bytes: int
    purpose: Purpose | None
    holder_id: UUID | None
    quarantined: bool

    def usable_by(self, *holders: UUID | None) -> bool:
        """Whether nobody but one of `holders` has it."""
        return not self.quarantined and (self.holder_id is None or self.holder_id in holders)
