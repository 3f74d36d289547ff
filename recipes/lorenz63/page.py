"""Put the tables that the scripts of this recipe write into README.md, between `<!-- name: begin -->` and `end -->`.

python recipes/lorenz63/study.py report
python recipes/lorenz63/several.py report
python recipes/lorenz63/page.py
"""

from __future__ import annotations

from pathlib import Path

import click
import pandas as pd

HERE = Path(__file__).parent


@click.command()
def main() -> None:
    """Write the page."""
    page = (HERE / "README.md").read_text()
    tables = {name: (HERE / f"{name}.md").read_text() for name in ("study", "modes", "several")}
    tables["levels"] = levels(pd.read_csv(HERE / "levels.csv"))
    for name, table in tables.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        before, rest = page.split(begin)
        page = f"{before}{begin}\n\n{table.strip()}\n\n{end}{rest.split(end)[1]}"
    (HERE / "README.md").write_text(page)


def levels(table: pd.DataFrame) -> str:
    """levels.csv as a table."""
    heads = (
        "r | exact standard deviation | of the default | correlation | slope of the exact one over it | measured power"
    )
    lines = [f"| {heads} |", "|" + "---|" * 6]
    for row in table.itertuples():
        numbers = (row.sd_exact, row.sd_approximate, row.correlation, row.slope, row.power)
        lines.append(f"| {row.r:g} | " + " | ".join(f"{number:.2f}" for number in numbers) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
