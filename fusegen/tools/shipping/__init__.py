"""Built packages for those who have torch alone.

`fusegen package` writes a wheel, `fusegen kernels-hub` a kernel of Hugging Face's hub.
"""

from __future__ import annotations

from fusegen.tools.shipping.hub import HubKernel, write_hub_kernel
from fusegen.tools.shipping.wheel import Wheel, write_wheel

__all__ = ["HubKernel", "Wheel", "write_hub_kernel", "write_wheel"]
