"""Writes the pinned versions: constraints.txt, and the same list in pyproject.toml. Neither holds an address.

uv has no setting that reads a constraints file, so the list stands twice; tests/test_pins.py holds them equal.
"""

import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMPILE = "uv pip compile --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url --quiet -"


def main() -> None:
    """Resolves anew and writes both lists."""
    project = ROOT / "pyproject.toml"
    settings = tomllib.loads(project.read_text())
    groups = [*settings["project"]["optional-dependencies"].values(), settings["dependency-groups"]["dev"]]
    wanted = settings["project"]["dependencies"] + [name for group in groups for name in group]
    direct = "\n".join(name for name in wanted if not name.startswith("torchfpn["))
    output = subprocess.run(COMPILE.split(), cwd=ROOT, check=True, input=direct, capture_output=True, text=True).stdout
    pins = [line for line in output.splitlines() if "==" in line]
    (ROOT / "constraints.txt").write_text("\n".join(pins) + "\n")
    rows = "\n".join(f"    '{pin}'," if '"' in pin else f'    "{pin}",' for pin in pins)
    table = re.compile(r"\n\[tool\.uv\]\nconstraint-dependencies = \[\n.*?\n\]\n", re.S)
    text = table.sub("\n", project.read_text()).rstrip()
    project.write_text(f"{text}\n\n[tool.uv]\nconstraint-dependencies = [\n{rows}\n]\n")
    print(f"{len(pins)} pins")


if __name__ == "__main__":
    main()
