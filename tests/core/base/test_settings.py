from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentscore_data.core.base.errors import InputError, LsdataError
from latentscore_data.core.base.settings import chosen, load_settings, resolve_settings


def settings_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "latentscore.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_later_wins_default_file_environment_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = settings_file(tmp_path, "[configs]\nn = 2\ntemperature = 0.2\nseed = 5\n")
    monkeypatch.setenv("LSDATA_CONFIGS__N", "3")
    monkeypatch.setenv("LSDATA_CONFIGS__TEMPERATURE", "0.3")
    settings = load_settings(path, configs=chosen(n=4, seed=None))
    assert (settings.configs.n, settings.configs.temperature, settings.configs.seed) == (4, 0.3, 5)
    assert settings.configs.vibes_per_call == 1
    origins = resolve_settings(path, configs=chosen(n=4)).origins
    assert origins["configs.n"] == "flag"
    assert origins["configs.temperature"] == "LSDATA_CONFIGS__TEMPERATURE"
    assert origins["configs.seed"] == str(path)
    assert origins["configs.vibes_per_call"] == "default"


@pytest.mark.parametrize("text", ["[train.checkpoint]\nearly_stopping_patience = ''\n", "[llm]\nmax_cost = ''\n"])
def test_an_empty_text_leaves_a_value_open_that_may_be_open(tmp_path: Path, text: str) -> None:
    settings = load_settings(settings_file(tmp_path, text), llm={"api_base": ""})
    assert settings.llm.max_cost is None
    assert settings.llm.api_base is None
    assert settings.train.checkpoint.early_stopping_patience == (None if "patience" in text else 3)


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LLM__MAX_COST", "LLM__API_BASE", "LLM__MODEL", "PATHS__ROOT", "CONFIGS__N"):
        monkeypatch.setenv(f"LSDATA_{name}", "")
    resolved = resolve_settings()
    assert resolved.value == load_settings()
    assert set(resolved.origins.values()) == {"default"}
    assert resolved.value.paths.root == Path("data_work")


def test_the_data_root_may_lie_in_the_home_folder_and_is_never_empty(tmp_path: Path) -> None:
    assert load_settings(settings_file(tmp_path, "[paths]\nroot = '~/ls'\n")).paths.root == Path.home() / "ls"
    with pytest.raises(InputError, match="a folder must be named"):
        load_settings(settings_file(tmp_path, "[paths]\nroot = ' '\n"))


def test_every_path_may_lie_in_the_home_folder(tmp_path: Path) -> None:
    text = "[check]\nsuites = ['~/a.jsonl']\n[search]\nmap = '~/map'\n[export]\nname = '~nobody-there'\nterms = '~/t'\n"
    settings = load_settings(settings_file(tmp_path, text), export={"tokenizer": Path("~/b.gguf")})
    home = Path.home()
    assert settings.check.suites == [home / "a.jsonl"]
    assert (settings.search.map, settings.export.terms) == (home / "map", home / "t")
    assert (settings.export.tokenizer, settings.export.name) == (home / "b.gguf", "~nobody-there")


def test_the_file_in_the_working_folder_is_read() -> None:
    Path("latentscore.toml").write_text("[configs]\nn = 7\n")
    assert load_settings().configs.n == 7


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[configs]\nnn = 3\n", "unknown setting configs.nn (did you mean n?)"),
        (
            "[configs]\nbatch_size = 1\n",
            "unknown setting configs.batch_size (it is now configs.vibes_per_call)",
        ),
        ("[dedupe]\nmodel = 'hashing'\n", "dedupe.model: hashing was removed in version 0.2; use words or auto"),
        ("[export]\nembedder = 'hashing'\n", "export.embedder: hashing was removed in version 0.2"),
        ("[config]\nn = 3\n", "unknown section config (did you mean configs?)"),
        ("[bogus]\nn = 3\n", "unknown section bogus (known: paths, "),
        ("[train.optim]\nlr = 1\n", "unknown setting train.optim.lr (did you mean learning_rate?)"),
        ("[configs]\nsplits = ['sft-train']\n", "configs.splits.0: input should be 'SFT-Train', "),
        (
            "[splits]\ntest = 0.9\nval = 0.5\n",
            "splits: test, val and grpo are shares of all sources and add up to 1.65",
        ),
        ("[configs]\nn = 'three'\n", "configs.n: input should be a valid integer"),
        ("[configs]\nn = 0\n", "configs.n: input should be greater than or equal to 1"),
        ("[configs\nn = 0\n", "line 1"),
        ("a = " + "[" * 5000, "nested too deeply"),
        ("[llm]\napi_key = 'sk-1234567890abcdef'\n", "llm.api_key looks like a secret key"),
        ("[llm]\nmodel = 'hf_abcdefghijklmnopqrst'\n", "llm.model looks like a secret key"),
        ("[download]\nhf_token = 'x'\n", "download.hf_token looks like a secret key"),
    ],
)
def test_what_is_wrong_in_the_file_is_one_line_with_a_remedy(tmp_path: Path, text: str, says: str) -> None:
    path = settings_file(tmp_path, text)
    with pytest.raises(InputError) as caught:
        load_settings(path)
    assert says in caught.value.message
    assert "latentscore.toml" in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.remedy


def test_an_item_of_a_list_comes_from_where_the_list_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"^flag: configs\.splits\.0"):
        load_settings(settings_file(tmp_path, "[configs]\nn = 2\n"), configs={"splits": ["x"]})
    monkeypatch.setenv("LSDATA_CONFIGS__SPLITS", '["x"]')
    with pytest.raises(InputError, match=r"^LSDATA_CONFIGS__SPLITS: configs\.splits\.0"):
        load_settings()


def test_a_key_in_the_file_is_not_repeated_in_the_message(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_settings(settings_file(tmp_path, "[llm]\napi_key = 'sk-1234567890abcdef'\n"))
    assert "1234567890" not in str(caught.value)


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load_settings(tmp_path / "nope.toml")


def test_a_misspelt_variable_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSDATA_CONFIG__N", "3")
    with pytest.raises(InputError, match=r"LSDATA_CONFIG__N is not a setting \(did you mean LSDATA_CONFIGS\?\)"):
        load_settings()


def test_a_misspelt_variable_of_a_known_section_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSDATA_CONFIGS__NN", "3")
    with pytest.raises(InputError, match=r"LSDATA_CONFIGS__NN: unknown setting configs\.nn"):
        load_settings()


@given(st.binary(max_size=200))
def test_any_bytes_are_settings_or_one_clear_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "latentscore.toml"
    path.write_bytes(data)
    with contextlib.suppress(LsdataError):
        load_settings(path)
