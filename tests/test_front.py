"""One command over all modules: it is quick, names what there is, and runs each as it runs by itself."""

import json
import subprocess
import sys
import time
import tomllib

import pytest

from pipelines.front import COMMANDS, main
from tests.conftest import ROOT

SIGHTLINE = [sys.executable, "-c", "import sys; from pipelines.front import main; sys.exit(main())"]


def run(*arguments):
    return subprocess.run([*SIGHTLINE, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_help_is_quick_and_names_every_command():
    seconds = []
    for arguments in (["--help"], [], ["-h"]):
        started = time.monotonic()
        done = run(*arguments)
        seconds.append(time.monotonic() - started)
        assert (done.returncode, done.stderr) == (0, "")
        assert all(f"  {name} " in done.stdout for name in COMMANDS)
    assert min(seconds) < 0.5
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["sightline"] == "pipelines.front:main"


@pytest.mark.parametrize("command", COMMANDS.values(), ids=list(COMMANDS))
def test_every_command_is_a_module_that_runs_by_itself(command):
    place = ROOT / command.module.replace(".", "/")
    code = (place / "__main__.py" if place.is_dir() else place.with_suffix(".py")).read_text()
    assert '__name__ == "__main__"' in code
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert not command.extra or command.extra in extras


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_under_its_short_name(name):
    done = run(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"sightline {name}" in done.stdout


def test_a_command_runs_with_its_flags_and_its_status(tmp_path):
    done = run("validate", str(tmp_path / "nothing"))
    assert done.returncode != 0
    assert "nothing" in done.stderr + done.stdout
    assert "sightline vllm" in run("vllm", "--help").stdout
    assert run("vllm", "--model", "m", "--say").stdout.startswith("VLLM_SERVER_DEV_MODE=1 vllm serve m")


def test_json_alone_is_printed_where_it_is_asked_for(tmp_path):
    run_of = tmp_path / "run"
    run_of.mkdir()
    lines = [json.dumps({"step": n, "reward": n / 10}) for n in range(3)]
    (run_of / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert run("report", str(run_of)).stdout == f"wrote {run_of / 'report.html'}\n"
    assert json.loads(run("report", str(run_of), "--json").stdout) == {"page": str(run_of / "report.html")}


def test_version_completion_and_typing_errors(capsys):
    assert main(["--version"]) == 0
    assert "sightline 0" in capsys.readouterr().out
    assert main(["--completion", "bash"]) == 0
    assert "build collect validate" in capsys.readouterr().out
    assert main(["biuld"]) == 2
    assert "did you mean build?" in capsys.readouterr().err


def test_completion_works_in_bash():
    script = f'{" ".join(main_completion())}\ncompgen -W "$(complete -p sightline | grep -o "\'.*\'" | tr -d "\'")" -- ev'
    found = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert found == ["evaluate"]


def main_completion():
    return run("--completion", "bash").stdout.split()


def test_what_is_not_installed_is_told(monkeypatch, capsys):
    monkeypatch.setattr("pipelines.front._is_there", lambda command: False)
    assert main(["demo"]) == 1
    assert "pip install 'sightline[demo]'" in capsys.readouterr().err
