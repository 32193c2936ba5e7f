from noise_kit.noise import add_noise as add_noise
