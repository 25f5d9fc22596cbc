"""CLAP's real loading, cutting and scoring code, on a tiny model with random weights."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
import types
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import needs
from factories import make_payload, make_vibe
from latentscore import Audio
from latentscore_data.core.base.errors import InputError, MissingError
from latentscore_data.core.base.jsonl import replace_rows
from latentscore_data.core.base.settings import ScoringSettings, Settings
from latentscore_data.core.scoring import clap
from latentscore_data.core.scoring.cache import ScoreCache
from latentscore_data.core.scoring.clap import HOP, WINDOW, ClapScorer, cut
from latentscore_data.core.scoring.deps import ScorerDeps
from latentscore_data.core.scoring.registry import make_scorer, resolve_auto
from latentscore_data.core.scoring.renderer import LocalRenderer
from latentscore_data.core.scoring.service import ScoringService
from latentscore_data.core.scoring.types import Score
from scoring_fakes import render_by_root


def noise(seconds: float, seed: int = 0, level: float = 0.1, rate: int = 48_000) -> Audio:
    rng = np.random.default_rng(seed)
    return Audio((rng.standard_normal((int(seconds * rate), 2)) * level).astype(np.float32), rate)


def tone(seconds: float, hertz: float = 440.0) -> Audio:
    wave = (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * 48_000)) / 48_000)).astype(np.float32)
    return Audio(np.stack([wave, wave], axis=1), 48_000)


class TestWindows:
    @pytest.mark.parametrize(
        ("seconds", "count"), [(1, 1), (9.99, 1), (10, 1), (10.5, 2), (15, 2), (17, 3), (20, 3), (60, 11)]
    )
    def test_every_window_is_ten_seconds_and_none_is_heard_twice(self, seconds: float, count: int) -> None:
        windows = cut(noise(seconds))
        assert [len(window) for window in windows] == [WINDOW] * count
        assert len({window.tobytes() for window in windows}) == count

    def test_windows_are_five_seconds_apart_and_the_last_one_ends_with_the_sound(self) -> None:
        audio = noise(17)
        heard = np.round(np.clip(audio.mono, -1, 1) * 32767)
        for window, start in zip(cut(audio), (0, HOP, 7 * 48_000), strict=True):
            np.testing.assert_allclose(window * 32767, heard[start : start + WINDOW], atol=1.0)

    def test_a_short_sound_is_repeated_as_often_as_it_fits(self) -> None:
        (window,) = cut(noise(3))
        first = window[: 3 * 48_000]
        assert np.array_equal(window[: 9 * 48_000], np.tile(first, 3))
        assert not window[9 * 48_000 :].any()

    def test_left_and_right_are_averaged_and_samples_have_sixteen_bits(self) -> None:
        left = np.full(WINDOW, 0.5, dtype=np.float32)
        (window,) = cut(Audio(np.stack([left, left / 2], axis=1), 48_000))
        assert window[0] == np.float32(int(0.375 * 32767) / 32767)

    def test_quiet_windows_are_left_out(self) -> None:
        samples = np.concatenate([noise(10).samples, noise(10, level=0.0005).samples])
        assert len(cut(Audio(samples, 48_000))) == 2
        assert cut(noise(10, level=0.0005)) == []

    def test_other_rates_are_resampled(self) -> None:
        (window,) = cut(noise(10, rate=44_100))
        assert len(window) == WINDOW


class TestMissing:
    @needs("torch")
    def test_without_weights_the_error_names_the_command(self) -> None:
        with pytest.raises(MissingError, match="doctor --fetch clap"):
            make_scorer("clap", ScorerDeps(ScoringSettings()))

    @needs("torch")
    def test_auto_is_acoustic_and_says_why(self) -> None:
        name, why = resolve_auto(ScoringSettings())
        assert name == "acoustic"
        assert "doctor --fetch clap" in why

    def test_the_laion_backend_names_its_extra(self) -> None:
        with pytest.raises(MissingError, match="laion-clap"):
            ClapScorer(ScoringSettings(clap_backend="laion-clap"))

    def test_a_name_that_is_none(self) -> None:
        assert clap.clap_missing(ScoringSettings(clap_model="no/such/folder/at all")) is not None


pytest_ml = pytest.mark.ml


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_clap import save_clap

    return save_clap(tmp_path_factory.mktemp("clap"))


def open_scorer(folder: Path, cache: ScoreCache | None = None) -> ClapScorer:
    return ClapScorer(ScoringSettings(clap_model=str(folder)), cache)


@pytest_ml
class TestScores:
    def test_auto_is_clap_where_it_can_run(self, folder: Path) -> None:
        assert resolve_auto(ScoringSettings(clap_model=str(folder)))[0] == "clap"

    def test_the_formula(self, folder: Path) -> None:
        scorer = open_scorer(folder)
        vibes = [f"a vibe number {i}, rather different each time" + "!" * i for i in range(6)]
        outcomes = scorer.score(vibes, [noise(10, seed=i, level=0.02 * (i + 1)) for i in range(6)])
        for outcome in outcomes:
            assert isinstance(outcome, Score)
            parts = outcome.parts
            assert parts["penalty"] == max(0.0, parts["audio_bad"] - parts["text_bad"])
            assert outcome.final_score == parts["similarity"] - parts["penalty"]
            assert all(-1.0001 <= parts[name] <= 1.0001 for name in ("similarity", "audio_bad", "text_bad"))

    def test_the_same_sound_has_the_same_score_to_the_last_digit_in_any_company(self, folder: Path) -> None:
        audios = [
            noise(seconds, seed=i) if i % 2 else tone(seconds, 200 + 90 * i)
            for i, seconds in enumerate((10, 12, 3, 25, 10))
        ]
        alone = [open_scorer(folder).score(["rain on a roof"], [audio])[0] for audio in audios]
        scorer = open_scorer(folder)
        together = scorer.score(["rain on a roof"] * 5, audios)
        backwards = scorer.score(["rain on a roof"] * 5, audios[::-1])[::-1]
        np.random.default_rng(1).shuffle(order := list(range(5)))
        shuffled = scorer.score(["rain on a roof"] * 5, [audios[i] for i in order])
        assert alone == list(together) == list(backwards)
        assert [alone[i] for i in order] == list(shuffled)

    def test_the_pool_is_the_mean_of_unit_vectors(self, folder: Path) -> None:
        scorer = open_scorer(folder)
        audio = noise(15)
        whole = scorer.embed([audio])[0]
        halves = [Audio(audio.samples[start : start + WINDOW], 48_000) for start in (0, HOP)]
        first, second = (scorer.embed([half])[0] for half in halves)
        assert isinstance(whole, np.ndarray)
        assert isinstance(first, np.ndarray)
        np.testing.assert_allclose(whole, clap.unit((first + second) / 2), atol=1e-6)
        assert np.linalg.norm(whole) == pytest.approx(1, abs=1e-6)

    def test_a_sound_whose_windows_are_all_quiet_has_no_score(self, folder: Path) -> None:
        quiet = noise(10, level=0.0005)
        outcomes = open_scorer(folder).score(["a", "b"], [quiet, noise(10)])
        assert getattr(outcomes[0], "reason", "") == "every window is below -60 dBFS"
        assert isinstance(outcomes[1], Score)

    def test_texts_and_the_bad_sound_are_embedded_once(self, folder: Path, tmp_path: Path) -> None:
        with ScoreCache(tmp_path / "scores.sqlite") as cache:
            scorer = open_scorer(folder, cache)
            vector = scorer.embed([noise(10)])[0]
            first = scorer.compare(["one", "two", "one"], np.stack([vector] * 3))
            assert scorer.counts == {"sounds": 1, "windows": 1, "texts": 2, "bad_sound": 1}
            again = open_scorer(folder, cache)
            assert again.compare(["one", "two", "one"], np.stack([vector] * 3)) == first
            assert not again.counts
            assert again._backend is None, "the model is not loaded for what is known"

    def test_the_work_of_a_run_is_what_it_must_be_and_no_more(
        self, folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """R rows with N valid candidates: R*N renders, R*N sounds by their windows, R texts, 1 bad sound."""
        from test_best_of import make_fake_worker

        from latentscore_data.core.base.workspace import Workspace
        from latentscore_data.core.scoring import renderer
        from latentscore_data.core.scoring.best_of import run_scoring

        monkeypatch.setattr(renderer, "make_worker", make_fake_worker)
        workspace = Workspace(root)
        echoes = ("none", "medium", "infinite")
        rows = [
            {
                **make_vibe(i, vibe=f"vibe number {i}").model_dump(mode="json"),
                "config_candidates": [make_payload(echo=echo, register_min_oct=i + 1) for echo in echoes],
            }
            for i in range(3)
        ]
        replace_rows(workspace.candidates, rows)
        settings = Settings(
            scoring=ScoringSettings(clap_model=str(folder), scorers=["auto"], seconds=12, workers=1)  # two windows each
        )
        summary = run_scoring(settings, workspace)
        assert summary.details["scorers"] == ["clap"]
        assert summary.details["renders"] == 9
        assert summary.details["model_work"] == {"clap": {"sounds": 9, "windows": 18, "texts": 3, "bad_sound": 1}}
        assert 0 <= summary.details["penalty_share"]["clap"] <= 1

    def test_a_part_of_the_fingerprint_is_the_weights(self, folder: Path, tmp_path: Path) -> None:
        from tiny_clap import save_clap

        assert open_scorer(folder).fingerprint == open_scorer(folder).fingerprint
        assert open_scorer(save_clap(tmp_path / "other", seed=1)).fingerprint != open_scorer(folder).fingerprint

    def test_a_collapsed_text_tower_is_refused_before_any_render(self, tmp_path: Path) -> None:
        from tiny_clap import save_clap

        scorer = open_scorer(save_clap(tmp_path / "collapsed", collapsed=True))
        settings = ScoringSettings(seconds=0.5, workers=1)
        with (
            ScoringService([scorer], settings, make_renderer=partial(LocalRenderer, render=render_by_root)) as service,
            pytest.raises(InputError, match="unrelated captions as similar"),
        ):
            service.score_one("x", make_payload())
        assert service.counts.renders == 0


def copy_of(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


@pytest_ml
class TestUnsafeAndWrongWeights:
    def test_a_truncated_file_is_refused(self, folder: Path, tmp_path: Path) -> None:
        broken = copy_of(folder, tmp_path / "broken")
        whole = (broken / "model.safetensors").read_bytes()
        (broken / "model.safetensors").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InputError, match="truncated"):
            open_scorer(broken)

    def test_a_pickle_under_another_name_is_refused_and_does_not_run(self, folder: Path, tmp_path: Path) -> None:
        broken = copy_of(folder, tmp_path / "broken")
        mark = tmp_path / "ran"
        (broken / "model.safetensors").write_bytes(pickle.dumps(Bomb(mark)))
        with pytest.raises(InputError, match="pickle"):
            open_scorer(broken)
        assert not mark.exists()

    def test_another_model_is_refused(self, folder: Path, tmp_path: Path) -> None:
        other = copy_of(folder, tmp_path / "other")
        config = json.loads((other / "config.json").read_text())
        (other / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
        with pytest.raises(InputError, match="no CLAP model"):
            open_scorer(other)

    def test_weights_that_lack_a_tower_or_a_tensor_are_refused(self, folder: Path, tmp_path: Path) -> None:
        from safetensors.numpy import load_file, save_file

        tensors = load_file(folder / "model.safetensors")
        half = copy_of(folder, tmp_path / "half")
        save_file({k: v for k, v in tensors.items() if not k.startswith("text_model")}, half / "model.safetensors")
        with pytest.raises(InputError, match="lacks text_model"):
            open_scorer(half)
        gap = copy_of(folder, tmp_path / "gap")
        gone = next(name for name in tensors if name.startswith("audio_model") and "layers" in name)
        save_file({k: v for k, v in tensors.items() if k != gone}, gap / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(InputError, match="lack 1 tensors"):
            open_scorer(gap).prepare()

    def test_a_folder_that_is_not_complete_names_what_it_lacks(self, folder: Path, tmp_path: Path) -> None:
        part = copy_of(folder, tmp_path / "part")
        (part / "preprocessor_config.json").unlink()
        with pytest.raises(MissingError, match=r"preprocessor_config\.json"):
            open_scorer(part)


class Bomb:
    """A pickle that leaves a mark when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


@pytest_ml
class TestLaionBackend:
    @pytest.fixture
    def package(self, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
        """Stands in for the package, which needs another numpy: the same calls, a model of one layer."""
        import torch

        class Module:
            def __init__(self, enable_fusion: bool, device: str) -> None:
                print("some banner on stdout")
                self.model = torch.nn.Linear(4, 3)
                self.shapes: list[tuple[int, ...]] = []

            def get_audio_embedding_from_data(self, x: np.ndarray, use_tensor: bool) -> np.ndarray:
                self.shapes.append(x.shape)
                first = torch.from_numpy(x[:, :400_000].reshape(len(x), 4, -1).std(axis=2))
                return self.model(first).detach().numpy()

            def get_text_embedding(self, texts: list[str], use_tensor: bool) -> np.ndarray:
                rows = [np.random.default_rng(sum(text.encode())).standard_normal(3) for text in texts]
                return np.array(rows, dtype=np.float32)

        package = types.ModuleType("laion_clap")
        package.CLAP_Module = Module  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "laion_clap", package)
        monkeypatch.setattr(clap, "require", lambda *_: None)
        monkeypatch.setattr(clap, "refuse_collapsed", lambda _: None)
        return package

    def checkpoint(self, path: Path, **extra: Any) -> Path:
        import torch

        state = {f"module.{name}": value for name, value in torch.nn.Linear(4, 3).state_dict().items()}
        torch.save({"epoch": 3, "state_dict": state, **extra}, path)
        return path

    def settings(self, path: Path, **changes: Any) -> ScoringSettings:
        return ScoringSettings(clap_backend="laion-clap", clap_model=str(path), **changes)

    def test_it_scores_and_keeps_stdout_clean(
        self, package: types.ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        scorer = ClapScorer(self.settings(self.checkpoint(tmp_path / "clap.pt")))
        (outcome,) = scorer.score(["rain"], [noise(12)])
        assert isinstance(outcome, Score)
        assert capsys.readouterr().out == ""
        assert scorer._backend._clap.shapes == [(8, WINDOW)]  # type: ignore[union-attr]

    def test_a_pickle_that_runs_code_is_refused_unless_its_hash_is_trusted(
        self, package: types.ModuleType, tmp_path: Path
    ) -> None:
        mark = tmp_path / "ran"
        path = self.checkpoint(tmp_path / "clap.pt", bomb=Bomb(mark))
        with pytest.raises(InputError, match="without running code") as refused:
            ClapScorer(self.settings(path)).prepare()
        assert not mark.exists()
        sha256 = clap.weights_digest(path)
        assert sha256 in refused.value.remedy
        ClapScorer(self.settings(path, clap_sha256=sha256)).prepare()
        assert mark.exists()

    def test_truncated_and_foreign_files_are_refused_at_once(self, package: types.ModuleType, tmp_path: Path) -> None:
        path = self.checkpoint(tmp_path / "clap.pt")
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(InputError, match="truncated"):
            ClapScorer(self.settings(path))
        path.write_text("hello")
        with pytest.raises(InputError, match="not a PyTorch checkpoint"):
            ClapScorer(self.settings(path))

    def test_a_checkpoint_of_another_model_does_not_fit(self, package: types.ModuleType, tmp_path: Path) -> None:
        import torch

        path = tmp_path / "clap.pt"
        torch.save({"state_dict": torch.nn.Linear(7, 2).state_dict()}, path)
        with pytest.raises(InputError, match="does not match"):
            ClapScorer(self.settings(path)).prepare()


@pytest.mark.ml
@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_real_size_fits_into_memory_and_repeats_itself(tmp_path: Path) -> None:
    """Prints clips per second; the weights are random, the shapes and the code are the real ones."""
    import subprocess

    code = """
import json, psutil, sys, time
import numpy as np
from pathlib import Path
from latentscore import Audio
from latentscore_data.core.scoring.clap import ClapScorer
from latentscore_data.core.base.settings import ScoringSettings
scorer = ClapScorer(ScoringSettings(clap_model=sys.argv[1]))
scorer.prepare()
rng = np.random.default_rng(0)
audios = [Audio((rng.standard_normal((480_000, 2)) * 0.1).astype(np.float32), 48_000) for _ in range(8)]
started = time.perf_counter()
together = [vector.tobytes() for vector in scorer.embed(audios)]
seconds = time.perf_counter() - started
again = scorer.embed(audios[7:])[0].tobytes()
# Not getrusage: what it calls the peak of a process begins with the size of the one that started it.
found = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")] if sys.platform == "linux" else []
peak = int(found[0].split()[1]) * 1024 if found else psutil.Process().memory_info().rss
print(json.dumps({"clips_per_second": 8 / seconds, "gigabytes": peak / 1e9, "same": again == together[7]}))
"""
    from tiny_clap import save_clap

    folder = save_clap(tmp_path / "real", small=False)
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    measured = json.loads(done.stdout.splitlines()[-1])
    print(
        f"CLAP of the real size: {measured['clips_per_second']:.2f} clips of 10 s per second, {measured['gigabytes']:.2f} GB"
    )
    assert measured["same"]
    assert measured["gigabytes"] < 3.0
