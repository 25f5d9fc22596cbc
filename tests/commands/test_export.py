"""lsdata export: what it writes is read back by the software that people use."""

from __future__ import annotations

import fcntl
import json
import os
import re
from pathlib import Path

import pytest

from conftest import here, needs
from export_workspace import fill
from factories import make_payload, make_scored
from latentscore import lookup
from latentscore.config import REGISTERS_SWAPPED
from latentscore.embed import WordVectorEmbedder
from latentscore.installed import install
from latentscore_data.core.base.marks import marks_file
from latentscore_data.core.base.rows import ScoredRow
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.stages.base import RunContext
from tiny_models import save_tiny_random


def run(root: Path, *args: str, code: int = 0) -> str:
    return here("export", *args, "--root", str(root), code=code).output


def test_a_map_is_found_by_text(root: Path) -> None:
    workspace = fill(root)
    run(root, "map", "--embedder", "words")
    folder = workspace.export_dir / "map-text"
    match = lookup(folder, "vibe number 7 of the sea")
    assert match.title == "Title 7"
    record = json.loads((folder / "export.json").read_text())
    assert (record["rows"], record["embedder"]) == (9, WordVectorEmbedder().fingerprint)
    assert set(record["files"]) == {"ATTRIBUTION.md", "README.md", "map.jsonl", "map.safetensors", "rows.jsonl"}


def test_a_map_of_chosen_splits(root: Path) -> None:
    workspace = fill(root)
    run(root, "map", "--embedder", "words", "--split", "GRPO", "--split", "SFT-Val")
    lines = (workspace.export_dir / "map-text" / "map.jsonl").read_text().splitlines()
    assert [json.loads(line)["split"] for line in lines] == ["GRPO", "GRPO", "SFT-Val"]


@pytest.mark.parametrize("kind", ["map", "dataset"])
def test_what_had_to_be_changed_in_configs_is_counted(root: Path, kind: str) -> None:
    workspace = fill(root)
    path = workspace.scored("GRPO")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["config_payload"]["config"] |= {"register_min_oct": 6, "register_max_oct": 4}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert f'"{REGISTERS_SWAPPED}": 1' in run(root, kind, "--json")
    if kind == "map":
        config = lookup(workspace.export_dir / "map-text", "vibe number 7 of the sea").config
        assert (config.register_min_oct, config.register_max_oct) == (4, 6)


@pytest.mark.parametrize("parquet", ["always", "never"])
def test_the_real_datasets_library_reads_the_data_set(root: Path, tmp_path: Path, monkeypatch, parquet: str) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("LSDATA_EXPORT__PARQUET", parquet)
    workspace = fill(root)
    run(root, "dataset")
    loaded = datasets.load_dataset(str(workspace.export_dir / "dataset"), cache_dir=str(tmp_path / "cache"))
    assert {name: split.num_rows for name, split in loaded.items()} == {
        "train": 5, "validation": 1, "grpo": 2, "test": 2,
    }  # fmt: skip
    features = loaded["grpo"].features
    assert all(split.features == features for split in loaded.values())
    assert features["vibe_noisy"].dtype == "string"
    assert features["config_payload"]["config"]["density"].dtype == "int64"
    assert features["config_payload"]["config"]["depth"].dtype == "bool"
    row = loaded["train"][4]
    original = list(_rows(workspace, "SFT-Train"))[4]
    assert row["config_payload"] == original.config_payload
    assert row["config_candidates"] == original.config_candidates
    assert row["candidate_scores"] == original.candidate_scores
    assert row["scores_external"]["acoustic"]["parts"] == [{"energy": 0.5, "seen": 5}, None]
    assert row["text_page"] == [0]
    assert loaded["train"][2]["config_payload"] is None
    # What the library gives back is a row of ours again.
    assert ScoredRow.model_validate(row).vibe_for_training == "vibe nubmer 5"


def test_each_configuration_loads_by_name(root: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    workspace = fill(root)
    assert "default, sft, preference, map" in run(root, "dataset")
    folder, cache = str(workspace.export_dir / "dataset"), str(tmp_path / "cache")
    train = _rows(workspace, "SFT-Train")
    sft = datasets.load_dataset(folder, "sft", split="train", cache_dir=cache)
    assert sft.column_names == ["messages", "row_id"]
    assert [row["row_id"] for row in sft] == [row.row_id for row in train if row.config_payload]
    pairs = datasets.load_dataset(folder, "preference", split="test", cache_dir=cache)
    assert all(row["chosen_score"] > row["rejected_score"] for row in pairs)
    vibe_map = datasets.load_dataset(folder, "map", split="validation", cache_dir=cache)
    (row,) = _rows(workspace, "SFT-Val")
    assert row.config_payload is not None
    assert vibe_map[0]["config"] == row.config_payload["config"]
    assert vibe_map[0]["embedding"] == WordVectorEmbedder().embed([row.vibe_original])[0].tolist()


def test_a_large_split_is_cut_into_shards(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr("latentscore_data.core.export.tables.ROWS_PER_SHARD", 2)
    workspace = fill(root)
    run(root, "dataset")
    folder = workspace.export_dir / "dataset"
    assert [path.name for path in sorted((folder / "data").glob("train*"))] == [
        f"train-0000{n}-of-00003.parquet" for n in range(3)
    ]
    loaded = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded["row_id"][:] == [row.row_id for row in _rows(workspace, "SFT-Train")]


@pytest.mark.long
def test_the_sounds_of_the_winners_are_a_column(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    import soundfile

    from latentscore import parse_payload, render

    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("LSDATA_SCORING__SECONDS", "1")
    workspace = fill(root)
    run(root, "dataset", "--audio")
    folder = workspace.export_dir / "dataset"
    loaded = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert isinstance(loaded.features["audio"], datasets.Audio)
    rows = loaded.cast_column("audio", datasets.Audio(decode=False))
    assert rows[2]["audio"] is None
    sound, rate = soundfile.read(io.BytesIO(rows[0]["audio"]["bytes"]))
    payload = parse_payload(_rows(workspace, "SFT-Train")[0].config_payload)
    expected = render(payload.config, 1.0, 0)
    assert rate == expected.sample_rate
    assert abs(sound - expected.samples).max() < 1e-4
    assert "audio" not in json.loads((folder / "jsonl" / "train.jsonl").read_text().splitlines()[0])
    assert not list(folder.glob(".sounds*"))


@pytest.mark.parametrize("parquet", ["always", "never"])
def test_the_croissant_metadata_is_valid_and_finds_the_rows(root: Path, monkeypatch, parquet: str) -> None:
    croissant = pytest.importorskip("mlcroissant")
    monkeypatch.setenv("LSDATA_EXPORT__PARQUET", parquet)
    workspace = fill(root)
    run(root, "dataset")
    described = croissant.Dataset(workspace.export_dir / "dataset" / "croissant.json")
    assert not described.metadata.ctx.issues.errors
    records = list(described.records("default/train"))
    assert [record["default/train/row_id"].decode() for record in records] == [
        row.row_id for row in _rows(workspace, "SFT-Train")
    ]


@pytest.mark.ml
@pytest.mark.long
@pytest.mark.parametrize(("command", "config"), [("sft", "sft"), ("dpo", "preference")])
def test_trl_trains_on_the_data_set_as_it_stands(root: Path, tmp_path: Path, command: str, config: str) -> None:
    import subprocess
    import sys

    workspace = fill(root)
    run(root, "dataset")
    trl = str(Path(sys.executable).with_name("trl"))
    dataset = ["--dataset_name", str(workspace.export_dir / "dataset"), "--dataset_config", config]
    training = ["--max_steps", "2", "--output_dir", str(tmp_path / "out"), "--report_to", "none", "--use_cpu"]
    folder = save_tiny_random(tmp_path / "model")
    model = ["--model_name_or_path", str(folder), "--max_length", "256", "--bf16", "false"]
    done = subprocess.run([trl, command, *dataset, *model, *training], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_the_jsonl_beside_the_parquet_loads_alone(root: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    workspace = fill(root)
    run(root, "dataset")
    files = str(workspace.export_dir / "dataset" / "jsonl" / "test.jsonl")
    loaded = datasets.load_dataset("json", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded["vibe_original"] == [row.vibe_original for row in _rows(workspace, "TEST")]


def _rows(workspace: Workspace, split: str) -> list[ScoredRow]:
    return [ScoredRow.model_validate_json(line) for line in workspace.scored(split).read_text().splitlines()]


@needs("pyarrow")
def test_the_card_of_a_data_set(root: Path) -> None:
    from huggingface_hub import DatasetCard

    workspace = fill(root)
    run(root, "dataset", "--name", "Sea vibes")
    folder = workspace.export_dir / "dataset"
    card = DatasetCard.load(folder / "README.md")
    assert card.data.pretty_name == "Sea vibes"
    assert (card.data["license"], card.data["license_name"]) == ("other", "public-domain")
    assert [file["path"] for file in card.data["configs"][0]["data_files"]][:2] == [
        ["data/train-00000-of-00001.parquet"], ["data/validation-00000-of-00001.parquet"],
    ]  # fmt: skip
    text = card.text
    for fact in ("| train | 5 | 5 |", "| moby-dick | 10 | 10 | public domain |", "abc123", "$0.25", "0.125"):
        assert fact in text
    assert "1 rows have no valid configuration" in text
    picture = re.search(r"\((scores-\w+\.svg)\)", text)
    assert picture is not None
    assert (folder / picture[1]).read_text().startswith("<svg")
    attribution = (folder / "ATTRIBUTION.md").read_text()
    assert "*Moby-Dick* by Herman Melville, 10 texts" in attribution


def test_the_loading_example_of_the_card_runs(root: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    pytest.importorskip("datasets")
    workspace = fill(root)
    run(root, "dataset")
    folder = workspace.export_dir / "dataset"
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert code is not None
    exec(code[1].replace("PATH_OR_REPO", str(folder)), {})
    assert "vibe number 1 of the sea" in capsys.readouterr().out


def test_hostile_titles_do_not_become_markup(root: Path) -> None:
    workspace = fill(root, title="a](http://evil) <script>alert(1)</script>\n# Heading", author="|x|")
    run(root, "dataset")
    attribution = (workspace.export_dir / "dataset" / "ATTRIBUTION.md").read_text()
    assert "\\]" in attribution
    assert "<script" not in attribution.replace("\\<", "")
    assert "\n# Heading" not in attribution


def test_without_pyarrow_the_data_set_is_jsonl(root: Path, monkeypatch) -> None:
    from huggingface_hub import DatasetCard

    monkeypatch.setattr("latentscore_data.core.export.dataset.find_spec", lambda name: None)
    workspace = fill(root)
    assert install("hub") in run(root, "dataset").replace("\n", " ")
    folder = workspace.export_dir / "dataset"
    assert not (folder / "data").exists()
    files = DatasetCard.load(folder / "README.md").data["configs"][0]["data_files"]
    assert files[0] == {"split": "train", "path": ["jsonl/train.jsonl"]}


@pytest.mark.parametrize("kind", ["map", "dataset"])
def test_a_target_that_exists_is_kept_unless_overwrite(root: Path, kind: str) -> None:
    fill(root)
    args = [kind, *(["--embedder", "words"] if kind == "map" else [])]
    run(root, *args)
    assert "--overwrite" in run(root, *args, code=6)
    run(root, *args, "--overwrite")


def test_a_folder_of_somebody_else_is_never_replaced(root: Path, tmp_path: Path) -> None:
    fill(root)
    mine = tmp_path / "thesis"
    mine.mkdir()
    (mine / "chapter.tex").write_text("x")
    assert "not an export" in run(root, "dataset", "--out", str(mine), "--overwrite", code=6)
    assert (mine / "chapter.tex").read_text() == "x"


def test_the_current_folder_is_not_replaced(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(root)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    args = ("chat", "--root", str(root.resolve()))
    assert "is the current folder" in run(root, *args, "--out", ".", code=6)
    run(root, *args, "--out", "chat")
    monkeypatch.chdir(here / "chat")
    assert "is the current folder" in run(root, *args, "--out", str(here / "chat"), "--overwrite", code=6)
    assert sorted(path.name for path in here.iterdir()) == ["chat"]


@pytest.mark.parametrize("kind", ["dataset", "chat"])
def test_the_next_step_installs_datasets_if_it_is_missing(root: Path, monkeypatch, kind: str) -> None:
    fill(root)
    for found, begin in ((True, "python -c "), (None, f"{install('hub')} && python -c ")):
        monkeypatch.setattr("latentscore_data.core.stages.export.find_spec", lambda name, found=found: found)
        assert json.loads(run(root, kind, "--overwrite", "--json"))["next_step"].startswith(begin)


def test_a_target_that_is_a_link_stays_one(root: Path, tmp_path: Path) -> None:
    fill(root)
    link, real = tmp_path / "link", tmp_path / "elsewhere" / "real"
    link.symlink_to(real)
    for more in ((), ("--overwrite",)):
        run(root, "chat", "--out", str(link), *more)
        assert link.is_symlink()
        assert (real / "export.json").is_file()
        assert [path.name for path in real.parent.iterdir()] == ["real"]
        assert not list(tmp_path.glob(".*"))


def test_nothing_half_written_is_left_when_an_export_fails(root: Path, monkeypatch) -> None:
    workspace = fill(root)
    run(root, "map", "--embedder", "words")
    before = (workspace.export_dir / "map-text" / "map.jsonl").read_bytes()
    monkeypatch.setattr("latentscore_data.core.export.maps.MAP_FORMAT", "latentscore-map/0")
    assert "not a map of this version" in run(root, "map", "--embedder", "words", "--overwrite", code=7)
    assert (workspace.export_dir / "map-text" / "map.jsonl").read_bytes() == before
    assert [path.name for path in workspace.export_dir.iterdir()] == ["map-text"]


def test_what_a_killed_export_began_elsewhere_is_removed_and_what_is_at_work_stays(root: Path, tmp_path: Path) -> None:
    fill(root)
    killed, at_work, another = (
        tmp_path / name
        for name in (".map.0badf00d.lsdata-draft", ".map.00c0ffee.lsdata-draft", ".maps.0badf00d.lsdata-draft")
    )
    for draft in (killed, at_work, another):
        (draft / "begun").mkdir(parents=True)
    handle = os.open(at_work, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        run(root, "map", "--embedder", "words", "--out", str(tmp_path / "map"))
    finally:
        os.close(handle)
    assert sorted(path.name for path in tmp_path.glob(".map*")) == [at_work.name, another.name]


def test_without_rows_there_is_nothing_to_export(root: Path) -> None:
    for kind in ("map", "dataset"):
        assert "run lsdata configs first" in run(root, kind, code=2)
    assert not (root / ".exports").exists() or not list((root / ".exports").iterdir())


def test_the_report_counts_the_workspace_and_plays_a_sample(root: Path, monkeypatch) -> None:
    import soundfile

    monkeypatch.setenv("LSDATA_SCORING__SECONDS", "2")

    workspace = fill(root, license="<b>free</b>")
    run(root, "map", "--embedder", "words")
    run(root, "report")
    folder = workspace.export_dir / "report"
    page = (folder / "index.html").read_text()
    assert '<td>vibes with a winner</td><td class="n">9</td>' in page
    assert "&lt;b&gt;free&lt;/b&gt;" in page
    assert '<a href="../map-text/">map-text</a>' in page
    players = re.findall(r'src="(audio/\w+\.mp3)"', page)
    assert len(players) == len(set(players)) == 8
    audio, rate = soundfile.read(folder / players[0])
    assert len(audio) / rate == pytest.approx(2.0, abs=0.1)
    assert abs(audio).max() > 0.01


def test_chat_files_are_what_trainers_read(root: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    workspace = fill(root)
    run(root, "chat")
    folder = str(workspace.export_dir / "chat")
    sft = datasets.load_dataset(folder, "sft", cache_dir=str(tmp_path / "cache"))
    assert {name: split.num_rows for name, split in sft.items()} == {
        "train": 4, "validation": 1, "grpo": 2, "test": 2,
    }  # fmt: skip
    messages = sft["train"][0]["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant"]
    assert "vibe nubmer 1" in messages[1]["content"]
    assert json.loads(messages[2]["content"])["title"] == "Title 1"

    pairs = datasets.load_dataset(folder, "preference", cache_dir=str(tmp_path / "cache"))["train"]
    assert len(pairs) == 5
    row = _rows(workspace, "SFT-Train")[0]
    assert (pairs[0]["chosen_score"], pairs[0]["rejected_score"]) == (0.1, 0.05)
    assert json.loads(pairs[0]["chosen"][0]["content"]) == row.config_candidates[0]
    assert json.loads(pairs[0]["rejected"][0]["content"]) == row.config_candidates[1]


def test_rows_whose_candidates_sound_alike_make_no_pair() -> None:
    from latentscore_data.core.training.preference import Pair, row_pair

    good, other = make_payload("Good"), make_payload("Other")
    scored = {"config_candidates": [good, other, None, good], "candidate_scores": {"clap": [0.5, -0.5, None, 0.1]}}
    row = make_scored(1, **scored)
    assert row_pair(row) == Pair(row, "clap", good, other, 0.5, -0.5)
    for scores in ([0.5, 0.5], [0.5, None], []):
        row = make_scored(1, config_candidates=[good, other], candidate_scores={"clap": scores})
        assert row_pair(row) is None


@pytest.mark.ml
def test_trl_applies_a_chat_template_to_the_chat_files(root: Path) -> None:
    from trl.data_utils import is_conversational, maybe_apply_chat_template

    from latentscore_data.core.models.base_models import load_tokenizer

    workspace = fill(root)
    run(root, "chat")
    tokenizer = load_tokenizer("tiny-random")
    for kind, parts in (("sft", {"text"}), ("preference", {"prompt", "chosen", "rejected"})):
        line = json.loads((workspace.export_dir / "chat" / kind / "grpo.jsonl").read_text().splitlines()[0])
        assert is_conversational(line)
        made = maybe_apply_chat_template(line, tokenizer)
        assert parts <= made.keys()
        assert all(isinstance(made[part], str) and made[part] for part in parts)


@pytest.mark.ml
def test_a_map_of_sounds_is_asked_with_the_text_half_of_clap(root: Path, tmp_path: Path, monkeypatch) -> None:
    import numpy as np

    from latentscore import load_map
    from latentscore_data.core.base.settings import load_settings
    from latentscore_data.core.export.maps import ClapText
    from tiny_clap import save_clap

    monkeypatch.setenv("LSDATA_SCORING__CLAP_MODEL", str(save_clap(tmp_path / "clap")))
    monkeypatch.setenv("LSDATA_SCORING__SECONDS", "1")
    monkeypatch.setenv("LSDATA_SCORING__WORKERS", "1")
    workspace = fill(root)
    run(root, "map", "--kind", "audio", "--split", "GRPO", "--split", "TEST")
    folder = workspace.export_dir / "map-audio"
    line = json.loads((folder / "map.jsonl").read_text().splitlines()[0])
    assert np.linalg.norm(line["clap_audio_embedding"]) == pytest.approx(1, abs=1e-5)
    embedder = ClapText(load_settings(paths={"root": root}))
    vibe_map = load_map(folder)
    match = lookup(vibe_map, "a dark sea", embedder=embedder)
    expected = [float(np.dot(embedder.embed(["a dark sea"])[0], row)) for row in vibe_map.embeddings]
    assert match.similarity == pytest.approx(max(expected), abs=1e-5)
    # The same config has the same sound, which was heard once.
    assert np.array_equal(vibe_map.embeddings[0], vibe_map.embeddings[1])


def test_a_map_of_sounds_without_clap_says_what_to_fetch(root: Path, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LSDATA_SCORING__CLAP_MODEL", str(tmp_path / "absent"))
    fill(root)
    run(root, "map", "--kind", "audio", code=3)
    assert not (root / ".exports").exists()


def test_an_unknown_kind_of_map_is_refused(root: Path) -> None:
    fill(root)
    assert "--kind: " in run(root, "map", "--kind", "smell", code=2)


@pytest.mark.long
def test_the_chain_exports_its_kinds_and_is_fresh_afterwards(root: Path, monkeypatch) -> None:
    from latentscore_data.core.base.manifest import stale_reasons
    from latentscore_data.core.base.settings import load_settings
    from latentscore_data.core.stages import export

    monkeypatch.setenv("LSDATA_SCORING__SECONDS", "1")
    workspace = fill(root)
    kinds = ["report", "map", "dataset", "chat"]
    settings = load_settings(paths={"root": root}, export={"kinds": kinds}, dedupe={"model": "words"})
    (stage,) = export.stage_files(settings, workspace)
    assert stale_reasons(stage, root)
    summary = export.run_export(settings, RunContext())
    assert sorted(Path(path).name for path in summary.outputs) == ["chat", "dataset", "map-text", "report"]
    assert '<a href="../chat/">chat</a>' in (workspace.export_dir / "report" / "index.html").read_text()
    assert stale_reasons(stage, root) == []
    (workspace.root / ".marks").mkdir()
    marks_file(workspace.root).write_text("")
    for section, changed, why in (
        ("check", {"hair": 0.01}, "setting check.hair changed from 0.005 to 0.01"),
        ("dedupe", {"model": "words", "threshold": 0.9}, "setting dedupe.threshold changed from None to 0.9"),
        ("export", {"kinds": kinds, "leave_out_bad": True}, "input .marks/marks.jsonl is new"),
    ):
        other = settings.model_copy(update={section: type(getattr(settings, section))(**changed)})
        assert why in stale_reasons(export.stage_files(other, workspace)[0], root)
    workspace.scored("TEST").unlink()
    (stage,) = export.stage_files(settings, workspace)
    assert stale_reasons(stage, root) == ["input .processed/TEST.jsonl is missing"]
    export.run_export(settings, RunContext())
    assert not (workspace.export_dir / "dataset" / "jsonl" / "test.jsonl").exists()
