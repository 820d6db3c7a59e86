"""The figures of several processes of one service: each leaves its own where the others find them."""

import pickle
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.core import Metric

LABEL = "worker"


@dataclass(frozen=True, slots=True)
class Peers:
    """A private folder, with a file for each worker, and the number of this one."""

    folder: Path
    worker: int

    def leave(self, figures: Sequence[Metric]) -> None:
        """Puts this process's figures in the place of its older ones."""
        unfinished = self.folder / f"{self.worker}.new"
        unfinished.write_bytes(pickle.dumps(figures))
        unfinished.replace(self.folder / f"{self.worker}.figures")

    def together(self, figures: Sequence[Metric]) -> Iterator[Metric]:
        """This process's figures and what the others have left, by metric, each with the number of its worker."""
        families: dict[str, Metric] = {}
        for worker, found in sorted([(self.worker, figures), *self._others()], key=lambda pair: pair[0]):
            for metric in found:
                family = families.setdefault(
                    metric.name, Metric(metric.name, metric.documentation, metric.type, metric.unit)
                )
                for sample in metric.samples:
                    family.samples.append(sample._replace(labels={**sample.labels, LABEL: str(worker)}))
        yield from families.values()

    def _others(self) -> Iterable[tuple[int, Sequence[Metric]]]:
        for path in self.folder.glob("*.figures"):
            with suppress(FileNotFoundError):
                if path.stem != str(self.worker):
                    yield int(path.stem), pickle.loads(path.read_bytes())  # noqa: S301 - the folder is private
