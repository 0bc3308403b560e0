"""How far the first update moves a Transformer's output, by its depth: measured on untrained models of small width.

    python examples/depth/first_update.py
    python examples/depth/first_update.py --layers 2 6 12 24 48 --width 128

T-Fixup (Huang et al. 2020) is made so that an update by gradient descent moves the output equally far whatever the
depth. The table has the root of the mean square by which logits change, on the batch that the gradient is of: random
words, so that nothing needs to be prepared. Every model begins without warm-up, with the full rate.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from statistics import fmean

import torch

from nmt_async.model.build import build_model
from nmt_async.model.configuration import ModelConfiguration
from nmt_async.model.loss import smoothed_cross_entropy
from nmt_async.model.parameters import FlatLayout
from nmt_async.sync.optimizers.flat import STEPS
from nmt_async.sync.optimizers.settings import OptimizerSettings
from nmt_async.sync.optimizers.step import Matrix
from nmt_async.text.batch import Batch, pad

WORDS = 200
"""In the vocabulary."""
SENTENCES, LENGTH = 16, 12
OPTIMIZERS = {
    "gradient descent": (0.01, OptimizerSettings(name="sgd", momentum=0.0, nesterov=False)),
    "Adam": (0.001, OptimizerSettings(name="adam")),
    "Muon": (0.001, OptimizerSettings(name="muon", muon_rows=32)),
}
"""The rate of each, and its constants; the gradient is not clipped."""
MODELS = {
    "post-norm": ("post", "glorot"),
    "pre-norm": ("pre", "glorot"),
    "T-Fixup": ("none", "t-fixup"),
    "no norm, Glorot": ("none", "glorot"),
}
"""``--norm`` and ``--init`` of each."""


def random_batch(seed: int) -> Batch:
    """Sentences of random words on both sides."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(1, WORDS, (2, SENTENCES, LENGTH - 1), generator=generator).tolist()
    source, target = ([[*sentence, 0] for sentence in side] for side in words)
    return Batch(*pad(source), *pad(target))


def first_change(model: str, optimizer: str, layers: int, width: int = 64, seed: int = 1) -> float:
    """The root of the mean square by which the first update changes the logits; infinite where they are no numbers.

    Args:
        model: of `MODELS`.
        optimizer: of `OPTIMIZERS`.
        layers: of the encoder, and of the decoder.
    """
    norm, init = MODELS[model]
    rate, settings = OPTIMIZERS[optimizer]
    configuration = ModelConfiguration(
        WORDS, WORDS, dim_emb=width, heads=4, dim_ffn=2 * width, enc_depth=layers, dec_depth=layers, norm=norm,
        activation="relu", dropout=0.0, tied="all",
    )  # fmt: skip
    transformer = build_model(configuration, seed, init)
    layout, batch = FlatLayout(transformer), random_batch(seed)
    vector = layout.gather(transformer)
    layout.bind(transformer, vector)
    before, targets = transformer(batch)
    (smoothed_cross_entropy(before, targets, 0.1) / len(targets)).backward()
    gradient = torch.zeros(layout.size)
    for view, parameter in zip(layout.views(gradient), transformer.parameters(), strict=True):
        view.copy_(parameter.grad)
    matrices = [Matrix(*place) for place in layout.hidden()]
    with torch.no_grad():
        STEPS[settings.name](vector, settings, matrices).take(vector, gradient, rate, updates=0)
        after, _ = transformer(batch)
        change = float((after - before).square().mean().sqrt())
    return change if math.isfinite(change) else math.inf


def table(layers: Sequence[int], width: int, seeds: int) -> Iterator[str]:
    """All models with all optimizers, in Markdown, line by line; means over so many seeds."""
    yield f"| | {' | '.join(f'{depth} + {depth}' for depth in layers)} |"
    yield f"|---|{'---|' * len(layers)}"
    for optimizer, (rate, _) in OPTIMIZERS.items():
        for model in MODELS:
            found = [
                fmean(first_change(model, optimizer, depth, width, seed + 1) for seed in range(seeds))
                for depth in layers
            ]
            yield f"| {optimizer} at {rate:g}, {model} | {' | '.join(f'{each:.2g}' for each in found)} |"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 6, 12, 24], help="of the encoder and the decoder")
    parser.add_argument("--width", type=int, default=64, help="of embeddings")
    parser.add_argument("--seeds", type=int, default=3, help="of the parameters and the words; their mean is shown")
    asked = parser.parse_args()
    for line in table(asked.layers, asked.width, asked.seeds):
        print(line, flush=True)


if __name__ == "__main__":
    main()
