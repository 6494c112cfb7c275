"""The limit of open files is raised as far as it goes, and never lowered."""

from __future__ import annotations

from resource import RLIM_INFINITY

import pytest

from qubix.kernel.open_files import OPEN_FILES_MAX, wanted_limit


@pytest.mark.parametrize(
    ("soft", "hard", "wanted"),
    [
        (1024, 4096, 4096),
        (20_000, 20_000, 20_000),
        (1024, 1_048_576, OPEN_FILES_MAX),
        (1024, RLIM_INFINITY, OPEN_FILES_MAX),
        (500_000, 1_048_576, 500_000),
        (RLIM_INFINITY, RLIM_INFINITY, RLIM_INFINITY),
    ],
)
def test_the_soft_limit_goes_up_to_the_hard_one(soft: int, hard: int, wanted: int) -> None:
    assert wanted_limit(soft, hard) == wanted
