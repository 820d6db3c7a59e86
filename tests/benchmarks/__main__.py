"""`make bench`: the service against its floor, part by part; docs/benchmarks.md says how to read it."""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.benchmarks import writers
from tests.benchmarks.report import Figure, as_json, show, show_head
from tests.benchmarks.rows import corpus

BUILD = Path(".build/bench").absolute()


def main() -> None:
    """Reads the arguments, prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=["writers"], help="this part alone; may be repeated")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each side in each round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--writers", type=int, action="append", help="this number alone; may be repeated")
    arguments = parser.parse_args()
    models = BUILD / "models"
    rows = corpus(BUILD, models)
    figures: list[Figure] = []
    show_head()
    with TemporaryDirectory() as folder:
        effort = writers.Effort(arguments.seconds, arguments.rounds, tuple(arguments.writers or writers.WRITERS))
        for figure in writers.measure(rows, Path(folder), models, effort):
            figures.append(figure)
            show(figure)
    (BUILD / "bench.json").write_text(as_json(figures))
    print(f"also in {BUILD / 'bench.json'}")


if __name__ == "__main__":
    main()
