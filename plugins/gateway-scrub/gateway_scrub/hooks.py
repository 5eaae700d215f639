"""What the gateway finds in this plugin. Nothing heavy is imported before it is used."""

from __future__ import annotations

gateway_api = 1
