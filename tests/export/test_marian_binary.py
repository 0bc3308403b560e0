"""Marian's binary model files are read and written as Marian itself does, and damaged ones are refused."""

from __future__ import annotations

import gzip
import itertools
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from exported import configuration_of, pymarian, with_configuration
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from nmt_async.cli.main import run

from nmt_async.checkpoints.model_folder import load_model
from nmt_async.checkpoints.quantizing import quantize_model
from nmt_async.errors import UserError
from nmt_async.export.conversion import import_model
from nmt_async.export.marian import CONFIGURATION, export_marian
from nmt_async.export.marian_binary import Codes, opened_binary, quantised_to_8_bits, write_binary
from nmt_async.export.options import ImportOptions
from nmt_async.export.verification import by_marian, verified
from nmt_async.model.quantization_options import Quantization
from nmt_async.translate.options import DecodingOptions

Arrays = dict[str, np.ndarray]
Items = list[tuple[str, int, tuple[int, ...], bytes]]
"""Name, type, shape and contents."""

WIDE = {"dim_emb": 64, "dim_ffn": 128}
SSRU = {**WIDE, "decoder_autoreg": "ssru", "tied": "all"}
CASES = {
    "student": SSRU,
    "untied": {**WIDE, "tied": "none", "activation": "gelu"},
    "pre": {**WIDE, "norm": "pre", "tied": "target"},
}
BYTES, HALF, FLOAT = 0x101, 0x402, 0x404
BROWSER_8, BROWSER_16 = 0x4101, 0x4102
REGISTERS = {0x18001: 16, 0x11001: 32, 0x12001: 64, 0x13001: 64, 0x14002: 16, 0x11002: 32, 0x12002: 64}
"""Bytes of a register, by Marian's number of the type."""
GEMM_TYPES = {
    "intgemm8": None, "intgemm8ssse3": "ssse3", "intgemm8avx2": "avx2", "intgemm8avx512": "avx512bw",
    "intgemm16": None, "intgemm16sse2": "sse2", "intgemm16avx2": "avx2", "intgemm16avx512": "avx512bw",
}  # fmt: skip
"""Of marian-conv, and what a processor must have so that Marian converts to it."""


def file_of(items: Items, count: int | None = None, version: int = 1, gap: int | None = None) -> bytes:
    """A binary model, written straight from the layout in Marian's src/common/binary.cpp."""
    head = struct.pack("<QQ", version, len(items) if count is None else count)
    for name, type_, shape, content in items:
        head += struct.pack("<QQQQ", len(name) + 1, type_, len(shape), len(content))
    for name, *_ in items:
        head += name.encode() + b"\0"
    for _, _, shape, _ in items:
        head += struct.pack(f"<{len(shape)}i", *shape)
    filled = 256 - (len(head) + 8) % 256
    head += struct.pack("<Q", filled if gap is None else gap) + b"\0" * filled
    return head + b"".join(content for *_, content in items)


def browser_items(parameters: Arrays, bits: int = 8, aligned: bool = True) -> tuple[Items, Arrays]:
    """A model as the fork for browsers stores it, and the values that are left of it."""
    items: Items = []
    kept: Arrays = {}
    for name, array in sorted(parameters.items()):
        content, kept[name], type_ = array.tobytes(), array, BYTES if name == CONFIGURATION else FLOAT
        if array.ndim == 2 and min(array.shape) > 1 and not name.endswith("_Wt"):  # which was mixed up
            multiplier = np.float32(127 / np.abs(array).max()) if bits == 8 else np.float32(1024)
            codes = np.rint(array * multiplier).astype(np.int8 if bits == 8 else np.int16)
            rows = codes if name.endswith("Wemb") else codes.T
            content, type_ = rows.tobytes() + multiplier.tobytes(), BROWSER_8 if bits == 8 else BROWSER_16
            kept[name] = codes * (np.float32(1) / multiplier)
            items.append((f"{name}_QuantMultA", FLOAT, (1,), np.float32(9.5).tobytes()))
        items.append((name, type_, array.shape, content))
    items.append(("none_QuantMultA", FLOAT, (1,), np.float32(9.5).tobytes()))
    if aligned:
        items = [(*rest, content + b"\0" * (-len(content) % 256)) for *rest, content in items]
    return items, kept


def imported(model: Path, out: Path, folder: Path) -> Arrays:
    """The parameters of Marian's model, which goes through our run at ``out``."""
    vocabularies = [folder / name for name in ("vocab.spm", "source.spm", "target.spm") if (folder / name).exists()]
    import_model(ImportOptions(vocabs=(vocabularies[0], vocabularies[-1]), out=out), model)
    loaded, again = load_model(out), out.with_name(out.name + ".again")
    again.mkdir()
    export_marian(loaded, again)
    return arrays_of(again / "model.npz")


def arrays_of(model: Path) -> Arrays:
    with np.load(model) as arrays:
        return dict(arrays)


def same(found: Arrays, expected: Arrays) -> None:
    assert found.keys() == expected.keys()
    for name in found.keys() - {CONFIGURATION}:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def lacks(feature: str | None) -> bool:
    processor = Path("/proc/cpuinfo")
    return feature is not None and feature not in (processor.read_text() if processor.exists() else "")


@pytest.fixture(scope="session")
def folders(trained, tmp_path_factory):
    """By the name of a case: its run, and Marian's folder with its model.npz."""
    made = {}

    def make(case):
        if case not in made:
            run_folder, folder = trained(**CASES[case]), tmp_path_factory.mktemp(case)
            export_marian(load_model(run_folder), folder)
            made[case] = run_folder, folder
        return made[case]

    return make


@pytest.fixture(scope="session")
def student(folders):
    return folders("student")


@pytest.mark.parametrize(("case", "gemm_type"), [*(("student", name) for name in GEMM_TYPES), ("pre", "intgemm8")])
def test_what_marian_converts_is_read_as_marian_multiplies_with_it(folders, case, gemm_type, tmp_path):
    pytest.importorskip("pymarian")
    if lacks(GEMM_TYPES[gemm_type]):
        pytest.skip(f"Marian converts to {gemm_type} only on a processor that has it")
    _, folder = folders(case)
    convert(folder, tmp_path / "model.bin", gemm_type)
    found, expected, quantised = imported(tmp_path / "model.bin", tmp_path / "run", folder), {}, 0
    for name, array in arrays_of(folder / "model.npz").items():
        expected[name] = array
        if array.ndim == 2 and min(array.shape) > 1 and "_W" in name and not name.endswith("Wemb"):
            quantised += 1
            multiplier = np.float32(127) / np.abs(array).max() if "8" in gemm_type else np.float32(1024)
            expected[name] = np.rint(array * multiplier) * (np.float32(1) / multiplier)
    assert quantised == {"student": 20, "pre": 0}[case]  # none has the names that Marian looks for
    same(found, expected)


def convert(folder: Path, out: Path, gemm_type: str = "float32") -> None:
    pymarian("convert", "--from", folder / "model.npz", "--to", out, "--gemm-type", gemm_type)


def test_a_matrix_that_marian_mixes_up_is_refused(folders, tmp_path):
    pytest.importorskip("pymarian")
    _, folder = folders("untied")
    convert(folder, tmp_path / "model.bin", "intgemm8")
    with pytest.raises(
        UserError, match=r"'decoder_ff_logit_out_Wt' has shape \(130, 64\), and marian-conv mixes up matrices"
    ):
        imported(tmp_path / "model.bin", tmp_path / "run", folder)


@pytest.mark.parametrize("gemm_type", ["packed16", "packed8avx2"])
def test_what_is_packed_for_fbgemm_is_refused_with_advice(student, gemm_type, tmp_path):
    pytest.importorskip("pymarian")
    if lacks("avx2"):
        pytest.skip("FBGEMM packs on AVX2")
    _, folder = student
    convert(folder, tmp_path / "model.bin", gemm_type)
    with pytest.raises(UserError, match=rf"packed for FBGEMM \({gemm_type}\).*import the model.npz it was made of"):
        imported(tmp_path / "model.bin", tmp_path / "run", folder)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("bits", "aligned"), [(8, True), (8, False), (16, True)])
def test_the_model_of_a_browser_is_read(folders, case, bits, aligned, tmp_path):
    _, folder = folders(case)
    items, expected = browser_items(arrays_of(folder / "model.npz"), bits, aligned)
    (tmp_path / "model.intgemm.alphas.bin").write_bytes(file_of(items))
    same(imported(tmp_path / "model.intgemm.alphas.bin", tmp_path / "run", folder), expected)


FORKS_WORDS = {
    "bert-train-type-embeddings": True, "bert-type-vocab-size": 2, "dec-cell": "ssru", "dec-cell-base-depth": 2,
    "dec-cell-high-depth": 1, "dim-rnn": 1024, "enc-cell": "gru", "enc-cell-depth": 1, "enc-type": "bidirectional",
    "input-types": [], "layer-normalization": False, "lemma-dim-emb": 0, "output-omit-bias": False,
    "right-left": False, "skip": False, "tied-embeddings": False, "tied-embeddings-all": True,
    "tied-embeddings-src": False, "transformer-aan-activation": "swish", "transformer-aan-depth": 2,
    "transformer-aan-nogate": False, "transformer-decoder-autoreg": "rnn", "transformer-dim-aan": 2048,
    "transformer-ffn-activation": "relu", "transformer-ffn-depth": 2, "transformer-guided-alignment-layer": "last",
    "transformer-no-projection": False, "transformer-pool": False, "transformer-postprocess": "dan",
    "transformer-postprocess-emb": "d", "transformer-postprocess-top": "", "transformer-preprocess": "",
    "transformer-tied-layers": [], "transformer-train-position-embeddings": False, "type": "transformer",
    "ulr": False, "ulr-dim-emb": 0, "ulr-trainable-transformation": False, "version": "v1.9.56 0000000 2021-02-15",
}  # fmt: skip
"""What the fork saves of a student's configuration (src/models/encoder_decoder.cpp), with the values of published ones;
its sizes are added."""


def test_the_configuration_of_a_browsers_model_is_understood(student, tmp_path):
    _, folder = student
    parameters = arrays_of(folder / "model.npz")
    ours = yaml.safe_load(configuration_of(parameters))
    sizes = ("dim-emb", "dim-vocabs", "enc-depth", "dec-depth", "transformer-dim-ffn", "transformer-heads")
    text = yaml.safe_dump(FORKS_WORDS | {key: ours[key] for key in sizes})
    items, expected = browser_items(with_configuration(parameters, text))
    (tmp_path / "model.bin").write_bytes(file_of(items))
    same(imported(tmp_path / "model.bin", tmp_path / "run", folder), expected)


@given(
    type_=st.sampled_from(sorted(REGISTERS)), blocks=st.sampled_from([2, 4]), columns=st.sampled_from([16, 32, 48]),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_a_packed_matrix_is_unpacked(tmp_path_factory, type_, blocks, columns, seed):
    """Packed here as intgemm's interleave.h packs it: one register after the other."""
    numbers = np.dtype(np.int8 if type_ & 0xFF == 1 else np.int16)
    at_once = REGISTERS[type_] // numbers.itemsize
    rows = blocks * at_once
    codes = np.random.default_rng(seed).integers(-127, 128, (rows, columns)).astype(numbers)
    packed = b"".join(
        codes[row : row + at_once, column + each].tobytes()
        for column, row, each in itertools.product(range(0, columns, 8), range(0, rows, at_once), range(8))
    )
    path = tmp_path_factory.mktemp("packed") / "model.bin"
    path.write_bytes(file_of([("W", type_, (rows, columns), packed + np.float32(4.0).tobytes())]))
    with opened_binary(path) as file:
        np.testing.assert_array_equal(file.read("W"), codes / 4.0)


matrices = arrays(
    np.float32, st.sampled_from([(16, 16), (16, 32), (32, 16)]), elements=st.floats(-(2.0**100), 2.0**100, width=32)
)


@given(matrix=matrices)
def test_a_quantised_matrix_is_read_back_within_half_a_step(tmp_path_factory, matrix):
    path = tmp_path_factory.mktemp("matrix") / "model.bin"
    codes = quantised_to_8_bits(matrix)
    write_binary(path, {"W": codes, "b": matrix})
    with opened_binary(path) as file:
        found, kept = file.read("W"), file.read("b")
    np.testing.assert_array_equal(kept, matrix)
    step = np.abs(matrix).max() / 127
    # Half a step, and what float32 rounds: the multiplier, its inverse and both products, of up to 127 steps.
    assert np.abs(found.astype(np.float64) - matrix).max() <= step * (0.5 + 127 * 4 * 2.0**-24) + 2.0**-120
    assert np.abs(codes.values).max() == (127 if np.abs(matrix).max() >= 2.0**-120 else 0)
    assert (np.sign(codes.values) * np.sign(matrix) >= 0).all()


@pytest.mark.parametrize("case", CASES)
def test_a_binary_model_is_the_same_model_bit_for_bit(folders, case, tmp_path):
    run_folder, folder = folders(case)
    export_marian(load_model(run_folder), tmp_path, binary=True)
    assert not (tmp_path / "model.npz").exists()
    same(imported(tmp_path / "model.bin", tmp_path / "run", folder), arrays_of(folder / "model.npz"))


@pytest.mark.parametrize("quantization", ["float32", "int8"])
def test_what_is_written_is_what_marian_converts(student, quantization, tmp_path):
    """Byte by byte but for the order of items and the configuration, which Marian words again."""
    pytest.importorskip("pymarian")
    run_folder, folder = student
    convert(folder, tmp_path / "theirs.bin", {"float32": "float32", "int8": "intgemm8"}[quantization])
    export_marian(load_model(run_folder), tmp_path, binary=True, quantization=quantization)
    ours, theirs = (raw_items(tmp_path / name) for name in ("model.bin", "theirs.bin"))
    assert ours.pop(CONFIGURATION)[:2] == theirs.pop(CONFIGURATION)[:2]
    assert ours == theirs


def raw_items(path: Path) -> dict[str, tuple[int, int, tuple[int, ...], bytes]]:
    """Type, dimensions, shape and the bytes that count."""
    found = {}
    with opened_binary(path) as file:
        content = path.read_bytes()
        for name in file.names():
            item = file.described(name)
            size = item.type & 0xFF
            used = int(np.prod(item.shape)) * size + 4 * (item.type > 0xFFFF)
            assert item.begin % 256 == item.length % 256 == 0
            found[name] = item.type, len(item.shape), item.shape, content[item.begin : item.begin + used]
    return found


@pytest.mark.numeric
@pytest.mark.parametrize("case", CASES)
def test_marian_translates_with_8_bits_nearly_as_we_do_with_32(folders, lines, case, tmp_path):
    pytest.importorskip("pymarian")
    loaded = load_model(folders(case)[0])
    export_marian(loaded, tmp_path, binary=True, quantization="int8")
    options = DecodingOptions(beam_size=1)
    found = verified(loaded, lines, by_marian(tmp_path, loaded, lines, options), options)
    # Marian rounds activations, too, to a 127th of the largest; a matrix that stands wrongly gives other texts.
    assert found.share >= 0.5
    assert found.score_difference < 0.2


@pytest.mark.parametrize(("case", "bits"), [("student", 8), ("pre", 4)])
def test_a_quantised_model_keeps_its_levels(folders, case, bits, tmp_path):
    run_folder, folder = folders(case)
    quantize_model(run_folder, tmp_path / "few", Quantization(bits, "linear"))
    (tmp_path / "marian").mkdir()
    export_marian(load_model(tmp_path / "few"), tmp_path / "marian", binary=True, quantization="int8")
    found = imported(tmp_path / "marian" / "model.bin", tmp_path / "run", folder)
    (tmp_path / "npz").mkdir()
    export_marian(load_model(tmp_path / "few"), tmp_path / "npz")
    for name, array in arrays_of(tmp_path / "npz" / "model.npz").items():
        if name != CONFIGURATION:  # the scale is divided by twice, and rounded each time
            np.testing.assert_allclose(found[name], array, rtol=2.0**-22, atol=0.0, err_msg=name)


def test_what_marian_cannot_multiply_with_in_8_bits_is_refused(saved, folders, tmp_path):
    for sizes, width in (({"dim_emb": 32, "dim_ffn": 64}, "dim_emb is 32"), ({"dim_emb": 64}, "dim_ffn is 48")):
        with pytest.raises(UserError, match=f"multiples of 64, and {width}"):
            export_marian(load_model(saved(**sizes)), tmp_path, binary=True, quantization="int8")
    quantize_model(folders("student")[0], tmp_path / "few", Quantization(4, "log"))
    with pytest.raises(UserError, match=r"quantised \(4-bit log\), and its levels are not among those of 8 bits"):
        export_marian(load_model(tmp_path / "few"), tmp_path, binary=True, quantization="int8")
    assert [path.name for path in tmp_path.iterdir()] == ["few"]


def test_a_matrix_of_zeros_stays_one(tmp_path):
    write_binary(tmp_path / "model.bin", {"W": quantised_to_8_bits(np.zeros((16, 16), np.float32))})
    never_rounded = np.zeros((16, 16), np.int8).tobytes() + np.float32(np.inf).tobytes()  # Marian: 127 / 0
    (tmp_path / "theirs.bin").write_bytes(file_of([("W", BROWSER_8, (16, 16), never_rounded)]))
    for name in ("model.bin", "theirs.bin"):
        with opened_binary(tmp_path / name) as file:
            assert not file.read("W").any()


def at(content: bytes, offset: int, number: int) -> bytes:
    """The content with another number of 8 bytes at a place."""
    return content[:offset] + struct.pack("<Q", number) + content[offset + 8 :]


def whole(student) -> Items:
    return browser_items(arrays_of(student[1] / "model.npz"))[0]


HEADER = 16  # of the first item: length of name, type, dimensions, bytes
DAMAGED = {
    "empty": (lambda _: b"", "ends before"),
    "text": (lambda _: b"This is no model of Marian's.", "not a binary model"),
    "another version": (lambda items: file_of(items, version=3), "begins with 0x3"),
    "encrypted": (lambda items: file_of(items, version=2), "it is encrypted"),
    "compressed": (lambda items: gzip.compress(file_of(items)), "it is compressed; unpack it first"),
    "no items": (lambda _: file_of([]), "holds no special:model.yml"),
    "too many items": (lambda items: file_of(items, count=2**62), "says that it holds 4,611,686,018,427,387,904 items"),
    "more items than bytes": (lambda items: file_of(items[:2], count=90_000), "ends before"),
    "an endless name": (lambda items: at(file_of(items), HEADER, 2**63), "ends before"),
    "many dimensions": (lambda items: at(file_of(items), HEADER + 16, 2**40), "dimensions"),
    "an endless item": (lambda items: at(file_of(items), HEADER + 24, 2**64 - 1), "it is cut off"),
    "a wide gap": (lambda items: file_of(items, gap=2**64 - 1), "it is cut off"),
    "cut off": (lambda items: file_of(items)[:-300], "it is cut off"),
    "cut off in its header": (lambda items: file_of(items)[:999], "ends before"),
    "an item twice": (lambda items: file_of([*items, items[-1]]), "twice"),
    "an unknown type": (lambda items: file_of(with_item(items, "Wemb", 0x77777)), "type 0x77777"),
    "numbers of 8 bytes": (lambda items: file_of(with_item(items, "Wemb", 0x408)), "type 0x408"),
    "a negative size": (lambda items: file_of(with_item(items, "Wemb", BROWSER_8, (-160, -64))), "has shape"),
    "a huge size": (
        lambda items: file_of(with_item(items, "Wemb", BROWSER_8, (2**31 - 1, 2**31 - 1))),
        "needs 4,611,686,014,132,420,613",
    ),
    "another shape": (lambda items: file_of(with_item(items, "Wemb", BROWSER_8, (64, 160))), "has shape"),
    "a name that is no text": (lambda items: file_of(items).replace(b"self_Wq\0", b"self\xff\xfeq\0"), "missing"),
    "no multiplier": (lambda items: file_of(with_item(items, "Wemb", cut=10240)), "needs 10,244"),
    "a multiplier of nothing": (lambda items: file_of(with_item(items, "Wemb", multiplier=0.0)), "multiplied by 0"),
    "a multiplier that is none": (lambda items: file_of(with_item(items, "Wemb", multiplier=np.nan)), "by nan"),
    "a tiny multiplier": (lambda items: file_of(with_item(items, "Wemb", multiplier=1e-44)), "not finite"),
    "wrongly packed": (lambda items: file_of(with_item(items, "decoder_l1_rnn_W", 0x12002)), "bytes"),
}  # fmt: skip


def with_item(items: Items, name: str, type_=None, shape=None, cut=None, multiplier=None) -> Items:
    """The items with one of them changed."""
    made = []
    for each, its_type, its_shape, content in items:
        if each == name:
            its_type, content = type_ or its_type, content[:cut]
            if multiplier is not None:
                end = int(np.prod(its_shape))
                content = content[:end] + np.float32(multiplier).tobytes() + content[end + 4 :]
            its_shape = shape or its_shape
        made.append((each, its_type, its_shape, content))
    return made


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_is_refused_in_one_sentence_and_leaves_nothing(student, case, capsys, tmp_path):
    damage, reason = DAMAGED[case]
    (tmp_path / "model.bin").write_bytes(damage(whole(student)))
    vocabulary = str(student[1] / "vocab.spm")
    typed = ["import", str(tmp_path / "model.bin"), "--vocabs", vocabulary, vocabulary, "--out", str(tmp_path / "run")]
    assert run(typed) == 2
    said = capsys.readouterr().err
    assert reason in said
    assert said.count("\n") == 1
    assert "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["model.bin"]


def test_a_user_exports_in_8_bits_and_imports_what_was_exported(folders, lines, tmp_path):
    pytest.importorskip("pymarian")
    run_folder, _ = folders("pre")
    text, out = tmp_path / "text", tmp_path / "out"
    text.write_text("\n".join(lines) + "\n")
    typed = ["--format", "marian-bin", "--quantization", "int8", "--verify", str(text), "--verify-share", "0.5"]
    assert run(["export", str(run_folder), str(out), *typed]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["decoder.yml", "model.bin", "source.spm", "target.spm"]
    vocabularies = [str(out / name) for name in ("source.spm", "target.spm")]
    assert run(["import", str(out / "model.bin"), "--vocabs", *vocabularies, "--out", str(tmp_path / "back")]) == 0
    assert torch.isfinite(next(load_model(tmp_path / "back").model.parameters())).all()
    assert (out / "model.bin").stat().st_size < 0.5 * (run_folder / "model.safetensors").stat().st_size


def test_half_precision_is_read(tmp_path):
    halves = np.arange(6, dtype=np.float16).reshape(2, 3) / 7
    (tmp_path / "model.bin").write_bytes(file_of([("W", HALF, (2, 3), halves.tobytes())]))
    with opened_binary(tmp_path / "model.bin") as file:
        np.testing.assert_array_equal(file.read("W"), halves)


def test_codes_stand_as_they_were_given(tmp_path):
    values = np.arange(-127, 129, dtype=np.int16).clip(-127, 127).astype(np.int8).reshape(16, 16)
    write_binary(tmp_path / "model.bin", {"W": Codes(values, np.float32(2.0))})
    with opened_binary(tmp_path / "model.bin") as file:
        np.testing.assert_array_equal(file.read("W"), values / 2.0)
