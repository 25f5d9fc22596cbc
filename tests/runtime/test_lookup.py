"""Maps: written by the exporter, opened by the music package, and refused when they cannot be trusted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import latentscore
from factories import make_payload, make_scored
from forked import python
from latentscore import MapError, load_map, lookup, vibe_map
from latentscore.embed import EmbedderError, WordVectorEmbedder
from latentscore_data.core.export.maps import verify_map, write_map

FINGERPRINT = WordVectorEmbedder().fingerprint
VIBES = ("rain on a tin roof", "neon city at night", "a lonely lighthouse", "children laughing in a meadow")


class OtherEmbedder(WordVectorEmbedder):
    def __init__(self) -> None:
        super().__init__()
        self.fingerprint = "other/embedder:1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    embedder = WordVectorEmbedder()
    rows = [
        make_scored(i, vibe_original=vibe, config_payload=make_payload(f"Title {i}"), split="GRPO")
        for i, vibe in enumerate(VIBES)
    ]
    folder = tmp_path / "map-text"
    folder.mkdir()
    facts = write_map(
        folder,
        [*rows, make_scored(9, config_payload=None)],
        "text",
        lambda batch: embedder.embed([row.vibe_original for row in batch]),
        embedder.fingerprint,
    )
    assert (facts.rows, facts.dim, facts.without_config) == (4, 128, 1)
    verify_map(folder, facts, lambda text: embedder.embed([text])[0])
    return folder


@pytest.mark.parametrize("file", ["", "map.safetensors", "map.jsonl"])
def test_a_vibe_finds_its_own_row_and_a_near_one_finds_the_nearest(folder: Path, file: str) -> None:
    vibe_map = load_map(folder / file)
    for i, vibe in enumerate(VIBES):
        match = lookup(vibe_map, vibe)
        assert (match.index, match.vibe, match.title) == (i, vibe, f"Title {i}")
        assert match.similarity == pytest.approx(1, abs=1e-5)
    assert lookup(vibe_map, "rain on an old roof of tin").vibe == VIBES[0]


def test_a_match_is_ready_to_be_played_and_painted(folder: Path) -> None:
    match = latentscore.lookup(folder, VIBES[1])
    assert match.config.to_config().root == "c"
    assert len(match.palettes) == 3
    assert match.row["split"] == "GRPO"
    assert match.row["dataset"] == "moby-dick"


def test_nearest_agrees_with_brute_force_and_keeps_the_order_of_equals(folder: Path) -> None:
    vibe_map = load_map(folder)
    question = np.random.default_rng(3).standard_normal(128).astype(np.float32)
    cosines = [float(np.dot(row, question) / np.linalg.norm(question)) for row in vibe_map.embeddings]
    found = vibe_map.nearest(question, k=3)
    assert [match.index for match in found] == list(np.argsort(cosines)[::-1][:3])
    assert [match.similarity for match in found] == pytest.approx(sorted(cosines, reverse=True)[:3], abs=1e-6)
    assert len(vibe_map.nearest(question, k=100)) == 4


def test_embeddings_stay_in_the_file_and_rows_are_parsed_when_asked_for(folder: Path) -> None:
    rows = folder / "rows.jsonl"
    whole = rows.read_bytes()
    first_end = whole.index(b"\n")
    rows.write_bytes(b"?" * first_end + whole[first_end:])
    vibe_map = load_map(folder)
    assert isinstance(vibe_map.embeddings, np.memmap)
    assert vibe_map.rows[1]["vibe_original"] == VIBES[1]
    with pytest.raises(MapError, match=r"rows\.jsonl:1: not valid JSON"):
        vibe_map.rows[0]


def test_the_published_field_names(folder: Path) -> None:
    row = json.loads((folder / "map.jsonl").read_text().splitlines()[0])
    assert set(row) == {
        "row_id", "vibe_original", "embedding", "embedding_model", "title", "config", "palettes", "split", "dataset",
        "id_in_dataset",
    }  # fmt: skip
    assert np.linalg.norm(row["embedding"]) == pytest.approx(1, abs=1e-6)


def test_a_published_file_with_raw_embeddings_and_no_model_needs_an_embedder(tmp_path: Path) -> None:
    embedder = WordVectorEmbedder()
    path = tmp_path / "published.jsonl"
    lines = [
        {"vibe_original": vibe, "embedding": (3.5 * embedder.embed([vibe])[0]).tolist(), **make_payload()}
        for vibe in VIBES
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    assert lookup(path, VIBES[2], embedder=embedder).similarity == pytest.approx(1, abs=1e-5)
    with pytest.raises(MapError, match="does not name its embedder"):
        lookup(path, VIBES[2])


@pytest.mark.parametrize("file", ["map.safetensors", "map.jsonl"])
def test_another_embedder_is_refused(folder: Path, file: str) -> None:
    with pytest.raises(MapError, match=rf"was made with the embedder {FINGERPRINT}, not other/embedder:1"):
        lookup(load_map(folder / file), "rain", embedder=OtherEmbedder())


def test_an_embedder_that_is_not_here_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise EmbedderError(f"the weights of {name} are missing or damaged")

    monkeypatch.setattr("latentscore.embed.MiniLMEmbedder", absent)
    path = folder / "map.jsonl"
    path.write_text(path.read_text().replace(FINGERPRINT, "nobody/has-this-model:abc"))
    with pytest.raises(MapError, match="nobody/has-this-model"):
        lookup(path, "rain")


@pytest.mark.parametrize("file", ["map.jsonl", "map.safetensors"])
def test_a_map_of_the_embedder_of_0_1_says_what_to_do(folder: Path, file: str) -> None:
    path, old = folder / file, "builtin/hashing:1:512"
    path.write_bytes(path.read_bytes().replace(FINGERPRINT.encode(), old.ljust(len(FINGERPRINT), "2").encode()))
    with pytest.raises(MapError, match=rf"made with the embedder {old}.*removed in version 0.2; .* export maps again"):
        lookup(path, "rain")


def _cut_rows(folder: Path) -> None:
    rows = folder / "rows.jsonl"
    rows.write_bytes(rows.read_bytes()[:-5])


def _cut_tensors(folder: Path) -> None:
    tensors = folder / "map.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-100])


def _other_tensors(folder: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"weight": np.zeros(3, np.float32)}, folder / "map.safetensors")


def _wrong_shape(folder: Path) -> None:
    from safetensors.numpy import save_file

    tensors = {"embedding": np.zeros((4, 8), np.float64), "row_ends": np.arange(1, 5)}
    about = {"format": "latentscore-map/1", "kind": "text", "embedder": "x"}
    save_file(tensors, folder / "map.safetensors", metadata={"map": json.dumps(about)})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut_rows, "does not belong to its map.safetensors"),
        (_cut_tensors, "cannot be read as safetensors"),
        (_other_tensors, "not a map of this version"),
        (_wrong_shape, "embedding has the type F64"),
        (lambda folder: (folder / "rows.jsonl").unlink(), "rows.jsonl is missing"),
    ],
)
def test_a_damaged_map_is_refused_with_a_reason(folder: Path, damage, message: str) -> None:
    damage(folder)
    with pytest.raises(MapError, match=message):
        load_map(folder)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{}", "no embedding"),
        ("[1]", "no embedding"),
        ('{"embedding": [1, 0], "config": {}}', "the field vibe_original is missing"),
        ('{"embedding": [1, 0], "vibe_original": "a", "config": {}}\n{"embedding": [1], "vibe_original": "b", "config": {}}', ":2: an embedding of"),
        ('{"embedding": [0, 0], "vibe_original": "a", "config": {}}', "empty or not finite"),
        ('{"embedding": ["x"], "vibe_original": "a", "config": {}}', "not a row of a map"),
        ('{"embedding": [1%s], "vibe_original": "a", "config": {}}' % ("0" * 400), "not a row of a map"),
        ("", "is an empty map"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "map.jsonl"
    path.write_text(line)
    with pytest.raises(MapError, match=message):
        load_map(path)


def test_rows_of_different_embedders_cannot_be_compared(folder: Path) -> None:
    path = folder / "map.jsonl"
    path.write_text(path.read_text().replace("builtin/words", "other/model", 1))
    with pytest.raises(MapError, match="rows of different embedders"):
        load_map(path)


@pytest.mark.parametrize(
    ("vector", "message"),
    [(np.ones(3, np.float32), "128 dimensions"), (np.zeros(128, np.float32), "empty or not finite")],
)
def test_a_question_that_cannot_be_compared(folder: Path, vector: np.ndarray, message: str) -> None:
    with pytest.raises(MapError, match=message):
        load_map(folder).nearest(vector)


def test_a_folder_without_a_map(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(MapError, match="lsdata export map"):
            load_map(path)


def test_a_map_of_sound_says_what_it_needs(tmp_path: Path) -> None:
    def vectors(batch: Sequence[object]) -> np.ndarray:
        return np.eye(8, dtype=np.float32)[: len(batch)]

    write_map(tmp_path, [make_scored(i) for i in range(3)], "audio", vectors, "clap:tiny")
    assert "clap_audio_embedding" in json.loads((tmp_path / "map.jsonl").read_text().splitlines()[0])
    vibe_map = load_map(tmp_path)
    assert vibe_map.nearest(np.eye(8, dtype=np.float32)[2])[0].index == 2
    with pytest.raises(MapError, match="audio embeddings"):
        lookup(vibe_map, "rain")


def test_a_line_without_an_end_is_refused_and_not_read(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "endless.jsonl"
    with path.open("wb") as file:
        file.write((folder / "map.jsonl").read_bytes())
        file.truncate(2**31)  # two gibibytes of nothing, which take no room on the disk
    code = (
        "import resource, sys; from latentscore import MapError, load_map\n"
        "resource.setrlimit(resource.RLIMIT_AS, (3 * 2**29, 3 * 2**29))\n"
        "try: load_map(sys.argv[1])\nexcept MapError as error: print(error)"
    )
    said = python("-c", code, path, env={"OPENBLAS_NUM_THREADS": "1"}).stdout
    assert "endless.jsonl:5: the line is longer than 8 MiB" in said


def test_a_row_that_no_row_can_be_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vibe_map, "MAX_LINE_BYTES", 100)
    with pytest.raises(MapError, match=r"rows\.jsonl:1: the line is longer"):
        load_map(folder).rows[0]
