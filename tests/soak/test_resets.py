# SPDX-License-Identifier: Apache-2.0
"""Ten thousand resets with I/O in flight over PCI too."""
from tests.native import test_resets


class ManyResets(test_resets.Resets):
    MANY = {"pci": "many"}
    LIMIT = 1500
