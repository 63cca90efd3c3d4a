"""`--shared items` from fit to recommend: the mirror image of a table with shared users."""

from __future__ import annotations

import pandas as pd
import pytest

FIT = ("--rank", 1, "--draws", 8, "--warmup", 8, "--chains", 2)


@pytest.fixture(scope="module")
def mirrored(frame, tmp_path_factory):
    path = tmp_path_factory.mktemp("mirror")
    swapped = frame.rename(columns={"user": "item", "item": "user"})
    swapped.to_csv(path / "ratings.csv", index=False)
    frame.to_csv(path / "straight.csv", index=False)
    return path


@pytest.fixture(scope="module")
def models(mirrored, run):
    for table, name, more in (("ratings", "model", ("--shared", "items")), ("straight", "other", ())):
        run("fit", mirrored / f"{table}.csv", "--target", "target", *more, *FIT, "--out", mirrored / name)
    return mirrored


def test_predictions_are_the_mirror_image(models, run):
    got, want = models / "got.csv", models / "want.csv"
    run("predict", models / "model", models / "ratings.csv", "--out", got)
    run("predict", models / "other", models / "straight.csv", "--out", want)
    got, want = pd.read_csv(got), pd.read_csv(want)
    assert list(got.columns[:2]) == ["user", "item"]
    numbers = ["mean", "sd", "lower", "upper"]
    pd.testing.assert_frame_equal(got[numbers], want[numbers])
    assert got["user"].equals(want["item"])


def test_lists_are_for_the_targets_users(models, run, frame):
    people = sorted(frame.loc[frame["domain"] == "target", "item"].unique())
    found = run("recommend", models / "model", "--all", "-n", 2, "--json").json()
    assert sorted({row["user"] for row in found["records"]}) == people
    shared = set(frame["user"])
    assert {row["item"] for row in found["records"]} <= shared
    done = run("recommend", models / "model", "--users", f"{people[0]},9999", "-n", 1)
    assert "user 9999 was not in the fit" in done.err


def test_the_verdict_counts_items(models, run, frame):
    words = ("--target", "target", "--shared", "items", *FIT, "--folds", 2, "--json")
    found = run("assess", models / "ratings.csv", *words).json()
    assert found["items"] == frame.groupby("user")["domain"].nunique().eq(2).sum()
    assert "users" not in found
    assert "item counts the same" in found["summary"]


def test_a_missing_column_is_named_as_in_the_table(models, refused):
    frame = pd.DataFrame({"item": [1, 2]})
    frame.to_csv(models / "short.csv", index=False)
    assert "users, as the model's table had them" in refused("predict", models / "model", models / "short.csv")
