"""A DataLoader that shuffles with nobody's generator (torch#36998)."""
# backends: torch

import random

import keras
import torch
from torch.utils.data import DataLoader, TensorDataset

random.seed(1)
x = torch.linspace(-1, 1, 256).reshape(64, 4)
loader = DataLoader(TensorDataset(x, x[:, :1]), batch_size=16, shuffle=True)
model = keras.Sequential(
    [
        keras.Input((4,)),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.Dense(1),
    ]
)
model.compile("adam", "mse")
model.fit(loader, epochs=2, verbose=0)  # <- unseeded
