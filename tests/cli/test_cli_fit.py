"""bayesrec fit: the same draws as the Python API, from any kind of table; what does not fit is told before the fit."""

from __future__ import annotations

import errno
import json

import numpy as np
import pandas as pd
import pytest

import bayesrec as br
from bayesrec import inference
from bayesrec.errors import ConvergenceWarning
from bayesrec.tables import write_table

SMALL = ("--rank", 2, "--draws", 30, "--warmup", 20, "--chains", 2)


def same(a, b):
    assert a.draws.keys() == b.draws.keys()
    for site in a.draws:
        np.testing.assert_array_equal(a.draws[site], b.draws[site])


def test_draws_are_those_of_the_python_api(run, folder, tmp_path, transfer):
    done = run("fit", folder / "ratings.csv", "--target", "target", *SMALL, "--out", tmp_path / "m")
    same(br.load(tmp_path / "m"), transfer)
    assert "TransferMF of rank 2, 2 chains of 30 draws" in done.out
    assert "Interactions(target='target'" in done.err


def test_json_describes_the_fit(run, folder, tmp_path, transfer):
    with pytest.warns(ConvergenceWarning):
        worst = transfer.diagnostics()["rhat"]
    words = ("fit", folder / "ratings.csv", "--target", "target", *SMALL, "--out", tmp_path / "m", "--json")
    done = run(*words)
    found = done.json()
    assert found["path"] == str(tmp_path / "m")
    assert (found["model"], found["method"], found["rank"], found["seed"]) == ("TransferMF", "Gibbs", 2, 0)
    assert (found["chains"], found["draws"]) == (2, 30)
    assert (found["target"], found["sources"]) == ("target", ["source"])
    assert (found["rows"], found["users"], found["items"]) == (len(transfer.data), 40, 27)
    assert found["seconds"] > 0
    assert not found["interrupted"]
    assert found["convergence"]["worst_rhat"] == worst.max()
    assert found["convergence"]["quantity"] == worst.idxmax()
    assert "R-hat exceeds 1.1" in found["warnings"][0]
    assert done.err.count("warning: R-hat") == 1


@pytest.mark.parametrize("suffix", [".tsv", ".jsonl.gz", ".parquet"])
def test_the_format_does_not_matter(run, frame, tmp_path, transfer, suffix):
    table = write_table(frame, tmp_path / f"t{suffix}")
    run("fit", table, "--target", "target", *SMALL, "--out", tmp_path / "m")
    same(br.load(tmp_path / "m"), transfer)


def test_one_table_a_domain_and_other_column_names(run, frame, folder, tmp_path):
    parts = {}
    for name, domain in (("book", "source"), ("music", "target")):
        part = frame[frame["domain"] == domain].drop(columns="domain")
        parts[name] = part.rename(columns={"user": "who", "item": "what", "rating": "stars"}).assign(junk="x")
        write_table(parts[name], tmp_path / f"{name}.csv")
    names = ("--user", "who", "--item", "what", "--value", "stars", "--seed", 3, "--model", "collective")
    words = [f"{name}={tmp_path / name}.csv" for name in parts]
    run("fit", *words, "--target", "music", *names, *SMALL, "--out", tmp_path / "m")
    data = br.Interactions.from_frames(parts, target="music", user="who", item="what", value="stars")
    method = br.Gibbs(draws=30, warmup=20, chains=2)
    same(br.load(tmp_path / "m"), br.fit(br.models.CollectiveMF(rank=2), data, method, seed=3, progress=False))


def test_a_target_alone_with_times(run, frame, tmp_path):
    own = frame[frame["domain"] == "target"].drop(columns="domain").assign(when="2020-01-02")
    table = write_table(own, tmp_path / "t.csv")
    words = (
        "--domain",
        "none",
        "--time",
        "when",
        "--model",
        "pmf",
        "--draws",
        5,
        "--warmup",
        5,
        "--chains",
        1,
        "--rank",
        1,
    )
    run("fit", table, "--target", "music", *words, "--out", tmp_path / "m")
    posterior = br.load(tmp_path / "m")
    assert posterior.data.sources == ()
    assert (posterior.data.time == np.datetime64("2020-01-02")).all()


def test_domains_that_are_numbers(run, frame, tmp_path):
    table = write_table(frame.assign(domain=np.where(frame["domain"] == "target", 2, 1)), tmp_path / "t.csv")
    words = ("--draws", 5, "--warmup", 5, "--chains", 1, "--rank", 1, "--out", tmp_path / "m")
    assert run("fit", table, "--target", "2", *words, "--json").json()["sources"] == ["1"]
    assert br.load(tmp_path / "m").data.domains == (1, 2)


def test_ids_with_leading_zeros_stay_text(run, frame, tmp_path):
    table = write_table(frame.assign(user=frame["user"].map("{:03d}".format)), tmp_path / "t.csv")
    run("fit", table, "--target", "target", "--draws", 5, "--warmup", 5, "--rank", 1, "--out", tmp_path / "m")
    assert br.load(tmp_path / "m").data.users.ids[:3].tolist() == ["000", "001", "002"]


def test_clicks_read_no_rating_column(refused, frame, tmp_path):
    table = write_table(frame.drop(columns="rating"), tmp_path / "t.csv")
    line = refused("fit", table, "--target", "target", "--value", "none", "--out", tmp_path / "m")
    assert "on constant values learns nothing" in line, "clicks reached the likelihood"
    assert "for clicks give --value none" in refused("fit", table, "--target", "target", "--out", tmp_path / "m")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--user", "usr"), "no column 'usr' for --user (did you mean 'user'?); it has user, item, domain, rating"),
        (("--value", "ratings"), "no column 'ratings' for --value (did you mean 'rating'?)"),
        (("--domain", "dom"), "no column 'dom' for --domain (did you mean 'domain'?)"),
        (("--target", "targe"), "did you mean 'target'?"),
        (("--shared", "both"), "shared must be 'users' or 'items'"),
        (
            ("--model", "pfm"),
            "--model pfm: there is no such choice (did you mean 'pmf'?); it is one of pmf, collective",
        ),
        (("--likelihood", "normal"), "--likelihood normal: there is no such choice"),
        (("--method", "gibs"), "did you mean 'gibbs'?"),
        (("--steps", 3), "--steps is no option of gibbs, which has --draws, --warmup, --chains, --thin, --threads"),
        (("--batch-size", 3), "--batch-size is no option of gibbs"),
        (("--draws", 0), "draws=...) must be a whole number of at least 1"),
        (("--rank", 0), "rank"),
        (("--rank", "many"), "--rank"),
        (("--seed", -1), "seed must be a whole number"),
        (("--rnk", 3), "No such option: --rnk"),
    ],
)
def test_an_option_that_does_not_fit_is_named(refused, folder, tmp_path, words, message):
    line = refused("fit", folder / "ratings.csv", "--target", "target", "--out", tmp_path / "m", *words)
    assert message in line
    assert not (tmp_path / "m").exists()


def test_tables_that_do_not_fit_are_named(refused, folder, model, tmp_path):
    def told(*words):
        return refused("fit", *words, "--target", "target", "--out", tmp_path / "m")

    assert "did you mean 'ratings.csv'?" in told(folder / "ratngs.csv")
    assert "is a model folder; a table is expected in its place" in told(model)
    assert "NAME=FILE: book=a.csv music=b.csv" in told(folder / "books.csv", folder / "music.csv")
    assert "has two tables" in told(f"a={folder}/books.csv", f"a={folder}/music.csv")
    assert "give NAME=FILE" in told("a=")
    assert "give NAME=FILE" in told("=x.csv")
    assert "is no domain" in told(f"a={folder}/books.csv", f"b={folder}/music.csv")
    assert "Missing argument 'TABLE'" in told()
    assert "Missing option '--target'" in refused("fit", folder / "ratings.csv", "--out", "m")


def test_a_file_whose_name_has_an_equals_sign(run, frame, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_table(frame, tmp_path / "x=1.csv")
    run("fit", "x=1.csv", "--target", "target", "--draws", 5, "--warmup", 5, "--rank", 1, "--out", "m")


def test_a_place_that_holds_something_else_is_refused_before_the_fit(refused, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(inference, "fit", lambda *a, **k: pytest.fail("fitted"))
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    for name in ("file", "full"):
        line = refused("fit", folder / "ratings.csv", "--target", "target", "--out", tmp_path / name)
        assert "is no model folder; it is left alone" in line


def test_disk_full_leaves_the_old_model(run, refused, folder, tmp_path, monkeypatch):
    words = ("fit", folder / "ratings.csv", "--target", "target", *SMALL, "--out", tmp_path / "m")
    run(*words)
    old = br.load(tmp_path / "m")

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    line = refused(*words, "--seed", 5)
    assert "the disk is full; what was there before is as it was" in line
    same(br.load(tmp_path / "m"), old)
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_svi_and_nuts(run, refused, folder, tmp_path):
    words = ("fit", folder / "ratings.csv", "--target", "target", "--rank", 1, "--chains", 1, "--out", tmp_path / "m")
    options = ("--method", "svi", "--steps", 10, "--draws", 5, "--learning-rate", 0.01, "--batch-size", 50)
    assert run(*words, *options, "--json").json()["method"] == "SVI"
    assert br.load(tmp_path / "m").method == br.SVI(steps=10, draws=5, learning_rate=0.01, batch_size=50, chains=1)
    assert "--warmup is no option of svi" in refused(*words, "--method", "svi", "--warmup", 3)
    options = ("--method", "nuts", "--draws", 2, "--warmup", 2)
    assert run(*words, *options, "--json").json()["method"] == "NUTS"


def test_vmp_and_its_options(run, refused, folder, tmp_path):
    words = (
        "fit",
        folder / "ratings.csv",
        "--target",
        "target",
        "--rank",
        1,
        "--out",
        tmp_path / "m",
        "--method",
        "vmp",
    )
    options = ("--passes", 6, "--tolerance", 0.5, "--draws", 10, "--chains", 2, "--threads", 1)
    assert run(*words, *options, "--json").json()["method"] == "VMP"
    found, wanted = br.load(tmp_path / "m"), br.VMP(passes=6, tolerance=0.5, draws=10, chains=2, threads=1)
    assert found.method == wanted
    same(found, br.fit(br.models.TransferMF(rank=1), found.data, wanted, progress=False))
    (tmp_path / "c.toml").write_text('[fit]\nmethod = "vmp"\npasses = 7\ntolerance = 0.4\ndraws = 5\nchains = 1\n')
    run(*words[:-2], "--config", tmp_path / "c.toml")
    assert br.load(tmp_path / "m").method == br.VMP(passes=7, tolerance=0.4, draws=5, chains=1)
    assert "--warmup is no option of vmp, which has --draws" in refused(*words, "--warmup", 3)
    assert "--passes is no option of gibbs" in refused(*words[:-2], "--passes", 3)
    assert "VMP(tolerance=...) must be a number above 0" in refused(*words, "--tolerance", 0)
    assert "VMP fits Gaussian ratings" in refused(*words, "--likelihood", "student")


def test_activity_reaches_the_model(run, folder, tmp_path):
    words = ("fit", folder / "ratings.csv", "--target", "target", "--rank", 1, "--out", tmp_path / "m")
    run(*words, "--activity", "--draws", 5, "--warmup", 5, "--chains", 1)
    assert br.load(tmp_path / "m").model == br.models.TransferMF(rank=1, activity=True)


@pytest.mark.parametrize("domains", [{}, {"source": 1, "target": 20}])
def test_a_folder_of_parquet_is_one_table(run, refused, frame, tmp_path, domains):
    (tmp_path / "t").mkdir()
    frame = frame.assign(domain=frame["domain"].map(domains)) if domains else frame
    target = domains.get("target", "target")
    for k in range(3):
        frame[50 * k : 50 * (k + 1) if k < 2 else None].to_parquet(tmp_path / "t" / f"{k}.parquet")
    run("fit", tmp_path / "t", "--target", target, *SMALL, "--out", tmp_path / "m")
    data = br.Interactions.from_frame(frame, target=target)
    method = br.Gibbs(draws=30, warmup=20, chains=2)
    found = br.load(tmp_path / "m")
    assert found.data.domains == data.domains
    same(found, br.fit(br.models.TransferMF(rank=2), data, method, progress=False))
    words = ("fit", tmp_path / "t", "--target", target, *SMALL, "--out", tmp_path / "n", "--value", "stars")
    assert "0.parquet' has no column 'stars'" in refused(*words)
    assert "is a model folder" in refused("fit", tmp_path / "m", "--target", "target", *SMALL, "--out", tmp_path / "n")


def test_a_stopped_fit_keeps_what_it_has(run, folder, tmp_path, monkeypatch):
    import warnings

    real = inference.fit

    def stopped(*args, **kwargs):
        warnings.warn("interrupted: kept 30 of 500 draws in each of 2 of 2 chains.", ConvergenceWarning, stacklevel=2)
        return real(*args, **kwargs)

    monkeypatch.setattr(inference, "fit", stopped)
    words = ("fit", folder / "ratings.csv", "--target", "target", *SMALL, "--out", tmp_path / "m")
    done = run(*words, "--json", code=130)
    assert done.json()["interrupted"]
    assert f"stopped: the draws so far were kept in {tmp_path / 'm'}" in done.err
    assert "checkpoint" not in done.err
    assert br.load(tmp_path / "m").n_draws == 30
    ck = tmp_path / "ck"
    ck.mkdir()
    assert "the same command goes on" not in run(*words, "--checkpoint", ck, code=130).err
    (ck / "chain-0.npz").write_text("x")
    monkeypatch.setattr(inference, "fit", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
    done = run(*words, "--checkpoint", ck, code=130)
    assert f"stopped: no model was written; the same command goes on from the checkpoint {ck}" in done.err
    assert done.out == ""


def test_a_checkpoint_is_handed_on(run, folder, tmp_path, monkeypatch):
    seen = {}
    real = inference.fit

    def fit(*args, **kwargs):
        seen.update(kwargs)
        return real(*args, **kwargs)

    monkeypatch.setattr(inference, "fit", fit)
    words = ("fit", folder / "ratings.csv", "--target", "target", *SMALL, "--seed", 4)
    run(*words, "--out", tmp_path / "m", "--checkpoint", tmp_path / "ck", "--thin", 2)
    assert seen == {"seed": 4, "checkpoint": tmp_path / "ck"}
    assert br.load(tmp_path / "m").method == br.Gibbs(draws=30, warmup=20, chains=2, thin=2)


def test_json_is_strict_where_r_hat_is_not_known(run, folder, tmp_path):
    words = ("--rank", 1, "--draws", 2, "--warmup", 2, "--chains", 1, "--out", tmp_path / "m", "--json")
    done = run("fit", folder / "ratings.csv", "--target", "target", *words)

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    found = json.loads(done.out, parse_constant=refuse)
    assert found["convergence"] == {"worst_rhat": None, "quantity": None, "least_ess_bulk": None}


def test_repeated_rows_are_a_warning_line(run, frame, tmp_path):
    table = write_table(pd.concat([frame, frame.tail(1)]), tmp_path / "t.csv")
    words = ("--rank", 1, "--draws", 5, "--warmup", 5, "--out", tmp_path / "m")
    assert "warning: 1 row(s) repeat" in run("fit", table, "--target", "target", *words).err
