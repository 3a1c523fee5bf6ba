"""``python -m vhostuser`` is ``vhost-user``."""

from __future__ import annotations

from vhostuser.cli import main

if __name__ == "__main__":
    main()
