"""What the Transformer's decoder remembers between steps: keys and values, computed once each.

Hypotheses are the query axis of attention: a layer's keys and values of all hypotheses of a sentence lie side by
side, and a mask says which of them are a hypothesis' own past. So reordering a beam moves a small mask where
copying each hypothesis' past would move all keys and values, and the keys and values of the source are never
repeated for the hypotheses. Hypotheses soon have most of their past in common: now and then, slots that are in
nobody's past any more are given up.

With an SSRU in the place of self-attention (`nmt_async.model.layers`), a layer remembers its cells beside the source's
keys and values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from nmt_async.model.attention import in_lanes
from nmt_async.model.translation_model import DecoderState, new_places

FIRST_CAPACITY = 64
"""Slots of a cache when it is made; it doubles when they are used up."""


class LayerCache:
    """What one decoder layer looks at; the state holds it for all layers together, and says where it lies.

    Attributes:
        memory_key, memory_value: of the source, (sentences, heads, source_length, d / heads).
        noting: whether `attention` is to be noted.
        attention: to the source, of the newest subwords, (sentences, beam, source_length); None if not noted.
    """

    def __init__(self, memory_key: Tensor, memory_value: Tensor) -> None:
        self.memory_key = memory_key
        self.memory_value = memory_value
        self.noting = False
        self.attention: Tensor | None = None


class AttentionCache(LayerCache):
    """The same, and keys and values of past subwords; the state sets all of it.

    Attributes:
        keys, values: (sentences, heads, capacity, d / heads).
        past: the additive mask (sentences, 1, beam, slots) of the newest subwords' own past.
        newest: the first slot of the newest subwords.
    """

    keys: Tensor
    values: Tensor
    past: Tensor
    newest: int

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Adds those of the newest subwords (sentences, heads, beam, d / heads); returns the slots of `past`."""
        end, shown = self.newest + key.shape[2], self.past.shape[3]
        self.keys[:, :, self.newest : end] = key
        self.values[:, :, self.newest : end] = value
        return self.keys[:, :, :shown], self.values[:, :, :shown]


class TransformerState(DecoderState):
    """The state of a Transformer's decoder, without what its layers remember of earlier words.

    Attributes:
        layers: a cache for each decoder layer.
        memory: keys of the source of the first layer, its values, keys of the second, and so on, (2 layers, sentences,
            heads, source_length, d / heads): one operation moves those of all.
        position: subwords so far.
        memory_mask: 0 at source tokens and minus infinity at padding, (sentences, 1, 1, source_length).
    """

    def __init__(self, layers: Sequence[LayerCache], memory_mask: Tensor) -> None:
        self.layers = layers
        self.memory = torch.stack([each for layer in layers for each in (layer.memory_key, layer.memory_value)])
        self._show_memory()
        self.memory_mask = memory_mask
        self.sentences = len(memory_mask)
        self.beam = 1
        self.position = 0

    def advance(self) -> None:
        """Goes one position on, for the subwords that the layers are to read next."""
        self.position += 1

    def keep(self, kept: Tensor) -> None:
        self.move_up(kept, new_places(kept))

    def move_up(self, kept: Tensor, moved: Tensor) -> None:
        """As `keep`, where those at the places ``moved`` stood elsewhere before."""
        self.memory = moved_up(self.memory, kept, moved)
        self._show_memory()
        self.memory_mask = self.memory_mask.index_select(0, kept)
        self.sentences = len(kept)

    def _show_memory(self) -> None:
        for number, layer in enumerate(self.layers):
            layer.memory_key, layer.memory_value = self.memory[2 * number], self.memory[2 * number + 1]

    def note_attention(self) -> None:
        self.layers[-1].noting = True

    @property
    def attention(self) -> Tensor | None:
        """The last layer's."""
        return self.layers[-1].attention


class AttentionState(TransformerState):
    """The state of a decoder with self-attention.

    Attributes:
        slots: keys and values of past subwords, as `memory` has those of the source, (2 layers, sentences, heads,
            capacity, d / heads).
        past: 0 at a hypothesis' own past, minus infinity at that of others and where nothing is yet,
            (sentences, beam, slots), slots a multiple of `LANES`.
        used: slots in use.
    """

    def __init__(self, layers: Sequence[LayerCache], memory_mask: Tensor) -> None:
        super().__init__(layers, memory_mask)
        self.past = memory_mask.new_empty(self.sentences, 1, 0)
        self.slots = self.memory.new_empty(*self.memory.shape[:3], FIRST_CAPACITY, self.memory.shape[4])
        self.used = 0
        self._finite = 0  # slots that hold numbers: where one is masked out, nothing times it must be 0

    def reorder(self, parents: Tensor) -> None:
        self.past = self.past.gather(1, parents[:, :, None].expand(-1, -1, self.past.shape[2]))
        self.beam = parents.shape[1]

    def move_up(self, kept: Tensor, moved: Tensor) -> None:
        """See `TransformerState`."""
        super().move_up(kept, moved)
        self.past = self.past.index_select(0, kept)
        self.slots = moved_up(self.slots, kept, moved, self.used)

    def advance(self) -> None:
        """See `TransformerState`."""
        super().advance()
        if in_lanes(self.used + self.beam) > self.past.shape[2]:
            self._tidy()
        newest, self.used = self.used, self.used + self.beam
        shown = in_lanes(self.used)
        if shown > self.past.shape[2]:
            self.past = F.pad(self.past, (0, shown - self.past.shape[2]), value=float("-inf"))
            self._make_room(shown)
        self.past[:, :, newest : self.used].diagonal(dim1=1, dim2=2).zero_()
        for number, layer in enumerate(self.layers):
            own = cast(AttentionCache, layer)
            own.keys, own.values = self.slots[2 * number], self.slots[2 * number + 1]
            own.past, own.newest = self.past[:, None], newest

    def _make_room(self, shown: int) -> None:
        """Has so many slots hold numbers."""
        capacity = self.slots.shape[3]
        if shown > capacity:
            larger = self.slots.new_empty(*self.slots.shape[:3], max(2 * capacity, shown), self.slots.shape[4])
            larger[:, :, :, : self._finite] = self.slots[:, :, :, : self._finite]
            self.slots = larger
        if shown > self._finite:
            self.slots[:, :, :, self._finite : shown] = 0.0
            self._finite = shown

    def _tidy(self) -> None:
        """Gives up slots that are in no hypothesis' past, if at least half of all are free then."""
        live = (self.past == 0.0).any(dim=1)
        needed = int(live.sum(dim=1).max()) if live.numel() else 0
        if 2 * in_lanes(needed + self.beam) > self.past.shape[2]:
            return
        chosen = live.byte().argsort(dim=1, descending=True, stable=True)[:, :needed]
        self.past = self.past.gather(2, chosen[:, None].expand(-1, self.beam, -1))
        self._choose(chosen)
        self.used = needed

    def _choose(self, chosen: Tensor) -> None:
        """Keeps of each sentence's slots ``chosen`` (sentences, count), int64, in this order."""
        _, sentences, heads, capacity, width = self.slots.shape
        rows = torch.arange(sentences * heads, device=chosen.device).view(sentences, heads, 1)
        places = (rows * capacity + chosen[:, None]).view(-1)
        for part in self.slots:
            taken = part.view(-1, width).index_select(0, places)
            part[:, :, : chosen.shape[1]] = taken.view(sentences, heads, -1, width)


def moved_up(parts: Tensor, kept: Tensor, moved: Tensor, used: int | None = None) -> Tensor:
    """The sentences ``kept`` (remaining,), int64, of ``parts`` (parts, sentences, heads, length, d / heads), in that
    order; only those at the places ``moved`` are moved, and of these no more than ``used`` of the length.
    """
    looked_at = parts[:, :, :, :used]
    looked_at[:, moved] = looked_at[:, kept[moved]]
    return parts[:, : len(kept)]


class CellCache(LayerCache):
    """What a decoder's layer with an SSRU remembers.

    Attributes:
        cell: of the hypotheses after their newest subwords, (sentences, beam, d).
    """

    def __init__(self, memory_key: Tensor, memory_value: Tensor) -> None:
        super().__init__(memory_key, memory_value)
        sentences, heads, _, width = memory_key.shape
        self.cell = memory_key.new_zeros(sentences, 1, heads * width)

    def reorder(self, parents: Tensor) -> None:
        """See `nmt_async.model.translation_model.DecoderState.reorder`."""
        self.cell = self.cell.gather(1, parents[:, :, None].expand(-1, -1, self.cell.shape[2]))

    def keep(self, kept: Tensor) -> None:
        """See `nmt_async.model.translation_model.DecoderState.keep`."""
        self.cell = self.cell.index_select(0, kept)


class CellState(TransformerState):
    """The state of a decoder with SSRUs."""

    def reorder(self, parents: Tensor) -> None:
        for layer in self.layers:
            cast(CellCache, layer).reorder(parents)
        self.beam = parents.shape[1]

    def move_up(self, kept: Tensor, moved: Tensor) -> None:
        """See `TransformerState`."""
        super().move_up(kept, moved)
        for layer in self.layers:
            cast(CellCache, layer).keep(kept)
