"""Decoders and a forward pass in plain NumPy, written from the definitions of the formats.

They are the oracle of the fast code: short enough to be read beside a format's definition, and
independent of the C++ module. `dequantize` gives the same bits as the C++ decoders.
"""

from quantloom.reference.decode import FORMATS, Layout, dequantize
from quantloom.reference.forward import ReferenceModel

__all__ = ["FORMATS", "Layout", "ReferenceModel", "dequantize"]
