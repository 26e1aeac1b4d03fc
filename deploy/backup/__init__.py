"""Backs up an installation, its rows and its objects, into a folder, and restores it into an empty installation.

`folder` knows the files of a backup, `programs` runs `pg_dump` and `pg_restore`, `making` makes a backup while others
work, and `restoring` brings it back.
"""

from deploy.backup.folder import BackupDamaged, BackupFolder, BackupInUse, Manifest, NoBackup
from deploy.backup.making import back_up
from deploy.backup.programs import PostgresProgramFailed, PostgresProgramMissing
from deploy.backup.restoring import BackupNewer, InstallationNotEmpty, Restored, restore

__all__ = [
    "BackupDamaged",
    "BackupFolder",
    "BackupInUse",
    "BackupNewer",
    "InstallationNotEmpty",
    "Manifest",
    "NoBackup",
    "PostgresProgramFailed",
    "PostgresProgramMissing",
    "Restored",
    "back_up",
    "restore",
]
