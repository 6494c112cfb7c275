"""Where promtool is installed, it must see the alert rules as tests/fakes/promql.py does."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.unit.monitoring.alert_cases import CASES
from tests.unit.monitoring.test_alerts import RULES_FILE


def test_promtool_sees_every_alert_as_this_suite_does(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus); the rules were tried by tests/fakes/promql.py alone")
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": series, "values": values} for series, values in written.items()],
            "promql_expr_test": [
                {
                    "expr": f'clamp_max(count(ALERTS{{alertname="{name}", alertstate="firing"}}) or vector(0), 1)',
                    "eval_time": "60m",
                    "exp_samples": [{"value": fires, "labels": "{}"}],
                }
            ],
        }
        for name, case in CASES.items()
        for fires, written in zip((1, 0), case, strict=True)
    ]
    path = tmp_path / "alerts_test.yml"
    path.write_text(yaml.safe_dump({"rule_files": [str(RULES_FILE)], "evaluation_interval": "1m", "tests": tests}))
    ran = subprocess.run([promtool, "test", "rules", str(path)], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    checked = subprocess.run(
        [promtool, "check", "config", str(RULES_FILE.with_name("prometheus.yml"))], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
