"""An address that no call could reach is an error before anything else, and says what is wrong with it."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Lsdata
from latentscore_data.core.base.errors import InputError
from latentscore_data.core.base.proxies import check_address, is_loopback
from latentscore_data.core.base.settings import load_settings

SLIPS = [
    ("http://127.0.0.1:99999/v1", "port"),
    ("http://127.0.0.1:0/v1", "port"),
    ("http://127.0.0.1:-1/v1", "port"),
    ("http://127.0.0.1:port/v1", "port"),
    ("http://[::1]:x", "port"),
    ("http://[::1/v1", "not an address"),
    ("http://::1]/v1", "not an address"),
    ("127.0.0.1:8080/v1", "write http://127.0.0.1:8080/v1"),
    ("localhost:8080", "no scheme"),
    ("//127.0.0.1:80", "write http://127.0.0.1:80"),
    ("[::1]:80", "no scheme"),
    ("ftp://127.0.0.1/v1", "http://"),
    ("http://", "no host"),
    ("http:///v1", "no host"),
    ("http://:8080/v1", "no host"),
    ("http://.../v1", "not an address"),
    ("http://127.0.0.1 :80/v1", "white space"),
    ("http://127.0.0.1:80/v1\n", "white space"),
    ("http://me:word@127.0.0.1/v1", "password"),
    ("http://exa\uff0fmple.com/", "not an address"),
]
GOOD = [
    "http://127.0.0.1:8080/v1",
    "https://example.org",
    "http://[::1]:80/v1",
    "http://localhost/",
    "HTTP://a.b:65535/x?y=1",
]


@pytest.mark.parametrize(("address", "words"), SLIPS)
def test_a_slip_is_named(address: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        load_settings(llm={"api_base": address})
    assert words in caught.value.message
    assert "llm.api_base" in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("address", GOOD)
def test_an_address_is_taken_as_it_is(address: str) -> None:
    assert load_settings(llm={"api_base": address}).llm.api_base == address


def test_every_command_that_calls_models_refuses_a_slip(lsdata: Lsdata) -> None:
    for command in (["vibes", "--dry-run"], ["configs", "--dry-run"]):
        out = lsdata(*command, "--model", "mine", "--api-base", "http://127.0.0.1:99999/v1")
        assert (out.returncode, "the port must be a number" in out.stderr) == (2, True), out.stderr
    out = lsdata("doctor", env={"LSDATA_LLM__API_BASE": "127.0.0.1:8080/v1"})
    assert (out.returncode, "write http://127.0.0.1:8080/v1" in out.stderr) == (2, True), out.stderr


@given(
    st.text() | st.text(st.sampled_from("htps:/[]@.%?#0123456789abc"), max_size=30).map(lambda rest: f"http://{rest}")
)
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    is_loopback(text)
    with contextlib.suppress(ValueError):
        check_address(text)
