"""The reference plane: Python over well-kept libraries, and the specification of the kernel."""

from .plane import ReferencePlane as ReferencePlane
