"""Writes the table of whole models into README.md and docs/models.md, from the record of fused_models.sh.

python benchmarks/fused_models_table.py
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAMES = {
    "decoder": "Llama-like, 4 blocks of width 2048",
    "gpt": "GPT with attention spelled out, 4 blocks of width 1024",
    "diffusion": "diffusion transformer, 4 blocks of width 1152",
    "residual": "ResNet, 4 blocks of 64 channels",
    "cell": "LSTM cell of width 1024",
    "unet": "U-Net, 3 blocks of 128 channels",
}
SUBJECTS = ("eager", "compile", "fusegen+eager", "fusegen+inductor")


def table(record: str) -> str:
    """Return the table of a record, in milliseconds."""
    found = {
        (m["name"], m["what"]): [
            float(re.search(rf"{re.escape(s)} (\d+)", m["times"])[1]) / 1e3 for s in SUBJECTS
        ]
        for m in re.finditer(
            r"^(?P<name>\w+) \w+ (?P<what>forward.*?): (?P<times>.*?) us;", record, re.M
        )
    }
    lines = [
        '| ms | pass | eager | torch.compile | fusegen | fusegen, `rest="inductor"` |',
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for name, words in NAMES.items():
        for what in ("forward", "forward + backward"):
            times = found[name, what]
            cells = [f"**{t:.2f}**" if t == min(times) else f"{t:.2f}" for t in times]
            lines.append(f"| {words} | {what} | {' | '.join(cells)} |")
    versions = re.findall(r"^commit (\w+), torch (\S+)$", record, re.M)
    machine = re.search(r"^NVIDIA .*$", record, re.M)
    assert versions and machine
    commits = ", ".join(commit for commit, _ in versions)
    said = f"{machine[0].replace(', ', ', driver ')}, torch {versions[0][1]}, commits {commits}"
    return "\n".join([f"{said}.", "", *lines])


def main() -> None:
    """Replace what stands between the marks in both pages."""
    text = table((ROOT / "benchmarks" / "fused_models.txt").read_text())
    for page in (ROOT / "README.md", ROOT / "docs" / "models.md"):
        old = page.read_text()
        new = re.sub(
            r"(<!-- models -->\n).*?(<!-- /models -->)",
            lambda m: m[1] + text + "\n" + m[2],
            old,
            flags=re.DOTALL,
        )
        page.write_text(new)


if __name__ == "__main__":
    main()
