"""All settings: read once per process from `CARINA_*` environment variables, then passed on."""

from shared.settings.environment import (
    ClientSettings,
    LogFileSettings,
    Settings,
    SettingsWithoutHints,
    explain,
    read_settings,
)

__all__ = ["ClientSettings", "LogFileSettings", "Settings", "SettingsWithoutHints", "explain", "read_settings"]
