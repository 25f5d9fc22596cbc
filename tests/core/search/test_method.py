"""The space, the prior, the surrogate and the method of the search, on made-up scores."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from factories import make_config
from latentscore import MusicConfigPrompt, random_config
from latentscore.labels import FIELDS
from latentscore_data.core.search.method import Method, Prediction
from latentscore_data.core.search.prior import make_prior, named_fields, share_kept
from latentscore_data.core.search.searcher import one_thread
from latentscore_data.core.search.space import NAMES, Codes, Floats, decode, drawn, encode, mixed, uniform
from latentscore_data.core.search.surrogate import Surrogate


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


TEMPO, SPACE, DENSITY, PAD = (NAMES.index(name) for name in ("tempo", "space", "density", "pad"))


def some(count: int, seed: int = 0) -> Codes:
    rng = np.random.default_rng(seed)
    return encode([random_config(rng).model_dump() for _ in range(count)])


def sound(codes: Codes) -> Floats:
    """Two dimensions: a sum of fields, and a pair of fields that matter together."""
    tempo, space, density = (codes[:, at].astype(float) for at in (TEMPO, SPACE, DENSITY))
    pad = np.array([0.0, 3.0, 1.0, -2.0, 0.5, 2.0, -1.0])[codes[:, PAD]]
    return np.stack([tempo - 0.5 * space + pad, (density > 2) * pad * 2 + tempo], axis=1)


def test_codes_stand_for_configs_and_every_move_is_a_valid_config() -> None:
    rng = np.random.default_rng(0)
    configs = [random_config(rng).model_dump() for _ in range(20)]
    codes = encode(configs)
    assert [decode(code) for code in codes] == configs
    for code in (*mixed(codes, 60, uniform(), rng, moves=6), *drawn(uniform(), 60, rng)):
        MusicConfigPrompt(**decode(code))


def test_the_surrogate_knows_single_fields_and_pairs_and_says_so_on_configs_it_has_not_seen() -> None:
    codes = some(240)
    surrogate = Surrogate.fit(codes, sound(codes))
    new = some(60, seed=1)
    missed = ((surrogate.predict(new) - sound(new)) ** 2).sum(axis=0)
    spread = ((sound(new) - sound(new).mean(axis=0)) ** 2).sum(axis=0)
    assert (1 - missed / spread > 0.85).all()
    assert surrogate.r2 > 0.85
    assert surrogate.uncertainty(codes[:20]).mean() < surrogate.uncertainty(new).mean()


def test_the_surrogate_of_noise_says_that_it_knows_nothing() -> None:
    noise = np.random.default_rng(3).standard_normal((160, 2))
    assert Surrogate.fit(some(160), noise).r2 < 0.1


def test_the_surrogate_learns_from_what_is_rendered_later() -> None:
    codes, strange = some(120), some(6, seed=5)
    surrogate = Surrogate.fit(codes, sound(codes))
    told = surrogate.with_more(strange, sound(strange) + 3.0)
    before, after = (abs(one.predict(strange) - sound(strange) - 3.0).mean() for one in (surrogate, told))
    assert after < 0.6 * before


def test_vectors_of_many_dimensions_stay_unit_vectors() -> None:
    codes = some(150)
    vectors = (sound(codes) + 9.0) @ np.random.default_rng(0).standard_normal((2, 64))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    predicted = Surrogate.fit(codes, vectors).predict(some(10, seed=2))
    assert predicted.shape == (10, 64)
    assert np.linalg.norm(predicted, axis=1) == pytest.approx(1.0)


def climb(
    keep: float, prediction: Prediction | None, vibe: str = "a slow piece in D minor", rounds: int = 5
) -> tuple[Codes, Floats]:
    """A search for the fastest config in F."""
    start = make_config(tempo="slow", root="d", mode="minor")
    method = Method(make_prior(vibe, [start], [], keep, near=0.1 * keep), np.random.default_rng(0))

    def told(codes: Codes) -> None:
        method.tell(codes, truth(codes))

    told(encode([start]))
    for _ in range(rounds):
        told(method.ask(12, prediction))
    return method.codes, method.gains


ROOT = NAMES.index("root")


def truth(codes: Codes) -> Floats:
    in_f = codes[:, ROOT] == FIELDS["root"].labels.index("f")
    return 0.2 * codes[:, TEMPO] + 0.2 * in_f + 0.2 * codes[:, SPACE]


SEES_ALL = Prediction(truth, lambda codes: np.zeros(len(codes)))


@pytest.mark.parametrize("prediction", [None, SEES_ALL])
def test_the_search_climbs_and_keeps_what_the_vibe_names(prediction: Prediction | None) -> None:
    codes, gains = climb(1.0, prediction)
    best = decode(codes[int(gains.argmax())])
    assert (best["tempo"], best["root"], best["mode"]) == ("slow", "d", "minor")
    assert FIELDS["space"].labels.index(best["space"]) > FIELDS["space"].labels.index("medium")
    assert len({code.tobytes() for code in codes}) == len(codes), "nothing is rendered twice"


def test_without_a_prior_the_guide_alone_decides() -> None:
    codes, gains = climb(0.0, SEES_ALL)
    best = decode(codes[int(gains.argmax())])
    assert (best["tempo"], best["root"], best["space"]) == ("very_fast", "f", "vast")


def test_the_same_search_again_asks_for_the_same_configs() -> None:
    assert np.array_equal(climb(1.0, SEES_ALL)[0], climb(1.0, SEES_ALL)[0])


def test_a_named_field_may_also_be_what_most_candidates_made_of_it() -> None:
    named = named_fields(
        "a slow waltz in D minor", [make_config(root="d#"), make_config(root="d#"), make_config(root="c")]
    )
    assert named["root"] == {"d", "d#"}
    assert (
        share_kept(
            make_config(tempo="slow", root="c", mode="minor"), {"root": named["root"], "mode": frozenset({"minor"})}
        )
        == 0.5
    )
    assert share_kept(make_config(), {}) is None
