"""All settings: read once per process from `CARINA_*` environment variables, then passed on."""

from shared.settings.environment import ClientSettings, Settings, SettingsWithoutHints, explain, read_settings

__all__ = ["ClientSettings", "Settings", "SettingsWithoutHints", "explain", "read_settings"]
