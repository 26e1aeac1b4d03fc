"""Every setting, read once per process from `CARINA_*` environment variables and passed in from there."""

from shared.settings.environment import ClientSettings, Settings, SettingsWithoutHints, explain, read_settings

__all__ = ["ClientSettings", "Settings", "SettingsWithoutHints", "explain", "read_settings"]
