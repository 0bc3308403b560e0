"""``prepare``: from raw parallel text to the folder that training reads.

The inputs are read once, cleaned, and spooled (compressed) in the folder being built; the vocabulary is learnt from the
spool, and the spool encoded. Memory depends on the vocabulary's sample only, not on the size of the corpus.

Reading and encoding use all cores, a thread each (`spool.in_threads`).
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

from nmt_async import __version__
from nmt_async.errors import RunFailure, UserError
from nmt_async.options import check_together, key_of, matters, to_mapping
from nmt_async.progress import Progress, SilentProgress
from nmt_async.text.corpora import Declaration, NamedCorpus, PreparedCorpora, PreparedCorpus, read_corpora
from nmt_async.text.corpus import STANDARD_INPUT, InputFile, corpus, input_files
from nmt_async.text.encoding import encode_split
from nmt_async.text.options import PrepareOptions
from nmt_async.text.prepared import (
    CORPORA,
    FORMAT,
    JOINT_MODEL,
    MANIFEST,
    SOURCE_MODEL,
    TARGET_MODEL,
    PreparedData,
    describe_files,
    fingerprint,
    read_manifest,
)  # fmt: skip
from nmt_async.text.spool import Spool, Tally, spool_training, spool_validation
from nmt_async.text.vocabulary import Vocabulary, sample_rows, train_vocabulary
from nmt_async.writing import built_whole

LARGEST = 1_000_000_000
"""Above it a number is a slip of the hand, and would not fit SentencePiece's."""

# These say where things are and how fast; two runs that differ in them alone make the same folder.
_WITHOUT_EFFECT = {
    "out", "corpora", "train-source", "train-target", "train-tsv", "valid-source", "valid-target", "valid-tsv",
    "vocab", "source-vocab", "target-vocab", "threads", "overwrite",
}  # fmt: skip


def prepare(options: PrepareOptions, report: Progress | None = None) -> PreparedData:
    """Writes the prepared folder ``options.out`` and opens it; does nothing when it is there already, made of the same.

    Raises:
        UserError: options, inputs or the folder as it is do not allow it.
        RunFailure: writing failed, such as on a full disk. Nothing is left under the folder's name.
    """
    report = report or SilentProgress()
    out = check_options(options)
    declared = _declared(options)
    text = input_files([part for each in declared.corpora for part in each.train])
    text += input_files([part for each in declared.corpora for part in each.valid])
    inputs = text + _given_vocabularies(options)
    _check_inputs(inputs)
    if not _is_free(out):
        if not options.overwrite:
            _check_same(out, options, declared, inputs)
            report.note(f"{out} is there already, made with the same options from the same text: nothing to do.")
            return PreparedData.open(out)
        read_manifest(out)
    try:
        with built_whole(out, replace=options.overwrite) as folder:
            _build(folder, options, declared, inputs, report)
    except OSError as error:
        raise _not_written(out, error) from error
    return PreparedData.open(out)


def _build(
    folder: Path, options: PrepareOptions, declared: Declaration, inputs: list[InputFile], report: Progress
) -> None:  # fmt: skip
    rules, threads = options.rules, options.threads or len(os.sched_getaffinity(0))
    spool_folder = folder / "spool"
    spool_folder.mkdir()
    corpora = declared.corpora
    training = spool_training(corpora, spool_folder / "train", rules, options.keep_duplicates, threads, report)
    validates = any(each.valid for each in corpora)
    validation = spool_validation(corpora, spool_folder / "valid", folder / "valid", report) if validates else None
    _check_kept(training)
    source, target = _vocabularies(folder, options, {file.option: file for file in inputs}, training, report)
    splits = {"train": encode_split(training, folder / "train", source, target, rules, threads, report)}
    _check_kept(training)
    if validation:
        splits["valid"] = encode_split(validation, folder / "valid", source, target, None, threads, report)
    shutil.rmtree(spool_folder)
    if options.corpora is not None:
        valid_pairs = [tally.kept for tally in validation.corpora] if validation else [0] * len(corpora)
        described = _prepared_corpora(declared, training.corpora, valid_pairs).as_mapping()
        (folder / CORPORA).write_text(json.dumps(described, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    files = describe_files(folder)
    manifest = {
        "format": FORMAT,
        "nmt-async": __version__,
        "fingerprint": fingerprint(files),
        "options": to_mapping(options),
        "inputs": [
            {"option": file.option, "path": str(file.path), "bytes": file.bytes_read, "sha256": file.sha256}
            for file in inputs
        ],
        "vocabulary": {"source": source.size, "target": target.size, "joint": source is target},
        "splits": splits,
        "files": files,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _declared(options: PrepareOptions) -> Declaration:
    """The text that the options name: several corpora with names, or one without."""
    if options.corpora is not None:
        return read_corpora(options.corpora)
    train = corpus("train", options.train_source, options.train_target, options.train_tsv)
    valid = corpus("valid", options.valid_source, options.valid_target, options.valid_tsv)
    return Declaration((NamedCorpus("", train, valid),))


def _prepared_corpora(declared: Declaration, tallies: list[Tally], valid_pairs: list[int]) -> PreparedCorpora:
    """What ``corpora.json`` is to say."""
    return PreparedCorpora(
        tuple(
            PreparedCorpus(
                each.name, each.tag, each.weight, tally.kept, tally.source_tokens, tally.target_tokens, valid
            )
            for each, tally, valid in zip(declared.corpora, tallies, valid_pairs, strict=True)
        ),
        declared.temperature,
    )


def _vocabularies(
    folder: Path, options: PrepareOptions, given: dict[str, InputFile], training: Spool, report: Progress
) -> tuple[Vocabulary, Vocabulary]:
    """The source and the target vocabulary in ``folder``, each learnt from the training text or copied there."""
    tags = list(dict.fromkeys(tally.tag for tally in training.corpora if tally.tag))

    def one(name: str, option: str, sides: tuple[str, ...]) -> Vocabulary:
        if option in given:
            (folder / name).write_bytes(b"".join(given[option].blocks()))
            return Vocabulary(folder / name)
        total, wanted = training.kept * len(sides), options.vocab_sample
        rows = sample_rows(total, wanted, options.seed)
        lines, used = training.sample(sides, rows), total if rows is None else wanted
        with report.stage(f"learning {options.vocab_size:,} subwords from {used:,} lines", None):
            return train_vocabulary(
                lines, options.vocab_size, options.vocab_type, folder / name,
                character_coverage=options.character_coverage, tags=tags if "source" in sides else (),
            )  # fmt: skip

    if options.separate_vocabs or options.source_vocab or options.target_vocab:
        return (
            one(SOURCE_MODEL, "--source-vocab", ("source",)),
            one(TARGET_MODEL, "--target-vocab", ("target",)),
        )
    joint = one(JOINT_MODEL, "--vocab", ("source", "target"))
    return joint, joint


def _check_kept(training: Spool) -> None:
    """Raises UserError where the training text, or a corpus of it, has no pair left."""
    if not training.kept and not training.corpora[0].name:
        raise UserError(_nothing_left(training))
    for tally in training.corpora:
        if not tally.read:
            raise UserError(f"--corpora: {tally.name} has no lines; name another file, or leave the corpus out.")
        if not tally.kept:
            raise UserError(
                f"--corpora: the filters removed all {tally.read:,} pairs of {tally.name}; see --help on how to "
                f"switch each off."
            )


def _nothing_left(training: Spool) -> str:
    if not training.read:
        return "the training text is empty; --train-source and --train-target need at least one sentence pair."
    removed = ", ".join(f"{count:,} {reason}" for reason, count in training.removed.items() if count)
    return (
        f"the filters removed all {training.read:,} training pairs ({removed}); see --help on how to switch each off."
    )


def check_options(options: PrepareOptions) -> Path:
    """``options.out``, when the options make sense together.

    Raises:
        UserError: they do not.
    """
    if options.out is None:
        raise UserError("--out is missing: name the folder to write.")
    check_together(options)
    if not (options.corpora or options.train_source or options.train_target or options.train_tsv):
        raise UserError("no training text: give --train-source and --train-target, --train-tsv or --corpora.")
    if options.vocab and (options.separate_vocabs or options.source_vocab or options.target_vocab):
        raise UserError("--vocab is one vocabulary for both languages; leave it out to have separate ones.")
    for name, value, least in (
        ("vocab-size", options.vocab_size, 3), ("vocab-sample", options.vocab_sample, 0),
        ("max-length", options.max_length, 0), ("threads", options.threads, 0),
    ):  # fmt: skip
        if not least <= value <= LARGEST:
            raise UserError(f"--{name} {value:,}: it must be {least} or more, and at most {LARGEST:,}.")
    if options.max_length_ratio and not options.max_length_ratio >= 1:
        raise UserError(f"--max-length-ratio {options.max_length_ratio:g}: it must be 1 or more, or 0 for no limit.")
    if not 0 < options.character_coverage <= 1:
        raise UserError(f"--character-coverage {options.character_coverage:g}: it must be above 0 and at most 1.")
    return options.out


def _given_vocabularies(options: PrepareOptions) -> list[InputFile]:
    """The existing models as inputs, each checked."""
    given = {"--vocab": options.vocab, "--source-vocab": options.source_vocab, "--target-vocab": options.target_vocab}
    files = [InputFile(path, name) for name, path in given.items() if path is not None]
    for file in files:
        file.check()
        size = Vocabulary(file.path).size
        if options.vocab_size not in (size, PrepareOptions.vocab_size):
            raise UserError(f"--vocab-size {options.vocab_size:,} does not fit: {file.name} has {size:,} subwords.")
    return files


def _check_inputs(inputs: list[InputFile]) -> None:
    piped = [file.option for file in inputs if file.path == STANDARD_INPUT]
    if len(piped) > 1:
        raise UserError(
            f"standard input is asked for {len(piped)} times ({', '.join(piped)}); it can be read only once."
        )


def _is_free(out: Path) -> bool:
    """Whether ``out`` can be written without asking: absent, or an empty folder."""
    if not out.exists():
        return True
    if not out.is_dir():
        raise UserError(f"--out: {out} is a file; name a folder.")
    try:
        return not any(out.iterdir())
    except OSError as error:
        raise UserError(f"--out: {out} cannot be read ({error.strerror}).") from None


def _check_same(out: Path, options: PrepareOptions, declared: Declaration, inputs: list[InputFile]) -> None:
    """Raises UserError unless ``out`` is what these options would make of these inputs."""
    otherwise = "choose another --out, or pass --overwrite to replace it"
    try:
        manifest = read_manifest(out)
        there_already = PreparedData.open(out, whole=True).corpora
    except UserError as error:
        raise UserError(f"--out: {error} To write there, move it away first, or choose another --out.") from None
    wanted, there = to_mapping(options), manifest["options"]
    ignored = {key_of(field) for field in dataclasses.fields(options) if not matters(options, field)}
    for key, value in wanted.items():
        if key not in _WITHOUT_EFFECT | ignored and there.get(key) != value:
            raise UserError(f"--out: {out} was prepared with --{key} {there.get(key)}, not {value}; {otherwise}.")
    if [file.option for file in inputs] != [file["option"] for file in manifest["inputs"]]:
        raise UserError(f"--out: {out} was prepared from other files; {otherwise}.")
    for file, written in zip(inputs, manifest["inputs"], strict=True):
        for _ in file.blocks():
            pass
        if file.sha256 != written["sha256"]:
            raise UserError(f"--out: {out} was prepared from another {file.option} than {file.name}; {otherwise}.")
    if there_already is not None:
        said = [(each.name, each.tag, each.weight) for each in there_already.corpora]
        says = [(each.name, each.tag, each.weight) for each in declared.corpora]
        if said != says or there_already.temperature != declared.temperature:
            raise UserError(
                f"--out: {out} was prepared with other names, tags or weights of corpora; {otherwise}. For other "
                f"weights alone, train --corpus-weights does without."
            )


def _not_written(out: Path, error: OSError) -> Exception:
    reason = (error.strerror or str(error)).lower()
    if isinstance(error, PermissionError | NotADirectoryError | FileNotFoundError | FileExistsError):
        return UserError(f"--out: {out} cannot be written ({reason}); choose another place.")
    return RunFailure(f"--out: writing {out} failed ({reason}); nothing is left there. Solve that, then run it again.")
