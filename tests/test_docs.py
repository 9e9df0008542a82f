"""The documentation: the site builds without a dead link, and every command on its pages is run.

A command stands in one of four tables: those that this module types (HERE), `make`'s, those that
another test runs (ELSEWHERE), and the shell's own (NOT_OURS). One that stands in none is a fault,
and so is an entry that no page has any more.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest
import torch
import yaml
from click.testing import CliRunner
from torch.distributed.run import get_args_parser

from tests.browser import chromium
from tests.conftest import REPO, tiny_values
from tests.documented import PAGES, blocks, by_page, every_command
from vqmri.cli import main
from vqmri.layout import Layout
from vqmri.params import Params
from vqmri.stages import STAGES

COMMANDS = by_page()
SAMPLE = "data/samples/sub-synthetic00000/anat/sub-synthetic00000_desc-synthetic_T1w.nii.gz"

HERE = {  # to what it must say
    "vqmri init --preset brain-2mm --raw /path/to/your/scans": "is now the preset brain-2mm",
    "vqmri ingest": "train_volumes",
    "vqmri encode": "codes_per_item",
    "vqmri train_prior": "bits_per_code",
    "vqmri sample": "samples",
    "vqmri sample --covariate sex=F --covariate age=85 --count 8 --out data/old-women": "samples",
    "vqmri evaluate": "psnr_db",
    "vqmri score path/to/scan.nii.gz --covariate sex=F --covariate age=65": "bits_per_code",
    f"vqmri score {SAMPLE} --covariate sex=F --covariate age=22": "bits_per_code",
    "vqmri reconstruct path/to/scan.nii.gz": "psnr_db",
    f"vqmri reconstruct {SAMPLE}": "psnr_db",
    "vqmri verify data/codes": "as they were published",
    "vqmri clean": "",
}

MAKE = {  # target to what its recipe runs
    "demo": "python -m flows.pipeline",
    "demo TORCH_INDEX=…": "--index-url …",
    "serve": "python -m flows.serve",
    "test": "pytest -m",
    "test-services": "pytest -m",
    "test-long": "pytest -m long",
    "check": "lint-imports",
    "docs": "mkdocs build --strict",
    "audit": "pip-audit",
    "bench": "python -m benchmarks",
}

_SERVED = "tests/flows/test_served.py"
_REMOTE = "tests/test_dvc_remote.py"
_PIPELINE = ("tests/flows/test_pipeline.py", '"python", "-m", "flows.pipeline"')
_DASK = ("tests/flows/test_dask.py", 'commands("docs/operation.md", "Dask")')
_GENERATE = "vqmri generate --model models:/vqmri-generator@champion --count 4 --out DIR"
_SETTINGS = '"count": {}, "seed": 0, "temperature": 1'

ELSEWHERE = {  # to the test that runs it, and what that says of it
    "dvc repro": ("tests/test_dvc.py", '"repro"'),
    "dvc repro -f -s ingest": ("tests/test_dvc.py", '"repro", "-f", "-s", "ingest"'),
    "dvc commit -f train_vqvae": ("tests/test_dvc.py", '"commit", "-f", "train_vqvae"'),
    "dvc exp run --name hot -S sample.temperature=1.5": (_REMOTE, 'told["exp run"]'),
    "dvc exp run --name small -S 'train_vqvae.levels=[{downsampling: 4, num_embeddings: 64}]'": (
        _REMOTE, "*smaller"),
    "dvc exp show": (_REMOTE, 'told["exp show"]'),
    "dvc plots show": (_REMOTE, 'told["plots show"]'),
    "dvc remote add --default store s3://BUCKET/vqmri": (_REMOTE, 'told["remote add"]'),
    "dvc push": (_REMOTE, '"push"'),
    "dvc pull": (_REMOTE, '"pull"'),
    "python -m flows.pipeline": _PIPELINE,
    "dask scheduler --host 127.0.0.1 --port 8786 --no-dashboard": _DASK,
    "dask worker tcp://127.0.0.1:8786 --nworkers 2 --nthreads 1 --no-dashboard": _DASK,
    "env VQMRI_TASK_RUNNER=tcp://127.0.0.1:8786 python -m flows.pipeline": _DASK,
    "prefect work-pool create --type process --overwrite vqmri": (
        _SERVED, 'typed("prefect", "work-pool")'),
    "prefect --no-prompt deploy --all": (_SERVED, 'typed("prefect", "--no-prompt", "deploy")'),
    "prefect worker start --pool vqmri": (_SERVED, 'typed("prefect", "worker", "start")'),
    "prefect deployment run pipeline/pipeline": (_SERVED, 'typed(*RUN, "pipeline/pipeline")'),
    "prefect deployment run sample/sample --param 'settings={" + _SETTINGS.format(8)
    + ', "covariates": {"sex": "F", "age": 65}}\' --param out=elsewhere': (
        _SERVED, 'typed(*RUN, "sample/sample")'),
    "prefect deployment run generate/generate --param "
    "model=models:/vqmri-generator@champion --param 'settings={" + _SETTINGS.format(4)
    + "}' --param out=scans": (_SERVED, 'typed(*RUN, "generate/generate")'),
    "prefect deployment schedule ls watch/watch": (
        _SERVED, 'typed("prefect", "deployment", "schedule")'),
    "prefect event emit vqmri.scans.arrived --resource-id vqmri.raw": (
        _SERVED, 'typed("prefect", "event", "emit")'),
    "mlflow models serve --model-uri models:/vqmri-generator@champion --env-manager local "
    "--host 127.0.0.1 --port 5001": (_SERVED, 'commands("docs/mlflow.md", "MLflow")'),
    _GENERATE: (_SERVED, 'commands("docs/operation.md", "In operation")'),
    "vqmri plan": ("tests/stages/test_plan.py", '["plan"]'),
    "vqmri doctor": ("tests/stages/test_doctor.py", '["doctor"]'),
    "vqmri promote": ("tests/stages/test_promote.py", 'call("promote")'),
    "vqmri register": ("tests/stages/test_promote.py", 'call("register", "--json")'),
    "torchrun --nproc-per-node 4 -m vqmri train_vqvae": (
        "tests/stages/test_ranks.py", '"torch.distributed.run", "--standalone"'),
    "pip install .": ("tests/test_dependencies.py", '"install"'),
    "torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint HOST:29400 "
    "-m vqmri train_vqvae": ("tests/stages/test_ranks.py", '"torch.distributed.run"'),
}  # fmt: skip

NOT_OURS = {
    "source .venv/bin/activate": "of the shell; `make` makes the folder",
    "$EDITOR params.yaml": "the user's own",
    "pip freeze": "of pip; tests/test_repository.py reads what it wrote",
}

NAMES = {"vqmri STAGE", "vqmri score", "vqmri verify", "vqmri verify FOLDER"}
"""Commands that are spoken of and lack what they need; they must exist."""


def by_rule(command: str) -> bool:
    """Whether a test below runs or checks it for the way that it begins."""
    return command.startswith(("make ", "python -m benchmarks.", "pip install '.["))


def test_every_command_is_run_by_a_test() -> None:
    known = {*HERE, *ELSEWHERE, *NOT_OURS, *NAMES}
    unknown = {c: pages for c, pages in COMMANDS.items() if c not in known and not by_rule(c)}
    assert unknown == {}, "no test runs these: enter them in a table of this module"
    assert sorted(known - COMMANDS.keys()) == [], "no page has these any more"


def test_a_command_of_no_test_is_seen() -> None:
    page = (
        "Type `vqmri dance --fast`, or\n\n```\nvqmri sing  # loudly\n```\n```\na → b\n```\n`torch`"
    )
    assert every_command(page) == ["vqmri sing", "vqmri dance --fast"]


@pytest.mark.parametrize("command", ELSEWHERE)
def test_the_test_that_runs_it_says_so(command: str) -> None:
    file, said = ELSEWHERE[command]
    text = (REPO / file).read_text(encoding="utf-8")
    assert said in text
    assert re.search(r"^def test_", text, re.MULTILINE)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("vqmri ")])
def test_a_command_and_its_options_exist(command: str) -> None:
    name, *arguments = shlex.split(command)[1:]
    if name == "STAGE":
        return
    options = {option for p in main.commands[name].params for option in p.opts}
    assert {a for a in arguments if a.startswith("--")} <= options


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("torchrun ")])
def test_torchruns_options_exist(command: str) -> None:
    asked = get_args_parser().parse_args(shlex.split(command)[1:])
    assert (asked.module, asked.training_script) == (True, "vqmri")
    assert asked.training_script_args[0] in STAGES


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python -m benchmarks.")])
def test_a_benchmark_has_a_test_and_the_options(command: str) -> None:
    module, *arguments = shlex.split(command)[2:]
    name = module.removeprefix("benchmarks.")
    source = (REPO / f"benchmarks/{name}.py").read_text() + (
        REPO / "benchmarks/by_time.py"
    ).read_text()
    assert all(f'"{a}"' in source for a in arguments if a.startswith("--"))
    test = (REPO / f"tests/benchmarks/test_{name}.py").read_text()
    assert re.search(rf"from benchmarks(\.{name} import| import .*\b{name}\b)", test)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make ")])
def test_what_make_would_do(command: str) -> None:
    done = subprocess.run(
        ["make", "--dry-run", "--always-make", *shlex.split(command)[1:]],
        cwd=REPO, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert MAKE[command.removeprefix("make ")] in done.stdout


def test_what_make_runs_is_tested_or_is_the_tests() -> None:
    assert MAKE["demo"] in ELSEWHERE
    assert f'"{MAKE["serve"].rsplit(maxsplit=1)[1]}"' in (REPO / _SERVED).read_text()
    script = (REPO / ".ci/run").read_text()
    assert all(f"make {target}\n" in script for target in ("check", "test", "test-services"))


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("pip install '.[")])
def test_an_extra_exists(command: str) -> None:
    (extra,) = re.findall(r"\.\[(\w+)\]", command)
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    assert extra in project["optional-dependencies"]
    assert extra in " ".join(project["optional-dependencies"]["dev"]), "so CI installs it too"


@pytest.fixture(scope="module")
def project(finished: Layout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished project to type commands in, without MLflow."""
    root = tmp_path_factory.mktemp("documented") / "project"
    shutil.copytree(finished.root, root)
    (root / "path/to").mkdir(parents=True)
    shutil.copy(root / SAMPLE, root / "path/to/scan.nii.gz")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setattr("vqmri.tracking.mlflow.connect", _no_server)
        yield root


def _no_server(root: Path) -> None:
    raise OSError("no server in this test")


def test_what_is_typed_here_does_what_the_pages_say(project: Path) -> None:
    """In the order of a project, `init` last: it writes another params.yaml."""
    first, *others = HERE
    for command in (*others, first):
        done = CliRunner().invoke(main, _within(command))
        assert done.exit_code == 0, (command, done.output, done.exception)
        assert HERE[command] in done.output, (command, done.output)
        for made in [*project.glob("*_bits.*"), *project.glob("*_reconstruction.*")]:
            made.unlink()  # the next one writes one of the same name
    assert (project / "data/old-women/participants.tsv").read_text().count("\tF\t85") == 8
    assert (project / "params.yaml.old").is_file()


def _within(command: str) -> list[str]:
    """As it would be typed for phantoms, of which so few cover few ages."""
    arguments = shlex.split(command)[1:]
    return [*arguments, "--extrapolate"] if "--covariate" in arguments else arguments


def python_blocks(page: str) -> list[str]:
    return blocks((REPO / page).read_text(encoding="utf-8"), "python")


@pytest.mark.parametrize("page", [page for page in PAGES if python_blocks(page)])
def test_python_examples_run(page: str, finished: Layout, tmp_path: Path) -> None:
    """README's needs a registry: tests/tracking/test_mlflow.py does what it does."""
    if page == "README.md":
        (block,) = python_blocks(page)
        compile(block, page, "exec")
        test = (REPO / "tests/tracking/test_mlflow.py").read_text()
        for said in re.findall(r'load_model\("[^"]+"\)', block):
            assert said in test
        return
    root = tmp_path / "project"
    shutil.copytree(finished.root, root)
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for block in python_blocks(page):
            exec(compile(block, page, "exec"), names)
    if page == "docs/library.md":
        assert names["scans"].shape == (2, 1, *tiny_values()["ingest"]["shape"])
        assert names["volume"].shape[0] == 1
        assert names["rebuilt"].shape == (2, 1, 16, 24, 16)
    if page == "docs/sampling.md":
        (drawn,), (given,) = names["drawn"], names["given"]
        assert torch.equal(drawn.flatten(1)[:, : given.shape[1]], given)


def _merged(old: Any, new: Any) -> Any:
    """`new` into `old`, section by section; a choice of another kind takes its place whole."""
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        return new
    if "kind" in new and new["kind"] != old.get("kind"):
        return new
    return {**old, **{name: _merged(old.get(name), value) for name, value in new.items()}}


@pytest.mark.parametrize(
    ("page", "block"),
    [(page, b) for page in PAGES for b in blocks((REPO / page).read_text(), "yaml")],
)
def test_pieces_of_params_are_valid(page: str, block: str) -> None:
    values = yaml.safe_load(block)
    assert values.keys() <= Params.model_fields.keys(), page
    Params.model_validate(_merged(tiny_values(), values))


def build(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", *options],
        cwd=folder, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(REPO), "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole site. A dead link or anchor, or a page outside the navigation, ends the build."""
    folder = tmp_path_factory.mktemp("site")
    done = build(REPO, "--site-dir", str(folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[there](tutorial.md#the-demo)", ""),
        ("[nowhere](nowhere.md)", "nowhere.md"),
        ("[there](tutorial.md#nowhere)", "#nowhere"),
        ("![none](pictures/none.png)", "none.png"),
    ],
)
def test_a_dead_link_would_be_found(text: str, said: str, tmp_path: Path) -> None:
    config = yaml.safe_load((REPO / "mkdocs.yml").read_text())
    small = {key: config[key] for key in ("site_name", "use_directory_urls", "validation")}
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(small | {"theme": {"name": "mkdocs"}}))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/tutorial.md").write_text("# Tutorial\n\n## The demo\n\nWords.\n")
    (tmp_path / "docs/index.md").write_text(f"# Index\n\n{text}\n")
    done = build(tmp_path)
    assert (done.returncode == 0) == (not said), done.stderr
    assert said in done.stderr


class Asked(HTMLParser):
    """What a page makes a browser fetch: not its links to other pages."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "a":
            wanted = ("src", "href", "srcset", "data", "poster", "action")
            self.found += [value for name, value in attrs if name in wanted and value]


def test_the_site_asks_no_other_host_for_anything(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        asked = Asked(page.read_text(encoding="utf-8")).found
        assert asked
        assert [url for url in asked if re.match(r"(https?:)?//", url)] == [], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", sheet.read_text()), sheet


@pytest.mark.services
def test_in_a_browser_the_site_asks_no_other_host_for_anything(site: Path) -> None:
    asked: list[str] = []
    with chromium() as browser:
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        for name in ("index", "concepts", "reference/params"):
            page.goto((site / f"{name}.html").as_uri(), wait_until="networkidle")
            assert page.locator("h1").count() == 1
    assert len(asked) > 6
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def test_the_reference_has_every_parameter(site: Path) -> None:
    page = (site / "reference/params.html").read_text(encoding="utf-8")
    schema = Params.model_json_schema()
    for model in [schema, *schema["$defs"].values()]:
        for name, field in model.get("properties", {}).items():
            assert f"<code>{name}</code>" in page, name
            first = re.split(r"[`'\"<>&*_]", field.get("description", ""))[0].strip()
            assert first in page, name


def test_the_reference_has_every_command_and_option(site: Path) -> None:
    page = (site / "reference/commands.html").read_text(encoding="utf-8")
    for name, command in main.commands.items():
        assert f">vqmri {name}" in page
        for option in (p for p in command.params if isinstance(p, click.Option)):
            assert f"<code>{option.opts[0]}</code>" in page, (name, option.opts)


def test_the_reference_has_every_stage_and_public_name(site: Path) -> None:
    stages = (site / "reference/stages.html").read_text(encoding="utf-8")
    for dotted in STAGES.values():
        assert f'id="{dotted.replace(":", ".")}"' in stages
    library = (site / "reference/library.html").read_text(encoding="utf-8")
    for package in ("codes", "outputs", "prior", "quantizers", "vqvae"):
        for name in import_module(f"vqmri.{package}").__all__:
            assert re.search(rf'id="vqmri\.{package}[\w.]*\.{name}"', library), name


@pytest.mark.parametrize("picture", sorted((REPO / "docs/pictures").glob("*.png")), ids=str)
def test_pictures_are_shown_and_small(picture: Path) -> None:
    assert picture.stat().st_size < 200_000
    assert any(f"pictures/{picture.name}" in (REPO / page).read_text() for page in PAGES)
