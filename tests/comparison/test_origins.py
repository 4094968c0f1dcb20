"""Every row says which call made it: its command, code, machine and time, whichever call writes the report."""

import json
import logging
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from scripts import compare
from scripts.comparison.command import _tracking_uri
from scripts.comparison.reporting.cautions import Sampled
from scripts.comparison.reporting.markdown import write_markdown
from scripts.comparison.reporting.origins import made_by
from scripts.comparison.reporting.report import Report
from scripts.comparison.rows.method_row import MethodRow
from scripts.comparison.trainings.attempts import INFERENCE_USAGE, USAGE, attempts_in
from scripts.comparison.trainings.measured_process import command_line
from scripts.comparison.trainings.origin import Origin, distinct, is_shared, this_call
from scripts.declarations.published import WHOLE

FIRST = Origin(
    "python scripts/compare.py --methods camel", "version 0.9.0, commit aaaaaaaaaaaa", "2 CPU cores", "2026-11-29 10:00"
)
SECOND = Origin(
    "python scripts/compare.py --methods wildcat", "version 0.9.0, commit bbbbbbbbbbbb", "8 CPU cores", "2026-11-30 10:00"
)
SECONDS = {"labels": 5.0, "areas": 10.0, "masks": 240.0}


def row(key, title, *origins):
    return MethodRow(key, title, seeds=list(range(max(len(origins), 1))), origins=[list(calls) for calls in origins])


def attempt(usage, origin, code="pass"):
    noted = None if origin is None else vars(origin)
    return subprocess.run(command_line(usage, [sys.executable, "-c", code], noted), check=False, timeout=600).returncode


def test_a_resumed_training_is_of_both_calls(tmp_path):
    """The first attempt ends early, the second under newer code finishes and maps; once more nothing is made."""
    assert attempt(tmp_path / USAGE, FIRST, "raise SystemExit(3)") == 3
    assert attempt(tmp_path / USAGE, SECOND) == attempt(tmp_path / INFERENCE_USAGE, SECOND) == 0
    assert distinct(attempts_in(tmp_path)) == [FIRST, SECOND]
    older = json.loads((tmp_path / USAGE).read_text())
    del older[0]["origin"]
    (tmp_path / USAGE).write_text(json.dumps(older))
    assert distinct(attempts_in(tmp_path)) == [None, SECOND]


def test_what_each_call_made():
    rows = [
        row("camel", "CAMEL", [FIRST]),
        row("cdws_mil", "CDWS-MIL", [FIRST], [FIRST, SECOND], [SECOND]),
        row("wildcat", "WILDCAT", [SECOND]),
        row("colour_only", "Colour only"),
        row("true_labels", "Ceiling"),
    ]
    assert made_by(rows) == [
        (FIRST, "CAMEL, CDWS-MIL (seed 0, seed 1 in part)"),
        (SECOND, "CDWS-MIL (seed 1 in part, seed 2), WILDCAT"),
        (None, "Colour only"),
    ]
    assert made_by(rows[2:3] * 2) == [(SECOND, "All methods")]
    assert made_by([]) == []


def test_the_page_and_the_table_say_it(data, tmp_path, tracked_folder):
    """Of three calls the last one wrote both, with another command and other code."""
    last = Origin(
        "python scripts/compare.py --methods joint", "version 0.9.0, commit cccccccccccc", "4 CPU cores", "2026-12-01 10:00"
    )
    rows = [row("camel", "CAMEL", [FIRST]), row("wildcat", "WILDCAT", [SECOND]), row("old", "Old one")]
    uri = f"sqlite:///{tracked_folder}/mlruns.db"
    report = Report(data, 0.5, SECONDS, None, uri, None, 0, "comparison", origin=last)
    report.rows = rows
    page = report.page()
    for origin, what in ((FIRST, "CAMEL"), (SECOND, "WILDCAT")):
        shown = rf'{what}: <span class="soft">trained and mapped {re.escape(origin.text)}</span>'
        assert re.search(rf"{shown}\s*<code>{re.escape(origin.command)}</code>", page)
    assert 'Old one: <span class="soft">trained and mapped by a call that is not recorded, of an older version</span>' in page
    assert f"<code>{last.command}</code>" in page
    write_markdown(rows, tmp_path / "table.md", {}, None, "Data.", {WHOLE: Sampled("image", 3, 0)})
    text = (tmp_path / "table.md").read_text()
    assert f"- Made by `{FIRST.command}` ({FIRST.text}): CAMEL\n" in text
    assert f"- Made by `{SECOND.command}` ({SECOND.text}): WILDCAT\n" in text
    assert "- Made by a call that is not recorded, of an older version: Old one\n" in text


def test_a_call_is_described_without_passwords():
    call = this_call(["--tracking_uri", "http://me:secret@host/"])
    assert call.command == "python scripts/compare.py --tracking_uri http://host/"
    assert re.match(r"version \d", call.code)
    assert re.match(r"\d+ CPU cores", call.machine)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", call.began)
    assert this_call().command == ""


@pytest.mark.parametrize(
    ("host", "shared"),
    [
        *((host, False) for host in ("localhost", "LOCALHOST.", "mlflow.localhost", "localhost.localdomain", "ip6-localhost")),
        *((host, False) for host in ("127.0.0.1", "127.0.0.2", "127.0.1.1", "127.1", "0", "0.0.0.0", "2130706433")),
        *((host, False) for host in ("[::1]", "[::]", "[::ffff:127.0.0.1]")),
        *((host, True) for host in ("mlflow", "mlflow.example.org", "10.0.0.7", "128.0.0.1", "[2001:db8::1]", "localhost.org")),
    ],
)
def test_who_reaches_a_server(host, shared):
    assert is_shared(f"http://{host}:5000") == is_shared(f"https://me:secret@{host}/mlflow") == shared


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.1.1", "0", "10.0.0.7"])
def test_a_page_names_no_server_that_its_readers_do_not_reach(data, monkeypatch, host):
    """Of a server that they do, the link is enough: ``mlflow ui`` serves databases and folders."""
    monkeypatch.setattr("scripts.comparison.reporting.report.experiment_id", lambda uri, name: "7")
    report = Report(data, 0.5, SECONDS, None, f"http://{host}:5000", None, 0, "comparison", origin=FIRST)
    report.rows = [replace(row("camel", "CAMEL", [FIRST]), mlflow_runs=[""])]
    page = report.page()
    assert "mlflow ui" not in page
    assert page.count(f"{host}:5000") == page.count(f"http://{host}:5000/#/experiments/7") == (host == "10.0.0.7")
    assert "Every training is an" in page
    assert re.search(r"MLflow run(</a>)?\. Settings that are not listed", page)


def test_a_page_says_how_to_open_a_database(data, tracked_folder):
    uri = f"sqlite:///{tracked_folder}/mlruns.db"
    report = Report(data, 0.5, SECONDS, None, uri, None, 0, "comparison", origin=FIRST)
    said = f"MLflow run; <code>mlflow ui --backend-store-uri {uri}</code> shows them. Settings"
    assert said in report.page()


@pytest.mark.parametrize(
    ("environment", "given", "used", "warned"),
    [
        (None, None, None, False),
        (None, "sqlite:///a.db", "sqlite:///a.db", False),
        ("sqlite:///b.db", None, "sqlite:///b.db", False),
        ("sqlite:///b.db", "sqlite:///b.db", "sqlite:///b.db", False),
        ("sqlite:///b.db", "http://me:secret@host", "sqlite:///b.db", True),
    ],
)
def test_the_environment_goes_before_the_option_and_says_so(monkeypatch, caplog, environment, given, used, warned):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if environment is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", environment)
    with caplog.at_level(logging.WARNING):
        assert _tracking_uri(given) == used
    assert ("--tracking_uri http://host is not used" in caplog.text) == warned
    assert "secret" not in caplog.text


def test_two_classes_have_no_order(images_csv, tmp_path, monkeypatch, caplog):
    options = ["--manifest", images_csv, "--methods", "none_such", "--ordered_classes", "--out", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", ["compare.py", *map(str, options)])
    with caplog.at_level(logging.WARNING), pytest.raises(SystemExit):
        compare.main()
    assert "--ordered_classes has no effect: BACH's score needs three classes or more, and --class_names has normal tumour" in (
        caplog.text
    )
