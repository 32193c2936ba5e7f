"""The places where Keras builds a model, looks at its data and makes its steps.

A guarded mixin over methods that are private in Keras 3.12 to 3.15. What is to
happen at each place is said by the class that uses it.
"""

from __future__ import annotations

import itertools
import queue
import warnings
from collections.abc import Callable, Iterator
from contextlib import (
    AbstractContextManager,
    contextmanager,
    nullcontext,
    suppress,
)
from typing import Any

STEPS = ("train", "test", "predict")


class KerasDoors:
    """Calls back where Keras builds, peeks at data, or makes a step."""

    # Where a version of Keras has no such method, the place is not seen; the
    # first step then finds what it made.

    def at_build(self) -> AbstractContextManager[None]:
        """What stands around a build, or a look at the data for one."""
        return nullcontext()

    def at_data(self, iterator: Any) -> None:
        """What follows when Keras has looked at the iterator of some data."""

    def wants_early_build(self) -> bool:
        """Whether to build before any callback where Keras would not."""
        return False

    def is_settled(self) -> bool:
        """Whether a step has run, and left nothing to be built."""
        return False

    def after_build(self) -> None:
        """What follows a build, before anything is computed."""

    def around_step(self, kind: str, function: Any) -> Any:
        """Give what is called instead of a step that Keras has made."""
        del kind
        return function

    # --- builds --------------------------------------------------------------

    def _symbolic_build(
        self, iterator: Any = None, data_batch: Any = None
    ) -> None:
        if self.is_settled():
            super()._symbolic_build(iterator, data_batch)  # type: ignore[misc]
        else:
            with self.at_build():
                if data_batch is None:
                    self._build_early(iterator)
                # What is built by now makes this a look at flags alone.
                super()._symbolic_build(iterator, data_batch)  # type: ignore[misc]
                _end_look(iterator)
            self.after_build()
        if iterator is not None:
            self.at_data(iterator)

    def _maybe_symbolic_build(self, *args: Any, **kwargs: Any) -> None:
        # TensorFlow's alone; it takes a batch of each training where the model
        # was made under a strategy, and else leaves the building to the trace.
        iterator = kwargs.get("iterator") or (args or [None])[0]
        strategy = getattr(self, "_distribute_strategy", None)
        if strategy is None and self.is_settled():
            super()._maybe_symbolic_build(*args, **kwargs)  # type: ignore[misc]
        else:
            with self.at_build():
                super()._maybe_symbolic_build(*args, **kwargs)  # type: ignore[misc]
                if self.wants_early_build():
                    self._build_early(*args, **kwargs)
                _end_look(iterator)
            self.after_build()
        if iterator is not None:
            self.at_data(iterator)

    def _build_early(
        self, iterator: Any = None, data_batch: Any = None
    ) -> None:
        """Build from what Keras is about to feed, without taking any of it."""
        # To look at a `tf.data` pipeline moves its shuffling on.
        if data_batch is None:
            adapter = getattr(iterator, "data_adapter", None)
            data = getattr(iterator, "_distributed_dataset", None) or getattr(
                adapter, "_dataset", None
            )
            data_batch = getattr(data, "element_spec", None)
        if data_batch is not None:
            # What cannot be built so is built by the first step.
            with suppress(Exception), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                super()._symbolic_build(data_batch=data_batch)  # type: ignore[misc]

    def _maybe_build(self, *args: Any, **kwargs: Any) -> None:
        if self.built:  # type: ignore[attr-defined]
            super()._maybe_build(*args, **kwargs)  # type: ignore[misc]
            return
        with self.at_build():
            super()._maybe_build(*args, **kwargs)  # type: ignore[misc]
        if self.built:  # type: ignore[attr-defined]
            self.after_build()

    # --- steps ---------------------------------------------------------------

    def make_train_function(self, *args: Any, **kwargs: Any) -> Any:
        """Make the training step, behind a door."""
        return self._make_step("train", *args, **kwargs)

    def make_test_function(self, *args: Any, **kwargs: Any) -> Any:
        """Make the step of an evaluation, behind a door."""
        return self._make_step("test", *args, **kwargs)

    def make_predict_function(self, *args: Any, **kwargs: Any) -> Any:
        """Make the step of a prediction, behind a door."""
        return self._make_step("predict", *args, **kwargs)

    def _make_step(self, kind: str, *args: Any, **kwargs: Any) -> Any:
        self.after_build()
        make = getattr(super(), f"make_{kind}_function")
        result = make(*args, **kwargs)
        name = f"{kind}_function"
        made = getattr(self, name, None)
        if made is not None:
            door = self.around_step(kind, made)
            if door is not made:
                setattr(self, name, door)
        return result


def _end_look(iterator: Any) -> None:
    """Have a first epoch begin with the first batch, whoever reads it."""
    # Keras (3.12 to 3.15) lets the workers of a `PyDataset` read on while it
    # looks at one batch, and feeds what they had read by then: batches but the
    # first, as many as chance will have, and then all of them.
    adapter: Any = getattr(iterator, "data_adapter", None)
    workers = getattr(adapter, "enqueuer", None)
    if workers is None or not workers.is_running():
        return
    workers.stop()
    workers.ready_queue = queue.Queue()
    if adapter.num_batches is None:
        workers.indices = itertools.count()


@contextmanager
def steps_through(
    model: Any, through: Callable[[str, Callable[..., Any]], Any]
) -> Iterator[None]:
    """Have Keras find what `through` makes of a model's own step methods."""
    names = [
        f"{kind}_step" for kind in STEPS if f"{kind}_step" not in vars(model)
    ]
    for name in names:
        method = through(name.removesuffix("_step"), getattr(model, name))
        object.__setattr__(model, name, method)
    try:
        yield
    finally:
        for name in names:
            object.__delattr__(model, name)
