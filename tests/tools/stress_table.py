"""Measures the demo model under stress: python tests/tools/stress_table.py safeguard_cli/measure/stress/README.md."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
POLICIES = ("spam", "hate")
BEGIN, END = "<!-- tests/tools/stress_table.py writes this -->\n", "<!-- up to here -->\n"


def measure(policy: str) -> dict:
    golden = ROOT / "samples" / "golden" / f"{policy}.jsonl"
    command = ["safeguard", "stress", str(golden), "--policy", policy, "--model", "demo", "--threads", "1", "--json"]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))


def share(rate: dict) -> str:
    return "–" if rate["share"] is None else f"{100 * rate['share']:.1f} %"


def table(results: dict[str, dict]) -> str:
    lines = [
        "| policy | family | labels | flips | 95 % interval | to allowed | to violating | rows flipped |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for policy, result in results.items():
        for name, family in result["families"].items():
            flips = family["flips"]
            interval = f"{100 * flips['low']:.1f} to {100 * flips['high']:.1f} %"
            cells = (share(flips), interval, *(share(family[side]) for side in ("to_allowed", "to_violating")))
            lines.append(
                f"| `{policy}` | {name} | {flips['of']:,} | {' | '.join(cells)} | {share(family['rows_flipped'])} |"
            )
    lines.append("")
    for policy, result in results.items():
        found, spread = result["rationales"], result["spread"]
        worst = [
            max(result["families"][name]["variants"], key=lambda part: part["flips"]["share"] or 0)
            for name in ("injection", "obfuscation")
        ]
        lines += [
            f"`{policy}`: worst are `{worst[0]['name']}` ({share(worst[0]['flips'])}) and `{worst[1]['name']}`"
            f" ({share(worst[1]['flips'])}). Of {found['codes']} rules that {found['inventing']['of']} rationales cite,"
            f" {found['unknown_codes']} are not the policy's; of {found['quotes']} quotes {found['unknown_quotes']} are"
            f" invented. The same row's scores lie {spread['mean']:.4f} apart, at most {spread['most']:.4f}.",
            "",
        ]
    return "\n".join(lines[:-1]) + "\n"


if __name__ == "__main__":
    written = table({name: measure(name) for name in POLICIES})
    page = Path(sys.argv[1])
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    page.write_text(before + BEGIN + written + END + rest.partition(END)[2], encoding="utf-8")
