"""Word count: how often each word occurred so far.

In three terminals, with the embedded log:

    riverrun run examples.wordcount
    echo '{"text": "to be or not to be"}' | riverrun produce lines
    riverrun consume word-counts --follow
"""

from __future__ import annotations

import re

import riverrun as rr


class Line(rr.Record):
    """A line of text."""

    text: str


class Word(rr.Record):
    """One occurrence of a word."""

    word: str


def words_of(line: Line) -> list[Word]:
    """Return the words of a line, in small letters."""
    return [Word(word=word) for word in re.findall(r"\w+", line.text.lower())]


topology = rr.Topology("wordcount")

counts = (
    topology.source(rr.Topic("lines", value=rr.Json(Line), partitions=2))
    .flat_map(words_of)
    .key_by("word")
    .aggregate(count=rr.Count())
)
counts.sink(rr.Topic("word-counts"))
