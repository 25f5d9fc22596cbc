"""The menu of models: an exported map and a trained run of the workspace answer, and a model that fails is named."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest

from factories import make_payload, make_scored
from latentscore.embed import WordVectorEmbedder
from latentscore_data.core.base.errors import InputError, MissingError
from latentscore_data.core.base.rows import VibeRow
from latentscore_data.core.base.settings import Settings
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.export.maps import write_map
from latentscore_data.core.generators.types import Generated
from latentscore_data.core.models.runs import RunFolder
from latentscore_data.core.scoring.cache import ScoreCache
from latentscore_data.studio import answers
from latentscore_data.studio.answers import Answers


@pytest.fixture
def menu(root: Path) -> Answers:
    workspace = Workspace(root)
    return Answers(Settings.model_validate({"paths": {"root": root}}), workspace, ScoreCache(None))


def write_a_map(folder: Path) -> None:
    vibes = ("a harbour at night", "a fast neon arcade", "slow rain on a tin roof")
    rows = [
        make_scored(i, vibe_original=vibe, config_payload=make_payload(f"Title {i}", tempo=tempo))
        for i, (vibe, tempo) in enumerate(zip(vibes, ("slow", "very_fast", "very_slow"), strict=True))
    ]
    words = WordVectorEmbedder()
    folder.mkdir(parents=True)
    write_map(folder, rows, "text", lambda batch: words.embed([row.vibe_original for row in batch]), words.fingerprint)


def test_an_exported_map_answers_with_its_nearest_vibes_first(root: Path, menu: Answers):
    write_a_map(Workspace(root).export_dir / "map-text")
    source = menu.source("map:map-text")
    found = menu.answer("rain on the roof", source, 2, 0)
    assert found[0]["title"] == "Title 2"
    assert len({payload["config"]["tempo"] for payload in found}) == 2
    assert "nearest: “slow rain on a tin roof”" in found[0]["thinking"]


def test_a_damaged_map_is_named(root: Path, menu: Answers):
    folder = Workspace(root).export_dir / "map-text"
    write_a_map(folder)
    (folder / "map.safetensors").write_bytes(b"nonsense")
    with pytest.raises(MissingError, match=r"map\.safetensors"):
        menu.answer("rain", menu.source("map:map-text"), 1, 0)


class Trained:
    """Stands for the model of a run."""

    def __init__(self, answer: Generated):
        self._answer = answer

    def generate(self, rows: Sequence[VibeRow]) -> list[Generated]:
        assert [row.vibe_original for row in rows] == ["rain"]
        return [self._answer]


def finished_run(root: Path, run_id: str) -> None:
    run = RunFolder(Workspace(root).train_dir / run_id)
    run.final.mkdir(parents=True)
    run.spec_file.write_text("{}")
    run.note(run_id=run_id, kind="sft", base_model="tiny-random", status="finished", metrics={})
    run.mark_done()


@pytest.mark.skipif(find_spec("torch") is None, reason="runs are in the menu where the ml extra can load them")
class TestRuns:
    def test_a_finished_run_answers_and_is_loaded_once(
        self, root: Path, menu: Answers, monkeypatch: pytest.MonkeyPatch
    ):
        finished_run(root, "sft-one")
        (Workspace(root).train_dir / "unfinished").mkdir()
        loaded: list[str] = []

        def make(source: str, needs: object) -> Trained:
            loaded.append(source)
            return Trained(Generated(make_payload("Learned")))

        monkeypatch.setattr(answers, "make_generator", make)
        assert [source.id for source in menu.sources() if source.id.startswith("local:")] == ["local:sft-one"]
        source = menu.source("local:sft-one")
        for _ in range(2):
            assert [payload["title"] for payload in menu.answer("rain", source, 4, 0)] == ["Learned"]
        assert loaded == ["local:sft-one"]

    def test_a_run_without_a_valid_answer_is_named(self, root: Path, menu: Answers, monkeypatch: pytest.MonkeyPatch):
        finished_run(root, "sft-one")
        monkeypatch.setattr(answers, "make_generator", lambda source, needs: Trained(Generated(failure="not JSON")))
        with pytest.raises(InputError, match=r"Run sft-one gave no valid answer \(not JSON\)"):
            menu.answer("rain", menu.source("local:sft-one"), 1, 0)
