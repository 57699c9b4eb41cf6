"""One shard on its way: what of it is due, what becomes of a loss, and when it is done."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence

from compiler.errors import Incomplete, InstanceLost, JobBroken
from compiler.planning import schemas
from compiler.planning.schemas import annotation_problem
from compiler.planning.sightings import Sightings, annotated_views
from compiler.rendering.events import EpisodeSkipped, Event, Restarted, SampleDone, SamplesKept, ShardDone, ShardFailed
from compiler.rendering.retry import RetryPolicy, for_want_of_memory
from compiler.storage.destination import Destination
from compiler.storage.failures import Failure, What, replay_command

_SIGNS_OF_NO_OPENGL = ("Couldn't find current GLX or EGL context", "Couldn't open libEGL", "headless GPU context")
"""What Blender says before it aborts for want of OpenGL. Lines with EGL_BAD_MATCH come in healthy runs, too."""


class NotStarted(InstanceLost):
    """An instance was lost before it got an order: no episode is to blame."""


class ShardTask:
    """One shard of the plan.

    State: the writer, the episodes not yet whole in it (the first of them perhaps begun), the annotations' schema
    so far and at the last seal, what came into view up to the last seal and since, what was skipped, how often the
    current unit was tried and an instance for it was started, and which of its samples the tee has got: what is
    rendered again after a crash, it does not get again.
    """

    def __init__(
        self,
        store: Destination,
        number: int,
        retry: RetryPolicy,
        events: queue.SimpleQueue[Event],
        offer: Callable[[str, bytes], None],
        blender: str | None = None,
    ) -> None:
        """Begin the shard, or continue after what an earlier run left of it. Raises OSError.

        `blender` is what ``--blender`` names: a replay needs it, too.
        """
        self.plan = store.plan
        self.number = number
        self.remaining = self.plan.episodes(number)
        self.exclusive = False
        """Whether to render the episode while no other instance works."""
        self._retry = retry
        self._events = events
        self._offer = offer
        self._folder, self._blender = store.path, blender
        self._writer = store.writer(number, skipping=retry.on_poison == "skip")
        self._annotations: schemas.Schema = "null"
        self._annotations_sealed: schemas.Schema = "null"
        self._seen, self._seen_unsealed = Sightings(), Sightings()
        self._skipped: dict[str, str] = {}
        self._begun = 0  # samples of remaining[0] that are written
        self._tries = 1
        self._starts = 1
        self._offered: set[str] = set()
        self._expected = set(self.plan.members())
        self._take_up()

    def _take_up(self) -> None:
        kept = self._writer.kept
        self._annotations = self._annotations_sealed = kept.annotations
        for entry in kept.entries:
            if entry.skipped:
                self._skipped |= dict.fromkeys(entry.keys, entry.skipped)
        whole = {key for entry in kept.entries for key in entry.keys}
        self.remaining = [episode for episode in self.remaining if episode.samples[0].key not in whole]
        if kept.samples:
            self._events.put(SamplesKept(self.number, len(kept.samples)))

    @property
    def at_rest(self) -> bool:
        """Whether losing the instance now would cost nothing."""
        return self._begun == 0 and (not self.plan.job.reuse_scene or not self.remaining)

    def add(self, members: dict[str, bytes]) -> None:
        """Append the next sample due.

        Raises:
            InstanceLost: the members are not what the plan says.
            JobBroken: the annotations do not fit those of other samples.
            OSError: it cannot be written.
        """
        due = self.remaining[0].samples[self._begun]
        if set(members) != self._expected:
            raise InstanceLost(f"sent {sorted(members)} for {due.key} instead of {sorted(self._expected)}")
        try:
            views = list(annotated_views(members))
            record = self._writer.add(due.key, members)
        except ValueError as error:
            raise InstanceLost(f"sent garbage for {due.key}: {error}") from None
        for view, segmentation in views:
            self._check(view, due.key)
            self._seen_unsealed.add(view, segmentation)
        if due.key not in self._offered:
            self._offer(due.key, record)
            self._offered.add(due.key)
        self._events.put(SampleDone(self.number))
        self._begun += 1
        if self._begun == len(self.remaining[0].samples):
            self._finish_episode()

    def _check(self, annotations: object, key: str) -> None:
        """Check a view's annotations against the published schema, and against those of other samples."""
        problem = annotation_problem(annotations)
        try:
            self._annotations = schemas.merge(self._annotations, schemas.schema_of(annotations))
        except schemas.SchemaConflict as conflict:
            problem = problem or str(conflict)
        if problem:
            raise JobBroken(f"{self.plan.source.path}: annotate: {problem} (at {key})")

    def _finish_episode(self) -> None:
        self.remaining, self._begun = self.remaining[1:], 0
        if self.at_rest:
            self._writer.seal()
            self._annotations_sealed = self._annotations
            self._seen.merge(self._seen_unsealed)
            self._begin_unit()

    def _begin_unit(self) -> None:
        """Forget how often the last one was tried; where the scene is reused, the whole shard is the unit."""
        self._tries, self._starts, self.exclusive = 1, 1, False
        self._seen_unsealed = Sightings()
        self._offered.clear()

    def recover(self, loss: InstanceLost) -> bool:
        """Go back to where rendering can restart; after the last try, give up the shard and return False.

        Raises:
            OSError: the part file cannot be written.
        """
        if not self.remaining:
            return True  # it was lost after its last sample
        tries = self._starts if isinstance(loss, NotStarted) else self._tries
        if tries >= self._retry.attempts:
            return self._skip(loss) or self._give_up(loss)
        self._events.put(self._restarted(loss, tries))
        if isinstance(loss, NotStarted):
            self._starts += 1
        else:
            self._tries += 1
        return True

    def _restarted(self, loss: InstanceLost, tries: int) -> Restarted:
        self.exclusive = self.exclusive or for_want_of_memory(loss)
        return Restarted(self.failure("instance lost", str(loss), loss.log, tries), self._roll_back(), self.exclusive)

    def _roll_back(self) -> int:
        """Go back to the last seal; return how many samples that costs."""
        written = self._writer.samples
        self._writer.rollback()
        self._annotations, self._begun, self._seen_unsealed = self._annotations_sealed, 0, Sightings()
        if self.plan.job.reuse_scene:
            self.remaining = self.plan.episodes(self.number)
        return written - self._writer.samples

    def _skip(self, loss: InstanceLost) -> bool:
        """Leave the episode out if that was asked for, and it is to blame.

        If the scene is reused, the episodes after it would differ without it: then the shard is given up.
        """
        if self._retry.on_poison != "skip" or isinstance(loss, NotStarted) or self.plan.job.reuse_scene:
            return False
        poison = self.remaining[0]
        if len(self.remaining) == 1 and self._writer.samples == self._begun:
            return False  # nothing would be left of the shard
        keys, lost = [sample.key for sample in poison.samples], self._roll_back()
        self._writer.skip(keys, str(loss))
        self._skipped |= dict.fromkeys(keys, str(loss))
        self._events.put(EpisodeSkipped(self.failure("episode skipped", str(loss), loss.log, self._tries), lost))
        self.remaining = self.remaining[1:]
        self._begin_unit()
        return True

    def _give_up(self, loss: InstanceLost) -> bool:
        attempts, episode = self._retry.attempts, self.remaining[0].episode
        no_gl = any(mark in line for line in loss.log for mark in _SIGNS_OF_NO_OPENGL)
        failure = self.failure("shard given up", str(loss), loss.log, attempts)
        replay = failure.replay
        error = Incomplete(
            f"shard {self.number}: episode {episode} was tried {attempts} times; the last instance {loss}",
            hint=f"compile-dataset doctor, as OpenGL seems to be missing; or {replay}" if no_gl else replay,
            details=loss.log,
        )
        self._events.put(ShardFailed(failure, error, self._writer.samples))
        return False

    def failure(self, what: What, reason: str, log: Sequence[str], attempt: int) -> Failure:
        """Return the record of a failure of the current episode at this attempt."""
        now = self.remaining[0]
        replay = replay_command(self._folder, now.episode, self._blender)
        return Failure(what, self.number, now.episode, attempt, reason, log, replay, now.samples[0].key)

    def commit(self) -> None:
        """Give the shard its name. Raises OSError."""
        shard = self._writer.commit(self.number)
        self._events.put(
            ShardDone(shard, self._annotations, self._skipped, None if self._writer.kept.samples else self._seen)
        )

    def close(self) -> None:
        """Leave the whole episodes for the next run, unless the shard was committed."""
        self._writer.close()
