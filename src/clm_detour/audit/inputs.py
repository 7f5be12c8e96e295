"""Everything that an audit measures models on: rows, canaries, and the candidates for their secrets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from clm_detour.audit.models import Span, Subject, spans, subjects
from clm_detour.audit.reading import FoundCanaries, Readings, find_canaries
from clm_detour.audit.rows import RowId, Rows, Sample
from clm_detour.audit.secrets import Sentence, sentence_of
from clm_detour.config.schema import Canaries
from clm_detour.data.canaries import Canary, make_canaries, random_secrets
from clm_detour.data.origin import Origin
from clm_detour.recipe.recipe import Recipe
from clm_detour.records.audit import AuditSettings

SPLITS = ("train", "held_out")


@dataclass
class Inputs:
    """The inputs of an audit. Each part is made when it is first used, and only once."""

    recipe: Recipe
    settings: AuditSettings
    _samples: dict[tuple[Span, ...], Sample] = field(default_factory=dict)

    @cached_property
    def models(self) -> tuple[str | None, list[Subject]]:
        """The id of the base, and all models that can be audited."""
        return subjects(self.recipe)

    @cached_property
    def readings(self) -> Readings:
        """The rows that phases read."""
        return Readings(self.recipe)

    @cached_property
    def rows(self) -> Rows:
        """The rows of all sources that the arms read."""
        data, used = self.recipe.config.data, {run.phase.mixture for run in self.recipe.phases.values()}
        names = list(dict.fromkeys(name for mixture in sorted(used) for name in data.mixtures[mixture]))
        sources = {split: self.recipe.open_sources(names, split) for split in SPLITS}
        return Rows(sources, self.settings.tokens)

    @cached_property
    def sources_with_canaries(self) -> dict[str, Origin]:
        """Source with canaries -> the origin of its shards, maybe by another recipe."""
        sources = self.rows.sources["train"].items()
        made_from = {name: source.shards.index.get("made_from", {}) for name, source in sources}
        return {name: made for name, made in made_from.items() if made.get("canaries")}

    @cached_property
    def canary_settings(self) -> Canaries | None:
        """The settings of the canaries in the first source that has some; None without one."""
        if not self.sources_with_canaries:
            return None
        name, made = next(iter(self.sources_with_canaries.items()))
        return Canaries(**{**made["canaries"], "source": name})

    @cached_property
    def canaries(self) -> list[Canary]:
        """The canaries in the prepared data, and those that were left out of it."""
        settings = self.canary_settings
        if settings is None:
            return []
        return make_canaries(settings, self.sources_with_canaries[settings.source]["held_out"])

    @cached_property
    def found(self) -> FoundCanaries:
        """The canaries in the rows that the phases read."""
        settings = self.canary_settings
        if settings is None:
            return FoundCanaries({}, set())
        read = self.readings.of(self.recipe.phases.values())[settings.source]
        ids = self.recipe.tokenizer.encode_batch([canary.text for canary in self.canaries])
        source = self.rows.sources["train"][settings.source]
        return find_canaries(source, np.flatnonzero(read).tolist(), ids)

    def copies_read(self, subject: Subject) -> list[int]:
        """Return how many copies of each canary the phases of a model read; empty without canaries."""
        settings = self.canary_settings
        if settings is None:
            return []
        lineage = subject.run.lineage if subject.run else []
        read = self.readings.of(lineage).get(settings.source)
        return [0] * len(self.canaries) if read is None else self.found.count(len(self.canaries), read)

    @cached_property
    def sentences(self) -> list[Sentence]:
        """The sentences of the canaries with all candidates for their secrets."""
        own, count = {canary.secret for canary in self.canaries}, self.settings.alternatives
        drawn = dict.fromkeys(random_secrets(2 * count + len(own), self.settings.seed))
        others = [secret for secret in drawn if secret not in own][:count]
        return [sentence_of(canary, others, self.recipe.tokenizer) for canary in self.canaries]

    def sample(self, subject: Subject) -> Sample:
        """Return the members and non-members of a model, which are equal for models that read equal rows."""
        key = spans(subject.own)
        if key not in self._samples:
            read = self.readings.of(subject.own)
            without = self._rows_of_canaries(read)
            self._samples[key] = self.rows.sample(read, self.settings.rows, self.settings.seed, without)
        return self._samples[key]

    def _rows_of_canaries(self, read: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return which rows of the source of the canaries hold one."""
        settings = self.canary_settings
        if settings is None or settings.source not in read:
            return {}
        held = np.zeros(len(read[settings.source]), dtype=bool)
        held[list(self.found.rows)] = True
        return {settings.source: held}

    def scored(self, subject: Subject) -> list[RowId]:
        """Return the rows on which a model is scored: its own sample, for the base those of all models."""
        base, models = self.models
        samples = map(self.sample, models) if subject.id == base else [self.sample(subject)]
        return list(dict.fromkeys(row for sample in samples for row in sample.rows))
