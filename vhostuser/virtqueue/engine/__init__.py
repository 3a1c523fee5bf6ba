"""The compiled engine: rings driven by C that Cython writes, behind the interfaces of `vhostuser.virtqueue.queue`."""
