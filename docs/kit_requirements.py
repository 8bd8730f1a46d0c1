"""Writes src/convlens/exporting/kit-requirements.txt: what a kit needs, versions and hashes, for each platform.

    python docs/kit_requirements.py onnxruntime==1.32.0 pillow==13.0.0 numpy==2.4.6

pip says what it would install, for each of the platforms and versions of Python; the file is in pip's own form, so that
one serves all of them.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from convlens.exporting.kit import PLATFORMS, PYTHONS, REQUIREMENTS


def main(wanted: list[str]) -> None:
    """Ask pip for each machine, and write what it says."""
    hashes: dict[str, set[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for platform, tags in PLATFORMS.items():
            for python in PYTHONS:
                report = Path(folder) / f"{platform}-{python}.json"
                command = [sys.executable, "-m", "pip", "install", "-q", "--dry-run", "--ignore-installed"]
                command += ["--report", str(report), "--target", folder, "--only-binary=:all:"]
                command += [
                    "--python-version",
                    python,
                    *(word for tag in tags for word in ("--platform", tag)),
                    *wanted,
                ]
                subprocess.run(command, check=True)
                for one in json.loads(report.read_text(encoding="utf-8"))["install"]:
                    name = f"{one['metadata']['name'].lower()}=={one['metadata']['version']}"
                    hashes.setdefault(name, set()).add(one["download_info"]["archive_info"]["hashes"]["sha256"])
    lines = [
        f"# For {', '.join(PLATFORMS)} and Python {PYTHONS[0]} to {PYTHONS[-1]}.",
        "# Elsewhere without hashes: pip install " + " ".join(wanted),
    ]
    for name, found in sorted(hashes.items()):
        lines.append(" \\\n    ".join([name, *(f"--hash=sha256:{one}" for one in sorted(found))]))
    REQUIREMENTS.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
