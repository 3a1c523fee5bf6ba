"""What virtio says about each device type: feature bits, configuration space, request headers, status codes."""
