//! The simulated fleet: hosts that need no hardware.
