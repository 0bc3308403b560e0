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
from nmt_async.model.translation_model import DecoderState

FIRST_CAPACITY = 64
"""Slots of a cache when it is made; it doubles when they are used up."""


class LayerCache:
    """One decoder layer's keys and values of the source.

    Attributes:
        memory_key, memory_value: (sentences, heads, source_length, d / heads).
        noting: whether `attention` is to be noted.
        attention: to the source, of the newest subwords, (sentences, beam, source_length); None if not noted.
    """

    def __init__(self, memory_key: Tensor, memory_value: Tensor) -> None:
        self.memory_key = memory_key.contiguous()  # else each step's products would copy them
        self.memory_value = memory_value.contiguous()
        self.noting = False
        self.attention: Tensor | None = None

    def keep(self, kept: Tensor, moved: Tensor) -> None:
        """Forgets all sentences but ``kept``, of which those at ``moved`` change their place; the others stay."""
        remaining, from_where = len(kept), kept[moved]
        self.memory_key[moved] = self.memory_key[from_where]
        self.memory_key = self.memory_key[:remaining]
        self.memory_value[moved] = self.memory_value[from_where]
        self.memory_value = self.memory_value[:remaining]


class AttentionCache(LayerCache):
    """The same, and keys and values of past subwords.

    Attributes:
        keys, values: (sentences, heads, capacity, d / heads), of which the first ``used`` slots are in use.
        past: the additive mask (sentences, 1, beam, slots) of the newest subwords' own past; the state sets it.
    """

    past: Tensor

    def __init__(self, memory_key: Tensor, memory_value: Tensor) -> None:
        super().__init__(memory_key, memory_value)
        sentences, heads, _, width = memory_key.shape
        self.keys = memory_key.new_empty(sentences, heads, FIRST_CAPACITY, width)
        self.values = torch.empty_like(self.keys)
        self.used = 0
        self._finite = 0  # slots that hold numbers: where one is masked out, nothing times it must be 0

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Adds those of the newest subwords (sentences, heads, beam, d / heads); returns the slots of `past`."""
        shown = self.past.shape[3]
        used = self.used + key.shape[2]
        if shown > self.keys.shape[2]:
            capacity = max(2 * self.keys.shape[2], shown)
            self.keys, self.values = (self._larger(slots, capacity) for slots in (self.keys, self.values))
        if shown > self._finite:
            self.keys[:, :, self._finite : shown] = 0.0
            self.values[:, :, self._finite : shown] = 0.0
            self._finite = shown
        self.keys[:, :, self.used : used] = key
        self.values[:, :, self.used : used] = value
        self.used = used
        return self.keys[:, :, :shown], self.values[:, :, :shown]

    def _larger(self, slots: Tensor, capacity: int) -> Tensor:
        """The same slots, and room for more."""
        larger = slots.new_empty(*slots.shape[:2], capacity, slots.shape[3])
        larger[:, :, : self._finite] = slots[:, :, : self._finite]
        return larger

    def choose(self, chosen: Tensor) -> None:
        """Keeps of each sentence's slots ``chosen`` (sentences, count), int64, in this order."""
        sentences, heads, capacity, width = self.keys.shape
        self.used = chosen.shape[1]
        rows = torch.arange(sentences * heads, device=chosen.device).view(sentences, heads, 1)
        places = (rows * capacity + chosen[:, None]).view(-1)
        for slots in (self.keys, self.values):
            taken = slots.reshape(-1, width).index_select(0, places)
            slots[:, :, : self.used] = taken.view(sentences, heads, self.used, width)

    def keep(self, kept: Tensor, moved: Tensor) -> None:
        """See `LayerCache`."""
        super().keep(kept, moved)
        from_where = kept[moved]
        for slots in (self.keys, self.values):
            past = slots[:, :, : self.used]
            past[moved] = past[from_where]
        self.keys, self.values = self.keys[: len(kept)], self.values[: len(kept)]


class TransformerState(DecoderState):
    """The state of a Transformer's decoder, without what its layers remember of earlier words.

    Attributes:
        layers: a cache for each decoder layer.
        position: subwords so far.
        memory_mask: 0 at source tokens and minus infinity at padding, (sentences, 1, 1, source_length).
    """

    def __init__(self, layers: Sequence[LayerCache], memory_mask: Tensor) -> None:
        self.layers = layers
        self.memory_mask = memory_mask
        self.sentences = len(memory_mask)
        self.beam = 1
        self.position = 0

    def advance(self) -> None:
        """Goes one position on, for the subwords that the layers are to read next."""
        self.position += 1

    def keep(self, kept: Tensor) -> None:
        moved = (kept != torch.arange(len(kept), device=kept.device)).nonzero().squeeze(1)
        for layer in self.layers:
            layer.keep(kept, moved)
        self.memory_mask = self.memory_mask.index_select(0, kept)
        self.sentences = len(kept)

    def note_attention(self) -> None:
        self.layers[-1].noting = True

    @property
    def attention(self) -> Tensor | None:
        """The last layer's."""
        return self.layers[-1].attention


class AttentionState(TransformerState):
    """The state of a decoder with self-attention.

    Attributes:
        past: 0 at a hypothesis' own past, minus infinity at that of others and where nothing is yet,
            (sentences, beam, slots), slots a multiple of `LANES`.
        used: slots in use.
    """

    def __init__(self, layers: Sequence[LayerCache], memory_mask: Tensor) -> None:
        super().__init__(layers, memory_mask)
        self.past = memory_mask.new_empty(self.sentences, 1, 0)
        self.used = 0

    def reorder(self, parents: Tensor) -> None:
        self.past = self.past.gather(1, parents[:, :, None].expand(-1, -1, self.past.shape[2]))
        self.beam = parents.shape[1]

    def keep(self, kept: Tensor) -> None:
        super().keep(kept)
        self.past = self.past.index_select(0, kept)

    def advance(self) -> None:
        """See `TransformerState`."""
        super().advance()
        if in_lanes(self.used + self.beam) > self.past.shape[2]:
            self._tidy()
        begin, self.used = self.used, self.used + self.beam
        slots = in_lanes(self.used)
        if slots > self.past.shape[2]:
            self.past = F.pad(self.past, (0, slots - self.past.shape[2]), value=float("-inf"))
        self.past[:, :, begin : self.used].diagonal(dim1=1, dim2=2).zero_()
        for layer in self.layers:
            cast(AttentionCache, layer).past = self.past[:, None]

    def _tidy(self) -> None:
        """Gives up slots that are in no hypothesis' past, if at least half of all are free then."""
        live = (self.past == 0.0).any(dim=1)
        needed = int(live.sum(dim=1).max()) if live.numel() else 0
        if 2 * in_lanes(needed + self.beam) > self.past.shape[2]:
            return
        chosen = live.byte().argsort(dim=1, descending=True, stable=True)[:, :needed]
        self.past = self.past.gather(2, chosen[:, None].expand(-1, self.beam, -1))
        for layer in self.layers:
            cast(AttentionCache, layer).choose(chosen)
        self.used = needed


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

    def keep(self, kept: Tensor, moved: Tensor) -> None:
        """See `LayerCache`."""
        super().keep(kept, moved)
        self.cell = self.cell.index_select(0, kept)


class CellState(TransformerState):
    """The state of a decoder with SSRUs."""

    def reorder(self, parents: Tensor) -> None:
        for layer in self.layers:
            cast(CellCache, layer).reorder(parents)
        self.beam = parents.shape[1]
