from __future__ import annotations

import json
import os
import pickle
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn
from typer.testing import CliRunner

from tests.raising import raises
from tests.training.escapes import try_all
from tests.training.tiny import clip_config, write_clip, write_viclip
from vidseek.cli import app
from vidseek_media.decoding.sandbox import InForce
from vidseek_media.errors import ArtifactError, ConfigError, InputRejected
from vidseek_training import backbones
from vidseek_training.importing import imported_backbone as backbone_import
from vidseek_training.importing import pickled
from vidseek_training.importing.folding import ORDERS, fold
from vidseek_training.importing.imported_backbone import import_backbone
from vidseek_training.importing.pickled import FlatModule, classes_of

RANK = 3


class SeedLora(nn.Module):
    """As the seed project has it: W + s A B, in a module around a layer."""

    def __init__(self, linear: nn.Linear, s: float) -> None:
        super().__init__()
        self.linear = linear
        self.A = nn.Parameter(torch.randn(linear.out_features, RANK))
        self.B = nn.Parameter(torch.randn(RANK, linear.in_features))
        self.s = s


class AlphaLora(nn.Module):
    """Another habit: x lora_A lora_B, alpha over rank, and the layer's own weight as W."""

    def __init__(self, linear: nn.Linear, s: float) -> None:
        super().__init__()
        self.W, self.bias = linear.weight, linear.bias
        self.lora_A = nn.Parameter(torch.randn(linear.in_features, RANK))
        self.lora_B = nn.Parameter(torch.randn(RANK, linear.out_features))
        self.alpha, self.r = s * RANK, RANK


class BufferLora(nn.Module):
    """A third: down and up as layers, the scale as a buffer."""

    def __init__(self, linear: nn.Linear, s: float) -> None:
        super().__init__()
        self.base_layer = linear
        self.lora_A = nn.Linear(linear.in_features, RANK, bias=False)
        self.lora_B = nn.Linear(RANK, linear.out_features, bias=False)
        self.register_buffer("scaling", torch.tensor(s))


DELTAS: dict[type[nn.Module], Callable[[Any], Tensor]] = {
    SeedLora: lambda lora: lora.A @ lora.B,
    AlphaLora: lambda lora: (lora.lora_A @ lora.lora_B).T,
    BufferLora: lambda lora: lora.lora_B.weight @ lora.lora_A.weight,
}
TARGETS = ("fc1", "fc2", "q_proj", "visual_projection")
SCALE = 0.7


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pickle is read here, not in a process of its own, which imports torch for seconds."""
    monkeypatch.setattr(
        backbone_import, "read_pickled", lambda path: pickled.flat_module_of(pickled.flatten(path), path)
    )


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


def adapted(base: Path, kind: type[nn.Module]) -> tuple[nn.Module, dict[str, Tensor]]:
    """transformers' model with low-rank modules in it, and the weights that it stands for, by transformers' names."""
    torch.manual_seed(1)
    model = backbones.load(base).clip  # type: ignore[union-attr]
    assert isinstance(model, nn.Module)
    with torch.no_grad():
        model.text_projection.weight.add_(0.25)  # type: ignore[union-attr, operator]
    wanted = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in TARGETS:
            lora = kind(module, SCALE)
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, lora)
            wanted[f"{name}.weight"] = wanted[f"{name}.weight"] + SCALE * DELTAS[kind](lora).detach()
    return model, wanted


def require_weights(folder: Path, wanted: dict[str, Tensor]) -> None:
    found = backbones.load(folder).state_dict()
    for name, tensor in wanted.items():
        assert torch.allclose(found[f"clip.{name}"], tensor, atol=1e-6), name


@pytest.mark.parametrize("save", [torch.save, lambda model, path: path.write_bytes(pickle.dumps(model))])
@pytest.mark.parametrize("kind", list(DELTAS))
def test_import__a_pickled_module_is_folded(
    base: Path, tmp_path: Path, kind: type[nn.Module], save: Callable[[Any, Path], Any], at_once: None
) -> None:
    model, wanted = adapted(base, kind)
    save(model, tmp_path / "model.pt")
    said: list[str] = []
    done = import_backbone(tmp_path / "model.pt", tmp_path / "out", base=str(base), allow_pickle=True, say=said.append)
    require_weights(tmp_path / "out", wanted)
    assert done.was_unpickled and done.num_folded == 7 and kind.__name__ in said[0] and "Warning" in said[0]
    assert "sha256" in (tmp_path / "out" / "imported.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(DELTAS))
@pytest.mark.parametrize("prefix", ["", "module.", "base_model.model.clip."])
def test_import__a_state_dict_needs_no_flag(base: Path, tmp_path: Path, kind: type[nn.Module], prefix: str) -> None:
    model, wanted = adapted(base, kind)
    tensors = {f"{prefix}{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": tensors, "config": {"alpha": SCALE * RANK, "r": RANK}, "epoch": 3}, tmp_path / "model.pt")
    said: list[str] = []
    done = import_backbone(tmp_path / "model.pt", tmp_path / "out", base=str(base), say=said.append)
    require_weights(tmp_path / "out", wanted)
    assert not done.was_unpickled and not said


def test_import__matrices_alone_are_added_to_the_base(base: Path, tmp_path: Path) -> None:
    torch.manual_seed(2)
    name = "vision_model.encoder.layers.0.mlp.fc1"
    a, b = torch.randn(RANK, 32), torch.randn(128, RANK)
    save_file({f"base_model.model.{name}.lora_A.weight": a, f"base_model.model.{name}.lora_B.weight": b},
              tmp_path / "adapter.safetensors")
    with raises(ArtifactError, code="lora-scale-missing") as caught:
        import_backbone(tmp_path / "adapter.safetensors", tmp_path / "out", base=str(base))
    assert "--scale" in caught.value.remedy and not (tmp_path / "out").exists()
    done = import_backbone(tmp_path / "adapter.safetensors", tmp_path / "out", base=str(base), scale=2.0)
    weight = backbones.load(base).state_dict()[f"clip.{name}.weight"]
    require_weights(tmp_path / "out", {f"{name}.weight": weight + 2 * b @ a})
    assert (done.num_folded, done.num_taken, done.orders) == (1, 0, ("B A",))


def test_import__a_viclip_by_its_own_names(tmp_path: Path) -> None:
    base = write_viclip(tmp_path / "viclip")
    weight = backbones.load(base).state_dict()["text_encoder.transformer.resblocks.0.attn.in_proj.weight"]
    a, b = torch.randn(96, RANK), torch.randn(RANK, 32)
    name = "model.text_encoder.transformer.resblocks.0.attn.in_proj"
    torch.save({f"{name}.A": a, f"{name}.B": b, "scale": 0.5}, tmp_path / "lora.pt")
    import_backbone(tmp_path / "lora.pt", tmp_path / "out", base=str(base))
    found = backbones.load(tmp_path / "out").state_dict()["text_encoder.transformer.resblocks.0.attn.in_proj.weight"]
    assert torch.allclose(found, weight + 0.5 * a @ b, atol=1e-6)


def test_import__a_pickle_is_refused_without_the_flag(base: Path, tmp_path: Path) -> None:
    torch.save(adapted(base, SeedLora)[0], tmp_path / "model.pt")
    with raises(ConfigError, code="pickle-not-allowed") as caught:
        import_backbone(tmp_path / "model.pt", tmp_path / "out", base=str(base))
    assert "SeedLora" in caught.value.message and "--allow-pickle" in caught.value.remedy
    assert "state_dict()" in caught.value.remedy and not (tmp_path / "out").exists()


def test_import__a_pickle_is_refused_where_no_process_can_be_confined(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(adapted(base, SeedLora)[0], tmp_path / "model.pt")
    monkeypatch.setattr(pickled, "in_force", lambda: InForce(0, True))
    with raises(ConfigError, code="pickle-not-confined", naming="Landlock"):
        import_backbone(tmp_path / "model.pt", tmp_path / "out", base=str(base), allow_pickle=True)


# What a pickle may try


class _Calls:
    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


FUNCTIONS = ("os.system", "subprocess.getoutput", "builtins.eval", "builtins.exec", "builtins.open")


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("form", ["zip", "old", "plain"])
def test_flatten__a_pickle_that_calls_what_no_model_calls_is_refused_and_not_run(
    tmp_path: Path, function: str, form: str
) -> None:
    module, _, name = function.rpartition(".")
    marks = tmp_path / "mark"
    argument = {"eval": f"open({str(marks)!r}, 'w')", "exec": f"open({str(marks)!r}, 'w')", "open": str(marks)}
    more = ["w"] if name == "open" else []
    call = _Calls(getattr(__import__(module), name), argument.get(name, f"touch {marks}"), *more)
    content = {"a.A": torch.ones(2, 2), "a.B": torch.ones(2, 2), "extra": call}
    write_pickle(content, tmp_path / "evil.pt", form)
    with raises(InputRejected, code="pickle-refused") as caught:
        pickled.flatten(tmp_path / "evil.pt")
    assert name in caught.value.message
    assert not marks.exists()


@pytest.mark.slow
def test_import__a_pickle_with_code_leaves_nothing(base: Path, tmp_path: Path) -> None:
    torch.save({"a.A": torch.ones(2, 2), "x": _Calls(os.system, f"touch {tmp_path / 'mark'}")}, tmp_path / "evil.pt")
    with raises(ArtifactError, code="adapted-model-unreadable"):
        import_backbone(tmp_path / "evil.pt", tmp_path / "out", base=str(base), allow_pickle=True)
    assert {path.name for path in tmp_path.iterdir()} == {"evil.pt"}


def write_pickle(content: Any, path: Path, form: str) -> None:
    if form == "plain":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")


def test_read_pickled__its_process_has_no_network_no_keys_and_no_other_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader alone runs no code; this is the wall behind it."""
    from vidseek_media.decoding.sandbox import Confinement
    from vidseek_media.decoding.worker_process import Job
    from vidseek_media.decoding.workers import ForkServer, Limits

    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    file = tmp_path / "model.pt"
    file.write_bytes(b"x")
    server = ForkServer([try_all.__module__])
    with socket.create_server(("127.0.0.1", 0)) as listening:
        worker = server.fork(Limits(60.0), Confinement.ARCHIVE)
        try:
            job = Job(try_all, (str(tmp_path / "mark"), listening.getsockname()[1]), file=file)
            found = worker.call(job)
            assert "allowed" not in found and not any("hf_secret" in each for each in found)
        finally:
            worker.stop()
            server.close()


@given(st.binary(max_size=200) | st.binary(max_size=80).map(lambda tail: b"\x80\x02" + tail))
def test_flatten__any_bytes_are_refused_in_one_way(content: bytes) -> None:
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"vidseek-flatten-{os.getpid()}"
    path.write_bytes(content)
    try:
        assert isinstance(classes_of(path), list)
        with raises(InputRejected, code="pickle-refused"):
            pickled.flatten(path)
    finally:
        path.unlink()


# What does not fit

FC1 = "vision_model.encoder.layers.0.mlp.fc1"
UPDATE = {f"{FC1}.A": torch.zeros(128, 2), f"{FC1}.B": torch.zeros(2, 32)}


@pytest.mark.parametrize(("tensors", "code", "words"), [
    ({f"{FC1}.weight": torch.zeros(128, 32)}, "lora-missing", "low-rank"),
    ({f"{FC1}.A": torch.zeros(128, 2)}, "lora-missing", "only one"),
    ({"x.y.A": torch.zeros(128, 2), "x.y.B": torch.zeros(2, 32)}, "lora-does-not-fit", "no place"),
    ({f"{FC1}.A": torch.zeros(7, 2), f"{FC1}.B": torch.zeros(2, 9)}, "lora-does-not-fit", "(7, 2)"),
    ({f"{FC1}.A": torch.full((128, 2), 1e30), f"{FC1}.B": torch.full((2, 32), 1e30)}, "lora-not-finite", "not finite"),
    (UPDATE | {"decoder.weight": torch.zeros(3, 3)}, "lora-does-not-fit", "decoder.weight"),
    (UPDATE | {f"{FC1}.lora_magnitude_vector": torch.zeros(128)}, "lora-other-kind", "DoRA"),
    (UPDATE | {f"{FC1}.scale": torch.zeros(128)}, "lora-other-kind", "128 numbers"),
])
def test_import__what_does_not_fit_leaves_nothing(
    base: Path, tmp_path: Path, tensors: dict[str, Tensor], code: str, words: str
) -> None:
    torch.save(tensors, tmp_path / "model.pt")
    with raises(ArtifactError, code=code, naming=words):
        import_backbone(tmp_path / "model.pt", tmp_path / "out", base=str(base), scale=1.0)
    assert not (tmp_path / "out").exists()


@given(
    shape=st.tuples(st.integers(3, 9), st.integers(3, 9)), rank=st.integers(1, 3), order=st.sampled_from(ORDERS),
    scale=st.floats(-4, 4), seed=st.integers(0, 99),
)
def test_fold__is_w_and_s_a_b_in_the_order_that_is_said(
    shape: tuple[int, int], rank: int, order: str, scale: float, seed: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    size = shape[::-1] if "^T" in order else shape
    first, second = (torch.randn(size[0], rank, generator=rng), torch.randn(rank, size[1], generator=rng))
    a, b = (first, second) if order in ("A B", "(A B)^T") else (second, first)
    weight = torch.randn(shape, generator=rng)
    base = {"tower.q.weight": weight, "tower.q.bias": torch.zeros(shape[0])}
    wanted = weight + scale * ((first @ second).T if "^T" in order else first @ second)
    module = FlatModule({"q.lora.A": a, "q.lora.B": b}, {"q.lora.s": scale})
    assert torch.allclose(fold(module, base, product=order).tensors["tower.q.weight"], wanted, atol=1e-4)
    if shape[0] != shape[1]:  # the shapes leave one way alone
        found = fold(module, base)
        assert torch.allclose(found.tensors["tower.q.weight"], wanted, atol=1e-4) and found.orders == (order,)
    assert torch.equal(base["tower.q.weight"], weight)


def test_fold__a_layer_that_is_not_square_settles_those_that_are() -> None:
    base = {"a.q.weight": torch.zeros(6, 6), "a.fc.weight": torch.zeros(6, 4)}
    q = torch.randn(6, 2), torch.randn(2, 6)
    module = FlatModule({"a.q.A": q[0], "a.q.B": q[1], "a.fc.A": torch.randn(4, 2), "a.fc.B": torch.randn(2, 6)}, {"s": 1.0})
    found = fold(module, base)
    assert torch.allclose(found.tensors["a.q.weight"], (q[0] @ q[1]).T, atol=1e-5)
    alone = fold(FlatModule({"a.q.A": q[0], "a.q.B": q[1]}, {"s": 1.0}), base)
    assert torch.allclose(alone.tensors["a.q.weight"], q[0] @ q[1], atol=1e-5) and "too" in alone.orders[0]


def test_fold__an_attention_s_own_scale_is_not_the_update_s() -> None:
    base = {"a.q.weight": torch.zeros(6, 4)}
    module = FlatModule({"a.q.A": torch.ones(6, 2), "a.q.B": torch.ones(2, 4)}, {"a.scale": 0.125, "a.heads": 2.0})
    with raises(ArtifactError, code="lora-scale-missing", naming="scale"):
        fold(module, base)


@pytest.mark.slow
def test_command__imports_and_says_how_to_use_it(base: Path, tmp_path: Path) -> None:
    """The one whole way: the command, and the pickle read in a process of its own."""
    model, wanted = adapted(base, SeedLora)
    torch.save(model, tmp_path / "model.pt")
    out = tmp_path / "out"
    arguments = ["backbone", "import", str(tmp_path / "model.pt"), str(out), "--base", str(base), "--allow-pickle", "--json"]
    said = CliRunner().invoke(app, arguments)
    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout)["num_folded"] == 7 and "Warning" in said.stderr
    assert json.loads((out / "config.json").read_text())["model_type"] == clip_config()["model_type"]
    require_weights(out, wanted)
