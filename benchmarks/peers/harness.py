"""The loop of a run: every contestant has its turn in every round of every scenario."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

from benchmarks.peers import table
from benchmarks.peers.plan import WORKS, Contestant, Work, demands, prompts_for
from benchmarks.peers.table import Case
from benchmarks.peers.workers import NotMeasured, Place, Worker, prepare, serving
from novacron.bench.machine_peaks import measure_peaks
from novacron.bench.random_tokenizer import SPECIAL_TOKENS
from novacron.bench.rounds import turn_order

_PEAK_REPEATS = 3


class Harness:
    """One run: cases fill up precision by precision; what could not be measured is noted."""

    def __init__(
        self,
        place: Place,
        contestants: Sequence[Contestant],
        *,
        rounds: int,
        seed: int,
        say: Callable[[str], None],
    ) -> None:
        self._place = place
        self._contestants = contestants
        self._rounds = rounds
        self._seed = seed
        self._say = say
        self._vocab_size = table.vocab_size(place.folder)
        self.cases: list[Case] = []
        self.versions: dict[str, str] = {}
        self.not_measured: list[str] = []

    def prepare(self, precision: str) -> list[Contestant]:
        """Convert the weights; those who have theirs now."""
        return [one for one in self._contestants if self._prepared(one, precision)]

    def run(self, precision: str, names: Sequence[str], able: Sequence[Contestant]) -> None:
        works = {name: WORKS[name] for name in names}
        loaded = {name: work for name, work in works.items() if work.kind != "start"}
        if loaded:
            with self._loaded(able, precision, list(loaded.values())) as workers:
                for name, work in loaded.items():
                    self._run_case(Case(name, work, precision), workers)
        for name, work in works.items():
            if work.kind == "start":
                self._run_starts(Case(name, work, precision), able)

    def _prepared(self, contestant: Contestant, precision: str) -> bool:
        with self._noting(contestant, precision):
            self._say(f"{precision}: {contestant.name} prepares its weights")
            prepare(self._place, contestant, precision)
            return True
        return False

    @contextlib.contextmanager
    def _loaded(
        self, contestants: Sequence[Contestant], precision: str, works: Sequence[Work]
    ) -> Iterator[dict[str, Worker]]:
        """Workers that have their model, by name; one that cannot is noted and left out."""
        with contextlib.ExitStack() as stack:
            workers = {}
            for one in contestants:
                with self._noting(one, precision):
                    self._say(f"{precision}: {one.name} loads")
                    worker = serving(self._place, one, precision, demands(works))
                    stack.enter_context(worker)
                    worker.wait_ready()
                    workers[one.name] = worker
                    self.versions[one.engine] = worker.version
            yield workers

    def _run_case(self, case: Case, workers: dict[str, Worker]) -> None:
        able = list(workers)
        for turn in range(-1, self._rounds):
            prompts = self._prompts(case, turn)
            readings = {}
            peaks = measure_peaks(self._place.threads, repeats=_PEAK_REPEATS)
            for name in turn_order(tuple(able), turn):
                with self._noting(workers[name].contestant, case.precision, case.name):
                    readings[name] = workers[name].ask(case.work.question(prompts)).rate
                if name not in readings:
                    able.remove(name)
            self._note_round(case, turn, readings)
            if turn >= 0:
                case.rounds.append(readings)
                case.peaks.append(peaks)
        self.cases.append(case)

    def _run_starts(self, case: Case, contestants: Sequence[Contestant]) -> None:
        """Seconds from starting a process until it has answered a prompt of a few tokens."""
        able = list(contestants)
        for turn in range(-1, self._rounds):
            [prompt] = self._prompts(case, turn)
            readings = {}
            for one in turn_order(tuple(able), turn):
                with self._noting(one, case.precision, case.name):
                    readings[one.name] = self._start(one, case, prompt)
                if one.name not in readings:
                    able.remove(one)
            self._note_round(case, turn, readings)
            if turn >= 0:
                case.rounds.append(readings)
        self.cases.append(case)

    def _start(self, contestant: Contestant, case: Case, prompt: list[int]) -> float:
        started_s = time.perf_counter()
        with serving(self._place, contestant, case.precision, demands([case.work])) as worker:
            worker.send(case.work.question([prompt]))
            worker.wait_ready()
            worker.read()
            return time.perf_counter() - started_s

    def _prompts(self, case: Case, turn: int) -> list[list[int]]:
        return prompts_for(
            case.name,
            case.work,
            turn,
            seed=self._seed,
            first_token=len(SPECIAL_TOKENS),
            vocab_size=self._vocab_size,
        )

    @contextlib.contextmanager
    def _noting(self, contestant: Contestant, precision: str, scenario: str = "") -> Iterator[None]:
        try:
            yield
        except NotMeasured as reason:
            what = " ".join(filter(None, (contestant.name, precision, scenario)))
            self.not_measured.append(f"{what}: {reason}")
            self._say(f"  not measured: {what}: {reason}")

    def _note_round(self, case: Case, turn: int, readings: dict[str, float]) -> None:
        unit = "s" if case.work.kind == "start" else "tok/s"
        told = ", ".join(f"{name} {value:.1f}" for name, value in readings.items())
        label = "warm-up" if turn < 0 else f"round {turn + 1} of {self._rounds}"
        self._say(f"{case.precision} {case.name} {label} ({unit}): {told}")
