"""With which parameters a run begins: those of its seed, or a trained model's (``--init-from``).

A run that begins with a model has that model's sizes, which nobody needs to type again; its vocabularies must be those
of the data, since an embedding belongs to its subword.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from nmt_async.checkpoints.model_folder import LoadedModel, load_model
from nmt_async.checkpoints.run_models import folders_by_update
from nmt_async.errors import UserError, shown
from nmt_async.model.build import build_model
from nmt_async.model.configuration import OF_ONE_MODEL, ModelConfiguration, ModelOptions
from nmt_async.model.translation_model import TranslationModel
from nmt_async.options import flag_of
from nmt_async.text.prepared import PreparedData
from nmt_async.training.options import TrainOptions

_FIELDS = {field.name: field for field in dataclasses.fields(ModelOptions)}
_SIZES = [name for name in _FIELDS if name not in ("model", "preset", "dropout", "tied_embeddings")]


def adopted(options: TrainOptions) -> TrainOptions:
    """Options that say the model of ``--init-from`` themselves; those of a run without it as they are.

    Raises:
        UserError: there is no such model, or an option asks for another one.
    """
    if options.init_from is None or not _unsaid(options):
        return options
    configuration = _loaded(options.init_from).configuration
    own = [name for name in _SIZES if OF_ONE_MODEL.get(name, configuration.model) == configuration.model]
    values = {name: getattr(configuration, name) for name in own}
    values |= {"model": configuration.model, "tied_embeddings": configuration.tied}
    for name, field in _FIELDS.items():
        given = getattr(options, name)
        if name != "dropout" and given != field.default and given != values.get(name):
            has = f", which has {shown(values[name])}" if name in values else ""
            raise UserError(
                f"{flag_of(field)} {given} does not fit --init-from {options.init_from}{has}; leave it out: the run "
                f"has the sizes of that model."
            )
    values["dropout"] = configuration.dropout if options.dropout is None else options.dropout
    return dataclasses.replace(options, **values)


def as_begun(options: TrainOptions, begun_with: TrainOptions) -> TrainOptions:
    """Options to go on with a run that began with the same model: its sizes, where they do not say others."""
    if options.init_from is None or options.init_from != begun_with.init_from:
        return options
    unsaid = {name for name, field in _FIELDS.items() if getattr(options, name) == field.default} - {"preset"}
    return dataclasses.replace(options, **{name: getattr(begun_with, name) for name in unsaid})


def initial_model(options: TrainOptions, configuration: ModelConfiguration, data: PreparedData) -> TranslationModel:
    """A model with the parameters that a run begins with; if it goes on from a checkpoint they do not matter.

    Raises:
        UserError: the model of ``--init-from`` is not as the options or the data say.
    """
    if folders_by_update(options.out / "checkpoints", "step"):
        return build_model(configuration, options.seed)
    return first_model(options, configuration, data)


def first_model(options: TrainOptions, configuration: ModelConfiguration, data: PreparedData) -> TranslationModel:
    """A model with the parameters that a run began with, whether or not it has checkpoints by now.

    Raises:
        UserError: the model of ``--init-from`` is not as the options or the data say.
    """
    if options.init_from is None:
        return build_model(configuration, options.seed, options.init)
    loaded = _loaded(options.init_from)
    _check_vocabularies(loaded, data, options.init_from)
    there = dataclasses.replace(
        loaded.configuration, dropout=configuration.dropout, max_positions=configuration.max_positions
    )
    if there != configuration:
        raise UserError(f"--init-from {options.init_from}: the options name a model of other sizes; leave them out.")
    return loaded.model


def _unsaid(options: TrainOptions) -> bool:
    """Whether the options do not say all about the model, as `adopted` lets them."""
    always = (name for name in _SIZES if name not in OF_ONE_MODEL)
    return options.tied_embeddings == "auto" or any(getattr(options, name) is None for name in always)


def _loaded(folder: Path) -> LoadedModel:
    try:
        return load_model(folder)
    except UserError as error:
        raise UserError(f"--init-from: {error}") from None


def _check_vocabularies(loaded: LoadedModel, data: PreparedData, folder: Path) -> None:
    source, target = loaded.source_vocabulary, loaded.target_vocabulary
    if source.is_same_as(data.source_vocabulary) and target.is_same_as(data.target_vocabulary):
        return
    if source is target:
        flags = f"--vocab {source.path}"
    else:
        flags = f"--source-vocab {source.path} --target-vocab {target.path}"
    raise UserError(
        f"--init-from {folder}: that model has other vocabularies than {data.folder}; prepare the data with the "
        f"model's: nmt-async prepare {flags}."
    )
