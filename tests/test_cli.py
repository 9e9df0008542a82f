import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from tests.conftest import REPO, tiny_values
from vqmri.cli import main
from vqmri.cli.group import SECTIONS
from vqmri.cli.options import prints
from vqmri.layout import Layout
from vqmri.outputs import hold
from vqmri.stages import STAGES

HEAVY = ("torch", "monai", "mlflow", "prefect", "zarr", "nibabel", "matplotlib", "rich")


def modules_after(arguments: list[str], folder: Path) -> tuple[int, set[str]]:
    """Exit code of the command line in a fresh interpreter, and the top modules it imported."""
    code = (
        "import sys\n"
        "from vqmri.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit as end:\n"
        "    print(*{name.split('.')[0] for name in sys.modules})\n    raise\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, set(done.stdout.splitlines()[-1].split())


def test_help_and_a_config_error_import_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("seed: -1\n")
    for arguments, code in ((["--help"], 0), (["train_vqvae"], 2)):
        returned, modules = modules_after(arguments, tmp_path)
        assert returned == code
        assert not modules & set(HEAVY), arguments
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_help_names_every_stage() -> None:
    text = CliRunner().invoke(main, ["--help"]).output
    places = [text.index(f"\n  {name} ") for name in STAGES]
    assert places == sorted(places)
    grouped = [name for names in SECTIONS.values() for name in names]
    assert sorted(grouped) == sorted(main.commands)
    assert all(f"{title}:" in text for title in SECTIONS)


@pytest.mark.parametrize(
    ("command", "meant"),
    [
        (["ingst"], "'ingest'"),
        (["sample", "--sed", "3"], "--seed"),
        (["init", "--preset", "hipocampus"], "Did you mean hippocampus?"),
    ],
)
def test_what_is_misspelt_is_told_with_what_is_near(command: list[str], meant: str) -> None:
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2
    assert meant in done.stderr
    assert done.stdout == ""


def test_every_command_prints_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, command in main.commands.items():
        assert "as_json" in {option.name for option in command.params}, name
    monkeypatch.chdir(tmp_path)
    for arguments, code in (
        (["init", "--preset", "phantom"], 0),
        (["clean"], 0),
        (["verify", "."], 3),
        (["verify", "nowhere"], 2),
        (["init", "--preset", "elbow"], 2),
    ):
        done = CliRunner().invoke(main, [*arguments, "--json"])
        assert done.exit_code == code, done.output
        found = json.loads(done.stdout)
        assert found.get("exit_code", 0) == code
        assert ("error" in found) == bool(done.stderr) == (code != 0)


def test_json_has_no_number_that_json_does_not_know() -> None:
    @click.command()
    @prints
    def command() -> dict[str, float]:
        print("a library that chatters")
        return {"worth": float("nan"), "most": float("inf"), "loss": 0.5}

    done = CliRunner().invoke(command, ["--json"])
    assert json.loads(done.stdout) == {"worth": None, "most": None, "loss": 0.5}
    assert done.stderr == "a library that chatters\n"


def complete(shell: str, folder: Path, *words: str) -> list[str]:
    """What the shell is told when the last of the words is completed, without kinds and help."""
    typed = {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    if shell == "fish":
        typed["COMP_CWORD"] = words[-1]
    code = "from vqmri.cli import main; main(prog_name='vqmri')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | typed | {"_VQMRI_COMPLETE": f"{shell}_complete"},
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    return lines[1::3] if shell == "zsh" else [re.split(r"[,\t]", s)[1] for s in lines if "," in s]


def test_shells_are_told_stages_options_presets_and_covariates(
    tmp_path: Path,
) -> None:
    prior = tmp_path / "data/prior/model.json"
    prior.parent.mkdir(parents=True)
    known = [
        {"name": "age", "minimum": 20.0, "maximum": 80.0, "mean": 50.0, "std": 9.0},
        {"name": "sex", "values": ["F", "M"]},
    ]
    prior.write_text(json.dumps({"arguments": {"covariates": known}}))
    assert complete("bash", tmp_path, "vqmri", "train_") == ["train_prior", "train_vqvae"]
    assert complete("zsh", tmp_path, "vqmri", "init", "--preset", "mni") == ["mnist"]
    found = complete("fish", tmp_path, "vqmri", "sample", "--covariate", "s")
    assert found == ["sex=F", "sex=M"]
    assert complete("bash", tmp_path, "vqmri", "encode", "--dry") == ["--dry-run"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_documented_line_switches_completion_on(shell: str, tmp_path: Path) -> None:
    line = {
        "bash": 'eval "$(_VQMRI_COMPLETE=bash_source vqmri)"',
        "zsh": 'eval "$(_VQMRI_COMPLETE=zsh_source vqmri)"',
        "fish": "_VQMRI_COMPLETE=fish_source vqmri | source",
    }[shell]
    assert line in (REPO / "README.md").read_text()
    done = CliRunner().invoke(main, env={"_VQMRI_COMPLETE": f"{shell}_source"}, prog_name="vqmri")
    assert done.exit_code == 0
    assert f"_VQMRI_COMPLETE={shell}_complete" in done.output


def test_init_writes_a_preset_with_the_users_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["init", "--preset", "hippocampus", "--raw", "my scans"])
    assert done.exit_code == 0, done.output
    values = yaml.safe_load(Path("params.yaml").read_text())
    assert values["ingest"]["raw"] == "my scans"
    assert values["ingest"]["source"]["kind"] == "nifti"
    unknown = CliRunner().invoke(main, ["init", "--preset", "elbow"])
    assert unknown.exit_code == 2
    assert "phantom" in unknown.output


@pytest.mark.parametrize("raw", ["../😀", "Ärzte: 1", 'a "b" \\ c', "a\udc80"])
def test_init_writes_any_folders_name(
    raw: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["init", "--preset", "brain-2mm", "--raw", raw])
    assert done.exit_code == 0, done.output
    assert yaml.safe_load(Path("params.yaml").read_text("utf-8"))["ingest"]["raw"] == raw


def test_a_preset_that_makes_its_scans_takes_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["init", "--preset", "phantom", "--raw", "mine"])
    assert done.exit_code == 2
    assert "--raw mine: the preset phantom makes its own scans" in done.stderr
    assert not list(tmp_path.iterdir())


def test_verify_says_what_is_wrong(
    copy_of_finished: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copy_of_finished.root)
    for path in sorted(copy_of_finished.data.iterdir()):
        if (path / "MANIFEST.json").exists():
            assert CliRunner().invoke(main, ["verify", str(path)]).exit_code == 0, path
    weights = copy_of_finished.output("prior") / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    done = CliRunner().invoke(main, ["verify", "data/prior"])
    assert done.exit_code == 7
    assert "weights.safetensors" in done.output


@pytest.mark.parametrize(
    ("stage", "missing", "maker"),
    [
        ("train_vqvae", "volumes", "ingest"),
        ("encode", "vqvae", "train_vqvae"),
        ("train_prior", "codes", "encode"),
        ("sample", "prior", "train_prior"),
        ("evaluate", "samples", "sample"),
    ],
)
def test_a_missing_earlier_stage_is_named_with_its_command(
    copy_of_finished: Layout, monkeypatch: pytest.MonkeyPatch, stage: str, missing: str, maker: str
) -> None:
    (copy_of_finished.output(missing) / "MANIFEST.json").unlink()
    (copy_of_finished.root / "params.yaml").write_text(yaml.safe_dump(tiny_values()))
    monkeypatch.chdir(copy_of_finished.root)
    monkeypatch.setattr("vqmri.tracking.mlflow.connect", no_server)
    done = CliRunner().invoke(main, [stage])
    assert done.exit_code == 3
    assert f"`vqmri {maker}`" in done.output


def no_server(root: Path) -> None:
    raise OSError("no server in this test")


def test_clean_removes_unpublished_work_but_not_what_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    work = Layout(tmp_path).work
    (work / "codes-0123456789abcdef" / "out").mkdir(parents=True)
    (work / "codes.lock").touch()
    with hold(work / "codes.lock"):
        assert CliRunner().invoke(main, ["clean"]).exit_code == 6
    assert (work / "codes-0123456789abcdef").exists()
    assert CliRunner().invoke(main, ["clean"]).exit_code == 0
    assert not (work / "codes-0123456789abcdef").exists()


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ([], {}),
        (["--seed", "0", "--guidance", "0"], {"seed": 0, "guidance": 0.0}),
        (["--extrapolate", "--top-k", "5"], {"extrapolate": True, "top_k": 5}),
        (["--covariate", "age=60"], {"covariates": {"age": 60}}),
    ],
)
def test_only_what_was_asked_for_changes_a_sample(
    options: list[str], changes: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []

    def run(name: str, root: Path, *, changes: object, out: Path | None) -> dict[str, float]:
        seen.append(changes)
        return {}

    monkeypatch.setattr("vqmri.stages.run.run", run)
    assert CliRunner().invoke(main, ["sample", *options]).exit_code == 0
    assert seen == [changes]
