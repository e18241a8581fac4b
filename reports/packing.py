"""Text made small for a browser to unfold: deflated, in base64, inside a script that assigns it.

A site of five hundred cases is mostly the same markup five hundred times, and plotly.js. Files opened from a folder
cannot be fetched and nobody compresses them on their way, so they are compressed here. Pages of one run share a
preset: a stream that begins with it may refer to it, and what a page adds is what differs from its neighbours. Wins by
a factor of ten and more for pages that resemble each other; loses the readers without JavaScript, for whom a page keeps
its title and its answer in plain HTML.

Deflate (RFC 1951) ends a flushed block at a byte, so a preset's blocks followed by a page's are one valid stream. The
browser's own DecompressionStream unfolds it; `static/app.js` leaves out the preset.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from .markup import Html

WINDOW = 32768  # bytes that deflate can refer back to
ISLAND = re.compile(r'(<script type="application/json">)(.*?)(</script>)', re.S)
NUMBERS = re.compile(r"\[[-+.\de,]{40,}\]")


@dataclass(frozen=True)
class Preset:
    """What pages of a run have in common: `text` unfolded, at most `WINDOW` bytes."""

    text: bytes

    def script(self) -> str:
        """The file that pages load before they unfold themselves."""
        found = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
        return script("preset", found.compress(self.text) + found.flush(zlib.Z_SYNC_FLUSH), f", skip: {len(self.text)}")

    def pack(self, body: str) -> Html:
        """A page's own part, as the content of a script element.

        Figures' data follow the markup, each behind a NUL: among it they would push the preset out of reach, and what
        is mostly digits is coded better apart from what is mostly words.
        """
        markup, islands = parted(body)
        found = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, self.text)
        data = found.compress(markup.encode()) + found.flush(zlib.Z_SYNC_FLUSH)
        data += found.compress("".join(f"\0{island}" for island in islands).encode()) + found.flush()
        return Html(script("page", data))


def parted(body: str) -> tuple[str, list[str]]:
    """A page's markup, its data islands empty, and what was in each."""
    islands = [found[2] for found in ISLAND.finditer(body)]
    return ISLAND.sub(r"\1\3", body).replace("\0", "\N{REPLACEMENT CHARACTER}"), islands


def preset(bodies: Sequence[str]) -> Preset:
    """A page of middling length, its figures' data in front and without their numbers, which no two pages share."""
    markup, islands = parted(sorted(bodies, key=len)[len(bodies) // 2])
    text = "".join(NUMBERS.sub("[]", island) for island in islands) + markup
    return Preset(text.encode()[-WINDOW:])


def packed(name: str, text: str) -> str:
    """A script that assigns `text`, on its own."""
    found = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
    return script(name, found.compress(text.encode()) + found.flush())


def script(name: str, data: bytes, more: str = "") -> str:
    """`whalebench.packed.NAME`, as static/app.js looks for it."""
    return f'whalebench.packed.{name}={{data:"{base64.b64encode(data).decode()}"{more}}};'
