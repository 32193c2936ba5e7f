"""A model that learns from what it does in a game."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from .workload import Counted, Kind, L, Workload, compiling, register

LENGTH = 6


@register
def policy_loss(y_true: Any, odds: Any) -> Any:
    """What was done is the better, the more it gave beyond the expected."""
    done, advantage = y_true[:, 0], y_true[:, 1]
    done = ops.one_hot(ops.cast(done, "int32"), 2)
    return -ops.log(ops.sum(done * odds, axis=-1) + 1e-6) * advantage


def make_player(kind: Kind) -> Any:
    """What to do, and what is to be expected."""
    state = keras.Input((2,))
    x = L.Dense(6, activation="relu")(Counted()(state))
    actor = L.Dense(2, activation="softmax", name="actor")(x)
    return kind.model(state, [actor, L.Dense(1, name="critic")(x)])


def play(model: Any, rng: np.random.Generator) -> Any:
    """An episode: a cart is pushed to and fro, and shall stay in the middle."""
    place, speed = rng.normal(size=2)
    states, expected, rewards, done = [], [], [], []
    for _ in range(LENGTH):
        states.append([place, speed])
        outputs = model(np.array([states[-1]], "float32"), training=False)
        now, value = (ops.convert_to_numpy(one)[0] for one in outputs)
        done.append(rng.choice(2, p=now / now.sum()))
        speed += 0.5 * (2 * done[-1] - 1)
        place += 0.5 * speed
        rewards.append(-abs(place))
        expected.append(value[0])
    returns = np.cumsum(rewards[::-1])[::-1]
    acted = np.stack([done, returns - expected], axis=1).astype("float32")
    return np.array(states, "float32"), [acted, returns.astype("float32")]


def train_player(model: Any, callbacks: Any = ()) -> Any:
    """Play, learn from it, and play again."""
    rng = np.random.default_rng(12)
    histories = []
    for _ in range(3):
        states, targets = play(model, rng)
        history = model.fit(
            states,
            targets,
            batch_size=LENGTH,
            verbose=0,
            callbacks=list(callbacks),
        )
        histories.append(history.history)
    return histories


STATES = np.random.default_rng(1).normal(size=(6, 2)).astype("float32")
WORKLOADS = [
    Workload(
        "actor and critic",
        make_player,
        compiling(lambda: keras.optimizers.Adam(0.05), [policy_loss, "huber"]),
        train_player,
        STATES,
    ),
]
