import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from tests.conftest import tiny_values
from vqmri.cli import main
from vqmri.layout import Layout
from vqmri.outputs import hold
from vqmri.stages import STAGES

HEAVY = ("torch", "monai", "mlflow", "prefect", "zarr", "nibabel", "matplotlib")


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
    assert all(name in text for name in STAGES)


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
