"""What the doctor says of the precision of a start."""

from __future__ import annotations

import pytest

from qwen_aio.config import Settings, load_settings
from qwen_aio.doctor.model import precision_findings
from qwen_aio.worker.precision_record import PrecisionRecord

FAR = PrecisionRecord("fp32", "KL 0.3")


def asked(precision: str, **more: str) -> Settings:
    return load_settings({"precision": precision, **more})


@pytest.mark.parametrize(
    ("settings", "record", "mark", "said"),
    [
        (asked("auto"), None, "ok", "auto: a start compares int8 with fp32"),
        (asked("auto"), FAR, "ok", "precision fp32: KL 0.3"),
        (asked("int4"), None, "ok", "int4: a start compares it with fp32"),
        (asked("int4"), PrecisionRecord("int4", "KL 0.02"), "ok", "precision int4: KL 0.02"),
        (asked("int4"), FAR, "problem", "int4 is too far from fp32: KL 0.3"),
        (asked("int4", force_precision="true"), FAR, "ok", "int4: a start compares it with fp32"),
    ],
)
def test_int4_is_told_apart_from_what_auto_chooses(
    settings: Settings, record: PrecisionRecord | None, mark: str, said: str
) -> None:
    [finding] = precision_findings(record, settings)
    assert finding.mark == mark and finding.found.startswith(said)
