"""The stories of several network cards on a real Firecracker, which opens the taps that are made for it."""

import test_interfaces
from real_firecracker import RealProgram


class OnARealOne(RealProgram, test_interfaces.ThreeCards):
    pass


class OnARealOneWithTapsOfTheHost(RealProgram, test_interfaces.ThreeCardsOnTheHost):
    pass
