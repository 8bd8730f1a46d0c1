"""Runs every row and writes docs/reliability.md: `python -m tests.battery`, or `make battery`."""

from __future__ import annotations

import platform
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest

import convlens
from tests.battery.faults import report as faults_report
from tests.battery.soak import report as soak_report

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
_HEAD = """# Reliability

What convlens does when things go wrong: disks, terminals, other processes, networks, files from strangers. This page
is made by `make battery`, which runs every row; the quick rows are part of `make test`. A row that does not hold stands
here as FAILS.

Proved inside other tests: every field of every document changed (`tests/test_records.py`), every byte of a model file
(`tests/test_modelfile.py`), every file of a packed set (`tests/data/packed/test_damage.py`), names that steer terminals
through every command (`tests/commands/test_hostile_names.py`), each deadline of the server
(`tests/test_connections.py`), broken pictures (`tests/data/test_attack.py`).
"""


class Rows:
    """Collects the outcome of each test that is a row."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[str, str]] = {}
        self.outcomes: dict[str, list[tuple[str, float, str]]] = defaultdict(list)
        self.names: dict[str, tuple[str, str, str]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Note which tests are rows."""
        for item in items:
            if (mark := item.get_closest_marker("row")) is not None:
                says = " ".join((getattr(item, "function", None).__doc__ or "").split())
                self.names[item.nodeid] = (mark.args[0], mark.args[1], says)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep how it went."""
        if report.nodeid not in self.names:
            return
        name, what, says = self.names[report.nodeid]
        if report.when == "call" or report.outcome != "passed":
            self.rows.setdefault(name, (what, says))
            why = str(report.longrepr[2]) if report.skipped and isinstance(report.longrepr, tuple) else ""
            self.outcomes[name].append((report.outcome, report.duration, why))

    def table(self) -> str:
        """A line a row."""
        lines = ["| # | what is done | what follows | cases | result |", "|---|---|---|---|---|"]
        for name in sorted(self.rows, key=lambda n: (n[0], int("".join(c for c in n if c.isdigit())), n)):
            what, says = self.rows[name]
            found = [outcome for outcome, _, _ in self.outcomes[name]]
            result = "FAILS" if "failed" in found else "holds" if "passed" in found else "not run"
            if result == "not run":
                result += f" ({self.outcomes[name][0][2].removeprefix('Skipped: ')})"
            lines.append(f"| {name} | {what} | {says} | {len(found)} | {result} |")
        return "\n".join(lines)


def main() -> int:
    """Run the rows, the random faults and the soak; write the page. Exit code 1 where something does not hold."""
    rows, started = Rows(), time.monotonic()
    code = pytest.main(["-m", "row", "-p", "no:cacheprovider", str(Path(__file__).parent)], plugins=[rows])
    faults, soak = faults_report(), soak_report()
    minutes = (time.monotonic() - started) / 60
    machine = f"{platform.system()}, {platform.machine()}, Python {platform.python_version()}"
    text = (
        f"{_HEAD}\n{rows.table()}\n\n{faults.text()}\n\n{soak.text()}\n\nMade on {machine}, in {minutes:.0f} minutes.\n"
    )
    convlens.files.write_text(DOCUMENT, text)
    return 0 if code == 0 and faults.holds and soak.holds else 1


if __name__ == "__main__":
    sys.exit(main())
