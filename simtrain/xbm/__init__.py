"""Cross-batch memory (XBM): recent embeddings, remembered as further candidates."""

from __future__ import annotations

from simtrain.xbm.buffer import XbmBuffer
from simtrain.xbm.config import XbmConfig

__all__ = ["XbmBuffer", "XbmConfig"]
