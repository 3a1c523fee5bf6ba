"""The test kit: what we test with, for those who build on this library.  Not needed to run anything."""
