import keras

INITIALIZER = keras.initializers.GlorotNormal()  # <- seeded_too_late
