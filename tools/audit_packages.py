"""Ask the database of known vulnerabilities about the installed packages (pip-audit).

Exit code 0 if none is known, or if the database cannot be reached, which is said; 1 otherwise.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

_TIMEOUT_S = 120


def main() -> int:
    command = [
        sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off",
        "--skip-editable", "--timeout", "10",
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return _skipped(f"no answer within {_TIMEOUT_S} s")
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        return _skipped(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "?")
    asked = [one for one in report["dependencies"] if "skip_reason" not in one]
    if not asked:
        return _skipped("it knows none of the packages")
    found = [one for one in report["dependencies"] if one.get("vulns")]
    for one in found:
        for vulnerability in one["vulns"]:
            fixed = ", ".join(vulnerability["fix_versions"]) or "no version"
            print(f"{one['name']} {one['version']}: {vulnerability['id']}, fixed in {fixed}")
    print(f"{len(asked)} packages, {len(found)} with known vulnerabilities.")
    return 1 if found else 0


def _skipped(reason: str) -> int:
    print(f"Skipped: the database of vulnerabilities cannot be asked ({reason[:200]}).")
    return 0


if __name__ == "__main__":
    sys.exit(main())
