"""``python -m open_mcp_gateway``."""

import sys

from open_mcp_gateway.cli.main import main

sys.exit(main())
