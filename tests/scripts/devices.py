"""Trains on several simulated devices; prints what came out, as JSON.

Called with the kind of layout, the number of devices and a file for the runs.
"""

import json
import os
import sys
import warnings

kind, number, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={number}"

import keras  # noqa: E402 - JAX reads the flags when it is imported
import numpy as np  # noqa: E402

import keras_repro as kr  # noqa: E402

L = keras.layers


def enter_strategy():
    """The scope in which a model is made."""
    if kind == "mirrored":
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        logical = [tf.config.LogicalDeviceConfiguration()] * number
        tf.config.set_logical_device_configuration(cpu, logical)
        names = [f"CPU:{index}" for index in range(number)]
        return tf.distribute.MirroredStrategy(names).scope()
    distribution = keras.distribution
    devices = distribution.list_devices()
    if kind == "data":
        return distribution.DataParallel(devices=devices).scope()
    mesh = distribution.DeviceMesh((1, number), ["batch", "model"], devices)
    layout = distribution.LayoutMap(mesh)
    layout["dense.*kernel"] = (None, "model")
    return distribution.ModelParallel(
        layout_map=layout, batch_dim_name="batch"
    ).scope()


def make(*inputs):
    """A model with dropout, batch statistics and metrics."""
    model = kr.ReproducibleModel(
        [
            *inputs,
            L.Dense(8, "relu"),
            L.Dropout(0.2),
            L.BatchNormalization(),
            L.Dense(2),
        ],
        seed=3,
    )
    model.compile("adam", "mse", metrics=["mae"])
    return model


x = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
checks = kr.ChecksumCallback(path)


def train(model):
    """One trial: its losses, and the checksum of what it gives."""
    history = model.fit(
        x, x[:, :2], epochs=2, batch_size=8, verbose=0, callbacks=[checks]
    ).history
    return [history, kr.compute_checksum(model)]


with enter_strategy(), warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    model = make(keras.Input((6,)))
    results = {"first": train(model)}
    model.reset()
    results["reset"] = train(model)
    results["without"] = train(model)
    model.reset(seed=4)
    results["other seed"] = train(model)
    model.reset(seed=3)
    results["same seed"] = train(model)
    results["drift"] = [
        str(one.message)
        for one in told
        if issubclass(one.category, kr.DriftWarning)
    ]
    # Built by its first training, it has the same start.
    deferred = make()
    results["deferred"] = [train(deferred)]
    deferred.reset()
    results["deferred"].append(train(deferred))
    if kind == "mirrored":
        replica = model.layers[0].kernel.value.values[1]
        replica.assign(replica + 1)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            train(model)
        results["parted"] = [
            str(one.message)
            for one in told
            if issubclass(one.category, kr.DriftWarning)
        ]
print(json.dumps(results))
