"""Prepares empty servers for the first study: the schema, the bucket, a first key, the demo model."""

from collections.abc import Mapping
from uuid import UUID

from sqlalchemy.orm import Session

from shared import migrations
from shared.access.audit import CLI, record
from shared.access.keys import FIRST_PROJECT, create_key, prefix_of, verify_key
from shared.database import Database
from shared.detector.demo import load_demo_model
from shared.errors import Unauthorized
from shared.models import registry
from shared.object_store import ObjectStore
from shared.settings import Settings
from shared.tables import Model
from shared.vocabulary.states import Scope


def migrate(settings: Settings) -> None:
    """Migrate the schema and create the bucket if missing. Can be repeated, and run several times at once."""
    database = Database.from_settings(settings)
    try:
        migrations.upgrade(database)
    finally:
        database.close()
    ObjectStore(settings).ensure_bucket()


def bootstrap(env: Mapping[str, str]) -> str:
    """Prepare the servers in `env` for a stack on one machine. Returns an API key with every scope.

    `CARINA_API_KEY` in `env` is the key of an earlier start; it is reused if it is still valid and has every scope. If
    no model is active yet, the demo model becomes active, so that the first study has a result.
    """
    settings = Settings.from_env(env)
    database = Database.from_settings(settings)
    try:
        with database.begin() as session:
            if registry.active(session) is None:
                _add_demo_model(session, settings)
            else:
                # An earlier version registered it without them.
                registry.renew_warnings(session, load_demo_model()[0])
        with database.begin() as session:
            key = env.get("CARINA_API_KEY", "")
            try:
                knows_all = set(Scope) <= verify_key(session, key).scopes
            except Unauthorized:
                knows_all = False
            if not knows_all:  # for example a key that is older than a scope
                key = create_key(session, project_name=FIRST_PROJECT, name="carina up", scopes=list(Scope))
                record(session, action="key.create", subject={"prefix": prefix_of(key)}, actor=CLI)
            return key
    finally:
        database.close()


def register_demo_model(settings: Settings) -> tuple[UUID, str]:
    """Register the demo model, and make it active if no model is. Returns its id and state."""
    database = Database.from_settings(settings)
    try:
        with database.begin() as session:
            model = _add_demo_model(session, settings)
            return model.id, model.state
    finally:
        database.close()


def _add_demo_model(session: Session, settings: Settings) -> Model:
    model = registry.register(session, ObjectStore(settings), *load_demo_model())
    if registry.active(session) is None:
        registry.promote(session, model.id)
    record(session, action="model.demo", subject={"model_id": model.id}, actor=CLI)
    return model
