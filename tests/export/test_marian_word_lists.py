"""Marian's lists of words are read as Marian reads them, or refused."""

from __future__ import annotations

import json

import pytest

from nmt_async.errors import UserError
from nmt_async.export.marian_vocabularies import read_words
from nmt_async.text.vocabulary import LIST_END

LIST = "</s>: 0\n<unk>: 1\na: 2\n"
NO_LISTS = {
    "no integer": ("vocab.yml", LIST + "b: x", "'b' has 'x' where an index belongs"),
    "a fraction": ("vocab.yml", LIST + "b: 3.0", "'b' has '3.0' where an index belongs"),
    "below zero": ("vocab.yml", LIST + "b: -3", "'b' has '-3' where an index belongs"),
    "an index twice": ("vocab.yml", LIST + "b: 2", "'a' and 'b' have the same index 2"),
    "an index missing": ("vocab.yml", LIST + "b: 4", "no word has index 3"),
    "a huge index": ("vocab.yml", LIST + "b: 999999999", "no word has index 3"),
    "a word twice": ("vocab.yml", LIST + "a: 3", "has a word twice"),
    "no special words": ("vocab.yml", "a: 0\nb: 1", "it has </s> nowhere and <unk> nowhere, and only </s> at 0"),
    "special words elsewhere": ("vocab.yml", "a: 0\n<unk>: 1\n</s>: 2", "it has </s> at 2 and <unk> at 1"),
    "nested": ("vocab.yml", LIST + "b: {c: 3}", "line 4 is not one word and its index"),
    "an alias": ("vocab.yml", "</s>: &a 0\n<unk>: *a", "line 2 is not one word and its index"),
    "a sequence": ("vocab.json", "[1, 2]", "line 1 is not one word and its index"),
    "several": ("vocab.yml", LIST + "---\n" + LIST, "several documents"),
    "no YAML": ("vocab.yml", LIST + "}", "did not find"),
    "empty": ("vocab.yaml", "", "it is empty"),
    "an empty word": ("vocab.txt", "</s>\n<unk>\n\na", "'' is not a word"),
    "the mark of the end": ("vocab.txt", f"</s>\n<unk>\n{LIST_END}", "is not a word"),
    "half a letter": ("vocab.txt", "</s>\n<unk>\n\udcff", "codec can't decode"),
}


@pytest.mark.parametrize(("name", "content", "reason"), NO_LISTS.values(), ids=NO_LISTS.keys())
def test_what_is_no_list_is_refused(name, content, reason, tmp_path):
    (tmp_path / name).write_text(content, errors="surrogateescape")
    with pytest.raises(UserError, match=reason) as refused:
        read_words(tmp_path / name)
    assert str(refused.value).startswith(f"--vocabs: {tmp_path / name} cannot be read as a list of words (")


@pytest.mark.parametrize("name", ["vocab.yml", "vocab.json", "vocab.txt"])
def test_a_word_is_taken_as_it_is_written(name, tmp_path):
    words = ["</s>", "<unk>", "no", "null", "~", "1.0", "<<", "=", "2001-01-01", "1:2", "x\u2028y", "\x85", "▁ж"]
    contents = {
        "vocab.yml": "".join(f"{word}: {index}\n" for index, word in enumerate(words)),
        "vocab.json": json.dumps({word: index for index, word in enumerate(words)}),
        "vocab.txt": "".join(f"{word}\r\n" for word in words),
    }
    (tmp_path / name).write_text(contents[name])
    assert read_words(tmp_path / name) == words
