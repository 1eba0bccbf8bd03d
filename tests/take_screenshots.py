"""Takes the pictures of docs/report.md in Chromium: `make pictures`, or

    PYTHONPATH=tests python tests/take_screenshots.py [FOLDER]

It builds the packages of two pages and writes PNGs of the pages into docs/pictures.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from shared.chromium import Browser, chromium

ROOT = Path(__file__).resolve().parent.parent
#: Two blocks of a small Llama: their regions, and what torch computes between them.
_MODEL = ("examples/llama.py:llama", "--inputs", "4x32x128", "--everything")
#: Each picture: the page, the part of it at the top, the window, and whether it is dark.
_PICTURES = {
    "report.png": ("chain.html", "swish_tanh_mish", 1000, 1250, False),
    "report_phone.png": ("chain.html", "swish_tanh_mish-formulas", 390, 800, True),
    "report_model.png": ("model.html", "graph", 1000, 860, False),
    "report_model_dark.png": ("model.html", "graph", 1000, 860, True),
}


def main() -> None:
    """Write the pages and the pictures."""
    if chromium() is None:
        sys.exit("no Chromium: `apt-get install chromium`")
    pictures = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "pictures"
    with tempfile.TemporaryDirectory() as given:
        folder = Path(given)
        spec = str(ROOT / "specs" / "swish_tanh_mish.yaml")
        out = ["--out", str(folder / "generated")]
        _fusegen("build", spec, *out, "--backend", "cpu")
        _fusegen("report", spec, *out, "-o", str(folder / "chain.html"))
        _fusegen("report", *_MODEL, "--device", "cpu", "-o", str(folder / "model.html"))
        with Browser(folder / "profile") as browser:
            for name, (page, part, width, height, dark) in _PICTURES.items():
                browser.open(folder / page, width, height, dark=dark)
                browser.evaluate(
                    f"document.getElementById('{part}')?.scrollIntoView({{behavior: 'instant'}})"
                )
                (pictures / name).write_bytes(browser.screenshot())
                print(pictures / name)


def _fusegen(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "fusegen", *arguments], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
