"""Each task seeds for itself, so it is the same in whichever worker."""

from joblib import Parallel, delayed


def train(fold):
    import keras
    import numpy as np

    keras.utils.set_random_seed(fold)
    x = np.linspace(fold, 1, 64).reshape(16, 4).astype("float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(x, x[:, :1], epochs=1, verbose=0)
    return float(model.evaluate(x, x[:, :1], verbose=0))


if __name__ == "__main__":
    print(Parallel(n_jobs=2)(delayed(train)(fold) for fold in range(3)))
