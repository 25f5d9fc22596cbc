from __future__ import annotations

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from latentscore.seeds import digest, rng_for, seed_for, unit_hash


@given(st.lists(st.text()), st.lists(st.text()))
def test_a_digest_knows_where_its_parts_end(one: list[str], other: list[str]) -> None:
    assert (digest(*one) == digest(*other)) == (one == other)


def test_a_digest_is_the_same_in_every_process() -> None:
    code = "from latentscore.seeds import digest; print(digest('a', 1, frozenset('abcdef'), {'x': 1}))"
    found = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
        for _ in range(3)
    }
    assert len(found) == 1


@given(st.text(), st.integers())
def test_seeds_and_shares_stay_in_their_range_and_depend_on_the_parts_alone(name: str, number: int) -> None:
    assert 0 <= seed_for(name, number) < 2**63
    assert 0 <= unit_hash(name, number) < 1
    assert rng_for(name, number).random() == rng_for(name, number).random()
