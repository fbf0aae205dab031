r"""A sparse policy from any teacher, ``u = clip(sum_j w_j phi_j(x), u_min, u_max)`` with few terms, by closed loop.

    D = states that the teacher visits in the model, a tube of noise around them, all labelled by the teacher
    repeat:  dense students from D, fitted through the clip;  the best in closed loop drives roll-outs in the model,
             the teacher labels what it visits;  D = D + that
    remove terms one by one, the one that closed loop misses least first, the others taking over what it did;
    repair by a short CMA-ES where that costs returns;  take the smallest student that keeps the teacher's return

No real step is taken: states come from the learned model, and so do the returns that choose. Every policy is scored by
whole episodes in the same scenarios, members of the ensemble with perturbed coefficients (`sindyrl.learn.scoring`).

Sources: Ross, Gordon, Bagnell, AISTATS 2011 (the loop, DAgger); Zolman et al., arXiv 2403.09110 (surrogate roll-outs,
tube, dictionary). Their own recipe is `sindyrl.distill.published`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np

from sindyrl.distill.clipped_fit import Labels, backward_path, clipped_least_squares, merged, one_fewer
from sindyrl.distill.exam import Exam
from sindyrl.distill.polish import polished
from sindyrl.distill.published import PublishedSettings, published
from sindyrl.distill.result import Distilled, Record, check_agreement, clipped_policy, pareto
from sindyrl.distill.roll_out import RollOuts, Visited
from sindyrl.distill.teacher import Teacher
from sindyrl.learn.scoring import Scorer, objective, policy_terms
from sindyrl.library import Library
from sindyrl.model import Model
from sindyrl.number_check import check_fields, check_number, checked_numbers, not_negative, whole
from sindyrl.regression.ensemble import bootstrap_counts
from sindyrl.sparse_map import SparseMap
from sindyrl.symbolic_map import SymbolicMap
from sindyrl.task import Sampler, Task
from sindyrl.trajectory import Dataset

Progress = Callable[[str, float], None]
"""``progress(stage, mean)``: the mean return in the model of the student that a stage ends with."""

Method = Literal["closed_loop", "published"]

Validate = Callable[[SymbolicMap], float]
"""The return of one real episode under a policy."""


@dataclasses.dataclass(frozen=True)
class DistillSettings:
    """Effort and caution. The defaults suit a teacher that answers batches.

    A planner wants ``scenarios=4, rounds=1, episodes=4, tube=0``: each label is a plan, and where it did not come by
    its own way it plans anew, less well.

    scenarios, spread : in which teacher and students are compared: how many, and the relative standard deviation of the
        model's coefficients. The teacher's roll-outs there are also the first data.
    rounds, episodes, share : of relabelling: how often, roll-outs each, and the probability with which the teacher's
        input is applied in the first of them; it falls with its powers. 0 rounds is plain imitation.
    length : steps of the roll-outs that give data; None for the task's horizon
    tube, noise : noisy copies of each visited state, and their standard deviation as a share of each state's range in
        the roll-outs
    rows : most samples that a fit sees, drawn at random
    ridge : of the fits, relative to each term's mean square; every one is tried
    even : by which powers of how crowded its neighborhood is a sample counts less: 0 takes the samples as visited, 1
        every neighborhood alike; every one is tried
    one_sided : fit through the clip (`sindyrl.distill.clipped_fit`); False is plain least squares on the labels
    mirror : offer students that respect ``task.mirror`` besides those that need not; the returns decide
    starts, polish : how many of the imitations with the most terms allowed are improved by CMA-ES in the model, and its
        generations, at most, 0 for none; where that does not lead to ``keep``, as many again with longer steps
    repair : its generations where the removal of a term costs returns, at most, 0 for none
    population, repair_scenarios : candidates and scenarios in each generation
    keep : the smallest student that keeps this share of the teacher's return in the model (`Record.kept`), and of the
        best student's if that is more, is the answer; the best one, if none does
    members : bootstrap fits of the answer's terms, for the spread of its coefficients
    trust, attempts : with ``validate``: a real episode accepts a student that earns this share of the teacher's return
        in the model as fitted, unperturbed; how many are tried
    """

    scenarios: int = 32
    spread: float = 0.05
    rounds: int = 3
    episodes: int = 8
    share: float = 0.5
    length: int | None = None
    tube: int = 1
    noise: float = 0.02
    rows: int = 8000
    ridge: tuple[float, ...] = (1e-6, 1e-3)
    even: tuple[float, ...] = (0.0, 0.5)
    one_sided: bool = True
    mirror: bool = True
    starts: int = 8
    polish: int = 80
    repair: int = 25
    population: int = 32
    repair_scenarios: int = 8
    keep: float = 0.98
    members: int = 20
    trust: float = 0.97
    attempts: int = 3

    def __post_init__(self) -> None:
        counts = {
            "scenarios": 1, "rounds": 0, "episodes": 1, "tube": 0, "rows": 10, "starts": 1, "polish": 0,
            "repair": 0, "population": 2, "repair_scenarios": 1, "members": 2, "attempts": 1,
        }  # fmt: skip
        for name, least in counts.items():
            check_fields(self, name, f"an integer of at least {least}", whole(least))
        check_fields(self, "length", "an integer of at least 1 or None", whole(1), optional=True)
        for name in ("even", "ridge"):
            wanted = "finite numbers of at least 0, at least one"
            values = checked_numbers(f"DistillSettings({name}=...)", getattr(self, name), wanted, not_negative)
            object.__setattr__(self, name, values)
        check_fields(self, "spread noise keep trust", "a finite number of at least 0", not_negative)
        check_fields(self, "share", "a probability", lambda value: 0 <= value <= 1)


def distill(
    task: Task,
    model: Model,
    teacher: Any,
    *,
    max_terms: int = 20,
    rng: np.random.Generator,
    method: Method | None = None,
    settings: DistillSettings | PublishedSettings | None = None,
    start: Sampler | None = None,
    data: Dataset | None = None,
    noise: np.ndarray | None = None,
    validate: Validate | None = None,
    progress: Progress | None = None,
) -> Distilled:
    """A sparse policy that does in closed loop what the teacher does.

    teacher : any `Policy`: a network, a planner in `RecedingHorizon`, a function. It is asked in batches of states
        (n, n_states) if it answers them like single ones, else state by state. Or a `Dataset` of what someone did.
    max_terms : most terms over all inputs together
    method : "closed_loop" is the way of this module; "published" that of `sindyrl.distill.published`, which knows
        neither ``max_terms`` nor ``data``, ``noise`` and ``validate``. None goes by the kind of settings.
    start : where the roll-outs that give data begin (`sindyrl.distill.initial_states`); None for ``task.reset``.
        Returns are always from ``task.reset``.
    data : real transitions already paid for, whose states the teacher is asked about as well
    noise : (n_states,) standard deviation of the measurement noise, which teacher and students then meet in the model
    validate : one real episode; called at most ``settings.attempts`` times, on the choice and then on larger students

    Raises ValueError if the model, the task, the data or the teacher's answers disagree in names or shapes.
    """
    check_agreement("distill", task, model)
    settings = _settings(method, settings)
    least = len(task.inputs)
    max_terms = check_number("distill(max_terms=...)", max_terms, f"an integer of at least {least}", whole(least))
    for argument, given in (("teacher", teacher), ("data", data)):
        if isinstance(given, Dataset) and (given.states, given.inputs) != (task.state_names, task.input_names):
            raise ValueError(
                f"`distill({argument}=...)` must record {list(task.state_names)} and {list(task.input_names)}. "
                f"Got {list(given.states)} and {list(given.inputs)}."
            )
    if isinstance(settings, PublishedSettings):
        unknown = {"data": data, "noise": noise, "validate": validate}
        given = [name for name, value in unknown.items() if value is not None]
        if given or isinstance(teacher, Dataset):
            raise ValueError(
                '`distill(method="published")` takes a policy for a teacher, and no `data`, `noise` or `validate`. '
                f"Got {', '.join(given) or 'a Dataset'}."
            )
        return published(task, model, teacher, rng=rng, settings=settings, start=start)
    return _Distillation(task, model, max_terms, rng, settings, start, noise, progress).run(teacher, data, validate)


class _Distillation:
    """One run: the compiled scorer, the samples so far, and the best student of each size."""

    def __init__(
        self,
        task: Task,
        model: Model,
        max_terms: int,
        rng: np.random.Generator,
        settings: DistillSettings,
        start: Sampler | None,
        noise: np.ndarray | None,
        progress: Progress | None,
    ) -> None:
        self.task, self.max_terms, self.rng, self.settings = task, max_terms, rng, settings
        self.start, self.progress = start, progress
        self.library, self.families = _terms(task, model, rng, settings.mirror)
        self.scorer = Scorer(task, model, self.library, noise)
        self.exam = Exam(self.scorer, self.scorer.scenarios(settings.scenarios, settings.spread, rng))
        self.low, self.high = task.action_low, task.action_high
        self.best: dict[int, Record] = {}
        self.by_family: dict[str, dict[int, Record]] = {name: {} for name in self.families}

    def run(self, teacher: Any, data: Dataset | None, validate: Validate | None) -> Distilled:
        asked: Teacher | None = None
        judged: tuple[float, float] | None = None
        if isinstance(teacher, Dataset):
            pairs = teacher.pairs()
            self.x, self.u = pairs.x, np.clip(pairs.u, self.low, self.high)
            self._students("recordings")
            best = max(self.best.values(), key=_by_kept)
            self.exam.aim(best.mean, best.score)
            for book in (self.best, *self.by_family.values()):
                book.update({terms: self.exam.again(record) for terms, record in book.items()})
        else:
            asked = Teacher(self.task, teacher, self.rng)
            judged = self._labelled(asked, data)
        self._repaired(self._paths())
        for family in self._promising():
            self._eliminate(family)
        front = pareto([record for record in self.best.values() if record.terms <= self.max_terms])
        # A teacher that fails in some scenarios asks little there. What students can do sets the standard then.
        least = self.settings.keep * max(front[-1].kept, 1.0)
        chosen = next((record for record in front if record.kept >= least), front[-1])
        validations = [] if validate is None else self._validated(chosen, validate, self._promised(asked))
        if validations:
            chosen = max(validations, key=lambda item: item[1])[0]
        sparse, ensemble = self._sparse(chosen)
        return Distilled(
            self._policy(chosen),
            sparse,
            ensemble,
            front,
            chosen,
            self.library,
            None if judged is None else judged[0],
            None if judged is None else judged[1],
            tuple((record.terms, value) for record, value in validations),
            self.x,
            self.u,
            self.scorer.model_steps,
            0 if asked is None else asked.calls,
        )

    # ---- samples

    def _labelled(self, teacher: Teacher, data: Dataset | None) -> tuple[float, float]:
        """Rounds of roll-outs, labels and students; returns the teacher's mean and score in the exam."""
        settings = self.settings
        roll_outs = RollOuts(self.scorer)
        exam = roll_outs.visited(teacher, self.exam.scenarios, self.rng)
        judged = float(exam.returns.mean()), float(objective(exam.returns))
        self.exam.aim(*judged)
        as_judged = self.start is None and settings.length is None
        first = exam if as_judged else self._round(roll_outs, teacher, None, 1.0)
        self.x, self.u = first.x, first.u
        if data is not None:
            pairs = data.pairs()
            self._add(pairs.x, teacher.afresh(pairs.x, self.rng))
        self._add(*self._tube(teacher, first.x))
        self._students("teacher")
        for turn in range(settings.rounds):
            record = max(self.best.values(), key=_by_kept)
            more = self._round(roll_outs, teacher, record, settings.share ** (turn + 1))
            self._add(more.x, more.u)
            self._add(*self._tube(teacher, more.x))
            self._students(f"round {turn + 1}")
        return judged

    def _round(self, roll_outs: RollOuts, teacher: Teacher, record: Record | None, share: float) -> Visited:
        settings = self.settings
        scenarios = self.scorer.scenarios(settings.episodes, settings.spread, self.rng)
        if self.start is not None:
            scenarios = dataclasses.replace(scenarios, x0=self.start(self.rng, settings.episodes).T)
        student = None if record is None else self._acting(record)
        return roll_outs.visited(teacher, scenarios, self.rng, student=student, share=share, length=settings.length)

    def _tube(self, teacher: Teacher, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Noisy copies of visited states, back on the manifold and in the ranges, and their labels."""
        around = np.repeat(x, self.settings.tube, axis=0)
        width = np.ptp(x, axis=0)
        around = around + self.settings.noise * width * self.rng.standard_normal(around.shape)
        low, high = (np.array([getattr(s, side) for s in self.task.states]) for side in ("lower", "upper"))
        around = np.clip(self.task.structure.project(self.task.state_names, around), low, high)
        return around, teacher.afresh(around, self.rng)

    def _add(self, x: np.ndarray, u: np.ndarray) -> None:
        self.x, self.u = np.concatenate([self.x, x]), np.concatenate([self.u, u])

    # ---- students

    def _students(self, origin: str) -> None:
        """Students with all terms, fitted to the samples, of every kind."""
        for family, labels, ridge in self._kinds():
            allowed = self.families[family]
            fits = [clipped_least_squares(each, row, ridge=ridge) for each, row in zip(labels, allowed, strict=True)]
            self._grade(np.array([[fit.w for fit in fits]]), family, origin)
        self._tell(origin)

    def _paths(self) -> list[tuple[str, Record]]:
        """Students of every size that imitate best, of every kind. Returns the largest allowed of each kind."""
        largest = []
        for family, labels, ridge in self._kinds():
            paths = [
                backward_path(each, row, self.max_terms, ridge=ridge)
                for each, row in zip(labels, self.families[family], strict=True)
            ]
            records = self._grade(np.array(merged(paths, self.high - self.low)), family, "imitation")
            within = [record for record in records if record.terms <= self.max_terms]
            largest.append((family, max(within, key=lambda record: record.terms)))
        self._tell("imitation")
        return largest

    def _kinds(self) -> Iterator[tuple[str, list[Labels], float]]:
        """(family, labels input by input, ridge) of every kind of imitation that is tried."""
        for power in self.settings.even:
            labels = self._labels(power)
            for family in self.families:
                for ridge in self.settings.ridge:
                    yield family, labels, ridge

    def _labels(self, power: float) -> list[Labels]:
        """A draw of the samples, input by input: each with probability (samples in its cell of the states)^-power."""
        cells = np.floor(_CELLS * (self.x - self.x.min(axis=0)) / np.maximum(np.ptp(self.x, axis=0), 1e-300))
        _, cell, count = np.unique(cells.astype(int), axis=0, return_inverse=True, return_counts=True)
        chance = count[cell.ravel()] ** -power
        size = min(self.settings.rows, len(self.x))
        self.rows = self.rng.choice(len(self.x), size, replace=False, p=chance / chance.sum())
        return self._labels_of(self.library.features(self.x[self.rows]), self.u[self.rows])

    def _labels_of(self, theta: np.ndarray, u: np.ndarray) -> list[Labels]:
        return [
            Labels(theta, column, float(low), float(high), self.settings.one_sided)
            for column, low, high in zip(u.T, self.low, self.high, strict=True)
        ]

    def _grade(self, coef: np.ndarray, family: str, origin: str) -> list[Record]:
        """Score coefficients (policy, n_inputs, n_terms) in the exam; the best of each size stays."""
        records = self.exam.records(coef, [f"{origin}, {family}"] * len(coef))
        for record in records:
            for book in (self.best, self.by_family[family]):
                if record.terms not in book or record.kept > book[record.terms].kept:
                    book[record.terms] = record
        return records

    def _repaired(self, largest: list[tuple[str, Record]]) -> None:
        """Repair the most promising students of the largest size: imitations that differ end in different optima."""
        tried = sorted(largest, key=lambda item: -item[1].kept)[: self.settings.starts]
        for family, record in tried:
            after = self._repair(record, family, self.settings.polish)
            if after.kept < self.settings.keep:  # stuck in a lesser optimum, which longer steps pass over
                after = self._repair(record, family, self.settings.polish, _WIDE)
            self._tell(f"{family}, {record.terms} terms", after)

    def _promising(self) -> list[str]:
        """The families with a student that is enough; all, if none has one."""
        small = [(name, record) for name, book in self.by_family.items() for record in book.values()]
        enough = {name for name, each in small if each.terms <= self.max_terms and each.kept >= self.settings.keep}
        return [name for name in self.families if name in enough or not enough]

    def _eliminate(self, family: str) -> None:
        """From the best student of a family, one term fewer at a time, as long as it is worth it."""
        labels = self._labels(min(self.settings.even))
        known = self.by_family[family]
        record = max((each for each in known.values() if each.terms <= self.max_terms), key=_by_kept)
        while record.kept >= _HOPELESS:
            smaller = one_fewer(record.coef, labels, min(self.settings.ridge))
            if not len(smaller):
                return
            self._grade(smaller, family, "closed loop")
            record = known[record.terms - 1]
            if record.kept < self.settings.keep:
                self._repair(record, family, self.settings.repair)
                record = known[record.terms]
            self._tell(f"{family}, {record.terms} terms", record)

    def _repair(self, record: Record, family: str, generations: int, step: float = 0.1) -> Record:
        settings = self.settings
        if not generations:
            return record
        weights = polished(
            self.scorer,
            record.coef / self.scorer.term_scale,
            self.exam.merit,
            self.rng,
            generations=generations,
            step=step,
            population=settings.population,
            scenarios=settings.repair_scenarios,
            spread=settings.spread,
            exam=self.exam.scenarios,
            enough=settings.keep,
        )
        (after,) = self._grade((weights * self.scorer.term_scale)[None], family, "polished")
        return after

    def _tell(self, stage: str, record: Record | None = None) -> None:
        if self.progress is not None:
            self.progress(stage, (max(self.best.values(), key=_by_kept) if record is None else record).mean)

    def _acting(self, record: Record) -> Callable[[np.ndarray], np.ndarray]:
        return lambda x: np.clip(self.library.features(x) @ record.coef.T, self.low, self.high)

    # ---- the choice

    def _promised(self, teacher: Teacher | None) -> float:
        """What the teacher is expected to earn in reality: its mean return in the model as fitted.

        Perturbed, models are harder: what it earns in the exam would let students pass that are much worse in reality.
        """
        if teacher is None:
            return float(self.exam.goal[0])
        scenarios = self.scorer.scenarios(max(self.settings.scenarios // 4, 1), 0.0, self.rng)
        return float(RollOuts(self.scorer).visited(teacher, scenarios, self.rng).returns.mean())

    def _validated(self, first: Record, validate: Validate, promised: float) -> list[tuple[Record, float]]:
        """Real episodes: of the choice, then of what keeps most in the model, until one is good enough."""
        least = self.exam.least[0]
        enough = least + self.settings.trust * (promised - least)
        rest = [record for record in self.best.values() if record.terms <= self.max_terms and record is not first]
        done: list[tuple[Record, float]] = []
        for record in [first, *sorted(rest, key=_by_kept, reverse=True)][: self.settings.attempts]:
            done.append((record, float(validate(self._policy(record)))))
            if done[-1][1] >= enough:
                break
        return done

    def _policy(self, record: Record) -> SymbolicMap:
        return clipped_policy(self.task, self._map(record.coef))

    def _map(self, coef: np.ndarray) -> SparseMap:
        """Over the terms in use alone; coef (n_inputs, n_terms)."""
        used = np.flatnonzero((coef != 0).any(axis=0))
        used = used if len(used) else np.array([0])
        units = tuple(signal.unit for signal in self.task.inputs)
        return SparseMap(self.library.select(used), coef[:, used], self.task.input_names, units)

    def _sparse(self, record: Record) -> tuple[SparseMap, SparseMap]:
        """The student before clipping, and its terms fitted to bootstrap samples."""
        sparse = self._map(record.coef)
        self._labels(max(self.settings.even))
        theta, u = sparse.library.features(self.x[self.rows]), self.u[self.rows]
        counts = bootstrap_counts(self.rng, self.settings.members, len(theta)).astype(int)
        members = np.zeros((self.settings.members, *sparse.coef.shape))
        for member, count in zip(members, counts, strict=True):
            rows = np.repeat(np.arange(len(theta)), count)
            for index, labels in enumerate(self._labels_of(theta[rows], u[rows])):
                support, start = sparse.support[index], sparse.coef[index]
                member[index] = clipped_least_squares(labels, support, ridge=min(self.settings.ridge), start=start).w
        return sparse, SparseMap(sparse.library, members, sparse.targets, sparse.target_units)


def _settings(
    method: Method | None, settings: DistillSettings | PublishedSettings | None
) -> DistillSettings | PublishedSettings:
    kinds = {"closed_loop": DistillSettings, "published": PublishedSettings}
    if method is not None and method not in kinds:
        raise ValueError(f"`distill(method=...)` must be one of {list(kinds)}. Got {method!r}.")
    if settings is None:
        return PublishedSettings() if method == "published" else DistillSettings()
    if method is not None and not isinstance(settings, kinds[method]):
        raise ValueError(
            f"`distill(method={method!r}, settings=...)` must be {kinds[method].__name__}. "
            f"Got {type(settings).__name__}."
        )
    return settings


def _by_kept(record: Record) -> float:
    return record.kept


_CELLS = 8  # along each state, in which samples are counted
_WIDE = 0.5  # first step of a second CMA-ES, relative to each weight; the first one's is 0.1
_HOPELESS = 0.5  # of the teacher's return: no smaller students are sought


def _terms(task: Task, model: Model, rng: np.random.Generator, mirror: bool) -> tuple[Library, dict[str, np.ndarray]]:
    """The library, and which of its terms each family of students may use, (n_inputs, n_terms) of bool."""
    draws = rng.spawn(2)
    library, allowed = policy_terms(dataclasses.replace(task, mirror=()), model, draws[0])
    families = {"free": allowed}
    if task.mirror and mirror:
        odd, may = policy_terms(task, model, draws[1])
        table = {name: may[:, index] for index, name in enumerate(odd.names)}
        nothing = np.zeros(len(task.inputs), dtype=bool)
        families["mirrored"] = np.stack([table.get(name, nothing) for name in library.names], axis=1)
    return library, families
