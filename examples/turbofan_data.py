"""The data of the turbofan study: NASA's C-MAPSS set FD001, as arrays.

Each row of the set is one flight of one engine: 3 settings and 21 sensors. The
training engines run until they fail; each test engine stops some flights
earlier, and a third file says how many were left.

A. Saxena and K. Goebel (2008), Turbofan Engine Degradation Simulation Data
Set, NASA Prognostics Data Repository, NASA Ames Research Center.
"""

import hashlib
import io
import sys
import urllib.request
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupShuffleSplit
from sklearn.preprocessing import MinMaxScaler

SENSORS = [f"sensor_{n}" for n in range(1, 22)]
COLUMNS = ["unit", "cycle", "setting_1", "setting_2", "setting_3", *SENSORS]
RUL_CAP = 125  # An engine far from failure looks healthy: it is not told apart.
URL = (
    "https://phm-datasets.s3.amazonaws.com/NASA/"
    "6.+Turbofan+Engine+Degradation+Simulation+Data+Set.zip"
)
CACHE = Path.home() / ".keras" / "datasets" / "cmapss"
SHA256 = {
    "train_FD001.txt": (
        "963b5e22825b34d8b21c69e1aeb4af3e647050eb672ee8834ba4b5d91d2de0f8"
    ),
    "test_FD001.txt": (
        "3cda7109ce17bafb5443f2ac926cfcf88154b941b8c4cf95eb55d1ddd6f52851"
    ),
    "RUL_FD001.txt": (
        "a19c8ec94931949d0485bdc35118206e9c81c4547b422efb9cf86f4ceddbceca"
    ),
}


class Fleet(NamedTuple):
    """Engines that ran to failure, engines that did not, and what was left."""

    train: pd.DataFrame
    test: pd.DataFrame
    rul: np.ndarray
    origin: str


class Arrays(NamedTuple):
    """What a model needs; x has one column per sensor, y is in flights."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_val: np.ndarray
    y_val: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def get_fleet(directory=None):
    """Read the set from `directory`, or download it, or simulate one."""
    if directory is not None:
        return read_fleet(Path(directory))
    if not all((CACHE / name).exists() for name in SHA256):
        try:
            download(CACHE)
        except OSError as error:  # Offline, or a server that does not answer.
            print(f"NASA's archive could not be downloaded ({error}).")
            return simulate_fleet()
    return read_fleet(CACHE)


def read_fleet(directory):
    """Read the three files of FD001."""
    missing = [name for name in SHA256 if not (directory / name).exists()]
    if missing:
        raise SystemExit(
            f"The data directory must hold {', '.join(SHA256)}. "
            f"Received: {directory}, without {', '.join(missing)}. "
            "Leave out --data to download them."
        )
    origin = "NASA C-MAPSS FD001"
    for name, expected in SHA256.items():
        digest = hashlib.sha256((directory / name).read_bytes()).hexdigest()
        if digest != expected:
            origin = f"files of your own ({name} is not NASA's)"
    train, test = (
        pd.read_csv(directory / name, sep=r"\s+", header=None, names=COLUMNS)
        for name in ("train_FD001.txt", "test_FD001.txt")
    )
    rul = np.loadtxt(directory / "RUL_FD001.txt")
    return Fleet(train, test, rul, origin)


def download(directory):
    """Fetch NASA's archive, check its files, and keep them in `directory`."""
    archive = fetch(URL)
    with zipfile.ZipFile(io.BytesIO(archive)) as outer:
        inner = next((n for n in outer.namelist() if n.endswith(".zip")), None)
        if inner is not None:  # NASA wraps the archive in another.
            archive = outer.read(inner)
    files = {}
    with zipfile.ZipFile(io.BytesIO(archive)) as members:
        for member in members.namelist():
            name = member.rpartition("/")[2]
            if name in SHA256:
                files[name] = members.read(member).replace(b"\r\n", b"\n")
    for name, expected in SHA256.items():
        digest = hashlib.sha256(files.get(name, b"")).hexdigest()
        if digest != expected:
            raise SystemExit(
                f"{name} of the archive must have sha256 {expected}. "
                f"Received: {digest}, from {URL}. "
                "Get the files another way and pass their folder as --data."
            )
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        partial = directory / f"{name}.partial"
        partial.write_bytes(content)
        partial.replace(directory / name)


def fetch(url, timeout=20):
    """Return what `url` holds, with a progress bar while it comes."""
    content = io.BytesIO()
    with urllib.request.urlopen(url, timeout=timeout) as response:
        total = int(response.headers.get("Content-Length") or 0)
        while chunk := response.read(1 << 18):
            content.write(chunk)
            done = content.tell() / max(total, content.tell())
            bar = "#" * int(40 * done)
            size = content.tell() / 1e6
            text = f"\rDownloading [{bar:<40}] {done:4.0%} {size:.1f} MB"
            print(text, end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
    return content.getvalue()


def simulate_fleet(num_engines=40, seed=0):
    """Make a fleet that wears out much as NASA's does, without a network."""
    rng = np.random.default_rng(seed)
    gains = rng.normal(size=len(SENSORS)) * (np.arange(len(SENSORS)) % 3 > 0)
    levels = rng.uniform(10, 1000, size=len(SENSORS))
    parts, left = [], []
    for part in range(2):
        rows = []
        for unit in range(1, num_engines + 1):
            life = int(rng.integers(130, 300))
            stop = int(rng.integers(10, 120)) if part else 0
            cycle = np.arange(1, life - stop + 1)
            wear = np.expm1(4 * cycle / life) / np.expm1(4)
            noise = rng.normal(scale=0.1, size=(len(cycle), len(SENSORS)))
            sensors = levels * (1 + 0.01 * (wear[:, None] * gains + noise))
            settings = rng.normal(scale=0.001, size=(len(cycle), 3))
            ids = np.column_stack([np.full(len(cycle), unit), cycle])
            rows.append(np.hstack([ids, settings, sensors]))
            if part:
                left.append(float(stop))
        frame = pd.DataFrame(np.vstack(rows), columns=COLUMNS)
        parts.append(frame.astype({"unit": int, "cycle": int}))
    return Fleet(*parts, np.array(left), f"simulated fleet, {num_engines} x 2")


def smooth(frame, alpha):
    """Smooth each engine's sensors exponentially; `None` leaves them alone."""
    if alpha is None:
        return frame[SENSORS]
    means = frame.groupby("unit")[SENSORS].ewm(alpha=alpha).mean()
    # Its index is (unit, row). Assigning it to `frame` as it is would match
    # no row and fill the table with NaN, without an error.
    return means.droplevel("unit").loc[frame.index]


def make_arrays(fleet, alpha=None, num_rows=None):
    """Smooth, split by engine, and scale by the training part alone."""
    train, test = fleet.train, fleet.test
    life = train.groupby("unit")["cycle"].transform("max")
    rul = (life - train["cycle"]).clip(upper=RUL_CAP).to_numpy("float32")
    split = GroupShuffleSplit(n_splits=1, train_size=0.8, random_state=42)
    rows, val_rows = next(split.split(train, groups=train["unit"]))
    last = ~test.duplicated("unit", keep="last").to_numpy()

    x_all, x_test = smooth(train, alpha), smooth(test, alpha)
    scaler = MinMaxScaler().fit(x_all.iloc[rows])
    x_all, x_test = (
        scaler.transform(part).astype("float32") for part in (x_all, x_test)
    )
    rows = rows[:num_rows]
    return Arrays(
        x_train=x_all[rows],
        y_train=rul[rows],
        x_val=x_all[val_rows],
        y_val=rul[val_rows],
        x_test=x_test[last],
        y_test=fleet.rul.astype("float32"),  # As NASA gives it: not capped.
    )
