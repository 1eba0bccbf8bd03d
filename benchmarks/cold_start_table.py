"""Writes the table of first training steps into docs/models.md, from the record of cold_start.py.

python benchmarks/cold_start_table.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAMES = {
    "llama": "Llama-like, of width 256",
    "gpt": "GPT with attention spelled out, of width 256",
    "vit": "ViT of width 256",
    "resnet": "ResNet of 64 channels",
}
STEPS = {
    "first": "empty caches",
    "further": "after another model",
    "again": "the same model again",
}


def table() -> str:
    """Return the table of the record, in seconds of the processor."""
    record = json.loads((ROOT / "benchmarks" / "cold_start.json").read_text())
    lines = [
        f"{record['machine']}, torch {record['torch']}, commit {record['commit']}.",
        "",
        "| s | caches | torch.compile | fusegen | ratio |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for name, words in NAMES.items():
        found = record["models"][name]
        for step, said in STEPS.items():
            theirs, ours = found["inductor"][step], found["fusegen"][step]
            lines.append(f"| {words} | {said} | {theirs:.1f} | {ours:.1f} | {ours / theirs:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Replace what stands between the marks."""
    page = ROOT / "docs" / "models.md"
    marks = r"(<!-- cold start -->\n).*?(<!-- /cold start -->)"
    new = re.sub(marks, lambda m: f"{m[1]}{table()}\n{m[2]}", page.read_text(), flags=re.DOTALL)
    page.write_text(new)


if __name__ == "__main__":
    main()
