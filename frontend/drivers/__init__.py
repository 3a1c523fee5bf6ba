"""Drivers: what one does with a device that is up."""
