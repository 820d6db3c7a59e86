"""`make bench`: the service against its floor and its peers, part by part; docs/benchmarks.md says how to read it."""

import argparse
import json
import logging
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import structlog

from tests.benchmarks import background, import_copy, peers, searches, start_up, writers
from tests.benchmarks.plot import plot
from tests.benchmarks.report import Figure, as_json, show, show_head
from tests.benchmarks.rows import Corpus, corpus

BUILD = Path(".build/bench").absolute()

ROUNDS = 3
MORE_ROUNDS = 5
"""Of the parts that compare milliseconds: a moment in which the machine does something else must not decide."""


def parts(rows: Corpus, models: Path, arguments: argparse.Namespace) -> dict[str, Callable[[Path], Iterator[Figure]]]:
    """By name; each works in a folder of its own."""
    seconds, rounds, more = arguments.seconds, arguments.rounds or ROUNDS, arguments.rounds or MORE_ROUNDS
    sizes = (*searches.SIZES, searches.LARGE) if arguments.large else searches.SIZES
    return {
        writers.PART: lambda folder: writers.measure(
            rows, folder, models, writers.Effort(seconds, rounds, tuple(arguments.writers or writers.WRITERS))
        ),
        searches.PART: lambda folder: searches.measure(
            rows, folder, models, searches.Effort(seconds, more, tuple(arguments.sizes or sizes))
        ),
        import_copy.PART: lambda folder: import_copy.measure(folder, rounds),
        background.PART: lambda folder: background.measure(rows, folder, models, seconds, more),
        start_up.PART: lambda folder: start_up.measure(rows, folder, models, seconds, more),
        peers.PART: lambda folder: peers.measure(rows, folder, models, 2 * seconds, rounds),
    }


def main() -> None:
    """Reads the arguments, prints the table and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", help="this part alone; may be repeated")
    parser.add_argument("--large", action="store_true", help=f"searches among {searches.LARGE:,} memories too")
    parser.add_argument("--peers", action="store_true", help="AI-AfterImage and Chroma too, installed from PyPI")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each side in each round")
    parser.add_argument("--rounds", type=int, help="how often both sides take their turn, in each part")
    parser.add_argument("--writers", type=int, action="append", help="this number alone; may be repeated")
    parser.add_argument("--sizes", type=int, action="append", help="searches among so many; may be repeated")
    arguments = parser.parse_args()
    if peers.PART in (arguments.only or []):
        arguments.peers = True
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    models = BUILD / "models"
    known = parts(corpus(BUILD, models), models, arguments)
    if unknown := set(arguments.only or []) - set(known):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; choose from {', '.join(known)}")
    figures: list[Figure] = []
    show_head()
    try:
        for name, part in known.items():
            if name not in (arguments.only or known) or (name == peers.PART and not arguments.peers):
                continue
            with TemporaryDirectory() as folder:
                for figure in part(Path(folder)):
                    figures.append(figure)
                    show(figure)
    finally:
        _keep(figures)


def _keep(figures: Sequence[Figure]) -> None:
    """Writes what was measured, also when the rest was not."""
    text = as_json(figures)
    (BUILD / "bench.json").write_text(text, encoding="utf-8")
    (BUILD / "bench.svg").write_text(plot(json.loads(text)["figures"]), encoding="utf-8")
    print(f"The same as JSON and as a plot: {BUILD / 'bench.json'}, {BUILD / 'bench.svg'}")


if __name__ == "__main__":
    main()
