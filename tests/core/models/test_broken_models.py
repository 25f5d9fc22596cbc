"""Base models and adapters as people have them: cut, half copied, without an end, with a template that fails."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import here, needs
from latentscore_data.core.base.errors import InputError, LsdataError, MissingError
from latentscore_data.core.base.workspace import Workspace
from latentscore_data.core.models.base_models import load_base, load_tokenizer, load_trained, weights_digest
from latentscore_data.core.models.runs import RunFolder
from tiny_models import change_json, tiny_qwen3, trained_run
from training_runs import train, write_rows

pytestmark = [needs("peft"), pytest.mark.ml, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_qwen3(tmp_path_factory.mktemp("whole") / "qwen")


@pytest.fixture
def base(whole: Path, tmp_path: Path) -> Path:
    """A copy of a tiny base model that a test may break."""
    shutil.copytree(whole, tmp_path / "bm")
    return tmp_path / "bm"


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    return trained_run(tmp_path / "runs", "lora", str(base)).final


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def a_list(path: Path) -> None:
    path.write_bytes(b"[1, 2]")


BREAKS: tuple[Callable[[Path], None], ...] = (cut, empty, zeros, a_list)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("break_", BREAKS)
def test_a_broken_file_of_a_base_model_is_refused_with_its_place(
    base: Path, name: str, break_: Callable[[Path], None]
) -> None:
    break_(base / name)
    with pytest.raises(LsdataError) as error:
        load_base(str(base))
    assert str(base) in error.value.message
    assert "\n" not in error.value.message
    if break_ is not a_list:
        assert isinstance(error.value, InputError)
        assert f"{name} is damaged" in error.value.message


def test_a_model_whose_files_lack_weights_is_not_filled_with_random_ones(base: Path) -> None:
    from safetensors.numpy import load_file, save_file

    weights = load_file(base / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lack 1 weights, .*up_proj"):
        load_base(str(base))


def test_a_missing_file_is_a_missing_thing(base: Path) -> None:
    (base / "config.json").unlink()
    with pytest.raises(MissingError, match="cannot be loaded"):
        load_base(str(base))


@pytest.mark.parametrize("end", ["with a padding", "with neither"])
def test_a_tokenizer_without_an_end_is_refused(base: Path, end: str) -> None:
    config = json.loads((base / "tokenizer_config.json").read_text())
    config.pop("eos_token")
    if end == "with neither":
        config.pop("pad_token")
    (base / "tokenizer_config.json").write_text(json.dumps(config))
    for load in (load_base, load_tokenizer):
        with pytest.raises(InputError, match="no end-of-sequence token"):
            load(str(base))


TEMPLATES = {
    "refuses a system message": "{% for m in messages %}{% if m.role == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}{{ m.content }}{% endfor %}",
    "is no template": "{% for m in messages %}{{ m.content }}",
    "names what is not there": "{{ messages[9].content.nothing }}",
    "divides by zero": "{{ 1 / 0 }}",
    "drops the system message": "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}",
    "says nothing": "nothing",
}


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_that_fails_or_drops_words_is_refused(base: Path, template: str) -> None:
    (base / "chat_template.jinja").write_text(TEMPLATES[template])
    for load in (load_base, load_tokenizer):
        with pytest.raises(InputError, match=f"chat template of {base}"):
            load(str(base))


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", "tokenizer.json"])
@pytest.mark.parametrize("break_", BREAKS)
def test_a_broken_file_of_an_adapter_is_refused_with_its_place(
    adapter: Path, name: str, break_: Callable[[Path], None]
) -> None:
    break_(adapter / name)
    with pytest.raises(InputError) as error:
        load_trained(adapter)
    assert str(adapter) in error.value.message


@pytest.mark.parametrize("value", [None, "", 3, ["a"], {}])
def test_an_adapter_that_names_no_base_is_refused(adapter: Path, value: Any) -> None:
    change_json(adapter / "adapter_config.json", base_model_name_or_path=value)
    with pytest.raises(InputError, match="does not name a base model"):
        load_trained(adapter)


def test_an_adapter_that_lacks_weights_is_refused(adapter: Path) -> None:
    from safetensors.numpy import load_file, save_file

    weights = load_file(adapter / "adapter_model.safetensors")
    del weights[sorted(weights)[0]]
    save_file(weights, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="does not match its base"):
        load_trained(adapter)


def test_an_adapter_without_its_base_says_where_it_looked(adapter: Path, base: Path) -> None:
    change_json(adapter / "adapter_config.json", base_model_name_or_path="./elsewhere/bm")
    with pytest.raises(MissingError, match=r"\./elsewhere/bm cannot be loaded: there is no such file") as error:
        load_trained(adapter)
    assert "adapter_config.json" in error.value.remedy


# --- a trained adapter ------------------------------------------------------------------------------------------------


@pytest.fixture
def trained(base: Path, root: Path, short_prompt: None, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A LoRA run on a base that was named ``./bm``."""
    workspace = Workspace(root)
    write_rows(workspace)
    with monkeypatch.context() as patch:
        patch.chdir(base.parent)
        return train(
            workspace, "sft", "optim.max_steps=1", "checkpoint.every_steps=1", "limit=4", "method=lora",
            base_model="./bm", run_id="on-bm",
        )  # fmt: skip


def test_an_adapter_is_exported_from_another_folder(trained: RunFolder, root: Path, base: Path) -> None:
    assert json.loads((trained.final / "base.json").read_text()) == {
        "name": str(base),
        "weights": weights_digest(load_base(str(base)).model),
    }
    here("export", "model", "on-bm", "--root", str(root), code=0)
    exported = root / ".exports" / "on-bm"
    for name in ("README.md", "export.json", "training.json"):
        text = (exported / name).read_text()
        assert "bm" in text
        assert str(base.parent) not in text, f"{name} tells of the folders of this machine"


def test_a_base_that_changed_since_training_is_noticed(trained: RunFolder, root: Path, base: Path) -> None:
    from safetensors.numpy import load_file, save_file

    load_trained(trained.final)
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] * 1.1
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="differ from those that the adapter"):
        load_trained(trained.final)
    out = here("export", "model", "on-bm", "--root", str(root), code=2)
    assert "restore the base's old weights" in out.stderr
