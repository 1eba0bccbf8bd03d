"""`fusegen package`: built packages as a wheel that needs torch alone."""

from __future__ import annotations

from fusegen.tools.shipping.wheel import Wheel, write_wheel

__all__ = ["Wheel", "write_wheel"]
